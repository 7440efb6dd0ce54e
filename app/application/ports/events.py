from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from app.domain.events import EventPage


class EventLog(Protocol):
    async def page(
        self, account_id: UUID, *, after: int | None, types: Collection[str], job_id: UUID | None, limit: int
    ) -> EventPage:
        """The account's events after `after`, oldest first. None: from the oldest one that is kept. No types: all.

        Raises EventsForgotten where some of them are not kept any more, JobNotFound.
        """
        ...


class EventUpkeep(Protocol):
    async def forget(self) -> int:
        """Delete some of the events that are kept for long enough, and return how many those were."""
        ...
