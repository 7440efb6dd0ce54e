"""The place of the keys: what is made is what was chosen, what is wrong is said where it is, no secret is lost."""

import asyncio
import re

import httpx
import pytest
from playwright.async_api import Route, expect

from tests.browser.studio import Studio, a_user

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]


async def open_form(studio: Studio) -> str:
    """Of a new key; returns the full one."""
    full = a_user(studio.url, 100)
    await studio.sign_in(full)
    await studio.open_keys(full)
    await studio.page.get_by_text("Make a key", exact=True).click()
    return full


async def make_keys(studio: Studio, *names: str) -> None:
    """In the form that is open; their secrets are passed over."""
    for name in names:
        await studio.page.get_by_label("Name").fill(name)
        await studio.page.get_by_role("button", name="Make the key").click()
        await studio.save_the_secret()


async def test_a_key_gets_the_scopes_that_were_chosen_whatever_is_drawn_again(studio: Studio) -> None:
    full = await open_form(studio)
    page = studio.page
    await page.get_by_label("Name").fill("a reader")
    await page.get_by_label("generate: start and cancel").uncheck()
    await page.get_by_label("Budget in tokens").fill("5")
    await page.get_by_label("Each").select_option("month")
    await page.get_by_label("Ends after days").fill("7")

    for language in ("ru", "en"):
        await page.locator(".language").select_option(language)
        await expect(page.locator("h1")).to_have_text({"ru": "Ключи", "en": "Keys"}[language])
    await expect(page.get_by_label("generate: start and cancel")).not_to_be_checked()
    await page.get_by_role("button", name="Make the key").click()
    secret = await studio.save_the_secret()

    made = httpx.get(f"{studio.url}/keys/current", headers={"X-API-Key": secret}, trust_env=False).json()
    assert (made["name"], made["scopes"]) == ("a reader", ["read"])
    assert (made["budget"]["tokens"], made["budget"]["per"], made["expires_at"] is None) == (5, "month", False)
    # And the next one begins anew.
    await expect(page.get_by_label("Name")).to_have_value("")
    await expect(page.get_by_label("generate: start and cancel")).to_be_checked()
    assert secret not in await page.content()
    assert full not in str(await studio.stored())


async def test_what_is_wrong_is_said_at_its_field(studio: Studio) -> None:
    studio.may_fail = True
    await open_form(studio)
    page = studio.page
    for scope in ("generate", "read"):
        await page.get_by_label(f"{scope}: ").uncheck()
    make = page.get_by_role("button", name="Make the key")

    await make.click()
    await expect(page.get_by_label("Name")).to_be_focused()
    await expect(page.get_by_label("Name")).to_have_accessible_description("Give the key a name.")
    await page.get_by_label("Name").fill("a bot")
    await expect(page.get_by_text("Give the key a name.")).to_have_count(0)
    await make.click()
    await expect(page.get_by_label("generate: ")).to_be_focused()
    await expect(page.get_by_label("generate: ")).to_have_accessible_description("Choose at least one scope.")
    await page.get_by_label("read: ").check()
    # Neither is taken for none.
    await page.get_by_label("Budget in tokens").fill("5e")
    await page.get_by_label("Ends after days").fill("0")
    await make.click()
    await expect(page.get_by_label("Budget in tokens")).to_be_focused()
    await expect(page.locator(".field-error")).to_have_count(2)
    assert await studio.findings() == []

    # What the service alone knows stands at the field, too.
    await page.get_by_label("Budget in tokens").fill("9" * 30)
    await page.get_by_label("Ends after days").fill("")
    await make.click()
    await expect(page.get_by_label("Budget in tokens")).to_be_focused()
    await expect(page.locator(".field-error")).to_have_count(1)

    async def refuse(route: Route) -> None:
        problem = {"status": 409, "code": "too_many_keys", "detail": "Your account has 100 live keys."}
        await route.fulfill(status=409, json=problem)

    await page.route("**/keys", refuse, times=1)
    await page.get_by_label("Budget in tokens").fill("")
    await make.click()
    said = page.locator(".small-form .said").first
    await expect(said).to_contain_text("100 live keys")
    await expect(said).to_be_focused()
    await expect(page.get_by_label("Name")).to_have_value("a bot")


