"""Pictures and films that the bucket serves itself, from an origin of its own."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import av
import httpx
import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import Browser, Locator, Route, expect

from tests.browser.studio import Studio, running_service
from tests.s3_server import CREDENTIALS

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

STORED_SECONDS_MAX = 60


@pytest.fixture
def redirecting(database: str, s3_server: str) -> Iterator[str]:
    bucket = f"studio-{uuid4().hex}"
    httpx.put(f"{s3_server}/{bucket}", timeout=60, trust_env=False).raise_for_status()
    store = {"MEDIA_URL": f"s3://{bucket}/some/prefix", "MEDIA_REDIRECT": "on", "AWS_ENDPOINT_URL": s3_server}
    with running_service({"DATABASE_URL": database, **store, **CREDENTIALS}) as service:
        yield service.url


@pytest_asyncio.fixture(loop_scope="session")
async def redirected(redirecting: str, chromium: Browser) -> AsyncIterator[Studio]:
    async with Studio.opened(chromium, redirecting) as studio:
        yield studio


async def reload_once_stored(studio: Studio, media: Locator) -> None:
    """Until our own copy is there, the same link passes through what fal has."""
    link = await media.get_attribute("src")
    assert link is not None
    async with asyncio.timeout(STORED_SECONDS_MAX), httpx.AsyncClient(trust_env=False, timeout=30) as http:
        while (await http.get(link)).status_code != 302:
            await asyncio.sleep(0.1)
    await studio.page.reload()


async def width_of(picture: Locator) -> int:
    width: int = await picture.evaluate("image => image.decode().then(() => image.naturalWidth)")
    return width


async def test_the_page_shows_saves_and_uses_what_the_bucket_serves(redirected: Studio, s3_server: str) -> None:
    studio, page = redirected, redirected.page
    await studio.begin()
    await studio.make("a harbour")
    await expect(studio.pictures).to_have_count(1)
    await reload_once_stored(studio, studio.pictures)

    assert await width_of(studio.pictures) == 512
    assert any(url.startswith(s3_server) for url in studio.requests)
    await studio.pictures.click()
    assert await width_of(page.locator(".zoom img")) == 512
    async with page.expect_download() as download:
        await page.get_by_role("dialog").get_by_role("link", name="Download").click()
    saved = await download.value
    assert saved.suggested_filename == "image-1.png"
    with Image.open(await saved.path()) as picture:
        assert picture.size == (512, 512)
    await expect(page.get_by_role("dialog")).to_be_visible()

    await page.get_by_role("dialog").get_by_role("button", name="Make a video of this").click()
    assert await width_of(page.locator(".inputs img")) == 512
    await studio.make("it sails away")
    film = page.locator(".runs .thumb video")
    await expect(film).to_have_count(1)
    await reload_once_stored(studio, film)
    await expect(film).not_to_have_js_property("videoWidth", 0)

    # A policy that forbids something says so there.
    assert studio.errors == []
    assert [url for url in studio.requests if not url.startswith((studio.url, s3_server))] == []


def a_film(path: Path, seconds: int = 20) -> bytes:
    """Which is too large to be loaded at once, and starts with its table of contents."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=5, options={"crf": "0", "preset": "ultrafast", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(5 * seconds):
            frame = av.VideoFrame.from_bytes(os.urandom(320 * 240 * 4), 320, 240, format="rgba")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


class ForAMoment:
    """Answers with pieces of a film, and says once of its second half that the link is over, as a bucket does."""

    def __init__(self, film: bytes) -> None:
        self.film = film
        self.refused = 0

    async def __call__(self, route: Route) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-\d*", route.request.headers.get("range", "bytes=0-"))
        assert wanted is not None
        first, size = int(wanted[1]), len(self.film)
        if first > size / 2 and not self.refused:
            self.refused += 1
            await route.fulfill(status=403)
            return
        end = size if self.refused else min(size, first + size // 8)
        headers = {"content-type": "video/mp4", "content-range": f"bytes {first}-{end - 1}/{size}"}
        await route.fulfill(status=206, headers=headers, body=self.film[first:end])


async def open_film(studio: Studio, directory: Path) -> tuple[Locator, ForAMoment]:
    """A film in the player, of which the second half is refused once.

    Chromium asks for the rest of a film where it was led to for the beginning, and there the link was for a minute.
    Playwright hears of nothing behind a redirect: here the service itself refuses.
    """
    studio.may_fail = True
    bucket = ForAMoment(a_film(directory / "film.mp4"))
    await studio.page.route("**/media/**", bucket)
    await studio.begin()
    await studio.page.get_by_role("radio", name="Text to video").check()
    await studio.make("waves")
    film = studio.page.locator(".runs .thumb video")
    await expect(film).not_to_have_js_property("videoWidth", 0)
    await film.click()
    player = studio.page.locator(".viewer video")
    await expect(player).not_to_have_js_property("videoWidth", 0)
    return player, bucket


async def test_a_film_plays_on_with_a_new_link_once_the_first_is_over(studio: Studio, tmp_path: Path) -> None:
    player, bucket = await open_film(studio, tmp_path)

    await player.evaluate("player => Object.assign(player, { loop: false, currentTime: 18 })")

    await expect(player).to_have_js_property("ended", True)
    assert bucket.refused == 1
    assert await player.evaluate("player => player.error") is None


async def test_a_film_that_stands_still_does_so_with_its_new_link(studio: Studio, tmp_path: Path) -> None:
    player, bucket = await open_film(studio, tmp_path)

    await player.evaluate("player => { player.pause(); player.currentTime = 18 }")

    await expect(player).to_have_js_property("readyState", 4)
    assert bucket.refused == 1
    assert await player.evaluate("player => [player.error, player.paused, player.currentTime]") == [None, True, 18]
