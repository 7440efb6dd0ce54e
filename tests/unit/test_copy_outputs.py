"""The steps that copy outputs and erase media, with a store and a fal that do what a test says."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from app.application.execution.copy_outputs import (
    GIVE_UP_SECONDS,
    LOST_SECONDS,
    STORE_PAUSE_SECONDS,
    CopyOutputs,
    StorePause,
)
from app.application.execution.erase import EraseMedia
from app.application.execution.steps import RetryLater
from app.application.ports.media import MediaDeletion, MediaNotReached, OutputToCopy, ProviderAnswer, StoredCopy
from app.application.ports.media_store import MediaStore, StoredObject, StoreUnavailable
from app.domain.outputs import DeletedBecause, OutputId

JOB_ID, OWNER = uuid4(), uuid4()
PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)
FIRST, SECOND = OutputId(JOB_ID, 0), OutputId(JOB_ID, 1)


@dataclass
class Lab:
    """All that the steps know of, and what they did, in its order."""

    content: bytes = PNG
    failure: MediaNotReached | None = None
    is_store_away: bool = False
    are_deleted: bool = False
    seconds_waiting: float = 0.0
    urls: Sequence[str | None] = ("https://fal.media/a", "https://fal.media/b")
    done: list[tuple[Any, ...]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    copies: dict[OutputId, StoredCopy] = field(default_factory=dict)

    async def to_copy(self, job_id: UUID) -> Sequence[OutputToCopy]:
        ids = [OutputId(job_id, number) for number in range(len(self.urls))]
        wanted = [each for each in ids if each not in self.copies and ("give_up", each) not in self.done]
        since = self.seconds_waiting
        return [OutputToCopy(each, OWNER, self.urls[each.number], since, since, since) for each in wanted]

    async def record_stored(self, output_id: OutputId, copy: StoredCopy) -> bool:
        self.done.append(("stored", output_id))
        if not self.are_deleted:
            self.copies[output_id] = copy
        return not self.are_deleted

    async def give_up(self, output_id: OutputId, *, is_kept_at_provider: bool) -> None:
        self.done.append(("give_up", output_id))

    async def to_erase(self, job_id: UUID) -> Sequence[OutputId]:
        return [FIRST, SECOND]

    async def record_erased(self, output_id: OutputId) -> bool:
        self.done.append(("erased", output_id))
        return output_id == FIRST

    async def delete(self, account_id: UUID | None, job_id: UUID, because: DeletedBecause, number: int) -> None:
        self.done.append((because, OutputId(job_id, number)))


@dataclass
class Fal:
    lab: Lab

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[ProviderAnswer]:
        self.lab.done.append(("open", url))
        if self.lab.failure is not None:
            raise self.lab.failure
        yield ProviderAnswer(200, {"Content-Type": "text/html"}, self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.lab.content), 7):
            yield self.lab.content[start : start + 7]


@dataclass
class Store:
    lab: Lab

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        if self.lab.is_store_away:
            raise StoreUnavailable("It is away.")
        self.lab.objects[key] = b"".join([chunk async for chunk in chunks])
        return len(self.lab.objects[key])

    async def delete(self, key: str) -> None:
        if self.lab.is_store_away:
            raise StoreUnavailable("It is away.")
        self.lab.done.append(("delete", key))
        self.lab.objects.pop(key, None)

    async def each(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        for key, content in self.lab.objects.items():
            if key.startswith(f"{prefix}/"):
                yield StoredObject(key, len(content), datetime.now(UTC))

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        yield self.lab.objects[key][start:end]


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def copying(lab: Lab, clock: Clock | None = None, *, has_store: bool = True) -> CopyOutputs:
    parts = cast(Any, lab), cast(MediaDeletion, lab), cast(Any, Fal(lab))
    store = cast(MediaStore, Store(lab)) if has_store else None
    return CopyOutputs(*parts, store, StorePause(clock or Clock()))


async def test_each_output_is_stored_as_what_it_is() -> None:
    lab = Lab()

    await copying(lab)(JOB_ID)

    assert lab.objects == {FIRST.store_key: PNG, SECOND.store_key: PNG}
    copy = StoredCopy(content_type="image/png", size_bytes=len(PNG), sha256=hashlib.sha256(PNG).digest())
    assert lab.copies == {FIRST: copy, SECOND: copy}


async def test_what_nobody_knows_is_stored_as_that() -> None:
    lab = Lab(content=b"<html>")

    await copying(lab)(JOB_ID)

    assert {copy.content_type for copy in lab.copies.values()} == {"application/octet-stream"}


async def test_what_was_deleted_meanwhile_does_not_stay_in_the_store() -> None:
    lab = Lab(are_deleted=True)

    await copying(lab)(JOB_ID)

    assert lab.objects == {}


@pytest.mark.parametrize("content", [b"", PNG], ids=["empty", "broken off"])
async def test_what_does_not_come_is_tried_again(content: bytes) -> None:
    lab = Lab(content=content, failure=MediaNotReached("It broke off.") if content else None)

    with pytest.raises(RetryLater):
        await copying(lab)(JOB_ID)

    assert (lab.copies, lab.objects) == ({}, {})


@pytest.mark.parametrize(
    ("seconds", "is_gone", "end"),
    [
        (LOST_SECONDS - 1, True, None),
        (LOST_SECONDS, True, DeletedBecause.LOST),
        (LOST_SECONDS, False, None),
        (GIVE_UP_SECONDS - 1, False, None),
        (GIVE_UP_SECONDS, False, "give_up"),
    ],
)
async def test_there_is_an_end_to_trying(seconds: float, is_gone: bool, end: str | None) -> None:
    lab = Lab(failure=MediaNotReached("No.", is_gone=is_gone), seconds_waiting=seconds, urls=["https://fal.media/a"])

    if end is None:
        with pytest.raises(RetryLater):
            await copying(lab)(JOB_ID)
    else:
        await copying(lab)(JOB_ID)

    assert lab.done[1:] == ([] if end is None else [(end, FIRST)])


async def test_what_has_no_url_was_never_there() -> None:
    lab = Lab(urls=[None, "https://fal.media/b"], seconds_waiting=LOST_SECONDS)

    await copying(lab)(JOB_ID)

    assert lab.done == [(DeletedBecause.LOST, FIRST), ("open", "https://fal.media/b"), ("stored", SECOND)]


async def test_without_a_store_fal_keeps_them() -> None:
    lab = Lab()

    await copying(lab, has_store=False)(JOB_ID)

    assert lab.done == [("give_up", FIRST), ("give_up", SECOND)]


async def test_while_the_store_is_away_one_copy_at_a_time_tries_it() -> None:
    lab, clock = Lab(is_store_away=True, urls=["https://fal.media/a"]), Clock()
    copy = copying(lab, clock)

    async def tries() -> int:
        lab.done.clear()
        for _ in range(5):
            with pytest.raises(RetryLater):
                await copy(uuid4())
        return len(lab.done)

    assert await tries() == 1
    clock.now += STORE_PAUSE_SECONDS - 0.1
    assert await tries() == 0
    clock.now += 0.2
    assert await tries() == 1
    lab.is_store_away = False
    clock.now += STORE_PAUSE_SECONDS
    await copy(uuid4())
    await copy(uuid4())
    assert len(lab.copies) == 2


async def test_an_object_goes_before_that_is_written_down() -> None:
    lab = Lab()
    erase = EraseMedia(cast(Any, lab), cast(MediaStore, Store(lab)))

    # A copy of the second one may still be under way.
    with pytest.raises(RetryLater):
        await erase(JOB_ID)

    assert lab.done == [
        ("delete", FIRST.store_key),
        ("erased", FIRST),
        ("delete", SECOND.store_key),
        ("erased", SECOND),
    ]


async def test_what_cannot_be_erased_is_not_written_down() -> None:
    lab = Lab(is_store_away=True)
    erase = EraseMedia(cast(Any, lab), cast(MediaStore, Store(lab)))

    with pytest.raises(RetryLater):
        await erase(JOB_ID)

    assert lab.done == []


async def test_what_fal_has_lost_is_taken_from_the_store_where_that_has_it() -> None:
    """The database was restored from before the copy."""
    lab = Lab(failure=MediaNotReached("No.", is_gone=True), seconds_waiting=LOST_SECONDS, urls=["https://fal.media/a"])
    lab.objects = {FIRST.store_key: PNG + b"whole", f"{FIRST.store_key}0": b"another"}

    await copying(lab)(JOB_ID)

    assert lab.copies[FIRST].size_bytes == len(PNG) + 5
    assert [done[0] for done in lab.done] == ["open", "stored"]