async def test_trouble_with_a_row_is_said_in_the_row(studio: Studio) -> None:
    studio.may_fail = True
    full = await open_form(studio)
    page = studio.page
    await make_keys(studio, "a bot", "a shop")
    shop = page.locator(".entries li", has_text="a shop")
    await expect(shop).to_be_visible()
    headers = {"X-API-Key": full}
    keys = httpx.get(f"{studio.url}/keys", headers=headers, trust_env=False).json()["items"]
    (gone,) = [key["id"] for key in keys if key["name"] == "a shop"]
    httpx.delete(f"{studio.url}/keys/{gone}", headers=headers, trust_env=False).raise_for_status()

    await shop.get_by_role("button", name="New secret").click()
    await shop.get_by_role("button", name="Really?").click()

    await expect(shop.get_by_role("alert")).to_contain_text("no live key")
    await expect(page.get_by_role("alert")).to_have_count(1)
    # A row that goes takes nobody's focus with it.
    bot = page.locator(".entries li", has_text="a bot")
    await bot.get_by_role("button", name="Delete").click()
    await bot.get_by_role("button", name="Really?").click()
    await expect(bot).to_have_count(0)
    await expect(page.get_by_text("Make a key", exact=True)).to_be_focused()


async def test_a_secret_goes_when_it_is_said_to_be_saved_and_not_before(studio: Studio) -> None:
    await studio.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await open_form(studio)
    page = studio.page
    await page.get_by_label("Name").fill("a bot")
    await page.get_by_role("button", name="Make the key").click()

    dialog = page.get_by_role("dialog", name="Secret of a bot")
    copy = dialog.get_by_role("button", name="Copy")
    await expect(copy).to_be_focused()
    secret = await dialog.locator("code").inner_text()
    assert await studio.findings() == []
    for _ in range(3):
        await page.keyboard.press("Escape")
    await page.mouse.click(5, 5)
    await page.go_back()
    await expect(dialog.get_by_role("alert")).to_contain_text("It cannot be shown again.")
    await expect(dialog.locator("code")).to_have_text(secret)
    await page.go_forward()
    await page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error()))")
    await copy.click()
    await expect(dialog.get_by_text("The browser does not let this page copy.")).to_be_visible()
    await page.evaluate("delete navigator.clipboard.writeText")
    await copy.click()
    assert await page.evaluate("navigator.clipboard.readText()") == secret

    await dialog.get_by_role("button", name="I have saved it").click()
    await expect(dialog).to_have_count(0)
    await expect(page.locator("main")).to_have_count(1)
    assert re.search(r"tgk_\w{20}", await page.locator("body").inner_text()) is None


async def test_a_press_too_many_rotates_no_second_time(studio: Studio) -> None:
    await open_form(studio)
    page = studio.page
    await make_keys(studio, "a bot")
    row = page.locator(".entries li").filter(has_text="a bot")
    may_go_on = asyncio.Event()
    asked = []

    async def hold(route: Route) -> None:
        asked.append(route.request.url)
        await may_go_on.wait()
        await route.continue_()

    await page.route("**/rotate", hold)
    for _ in range(2):
        await row.get_by_role("button", name="New secret").click()
        await row.get_by_role("button", name="Really?").click()
    may_go_on.set()
    await studio.save_the_secret()

    assert len(asked) == 1
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_of_two_secrets_that_come_at_once_each_is_shown(studio: Studio) -> None:
    full = await open_form(studio)
    page = studio.page
    await make_keys(studio, "a bot", "a shop")
    may_go_on = asyncio.Event()

    async def hold(route: Route) -> None:
        await may_go_on.wait()
        await route.continue_()

    await page.route("**/rotate", hold)
    for name in ("a bot", "a shop"):
        row = page.locator(".entries li").filter(has_text=name)
        await row.get_by_role("button", name="New secret").click()
        await row.get_by_role("button", name="Really?").click()
    may_go_on.set()
    titles, secrets = set(), []
    for _ in range(2):
        titles.add(await page.get_by_role("dialog").get_by_role("heading").inner_text())
        secrets.append(await studio.save_the_secret())

    assert titles == {"Secret of a bot", "Secret of a shop"}
    for secret in (full, *secrets):
        answer = httpx.get(f"{studio.url}/keys/current", headers={"X-API-Key": secret}, trust_env=False)
        assert answer.status_code == 200
    await expect(page.get_by_role("dialog")).to_have_count(0)
