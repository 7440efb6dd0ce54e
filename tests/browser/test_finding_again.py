"""The history by its address, and the way into a job and back out of it."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from tests.browser.studio import Studio, a_user

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

# The oldest first.
PROMPTS = ("[fail] a bat", "a heron", "[fail] a crow", "a swan")


def made_of(url: str, key: str, prompts: tuple[str, ...]) -> None:
    with httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False, timeout=60) as http:
        for prompt in prompts:
            answer = http.post("/generations/images/text-to-image", json={"prompt": prompt})
            job_id = answer.raise_for_status().json()["job_id"]
            while http.get(f"/generations/{job_id}?wait=30").json()["billing"] is None:
                pass


@pytest_asyncio.fixture(loop_scope="session")
async def history(studio: Studio) -> AsyncIterator[Studio]:
    key = a_user(studio.url, 1_000)
    made_of(studio.url, key, PROMPTS)
    await studio.sign_in(key)
    await expect(studio.prompt).to_be_visible()
    await studio.page.get_by_role("link", name="History").click()
    await expect(rows(studio.page)).to_have_count(len(PROMPTS))
    yield studio


def rows(page: Page) -> Locator:
    return page.locator(".rows li")


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


async def test_what_is_looked_for_outlives_a_reload_and_comes_back(history: Studio) -> None:
    page = history.page
    await page.get_by_role("radio", name="Failed or canceled").check()
    await page.get_by_label("Search").fill("a b")
    await expect(page).to_have_url(re.compile(r"#/history\?state=failed&q=a\+b$"))

    await page.reload()
    await expect(rows(page)).to_contain_text(["a bat"])
    await expect(page.get_by_role("radio", name="Failed or canceled")).to_be_checked()
    await page.get_by_role("link", name="Create").click()
    await expect(history.prompt).to_be_visible()
    await page.go_back()
    await expect(page.get_by_label("Search")).to_have_value("a b")
    await expect(rows(page)).to_have_count(1)

    # One entry for all that was typed and chosen.
    await page.go_back()
    await expect(history.prompt).to_be_visible()
    await page.go_forward()
    await page.locator("nav").get_by_role("link", name="History").click()
    await expect(rows(page)).to_have_count(len(PROMPTS))


async def test_arrows_go_through_what_was_looked_for(history: Studio) -> None:
    page = history.page
    await page.get_by_role("radio", name="Failed or canceled").check()
    await expect(rows(page)).to_have_count(2)
    await rows(page).locator(".row-box").first.click()

    await expect(dialog(page)).to_contain_text("a crow")
    await page.keyboard.press("ArrowRight")
    await expect(dialog(page)).to_contain_text("a bat")
    await page.keyboard.press("ArrowRight")
    await expect(dialog(page)).to_contain_text("a bat")
    await page.keyboard.press("ArrowLeft")
    await expect(dialog(page)).to_contain_text("a crow")
    await page.reload()
    await expect(dialog(page)).to_contain_text("a crow")
    # The job may be there before the list whose next one is asked for.
    await expect(rows(page)).to_have_count(2)
    await page.keyboard.press("ArrowRight")
    await expect(dialog(page)).to_contain_text("a bat")

    await page.keyboard.press("Escape")
    await expect(page).to_have_url(re.compile(r"#/history\?state=failed$"))
    await expect(rows(page)).to_have_count(2)


async def test_back_does_not_open_what_was_closed(history: Studio) -> None:
    page = history.page
    await page.get_by_label("Search").fill("heron")
    await rows(page).locator(".row-box").click()
    await expect(dialog(page)).to_contain_text("a heron")

    await page.keyboard.press("Escape")
    await expect(dialog(page)).to_have_count(0)
    await expect(rows(page).locator(".row-box")).to_be_focused()
    await expect(page).to_have_url(re.compile(r"#/history\?q=heron$"))
    await page.go_back()
    await expect(history.prompt).to_be_visible()
    await expect(dialog(page)).to_have_count(0)

    # By Back it closes, too, and by Forward it opens.
    await page.go_forward()
    await expect(rows(page)).to_have_count(1)
    await page.go_forward()
    await expect(dialog(page)).to_contain_text("a heron")
    await page.go_back()
    await expect(dialog(page)).to_have_count(0)
    await expect(rows(page)).to_have_count(1)


async def test_what_a_link_has_opened_closes_to_the_page_and_not_out_of_it(history: Studio) -> None:
    job_id = (await history.jobs())[0]["job_id"]
    tab = await history.another_tab()
    await expect(tab.get_by_label("Prompt", exact=True)).to_be_visible()
    await tab.goto("about:blank")
    await tab.goto(f"{history.url}/#/job/{job_id}/0")
    await expect(dialog(tab)).to_contain_text("a swan")

    await tab.keyboard.press("Escape")
    await expect(tab).to_have_url(f"{history.url}/#/create")
    await expect(dialog(tab)).to_have_count(0)


async def test_a_row_has_what_is_wanted_most(history: Studio) -> None:
    page = history.page
    swan = rows(page).filter(has_text="a swan")
    download = swan.get_by_role("link", name="Download: a swan")
    await expect(download.locator("..")).to_have_css("opacity", "0")
    await swan.hover()
    await expect(download.locator("..")).to_have_css("opacity", "1")
    async with page.expect_download() as downloaded:
        await download.click()
    assert (await downloaded.value).suggested_filename
    await expect(rows(page).filter(has_text="a bat").get_by_role("link")).to_have_count(0)

    await page.mouse.move(0, 0)
    await swan.locator(".row-box").focus()
    await page.keyboard.press("Tab")
    await expect(download).to_be_focused()
    await expect(download.locator("..")).to_have_css("opacity", "1")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(history.prompt).to_have_value("a swan")
