"""How long what fails pauses, and who may try whether that is over."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

PAUSE_SECONDS_MIN = 10.0
PAUSE_SECONDS_MAX = 60.0
# Of accounts that did not fail: if others are the reason, these must not wait for them.
NEWCOMER_SECONDS_MIN = 1.0
FAILED_ACCOUNTS_KEPT = 1000
# What nobody asks for any more is forgotten after this.
QUIET_SECONDS = 600.0
KEPT_MAX = 10_000

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why submissions fail."""

    text: str
    is_operators_matter: bool = False
    """fal refuses the key or the operator's account."""


class Pause:
    """One submission in each pause tries whether the reason is over; the pause doubles with each try that fails.

    An account that has not failed yet is a newcomer: its turn comes sooner, and those that failed do not put it off.
    """

    def __init__(
        self,
        reason: Reason,
        now_seconds: float,
        failed: Collection[UUID],
        *,
        is_shared: bool = True,
    ) -> None:
        """`failed`: the accounts whose failures are the reason. `is_shared`: it is not of a single account."""
        self.reason = reason
        self._failed = set(failed)
        self._is_shared = is_shared
        self._newcomers_tries_failed = 0
        self._tries_failed = 0
        self._trying: dict[UUID, tuple[float, float]] = {}
        self._newcomers_may_try_at = self._failed_may_try_at = 0.0
        self._begin(now_seconds, is_newcomer=True)

    @property
    def is_nobodys(self) -> bool:
        """No account's failures are the reason."""
        return not self._failed

    def seconds_for(self, account_id: UUID, now_seconds: float) -> float:
        """How long a submission of the account has to wait before it may try."""
        may_try_at = self._failed_may_try_at if account_id in self._failed else self._newcomers_may_try_at
        # While its try is under way, the next turns are for others: it may hang, and there may be thousands more.
        seconds_min = NEWCOMER_SECONDS_MIN if account_id in self._trying else 0.0
        return max(seconds_min, may_try_at - now_seconds)

    def begin_try(self, account_id: UUID, now_seconds: float) -> None:
        self._trying[account_id] = (self._newcomers_may_try_at, self._failed_may_try_at)
        self._begin(now_seconds, is_newcomer=account_id not in self._failed)

    def give_back(self, account_id: UUID) -> None:
        """A try that came to nothing: the next one may begin at once. Nothing, if it has failed meanwhile."""
        if account_id in self._trying:
            self._newcomers_may_try_at, self._failed_may_try_at = self._trying.pop(account_id)

    def record_failure(self, account_id: UUID, now_seconds: float, reason: Reason, *, is_its_own: bool = True) -> bool:
        """False: it did not try. It was under way when the pause began, and says nothing new of the reason."""
        is_try = self._trying.pop(account_id, None) is not None
        is_newcomer = account_id not in self._failed
        if is_its_own:
            if len(self._failed) >= FAILED_ACCOUNTS_KEPT:
                self._failed.clear()
            self._failed.add(account_id)
        if is_try:
            self.reason = reason
            self._tries_failed += 1
            self._newcomers_tries_failed += is_newcomer
            self._begin(now_seconds, is_newcomer=is_newcomer)
        return is_try

    def _begin(self, now_seconds: float, *, is_newcomer: bool) -> None:
        newcomers_seconds = min(NEWCOMER_SECONDS_MIN * _doubled(self._newcomers_tries_failed), PAUSE_SECONDS_MAX)
        if is_newcomer:
            self._newcomers_may_try_at = now_seconds + newcomers_seconds
        failed_seconds = min(PAUSE_SECONDS_MIN * _doubled(self._tries_failed), PAUSE_SECONDS_MAX)
        if self._is_shared:
            failed_seconds = max(failed_seconds, 2 * newcomers_seconds)
        self._failed_may_try_at = now_seconds + failed_seconds


def _doubled(times: int) -> float:
    return 2.0 ** min(times, 10)


class Recent(Generic[Key, Value]):
    """What is known by key, as long as somebody asks for it. The oldest goes where it would be too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def __len__(self) -> int:
        self._forget()
        return len(self._kept)

    def get(self, key: Key) -> Value | None:
        self._forget()
        if key not in self._kept:
            return None
        value = self._kept[key][1]
        self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        self._kept[key] = (self._clock(), value)
        self._kept.move_to_end(key)
        self._forget()

    def pop(self, key: Key) -> Value | None:
        return self._kept.pop(key, (0.0, None))[1]

    def items(self) -> Sequence[tuple[Key, Value]]:
        """The one that was asked for last comes last."""
        self._forget()
        return [(key, value) for key, (_, value) in self._kept.items()]

    def _forget(self) -> None:
        while self._kept:
            asked_at, _ = next(iter(self._kept.values()))
            if asked_at + QUIET_SECONDS >= self._clock() and len(self._kept) <= KEPT_MAX:
                break
            self._kept.popitem(last=False)
