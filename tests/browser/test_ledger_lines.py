"""The ledger: one line a job, and a chart whose scale fits what was loaded."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.studio import Studio

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

SCALES = (
    ([1000], [0, 500, 1000]),
    ([1000, 930, 960], [920, 940, 960, 980, 1000]),
    ([5, 1000], [0, 500, 1000]),
    ([0], [0, 1]),
    ([-20, 100], [-50, 0, 50, 100]),
    ([3_000_000, 3_000_001], [3_000_000, 3_000_001]),
)


async def test_a_job_is_one_line_with_what_came_back(studio: Studio) -> None:
    page = studio.page
    await studio.begin()
    await studio.make("a hill")
    await expect(studio.pictures).to_have_count(1)
    await studio.make("[fail] a thing")
    await expect(page.locator(".failed")).to_be_visible()
    await page.locator("nav").get_by_role("link", name="Balance").click()

    lines = page.locator("tbody tr")
    await expect(lines).to_have_count(3)
    await expect(lines.first).to_contain_text("[fail] a thing")
    await expect(lines.first.locator(".moved")).to_have_text(
        [re.compile(r"^Charged −5 · "), re.compile(r"^Refund \+5 · ")]
    )
    await expect(lines.first.locator(".figure-cell")).to_have_text(["0", "995"])
    await expect(lines.nth(1).locator(".figure-cell")).to_have_text(["−5", "995"])
    await expect(lines.nth(2).locator(".figure-cell")).to_have_text(["+1,000", "1,000"])
    await expect(page.locator(".ledger").get_by_role("status")).to_have_text("4 entries")
    await expect(page.locator(".chart-scale span").last).to_have_text("990")
    await expect(page.locator("figcaption")).to_contain_text("Balance in tokens, from 990 up")


async def test_the_scale_has_round_numbers_around_what_was_loaded(studio: Studio) -> None:
    await studio.visit()

    url = next(url for url in studio.requests if url.endswith("/chart.js"))
    said = await studio.page.evaluate(
        "async ([url, values]) => { const found = await import(url); return values.map(found.marksOf); }",
        [url, [values for values, _ in SCALES]],
    )

    assert said == [scale for _, scale in SCALES]
