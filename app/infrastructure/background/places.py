"""What a lane needs whose steps are only begun in a place at fal."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeAlias
from uuid import UUID

# What executes a statement in the transaction that takes items.
Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]


class Places(Protocol):
    async def prepare(self) -> None:
        """Once, before any is asked for."""
        ...

    async def lock_free(self, fetch: Fetch, wanted: int) -> Sequence[int]:
        """Lock free places until the end of the transaction, past those that others have locked."""
        ...

    async def give(self, fetch: Fetch, numbers: Sequence[int], job_ids: Sequence[UUID]) -> None:
        """Give the places that this transaction has locked to the jobs of the items that it has taken."""
        ...

    async def retake(self, fetch: Fetch, manager_id: UUID, heartbeat_timeout: timedelta) -> Sequence[Mapping[str, Any]]:
        """Take the items of jobs that have their place already, and return their rows."""
        ...
