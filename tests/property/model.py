"""What accounts and jobs must look like from outside, written down without any code of the service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELED"})
_AT_FAL = frozenset({"IN_QUEUE", "IN_PROGRESS"})
# Where a job may stand at a later look, over any number of steps in between.
LATER: Mapping[str, frozenset[str]] = {
    "QUEUED": frozenset({"SUBMITTING", "SUBMITTED"}) | _AT_FAL | FINAL,
    "SUBMITTING": frozenset({"QUEUED", "SUBMITTED"}) | _AT_FAL | FINAL,
    "SUBMITTED": _AT_FAL | FINAL,
    "IN_QUEUE": _AT_FAL | FINAL,
    "IN_PROGRESS": _AT_FAL | FINAL,
} | dict.fromkeys(FINAL, frozenset[str]())
PUBLIC = {"SUBMITTING": "QUEUED"}

PATHS = {
    "TEXT_TO_IMAGE": "/generations/images/text-to-image",
    "IMAGE_TO_IMAGE": "/generations/images/image-to-image",
    "TEXT_TO_VIDEO": "/generations/videos/text-to-video",
    "IMAGE_TO_VIDEO": "/generations/videos/image-to-video",
}
PRICES = {
    ("TEXT_TO_IMAGE", None): 5,
    ("IMAGE_TO_IMAGE", None): 6,
    ("TEXT_TO_VIDEO", 5): 30,
    ("TEXT_TO_VIDEO", 10): 55,
    ("IMAGE_TO_VIDEO", 5): 35,
    ("IMAGE_TO_VIDEO", 10): 65,
}
TIME_LIMIT_SECONDS = {"IMAGE": 1200, "VIDEO": 3600}


@dataclass(frozen=True)
class Wish:
    """What a prompt asks of the simulator, and how many of so many outputs come of it; None: fal never ends it."""

    words: str
    delivered: Mapping[int, int] | None
    runs_twice: bool = False
    """fal runs an attempt that it seemed to refuse, so that the job may be posted again."""

    @classmethod
    def all_of(cls, words: str, *, runs_twice: bool = False) -> "Wish":
        return cls(words, {1: 1, 2: 2, 3: 3, 4: 4}, runs_twice)

    @classmethod
    def none_of(cls, words: str) -> "Wish":
        return cls(words, {1: 0, 2: 0, 3: 0, 4: 0})


WISHES = (
    Wish.all_of(""),
    Wish.all_of("[ignore-cancel]"),
    Wish.all_of("[flaky:1]"),
    Wish.all_of("[submit:429x1]"),
    Wish.all_of("[submit:drop]"),
    Wish.all_of("[submit:done-503x1]", runs_twice=True),
    Wish.all_of("[submit:done-429x1]", runs_twice=True),
    Wish("[stuck]", None),
    Wish("[slow:999999]", None),
    Wish("[slow:999999] [ignore-cancel]", None),
    Wish("[partial:1]", {1: 1, 2: 1, 3: 1, 4: 1}),
    Wish("[partial:2]", {1: 1, 2: 2, 3: 2, 4: 2}),
    Wish("[partial:3]", {1: 1, 2: 2, 3: 3, 4: 3}),
    Wish("[nsfw:2]", {1: 1, 2: 1, 3: 2, 4: 3}),
    Wish("[partial:2] [nsfw:1]", {1: 0, 2: 1, 3: 1, 4: 1}),
    Wish.none_of("[nsfw]"),
    Wish.none_of("[fail]"),
    Wish.none_of("[fail:500]"),
    Wish.none_of("[no-error-field]"),
    Wish.none_of("[submit:422]"),
)


@dataclass(eq=False)
class JobModel:
    id: UUID
    kind: str
    prompt: str
    outputs: int
    price: int
    delivered: int | None
    runs_twice: bool = False
    status: str = "QUEUED"
    ignores_cancel: bool = False
    is_cancel_wanted: bool = False
    age_seconds: int = 0
    identity: str = ""
    ending: str = ""
    request_id: str | None = None
    attempts: int = 0

    def __repr__(self) -> str:
        return self.prompt

    @property
    def cost(self) -> int:
        return self.price * self.outputs

    @property
    def charged(self) -> int:
        if self.status in ("FAILED", "CANCELED"):
            return 0
        return self.price * (self.delivered or 0) if self.status == "COMPLETED" else self.cost

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def is_overdue(self) -> bool:
        return self.age_seconds >= TIME_LIMIT_SECONDS["VIDEO" if "VIDEO" in self.kind else "IMAGE"]

    @property
    def may_end(self) -> frozenset[str]:
        """How it may end by what happened so far. A cancel is a wish: what fal made anyway is delivered."""
        ends = set()
        if self.delivered is not None:
            ends.add("COMPLETED" if self.delivered else "FAILED")
        if self.is_overdue:
            ends.add("CANCELED" if self.is_cancel_wanted else "FAILED")
        if self.is_cancel_wanted:
            ends.add("CANCELED")
        return frozenset(ends)


@dataclass(eq=False)
class Payment:
    """What is reversed of it follows from the set of its events, whenever each of them came."""

    amount: int = 0
    reversals: dict[str, int] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    @property
    def reversed(self) -> int:
        return min(self.amount, sum(amount for name, amount in self.reversals.items() if name not in self.withdrawn))


@dataclass(eq=False)
class Account:
    name: str
    user_id: UUID
    api_key: str = ""
    old_keys: list[str] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    adjustments: dict[str, int] = field(default_factory=dict)
    reversal_entries: int = 0
    jobs: list[JobModel] = field(default_factory=list)
    # Of an idempotency key: what it was sent with, and where it led to.
    keys: dict[str, tuple[str, dict[str, Any], JobModel]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    @property
    def balance(self) -> int:
        paid = sum(payment.amount - payment.reversed for payment in self.payments)
        return paid + sum(self.adjustments.values()) - sum(job.charged for job in self.jobs)

    @property
    def entry_count(self) -> int:
        given = len(self.payments) + len(self.adjustments) + self.reversal_entries
        return given + len(self.jobs) + sum(job.charged < job.cost for job in self.jobs)
