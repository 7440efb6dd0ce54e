"""Orders: jobs that callers ask for, and the rule by which they are accepted."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from app.domain.errors import (
    DomainError,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InsufficientBalance,
    TooManyLargeInputs,
)
from app.domain.jobs import Job, NewJob

# What an account may bring along in so many seconds, as JSON: five jobs of two pictures of the largest size. Whoever
# starts and cancels them pays nothing, and PostgreSQL writes each of them to the disk.
LARGE_INPUTS_SECONDS = 60
LARGE_INPUTS_BYTES_MAX = 80_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeInputs:
    """What an account brought along in the last LARGE_INPUTS_SECONDS."""

    size_bytes: int
    age_seconds: float
    """Of the oldest one."""

    def leaves_no_room_for(self, input_bytes: int) -> bool:
        return self.size_bytes + input_bytes > LARGE_INPUTS_BYTES_MAX

    @property
    def seconds_to_wait(self) -> int:
        return max(1, math.ceil(LARGE_INPUTS_SECONDS - self.age_seconds))


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's own name for a request, and the SHA-256 of what it asked for."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, order=True)
class OwnedKey:
    """An idempotency key among those of its account."""

    account_id: UUID
    key: str


@dataclass(frozen=True, slots=True)
class Order:
    job: NewJob
    idempotency: IdempotencyKey | None
    input_bytes: int | None = None
    """None if the input is small."""

    @property
    def owned_key(self) -> OwnedKey | None:
        return None if self.idempotency is None else OwnedKey(self.job.account_id, self.idempotency.key)


@dataclass(frozen=True, slots=True)
class Accepted:
    job: Job
    is_replay: bool
    balance_tokens: int | None = None
    """After the debit, this request's or the first one's. None where nobody looked."""


@dataclass(frozen=True, slots=True)
class FirstUse:
    """What an idempotency key led to when it came first."""

    fingerprint: bytes
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known, and kept from changing by locks, when a batch of orders is decided."""

    accepted_at: datetime | None
    """By the database's clock; None if no account is to pay."""
    balances_tokens: Mapping[UUID, int]
    """By account. Locked are those of accounts whose orders have no known key; of all if an earlier try has written
    some. The others are as they were when the key was found: after the debit of its first use, that is.
    """
    first_uses: Mapping[OwnedKey, FirstUse] = field(default_factory=dict)
    keys_in_use: Collection[OwnedKey] = ()
    """Another request that is being served right now has the key."""
    large_inputs: Mapping[UUID, LargeInputs] = field(default_factory=dict)
    """By account, of those that bring along a large input."""
    written: Mapping[UUID, Job] = field(default_factory=dict)
    """By its id, what an earlier try with the same orders has written."""


OrderDecision: TypeAlias = Accepted | DomainError


def decide_orders(orders: Sequence[Order], standing: Standing) -> Sequence[OrderDecision]:
    """Decide each order in its turn: refused is what does not fit by then, whatever comes before or after it."""
    balances_tokens = dict(standing.balances_tokens)
    first_uses = dict(standing.first_uses)
    large_inputs = dict(standing.large_inputs)
    decisions: list[OrderDecision] = []
    for order in orders:
        decision = _decide(order, standing, balances_tokens, first_uses, large_inputs)
        decisions.append(decision)
        if is_new(order, decision, standing):
            assert isinstance(decision, Accepted)
            balances_tokens[order.job.account_id] -= order.job.cost_tokens
            if order.input_bytes is not None:
                large_inputs[order.job.account_id] = _with(large_inputs.get(order.job.account_id), order.input_bytes)
            if order.idempotency is not None and order.owned_key is not None:
                first_uses[order.owned_key] = FirstUse(order.idempotency.fingerprint, decision.job)
    return decisions


def _decide(
    order: Order,
    standing: Standing,
    balances_tokens: Mapping[UUID, int],
    first_uses: Mapping[OwnedKey, FirstUse],
    large_inputs: Mapping[UUID, LargeInputs],
) -> OrderDecision:
    job = order.job
    if job.id in standing.written:
        return Accepted(standing.written[job.id], is_replay=False, balance_tokens=balances_tokens[job.account_id])
    if order.idempotency is not None and order.owned_key is not None:
        if order.owned_key in standing.keys_in_use:
            return IdempotencyKeyInUse()
        first_use = first_uses.get(order.owned_key)
        if first_use is not None:
            replay = Accepted(first_use.job, is_replay=True, balance_tokens=balances_tokens.get(job.account_id))
            return replay if first_use.fingerprint == order.idempotency.fingerprint else IdempotencyKeyReused()
    balance_tokens = balances_tokens[job.account_id]
    if balance_tokens < job.cost_tokens:
        return InsufficientBalance(required_tokens=job.cost_tokens, balance_tokens=balance_tokens)
    recent = large_inputs.get(job.account_id)
    if order.input_bytes is not None and recent is not None and recent.leaves_no_room_for(order.input_bytes):
        return TooManyLargeInputs(retry_after_seconds=recent.seconds_to_wait)
    assert standing.accepted_at is not None
    return Accepted(
        Job.accepted(job, standing.accepted_at), is_replay=False, balance_tokens=balance_tokens - job.cost_tokens
    )


def _with(recent: LargeInputs | None, input_bytes: int) -> LargeInputs:
    return (
        LargeInputs(size_bytes=input_bytes, age_seconds=0)
        if recent is None
        else replace(recent, size_bytes=recent.size_bytes + input_bytes)
    )


def is_new(order: Order, decision: OrderDecision, standing: Standing) -> bool:
    """Whether the decision accepts the order for the first time, so that it is to be written."""
    return isinstance(decision, Accepted) and not decision.is_replay and order.job.id not in standing.written
