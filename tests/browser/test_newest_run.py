"""The newest run: it is seen to begin, keeps its place until its pictures are there, and waits for its price."""

import asyncio
import re

import httpx
import pytest
from playwright.async_api import Browser, FloatRect, Locator, Route, ViewportSize, expect

from tests.browser.studio import Studio
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

DESKTOP = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=390, height=844)


async def make_many(studio: Studio, count: int) -> None:
    """By another program of the same user."""
    headers = {"X-API-Key": await studio.key()}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as http:
        for number in range(count):
            body = {"prompt": f"number {number}"}
            answer = await http.post(f"{studio.url}/generations/images/text-to-image", json=body)
            answer.raise_for_status()
    await expect(studio.pictures).to_have_count(count)


async def box_of(place: Locator) -> FloatRect:
    """Once nothing moves any more."""
    before = None
    while True:
        box = await place.bounding_box()
        if box is not None and box == before:
            return box
        before = box
        await asyncio.sleep(0.2)


async def test_a_run_that_is_at_work_waits_for_nothing(studio: Studio) -> None:
    await studio.begin()
    await studio.make("[slow:600] a glacier")

    card = studio.card("a glacier")
    await expect(card.locator(".state")).to_have_text("Generating")
    await expect(card.locator(".why")).to_have_count(0)
    await card.get_by_role("button", name="Cancel").click()
    await expect(studio.page.locator(".canceled .state")).to_have_text("Canceled")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_it_is_seen_from_the_beginning_to_the_end(
    service: ServiceProcess, chromium: Browser, viewport: ViewportSize, motion: str
) -> None:
    async with Studio.opened(chromium, service.url, viewport=viewport, reduced_motion=motion) as studio:
        await studio.begin()
        await make_many(studio, 9)
        await studio.prompt.fill("[slow:4] the tenth")
        await studio.page.get_by_label("Number of images").fill("2")
        await expect(studio.generate).to_have_text(re.compile("for 10"))
        if viewport is DESKTOP:
            # The form stays where it is, and what is above the last ones is out of sight.
            await studio.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await studio.page.keyboard.press("Control+Enter")

        stage = studio.page.locator(".newest .stage")
        await expect(studio.card("the tenth").get_by_role("button", name="Cancel")).to_be_visible()
        await expect(stage).to_be_in_viewport(ratio=1)
        waiting = await box_of(stage)
        await expect(studio.pictures).to_have_count(11)
        await expect(stage).to_be_in_viewport(ratio=1)
        assert await box_of(stage) == waiting
        studio.check_quiet()


async def test_each_of_several_is_shown_whole_with_what_can_be_done_with_it(studio: Studio) -> None:
    await studio.begin()
    await studio.page.get_by_label("Number of images").fill("3")
    await studio.make("three birds")
    await expect(studio.pictures).to_have_count(3)
    newest = studio.page.locator(".newest")

    await newest.get_by_role("button", name="Show result 2").click()

    await expect(newest.get_by_role("button", name="Open result 2")).to_be_visible()
    fits = "images => images.map((image) => getComputedStyle(image).objectFit)"
    assert set(await newest.locator("img").evaluate_all(fits)) == {"contain"}
    names = []
    studio.page.on("download", lambda download: names.append(download.suggested_filename))
    await newest.get_by_role("button", name="Download all 3").click()
    await expect(newest.get_by_role("button", name="Again with the same seed")).to_be_visible()
    while len(names) < 3:
        await studio.page.wait_for_timeout(100)
    assert sorted(names) == ["image-1.png", "image-2.png", "image-3.png"]
    await newest.get_by_role("button", name="Edit this").click()
    # One picture, and nothing of what the form was filled in with for another one.
    await expect(studio.page.locator(".inputs img")).to_have_count(1)
    await expect(studio.page.get_by_label("Number of images")).to_have_value("1")


async def test_what_is_sent_while_its_price_is_asked_for_goes_once_it_is_there(studio: Studio) -> None:
    await studio.begin()
    await studio.prompt.fill("a kite")
    await expect(studio.generate).to_have_text(re.compile("for 5"))
    is_told = asyncio.Event()

    async def late(route: Route) -> None:
        await is_told.wait()
        await route.continue_()

    await studio.page.route("**/quotes", late)
    await studio.page.get_by_label("Number of images").fill("3")
    for _ in range(3):
        await studio.page.keyboard.press("Control+Enter")
    await expect(studio.page.get_by_role("button", name="Asking for the price …")).to_be_visible()
    await expect(studio.tiles).to_have_count(0)
    is_told.set()

    await expect(studio.pictures).to_have_count(3)
    await expect(studio.balance).to_have_text("985 tokens")
    assert len(await studio.jobs()) == 1
