"""Pictures and films that the bucket serves itself, from an origin of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import Browser, Locator, expect

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
