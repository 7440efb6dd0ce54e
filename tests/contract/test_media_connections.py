"""The connections over which fal's media come: those of copies and those of callers do not wait for each other."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.application.media import PASSED_AT_ONCE_MAX
from app.bootstrap.adapters import open_adapters
from app.infrastructure.settings import Settings, load_settings
from tests.contract.media_service import Files, files_of_fal

LARGE_BYTES = 64 * 1024 * 1024
NO_DATABASE = "postgresql://u:p@127.0.0.1:1/none"


@pytest.fixture
def files() -> Iterator[Files]:
    with files_of_fal() as running:
        yield running


def settings_for(files: Files, directory: Path, **more: str) -> Settings:
    return load_settings(
        _env_file=None,
        database_url=NO_DATABASE,
        data_dir=str(directory),
        fal_key="test:key",
        fal_queue_url=files.url,
        **more,
    )


async def test_callers_who_read_slowly_hold_up_no_copy(files: Files, tmp_path: Path) -> None:
    large, small = files.put("/files/large", LARGE_BYTES), files.put("/files/small", b"small")
    async with open_adapters(settings_for(files, tmp_path)) as adapters, AsyncExitStack() as readers:
        for _ in range(PASSED_AT_ONCE_MAX):
            await readers.enter_async_context(adapters.media_to_pass.open(large))
        async with asyncio.timeout(5), adapters.media_to_copy.open(small) as answer:
            assert b"".join([chunk async for chunk in answer.chunks]) == b"small"
