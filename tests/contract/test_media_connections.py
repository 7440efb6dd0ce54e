"""The connections over which fal's media come: those of copies and those of callers do not wait for each other."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from app.application.media import PASSED_AT_ONCE_MAX
from app.application.ports.media import MediaNotReached
from app.bootstrap.adapters import open_adapters
from app.infrastructure.settings import Settings, load_settings
from tests.contract.media_service import Files, files_of_fal

PUBLIC = "93.184.216.34"
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
        async with asyncio.timeout(60), adapters.media_to_copy.open(small) as answer:
            assert b"".join([chunk async for chunk in answer.chunks]) == b"small"


async def test_media_are_fetched_through_the_proxy_of_all_that_leaves_or_the_one_that_must_be_used(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _only_public(socket.getaddrinfo))
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for named in ({"https_proxy": proxy}, {"https_proxy": "http://127.0.0.1:9", "webhook_proxy": proxy}):
            async with open_adapters(settings_for(files, tmp_path, **named)) as adapters:
                for media in (adapters.media_to_copy, adapters.media_to_pass):
                    with pytest.raises(MediaNotReached):
                        await media.open("https://v3.fal.media/a.png").__aenter__()

    assert asked == ["v3.fal.media:443"] * 2 + [f"{PUBLIC}:443"] * 2


def _only_public(real: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    return lambda host, *rest, **hints: real(PUBLIC if host == "v3.fal.media" else host, *rest, **hints)
