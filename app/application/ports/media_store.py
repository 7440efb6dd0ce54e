from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class StoreUnavailable(Exception):
    """`reason` is one sentence for the operator's log, without secrets."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ObjectMissing(Exception):
    """The store answers, and has no such object, or a shorter one."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: str
    size_bytes: int
    modified_at: datetime


class MediaStore(Protocol):
    """Media by key. A key is made of segments with slashes between them, and the caller spreads them: no more than some
    thousand names in one place, so that a folder can be one of these stores.
    """

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """Whole or not at all, and in place of what was there; returns the size in bytes once it would survive a power
        cut.

        An exception of `chunks` and a cancel leave nothing behind and are passed on. A process that dies may leave
        something: see `each`. Raises StoreUnavailable.
        """
        ...

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes start..end (end exclusive), in chunks of a few MiB at most, no faster than they are consumed.

        What is being read stays the same object, also when another one is put in its place meanwhile. Nothing is read
        for an empty range. Raises ObjectMissing, also once it is seen to end before `end`, and StoreUnavailable.
        """
        ...

    async def delete(self, key: str) -> None:
        """Also of what is not there. Raises StoreUnavailable."""
        ...

    def each(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """All objects whose keys begin with these whole segments, in no order.

        Of a folder, also what is being put at this moment and what an interrupted `put` left behind, under keys that
        nobody chose; `delete` takes them. A store may hold what is not ours: whoever deletes by this names a prefix.
        Raises StoreUnavailable.
        """
        ...

    async def presigned_url(self, key: str, *, content_type: str, disposition: str, seconds: int) -> str | None:
        """Where anybody gets the object for so many seconds, with these headers and no others of their kind.

        None: the store has no such URLs, or not with the credentials that it was given. Raises StoreUnavailable.
        """
        ...

    async def check(self) -> None:
        """Writes, reads and deletes a small object. Raises StoreUnavailable."""
        ...
