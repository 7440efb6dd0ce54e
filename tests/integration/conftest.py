from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.builders import open_crowd
from tests.integration.api_on_postgres import Api, open_api

CROWD_SIZE = 25


@pytest.fixture
async def crowd(database: str) -> AsyncIterator[AsyncEngine]:
    async with open_crowd(database, CROWD_SIZE) as engine:
        yield engine


@pytest.fixture
async def api(engine: AsyncEngine) -> AsyncIterator[Api]:
    async with open_api(engine) as api:
        yield api
