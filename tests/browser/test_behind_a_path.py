"""A proxy publishes the service behind a path, which it may cut off or not."""

from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, expect

from tests.browser.studio import Studio, running_service

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture
def behind_a_path() -> Iterator[str]:
    with running_service({"ROOT_PATH": "/ai"}) as service:
        yield f"{service.url}/ai"


@pytest.mark.parametrize("end", ["", "/"])
async def test_works_behind_a_path(behind_a_path: str, chromium: Browser, end: str) -> None:
    async with Studio.opened(chromium, behind_a_path) as studio:
        await studio.page.goto(behind_a_path + end)
        await studio.page.get_by_role("button", name="Make me a key with tokens").click()
        await studio.save_the_secret()
        await expect(studio.prompt).to_be_visible()
        await studio.make("a bridge")

        await expect(studio.pictures).to_have_count(1)
        assert await studio.pictures.evaluate("image => image.decode().then(() => image.naturalWidth)")
        studio.check_quiet()
