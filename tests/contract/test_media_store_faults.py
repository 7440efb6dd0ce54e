"""Stores of media that are away, processes that die in them, and how much memory they take."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.application.ports.media_store import ObjectMissing, StoreUnavailable
from app.infrastructure.media_store.opening import READ_SECONDS, open_store
from tests.contract.stores import KEY, MIB, Case, calls_of, chunks_of, folder_case, keys_in, mebibytes, whole
from tests.service_process import PROJECT_DIR, free_port

# What is tried again is tried with pauses.
AWAY_SECONDS_MAX = READ_SECONDS + 4
ADDED_BYTES_MAX = 32 * MIB
MEASURED_MIB = int(os.environ.get("MEDIA_MEASURED_MIB", "128"))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


@pytest.mark.alone
@pytest.mark.parametrize("is_silent", [False, True], ids=["closed", "silent"])
@pytest.mark.usefixtures("s3_environment")
async def test_a_store_that_is_away_is_given_up_soon(
    monkeypatch: pytest.MonkeyPatch, silent_port: int, *, is_silent: bool
) -> None:
    port = silent_port if is_silent else free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    store = open_store("s3://bucket/prefix")

    async def seconds_of(name: str) -> float:
        start = time.monotonic()
        with pytest.raises(StoreUnavailable) as raised:
            await calls_of(store)[name]()
        assert re.fullmatch(
            r"\w.* Error performing [A-Z]+ http://127\.0\.0\.1:\d+/bucket.+\.|The store did not answer in time\.",
            raised.value.reason,
        )
        return time.monotonic() - start

    names = list(calls_of(store))
    took = dict(zip(names, await asyncio.gather(*map(seconds_of, names)), strict=True))

    limit = AWAY_SECONDS_MAX if is_silent else 3
    assert {name: seconds for name, seconds in took.items() if seconds > limit} == {}


@pytest.mark.usefixtures("s3_environment")
async def test_plain_http_goes_only_where_the_operator_says_so(
    monkeypatch: pytest.MonkeyPatch, silent_port: int
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"https://127.0.0.1:{silent_port}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent_port}")
    store = open_store("s3://bucket/prefix")

    url = await store.presigned_url(KEY, content_type="image/png", disposition="inline", seconds=60)

    assert url is not None
    assert url.startswith(f"https://127.0.0.1:{silent_port}/bucket/prefix/{KEY}?")


@pytest.mark.usefixtures("s3_environment")
async def test_no_reason_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-a-session")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    for name, call in calls_of(open_store("s3://bucket/prefix")).items():
        with pytest.raises(StoreUnavailable) as raised:
            await call()
        told = raised.value.reason
        assert not any(secret in told for secret in ("token-of-a-session", "secret/of+tests", "?", "X-Amz")), name


async def test_a_folder_that_cannot_be_made_is_a_store_that_is_away(tmp_path: Path) -> None:
    """A process that starts meanwhile serves everything else."""
    (tmp_path / "file").touch()
    store = open_store(f"file://{tmp_path}/file/media")

    for call in (calls_of(store)["put"], store.check):
        with pytest.raises(StoreUnavailable, match=r"^The folder .*/file/media cannot be used: Not a directory\.$"):
            await call()


ENDLESS = """
import asyncio, sys
from app.infrastructure.media_store.opening import open_store
from tests.contract.stores import KEY, mebibytes

async def endless():
    async for chunk in mebibytes(1_000_000):
        yield chunk
        print("put", flush=True)
        await asyncio.sleep(0.05)

asyncio.run(open_store(sys.argv[1]).put(KEY, endless()))
"""


@pytest.mark.parametrize("is_there_before", [False, True])
async def test_a_process_that_is_killed_while_it_puts_leaves_only_what_each_shows(
    tmp_path: Path, *, is_there_before: bool
) -> None:
    case = folder_case(tmp_path)
    if is_there_before:
        await case.store.put(KEY, chunks_of(b"before"))
    process = await asyncio.to_thread(put_until_killed, case)

    assert process.returncode == -signal.SIGKILL
    if is_there_before:
        assert await whole(case.store, KEY, 6) == b"before"
    else:
        with pytest.raises(ObjectMissing):
            await whole(case.store, KEY, 1)
    left = [stored async for stored in case.store.each("outputs") if stored.key != KEY]
    assert [stored.key.startswith(f"{KEY}.") for stored in left] == [True]
    assert left[0].size_bytes >= 3 * MIB
    assert (datetime.now(UTC) - left[0].modified_at).total_seconds() < 60

    await case.store.delete(left[0].key)
    assert await keys_in(case.store) == ([KEY] if is_there_before else [])


def put_until_killed(case: Case) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, case.url], env=environment(case), stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline() == "put\n"
        process.kill()
    return process


def environment(case: Case) -> Mapping[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT_DIR), **case.environment}


MEASURED = """
import asyncio, sys, time
import psutil
from app.infrastructure.media_store.opening import open_store
from tests.contract.stores import MIB, mebibytes

memory = psutil.Process().memory_info

async def measured(chunks, samples):
    async for chunk in chunks:
        samples.append(memory().rss)
        yield chunk

async def main(url, count):
    store = open_store(url)
    await store.check()
    samples, start = [memory().rss], time.perf_counter()
    await store.put("large", measured(mebibytes(count), samples))
    put = time.perf_counter()
    async for chunk in measured(store.read("large", 0, count * MIB), samples):
        pass
    read = time.perf_counter()
    print(max(samples) - samples[0], round(count / (put - start)), round(count / (read - put)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_much_takes_little_memory(case: Case) -> None:
    """MEDIA_MEASURED_MIB takes more of it; `pytest -s` shows what was measured."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MEASURED, case.url, str(MEASURED_MIB)),
        env=environment(case),
        stdout=asyncio.subprocess.PIPE,
    )
    answer, _ = await process.communicate()

    added, put, read = map(int, answer.split())
    sys.stdout.write(f"{MEASURED_MIB} MiB: {put} MiB/s put, {read} MiB/s read, {added / MIB:.1f} MiB more memory\n")
    assert added < ADDED_BYTES_MAX


async def test_a_slow_reader_is_waited_for(case: Case) -> None:
    """Longer than the store may be silent."""
    await case.store.put(KEY, mebibytes(20))
    reading = case.store.read(KEY, 0, 20 * MIB)

    first = await anext(reading)
    await asyncio.sleep(READ_SECONDS + 1)

    assert len(first) + sum([len(chunk) async for chunk in reading]) == 20 * MIB
