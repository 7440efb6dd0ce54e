"""One service with a simulator, and one Chromium, for all tests of the page. Each test has a browser without a past."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.studio import CHROMIUM, Studio, running_chromium, running_service
from tests.service_process import PROJECT_DIR, ServiceProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = []
    if CHROMIUM is None:
        reasons.append("there is no Chromium: apt-get install chromium")
    if (PROJECT_DIR / ".env").exists():
        reasons.append("there is a .env file: move it away to run these tests")
    for item in items:
        if "browser" in item.keywords and item.path.parent == Path(__file__).parent and reasons:
            item.add_marker(pytest.mark.skip(reason=reasons[0]))


@pytest.fixture(scope="session")
def service() -> Iterator[ServiceProcess]:
    with running_service({}) as service:
        yield service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with running_chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def studio(service: ServiceProcess, chromium: Browser) -> AsyncIterator[Studio]:
    async with Studio.opened(chromium, service.url) as studio:
        yield studio
        studio.check_quiet()
