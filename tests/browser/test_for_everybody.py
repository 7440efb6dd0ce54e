"""The page by keyboard alone, on a phone, in the dark, in Russian, and as axe-core and a scale see it."""

import re

import pytest
from playwright.async_api import Browser, expect

from tests.browser.studio import Studio
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

WEIGHT_BYTES_MAX = 200_000
PLACES = ("#/create", "#/history", "#/ledger", "#/keys")


async def test_by_keyboard_alone(studio: Studio) -> None:
    await studio.visit()
    page = studio.page

    async def tab_to(selector: str) -> None:
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await page.evaluate("name => document.activeElement?.matches(name)", selector):
                return
        raise AssertionError(f"{selector} is not reached by Tab")

    await expect(page.get_by_role("button", name="Make me a key")).to_be_visible()
    await tab_to(".entry .primary")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog").get_by_role("button", name="Copy")).to_be_focused()
    await tab_to("dialog .primary")
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await tab_to(".model-button")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("combobox", name="Search models")).to_be_focused()
    await page.keyboard.type("schnell")
    await expect(page.locator("#models").get_by_role("option")).to_have_count(1)
    await page.keyboard.press("Enter")
    await expect(page.locator(".model-button")).to_be_focused()
    await tab_to("#field-prompt")
    await page.keyboard.type("a key")
    await tab_to(".pay .primary")
    await page.keyboard.press("Enter")
    await expect(studio.pictures).to_have_count(1)
    await expect(studio.generate).to_be_focused()
    await page.keyboard.press("Shift+Tab")
    await tab_to(".thumb")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog.locator(":focus")).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(page.locator(".thumb")).to_be_focused()


async def test_by_keyboard_a_run_is_canceled_and_the_focus_stays_with_it(studio: Studio) -> None:
    await studio.begin()
    page = studio.page
    for where in ("on its card", "in its dialog"):
        await studio.prompt.focus()
        await page.keyboard.press("Control+A")
        await page.keyboard.type(f"[slow:600] a snail {where}")
        await expect(studio.generate).to_have_text(re.compile("for"))
        await page.keyboard.press("Control+Enter")
        card = studio.card(where)
        cancel = card.get_by_role("button", name="Cancel")
        await expect(cancel).to_be_visible()
        if where == "in its dialog":
            (job, *_) = await studio.jobs()
            await studio.visit(f"#/job/{job['job_id']}/0")
            cancel = page.get_by_role("dialog").get_by_role("button", name="Cancel")
        await cancel.focus()
        await page.keyboard.press("Enter")
        await expect(card.locator(".state")).to_have_text("Canceled")
        kept = card.locator("button.stage") if where == "on its card" else page.get_by_role("button", name="Close")
        await expect(kept).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_nothing(service: ServiceProcess, chromium: Browser, theme: str, width: int) -> None:
    options = {"color_scheme": theme, "viewport": {"width": width, "height": 800}, "reduced_motion": "reduce"}
    async with Studio.opened(chromium, service.url, **options) as studio:
        await studio.visit()
        await expect(studio.page.get_by_role("heading", level=1)).to_be_visible()
        findings = await studio.findings()
        await studio.begin()
        findings += await studio.findings()
        await studio.make("[fail] nothing")
        await expect(studio.page.get_by_text("Nothing was charged")).to_be_visible()
        await studio.make("a hill")
        await expect(studio.pictures).to_have_count(1)
        await studio.make("[slow:30] a hill")
        await expect(studio.page.get_by_role("button", name="Cancel")).to_be_visible()
        for place in PLACES:
            await studio.visit(place)
            await expect(studio.page.locator("main#main")).to_be_visible()
            await studio.page.wait_for_timeout(400)
            assert await studio.is_as_wide_as_the_screen(), place
            findings += await studio.findings()
        await studio.visit("#/create")
        await studio.page.get_by_role("radio", name="Image to video").check()
        findings += await studio.findings()
        await studio.page.locator(".model-button").click()
        findings += await studio.findings()
        await studio.page.keyboard.press("Escape")
        await studio.pictures.first.click()
        await studio.page.locator(".code-box summary").click()
        findings += await studio.findings()

        assert findings == []
        studio.check_quiet()


@pytest.mark.parametrize("width", [360, 390, 640])
async def test_fits_a_phone_and_twice_the_size(service: ServiceProcess, chromium: Browser, width: int) -> None:
    options = {"viewport": {"width": width, "height": 740}, "has_touch": True}
    async with Studio.opened(chromium, service.url, **options) as studio:
        await studio.begin()
        await studio.make("a path")
        await expect(studio.pictures).to_have_count(1)
        await expect(studio.pictures.first).to_be_in_viewport()
        for place in PLACES:
            await studio.visit(place)
            await studio.page.wait_for_timeout(200)
            assert await studio.is_as_wide_as_the_screen(), place
        studio.check_quiet()


async def test_speaks_russian_where_the_browser_does(service: ServiceProcess, chromium: Browser) -> None:
    async with Studio.opened(chromium, service.url, locale="ru-RU") as studio:
        await studio.visit()
        await studio.page.get_by_role("button", name="Создать мне ключ с токенами").click()
        await studio.page.get_by_role("button", name="Сохранено").click()

        await expect(studio.page.get_by_role("button", name="Создать за 5 токенов")).to_be_visible()
        await expect(studio.page.get_by_label("Промпт", exact=True)).to_be_visible()
        assert await studio.page.evaluate("document.documentElement.lang") == "ru"
        await studio.page.get_by_label("Промпт", exact=True).fill("[fail] ничего")
        await studio.page.get_by_role("button", name="Создать за 5 токенов").click()
        await expect(studio.page.get_by_text("Ничего не списано: 5 токенов на балансе снова.")).to_be_visible()

        await studio.page.get_by_label("Язык").select_option("en")
        await expect(studio.page.get_by_text(re.compile("Nothing was charged: 5 tokens"))).to_be_visible()
        studio.check_quiet()


async def test_weighs_little_before_pictures(studio: Studio) -> None:
    await studio.begin()
    await expect(studio.generate).to_have_text(re.compile("for 5"))

    sizes: dict[str, int] = await studio.page.evaluate(
        "Object.fromEntries(['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind))"
        ".map(({name, transferSize}) => [name, transferSize]))"
    )
    assert len(sizes) > 20
    assert sum(sizes.values()) <= WEIGHT_BYTES_MAX, sizes
