"""What is done for media again and again, apart from the sweep: no step waits for it, and neither does the house."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from app.application.media_audit import RemoveOrphans
from app.application.ports.execution import StepUpkeep
from app.application.ports.files import FileEnds
from app.application.ports.media import MediaDeletion, OlderMedia

log = structlog.get_logger(__name__)

PORTIONS_MAX = 10


@dataclass(frozen=True, slots=True)
class MediaUpkeep:
    """Delete what is over, queue steps again that the queue has lost, keep what an older release left, and take orphans
    out of the store. What fails is tried again the next time, and keeps nothing else from being done.
    """

    steps: StepUpkeep
    deletion: MediaDeletion
    older: OlderMedia
    orphans: RemoveOrphans | None
    files: FileEnds
    remove_left: Callable[[], None]
    """Of the files that processes have left on this machine which died."""

    async def __call__(self) -> None:
        for chore in self._chores:
            try:
                for _ in range(PORTIONS_MAX):
                    if not await chore():
                        break
            except Exception as error:
                # RemoveOrphans is no function.
                name = getattr(chore, "__qualname__", type(chore).__name__)
                log.warning("media_upkeep_failed", chore=name, error=type(error).__name__)

    @property
    def _chores(self) -> Sequence[Callable[[], Awaitable[int]]]:
        own = (
            self.deletion.delete_expired,
            self.files.delete_over,
            self.files.forget_erased,
            self._requeue_lost,
            self.older.keep,
            self.older.forget_late_results,
            self._remove_left,
        )
        # Last: a store that hangs keeps nobody else.
        return own if self.orphans is None else (*own, self.orphans)

    async def _remove_left(self) -> int:
        await asyncio.to_thread(self.remove_left)
        return 0

    async def _requeue_lost(self) -> int:
        requeued = await self.steps.requeue_lost()
        for step, subject_ids in requeued.items():
            if subject_ids:
                log.warning(f"{step.area}_requeued", count=len(subject_ids))
        return sum(map(len, requeued.values()))
