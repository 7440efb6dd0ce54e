"""What is done for media again and again, and what the walk through the store takes out."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest

from app.application.execution.media_upkeep import MediaUpkeep
from app.application.media_audit import MediaAudit, RemoveOrphans, Verdict
from app.application.ports.media import FilesMiscounted, MediaId, Standing
from app.application.ports.media_store import MediaStore, ObjectMissing, StoredObject, StoreUnavailable
from app.domain.files import FileId
from app.domain.outputs import OutputId

OLD, NEW = timedelta(days=2), timedelta(hours=1)
ID = OutputId(uuid4(), 0)


@dataclass
class Store:
    objects: dict[str, tuple[int, timedelta]] = field(default_factory=dict)
    is_away: bool = False

    async def each(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        if self.is_away:
            raise StoreUnavailable("It is away.")
        for key, (size, age) in list(self.objects.items()):
            if key.startswith(f"{prefix}/"):
                yield StoredObject(key, size, datetime.now(UTC) - age)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        if key not in self.objects:
            raise ObjectMissing
        yield b"x"

    async def delete(self, key: str) -> None:
        del self.objects[key]


@dataclass
class Records:
    rows: Mapping[MediaId, tuple[Standing, int | None]] = field(default_factory=dict)

    async def standings(self, ids: Sequence[MediaId]) -> Mapping[MediaId, tuple[Standing, int | None]]:
        return {each: self.rows[each] for each in ids if each in self.rows}

    async def outputs_after(self, after: OutputId | None, limit: int) -> Sequence[OutputId]:
        stored = [each for each, (standing, _) in self.rows.items() if standing is Standing.STORED]
        return [] if after is not None else [each for each in stored if isinstance(each, OutputId)]

    async def files_after(self, after: FileId | None, limit: int) -> Sequence[FileId]:
        stored = [each for each, (standing, _) in self.rows.items() if standing is Standing.STORED]
        return [] if after is not None else [each for each in stored if isinstance(each, FileId)]

    async def files_miscounted(self) -> Sequence[FilesMiscounted]:
        return []


def audit_of(store: Store, rows: Mapping[MediaId, tuple[Standing, int | None]]) -> MediaAudit:
    return MediaAudit(Records(rows), cast(MediaStore, store))


@pytest.mark.parametrize(
    ("key", "age", "row", "verdict"),
    [
        (ID.store_key, OLD, (Standing.STORED, 5), Verdict.SOUND),
        (ID.store_key, OLD, (Standing.STORED, 6), Verdict.DAMAGED),
        (ID.store_key, OLD, (Standing.WANTED, None), Verdict.SOUND),
        (ID.store_key, OLD, (Standing.OVER, 5), Verdict.ORPHAN),
        (ID.store_key, NEW, (Standing.OVER, 5), Verdict.SOUND),
        (ID.store_key, OLD, None, Verdict.UNKNOWN),
        (f"{ID.store_key}.0123456789abcdef.part", OLD, (Standing.STORED, 5), Verdict.ORPHAN),
        (f"{ID.store_key}.0123456789abcdef.part", NEW, None, Verdict.SOUND),
        (f"{ID.store_key}.part", OLD, None, Verdict.UNKNOWN),
        ("outputs/reports/invoice.pdf", OLD, None, Verdict.UNKNOWN),
        ("outputs/reports/invoice.0123456789abcdef.part", OLD, None, Verdict.UNKNOWN),
    ],
    ids=range(11),
)
async def test_says_of_each_object_what_it_is(
    key: str, age: timedelta, row: tuple[Standing, int | None] | None, verdict: Verdict
) -> None:
    audit = audit_of(Store({key: (5, age)}), {} if row is None else {ID: row})

    assert [judged.verdict async for judged in audit.objects()] == [verdict]


async def test_names_what_is_missing() -> None:
    other = OutputId(uuid4(), 1)
    audit = audit_of(Store({ID.store_key: (5, OLD)}), {ID: (Standing.STORED, 5), other: (Standing.STORED, 5)})

    assert [each async for each in audit.missing()] == [(ID, False), (other, True)]


async def test_takes_out_orphans_alone_and_walks_again_a_day_later() -> None:
    now = [0.0]
    kept = "outputs/reports/invoice.pdf"
    store = Store({ID.store_key: (5, OLD), kept: (1, OLD), "elsewhere/file": (1, OLD)})
    remove = RemoveOrphans(audit_of(store, {ID: (Standing.OVER, 5)}), lambda: now[0])

    assert await remove() == 1
    assert store.objects.keys() == {kept, "elsewhere/file"}
    store.objects[ID.store_key] = (5, OLD)
    assert await remove() == 0
    now[0] += 25 * 3600
    assert await remove() == 1


async def test_a_store_that_is_away_is_gone_through_later() -> None:
    now = [0.0]
    store = Store({ID.store_key: (5, OLD)}, is_away=True)
    remove = RemoveOrphans(audit_of(store, {ID: (Standing.OVER, 5)}), lambda: now[0])

    assert await remove() == 0
    store.is_away = False
    assert await remove() == 0
    now[0] += 3600
    assert await remove() == 1


async def test_what_fails_keeps_nothing_else_from_being_done() -> None:
    done: list[str] = []

    class Chores:
        def __getattr__(self, name: str) -> Any:
            async def chore() -> Any:
                done.append(name)
                if name == "delete_expired":
                    raise RuntimeError
                return {} if name == "requeue_lost" else 0

            chore.__qualname__ = name
            return chore

    chores = cast(Any, Chores())

    await MediaUpkeep(chores, chores, chores, chores.orphans, chores, lambda: done.append("remove_left"))()

    assert done == [
        "delete_expired",
        "delete_over",
        "forget_erased",
        "requeue_lost",
        "keep",
        "forget_late_results",
        "remove_left",
        "orphans",
    ]
