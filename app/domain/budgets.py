"""The one rule of all limits: an order draws on several purses, and fits if each of them has enough."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class PurseKind(StrEnum):
    """In the order in which a refusal names them, where several have not enough."""

    BALANCE = "balance"
    BUDGET = "budget"
    UNFINISHED_JOBS = "unfinished_jobs"
    WRITES = "writes"


class Purse(NamedTuple):
    kind: PurseKind
    owner_id: UUID
    """A key, of a budget; an account, of all others."""


def short_purse(draws: Mapping[Purse, int], left: Mapping[Purse, int]) -> Purse | None:
    """The first purse that has not enough. A purse that `left` does not name is not in force."""
    for purse, drawn in draws.items():
        if left.get(purse, drawn) < drawn:
            return purse
    return None


def draw(draws: Mapping[Purse, int], left: MutableMapping[Purse, int]) -> None:
    for purse, drawn in draws.items():
        if purse in left:
            left[purse] -= drawn


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """0: no limit."""

    unfinished_jobs_max: int = 0
    writes_per_minute: int = 0


NO_LIMITS = AccountLimits()


class Period(StrEnum):
    DAY = "day"
    MONTH = "month"
    EVER = "ever"


@dataclass(frozen=True, slots=True)
class Window:
    """From its start to before its end."""

    starts_at: datetime
    ends_at: datetime


# Before and after all jobs.
_EVER = Window(datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Budget:
    tokens: int
    per: Period

    def window(self, moment: datetime) -> Window:
        """The one that the moment is in. Days and months are those of UTC."""
        if self.per is Period.EVER:
            return _EVER
        day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.per is Period.DAY:
            return Window(day, day + timedelta(days=1))
        month = day.replace(day=1)
        return Window(month, (month + timedelta(days=32)).replace(day=1))

    def renews_at(self, moment: datetime) -> datetime | None:
        """None: never."""
        return None if self.per is Period.EVER else self.window(moment).ends_at


@dataclass(frozen=True, slots=True)
class Spending:
    """What a budget has seen by a moment."""

    budget: Budget
    spent_tokens: int
    renews_at: datetime | None
