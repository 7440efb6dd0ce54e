"""What a store of media promises, of a folder and of S3 alike."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.application.ports.media_store import ObjectMissing, StoreUnavailable
from app.infrastructure.media_store.opening import open_store
from tests.contract.stores import KEY, MIB, Case, calls_of, chunks_of, keys_in, mebibytes, whole

# So many of them are more than S3 takes in one part.
LARGE = 12


@pytest.mark.parametrize("chunks", [[], [b""], [b"a"], [b"a", b"", b"bc"], [b"xyz" * 100_000] * 40])
async def test_what_was_put_is_read(case: Case, chunks: list[bytes]) -> None:
    content = b"".join(chunks)

    size = await case.store.put(KEY, chunks_of(*chunks))

    assert size == len(content)
    assert await whole(case.store, KEY, size) == content
    assert await keys_in(case.store) == [KEY]


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 0), (7, 7), (1, 5), (MIB - 1, MIB + 1), (5, 3 * MIB)])
async def test_a_range_is_read_exactly_and_in_bounded_chunks(case: Case, start: int, end: int) -> None:
    content = os.urandom(3 * MIB)
    await case.store.put(KEY, chunks_of(content))

    chunks = [chunk async for chunk in case.store.read(KEY, start, end)]

    assert b"".join(chunks) == content[start:end]
    assert all(isinstance(chunk, bytes) and 0 < len(chunk) <= 2 * MIB for chunk in chunks)


@pytest.mark.parametrize(("start", "end"), [(0, 4), (2, 9), (3, 4), (100, 200)])
async def test_an_object_that_is_too_short_counts_as_missing(case: Case, start: int, end: int) -> None:
    await case.store.put(KEY, chunks_of(b"abc"))

    with pytest.raises(ObjectMissing):
        [chunk async for chunk in case.store.read(KEY, start, end)]


@pytest.mark.parametrize("key", ["outputs/never", "outputs", f"{KEY}/below"])
async def test_what_is_not_there_is_missing(case: Case, key: str) -> None:
    await case.store.put(KEY, chunks_of(b"abc"))

    with pytest.raises(ObjectMissing):
        await whole(case.store, key, 1)


async def test_what_is_deleted_is_gone_and_may_be_deleted_again(case: Case) -> None:
    await case.store.put(KEY, chunks_of(b"abc"))
    await case.store.put(f"{KEY}x", chunks_of(b"abc"))

    for key in (KEY, KEY, "outputs/never", f"{KEY}/below"):
        await case.store.delete(key)

    assert await keys_in(case.store) == [f"{KEY}x"]


async def test_each_shows_what_is_below_whole_segments(case: Case) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    for key in ("a/b/1", "a/b/2", "a/bc/3", "ab/4"):
        await case.store.put(key, chunks_of(b"12345"))

    found = [stored async for stored in case.store.each("a/b")]

    assert sorted(stored.key for stored in found) == ["a/b/1", "a/b/2"]
    assert {stored.size_bytes for stored in found} == {5}
    assert all(before < stored.modified_at < datetime.now(UTC) + timedelta(seconds=2) for stored in found)
    assert await keys_in(case.store, "a") == ["a/b/1", "a/b/2", "a/bc/3"]
    assert await keys_in(case.store, "none/of/them") == []


async def test_each_shows_more_than_a_page(case: Case) -> None:
    expected = {f"many/{number}" for number in range(1005)}
    for key in expected:
        await case.store.put(key, chunks_of(b"1"))

    assert set(await keys_in(case.store, "many")) == expected


class OfTheSource(OSError):
    """As most of what breaks a download is."""


@pytest.mark.parametrize("good", [0, 1, LARGE])
@pytest.mark.parametrize("kind", [OfTheSource, ValueError])
async def test_an_exception_of_the_chunks_leaves_nothing_and_is_passed_on(
    case: Case, good: int, kind: type[Exception]
) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        async for chunk in mebibytes(good):
            yield chunk
        raise kind("broken")

    with pytest.raises(kind, match="broken"):
        await case.store.put(KEY, breaking())

    assert (await keys_in(case.store), case.hidden()) == ([], 0)


@pytest.mark.alone
@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.1])
async def test_a_cancel_leaves_nothing(case: Case, seconds: float) -> None:
    # A little later each time, so that some of them come while the bucket is about to answer.
    for later in range(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds + later / 500):
                await case.store.put(KEY, mebibytes(1_000_000))

    assert (await keys_in(case.store), case.hidden()) == ([], 0)


async def test_a_time_limit_in_the_source_holds(case: Case) -> None:
    async def limited() -> AsyncIterator[bytes]:
        async with asyncio.timeout(None) as limit:
            for _ in range(LARGE):
                yield b"x" * MIB
            # Not while the store writes, however long that takes: the limit would then end the store, not the source.
            limit.reschedule(asyncio.get_running_loop().time() + 0.1)
            await asyncio.sleep(30)

    with pytest.raises(TimeoutError):
        await case.store.put(KEY, limited())

    assert (await keys_in(case.store), case.hidden()) == ([], 0)


async def test_whoever_reads_sees_one_object_also_while_another_one_is_put(case: Case) -> None:
    await case.store.put(KEY, mebibytes(LARGE, b"a"))
    size = LARGE * MIB
    reading = case.store.read(KEY, 0, size)
    seen = [await anext(reading)]

    async def replacement() -> AsyncIterator[bytes]:
        async for chunk in mebibytes(LARGE, b"b"):
            assert await whole(case.store, KEY, 1) == b"a"
            yield chunk

    await case.store.put(KEY, replacement())
    seen += [chunk async for chunk in reading]

    assert b"".join(seen) == b"a" * size
    assert await whole(case.store, KEY, size) == b"b" * size


async def test_a_reader_may_leave_early(case: Case) -> None:
    await case.store.put(KEY, mebibytes(LARGE))

    for _ in range(20):
        async with aclosing(case.store.read(KEY, 0, LARGE * MIB)) as reading:  # type: ignore[type-var]
            assert await anext(reading)

    await case.store.check()


async def test_a_presigned_url_gives_the_object_with_the_headers_that_were_asked_for(case: Case) -> None:
    await case.store.put(KEY, chunks_of(b"<script>"))

    url = await case.store.presigned_url(
        KEY, content_type="image/png", disposition='attachment; filename="a fox & co.png"', seconds=60
    )

    if case.folder:
        assert url is None
        return
    assert url is not None
    async with httpx.AsyncClient(timeout=60) as anybody:
        answer = await anybody.get(url)
    assert (answer.status_code, answer.content) == (200, b"<script>")
    assert answer.headers["content-type"].partition(";")[0] == "image/png"
    assert answer.headers["content-disposition"] == 'attachment; filename="a fox & co.png"'


async def test_a_store_that_can_be_used_passes_its_check_and_keeps_nothing_of_it(case: Case) -> None:
    await case.store.check()

    assert await keys_in(case.store) == []


async def test_a_store_whose_root_is_away_loses_nothing(case: Case) -> None:
    """Nobody may take what cannot be looked at for what is not there."""
    store = case.store
    if case.folder:
        case.folder.rename(case.folder.with_name("elsewhere"))
    else:
        store = open_store("s3://there-is-no-such-bucket/prefix")

    for call in calls_of(store).values():
        with pytest.raises(StoreUnavailable):
            await call()
    assert not case.folder or not case.folder.exists()


@pytest.mark.parametrize("key", ["../a", "a/../b", "/a", "a//b", "a/", ".", "", "a\0b"])
async def test_a_key_that_leads_elsewhere_is_refused(case: Case, key: str) -> None:
    with pytest.raises(AssertionError, match="is no key"):
        await case.store.put(key, chunks_of(b"a"))
    with pytest.raises(AssertionError, match="is no key"):
        await case.store.delete(key)
