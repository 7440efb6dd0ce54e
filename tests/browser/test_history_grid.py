"""The history as a grid: by day, and no more of it on the page than what can be seen."""

import json
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.studio import Studio

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

JOBS = 10_000
JOBS_A_DAY = 30


def tiles(page: Page) -> Locator:
    return page.locator(".tiles li")


async def test_shows_days_and_is_kept_in_the_browser(studio: Studio) -> None:
    page = studio.page
    await studio.begin()
    await page.get_by_label("Number of images").fill("3")
    await studio.make("three hills")
    await expect(studio.pictures).to_have_count(3)
    await page.get_by_role("link", name="History").click()
    await page.get_by_role("radio", name="Grid").check()

    await expect(page.get_by_role("heading", name="Today", exact=True)).to_be_visible()
    await expect(tiles(page).locator(".files")).to_have_text(["×3"])
    await expect(
        tiles(page).get_by_role("button", name=re.compile("^three hills, Wan 2.5, .* 3 files"))
    ).to_be_visible()
    await tiles(page).hover()
    assert await studio.findings() == []
    box = await tiles(page).bounding_box()
    assert box is not None
    assert 150 <= box["width"] == box["height"] <= 200
    await page.reload()
    await expect(page.get_by_role("radio", name="Grid")).to_be_checked()
    await expect(tiles(page)).to_have_count(1)

    await page.get_by_role("radio", name="Grid").focus()
    await page.locator("input[type=search]").focus()
    await page.keyboard.press("Tab")
    await expect(tiles(page).locator(".tile-box")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_contain_text("three hills")
    await page.keyboard.press("Escape")
    await expect(tiles(page).locator(".tile-box")).to_be_focused()
    await page.get_by_role("radio", name="List").check()
    await expect(page.locator(".rows li .files")).to_have_text(["×3"])


async def test_ten_thousand_jobs_scroll(studio: Studio) -> None:
    page = studio.page
    await studio.begin()
    await studio.make("the only real one")
    await expect(studio.pictures).to_have_count(1)
    (real,) = await studio.jobs()
    noon = datetime.now(UTC).replace(hour=12)

    def job(place: int) -> dict[str, object]:
        created_at = noon - timedelta(days=place // JOBS_A_DAY)
        return {**real, "job_id": f"00000000-0000-7000-8000-{JOBS - place:012}", "created_at": created_at.isoformat()}

    jobs = [job(place) for place in range(JOBS)]

    async def answer(route: Route) -> None:
        query = httpx.URL(route.request.url).params
        limit, cursor = int(query["limit"]), query.get("cursor")
        start = 0 if cursor is None else JOBS - int(cursor[-12:]) + 1
        found = jobs[start : start + limit]
        more = found[-1]["job_id"] if start + limit < JOBS else None
        await route.fulfill(body=json.dumps({"items": found, "next_cursor": more}), content_type="application/json")

    await page.route("**/generations?limit=*", answer)
    await studio.visit("#/history")
    await page.reload()
    await page.get_by_role("radio", name="Grid").check()
    for _ in range(1_000):
        count = await page.locator(".history .head .aside").inner_text()
        if count == "10,000 jobs":
            break
        await page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        await page.wait_for_timeout(20)

    assert count == "10,000 jobs"
    assert await tiles(page).count() < 150
    await page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    await expect(page.locator(".tiles section").last.locator("li").last).to_have_attribute("aria-posinset", "10")
    await expect(page.locator(".tiles section").last.locator("li").last).to_have_attribute("aria-setsize", "10")
    # Each of the days that can be seen has its own heading.
    headings = page.locator(".tiles h2")
    assert await headings.count() >= 2
    assert len(set(await headings.all_inner_texts())) == await headings.count()
