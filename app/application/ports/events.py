from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from app.domain.events import Event, EventPage
from app.domain.jobs import Job
from app.domain.limits import BudgetExceeded


class EventLog(Protocol):
    async def page(
        self, account_id: UUID, *, after: int | None, types: Collection[str], job_id: UUID | None, limit: int
    ) -> EventPage:
        """The account's events after `after`, oldest first. None: from the oldest one that is kept. No types: all.

        Raises EventsForgotten where some of them are not kept any more, JobNotFound.
        """
        ...

    async def goes_on_after(self, account_id: UUID, after: int) -> bool:
        """Whether `page` would find any. Whoever asks at the same moment shares the query. Raises EventsForgotten."""
        ...


class BudgetNotices(Protocol):
    async def note(self, account_id: UUID, key_id: UUID, refused: BudgetExceeded) -> None:
        """Let the log tell of it, once for each key and period of its budget, in a transaction of its own.

        Raises DatabaseUnavailable.
        """
        ...


class EventUpkeep(Protocol):
    async def forget(self) -> int:
        """Delete some of the events that are kept for long enough, and return how many those were."""
        ...


class EventSubscription(Protocol):
    @property
    def place(self) -> int:
        """It tells of whatever has a larger `seq`; all that has a smaller one is in the log."""
        ...

    @property
    def is_ended(self) -> bool: ...

    has_missed: bool
    """More has come than was asked for in time: the log has it. Whoever has read it there sets this back."""

    seen: Job | None
    """Once set to the subscription's job, `next` also returns, with nothing, within some seconds of a change of its
    status.
    """

    async def next(self, seconds: float) -> Sequence[Event]:
        """What has come since the last call, or comes within so long; nothing, where it was ended."""
        ...

    def end(self) -> None: ...


class EventFeed(Protocol):
    def follow(self, account_id: UUID, job_id: UUID | None = None) -> AbstractAsyncContextManager[EventSubscription]:
        """What happens from now on to the account, or to one of its jobs. Raises DatabaseUnavailable."""
        ...
