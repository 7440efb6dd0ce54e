"""Pictures and films that the bucket serves itself, from an origin of its own."""

import asyncio
import io
import os
import re
from collections.abc import AsyncIterator, Iterator
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
        await page.get_by_role("link", name="Download").click()
    saved = await download.value
    assert saved.suggested_filename == "image-1.png"
    with Image.open(await saved.path()) as picture:
        assert picture.size == (512, 512)
    await expect(page.get_by_role("dialog")).to_be_visible()

    await page.get_by_role("button", name="Make a video of this").click()
    assert await width_of(page.locator(".inputs img")) == 512
    await studio.make("it sails away")
    film = page.locator(".grid .thumb video")
    await expect(film).to_have_count(1)
    await reload_once_stored(studio, film)
    await expect(film).not_to_have_js_property("videoWidth", 0)

    # A policy that forbids something says so there.
    assert studio.errors == []
    assert [url for url in studio.requests if not url.startswith((studio.url, s3_server))] == []


def a_film(seconds: int = 20) -> bytes:
    """Which is too large to be loaded at once, and starts with its table of contents."""
    content = io.BytesIO()
    with av.open(content, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=5, options={"crf": "0", "preset": "ultrafast", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(5 * seconds):
            frame = av.VideoFrame.from_bytes(os.urandom(320 * 240 * 4), 320, 240, format="rgba")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return content.getvalue()


class ForAMoment:
    """A bucket whose link is over after its first answer, which holds the beginning alone; the next link is good."""

    def __init__(self, film: bytes) -> None:
        self.film = film
        self.links: list[str] = []
        self.refused = 0

    async def __call__(self, route: Route) -> None:
        url, headers = route.request.url, {"content-type": "video/mp4", "accept-ranges": "bytes"}
        is_known = url in self.links
        if not is_known:
            self.links.append(url)
        elif len(self.links) == 1:
            self.refused += 1
            await route.fulfill(status=403)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", route.request.headers.get("range", "bytes=0-"))
        assert wanted is not None
        first = int(wanted[1])
        body = self.film[first:]
        headers["content-range"] = f"bytes {first}-{len(self.film) - 1}/{len(self.film)}"
        headers["content-length"] = str(len(body))
        if len(self.links) == 1:
            body = body[: len(self.film) // 2]
        await route.fulfill(status=206, headers=headers, body=body)


async def test_a_film_plays_on_after_the_bucket_takes_its_link_no_more(redirected: Studio, s3_server: str) -> None:
    studio, page = redirected, redirected.page
    studio.may_fail = True
    await studio.begin()
    await page.get_by_role("radio", name="Text to video").check()
    await studio.make("waves")
    film = page.locator(".grid .thumb video")
    await expect(film).to_have_count(1)
    await reload_once_stored(studio, film)
    await expect(film).not_to_have_js_property("videoWidth", 0)
    bucket = ForAMoment(a_film())
    await page.route(f"{s3_server}/**", bucket)

    await film.click()

    player = page.locator(".viewer video")
    await expect(player).not_to_have_js_property("videoWidth", 0)
    await player.evaluate("player => { player.currentTime = 18 }")
    await expect(player).to_have_js_property("readyState", 4)
    assert await player.evaluate("player => player.currentTime >= 18 || player.currentTime < 2")
    assert bucket.refused > 0
    assert len(bucket.links) == 2
