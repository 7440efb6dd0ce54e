"""Orders: jobs that callers ask for, and the rule by which they are accepted."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from app.domain.accounts import ApiKey, Scope
from app.domain.budgets import AccountLimits, Purse, PurseKind, Spending, draw, short_purse
from app.domain.errors import (
    DomainError,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidApiKey,
    TooManyLargeInputs,
)
from app.domain.jobs import Job, NewJob
from app.domain.key_errors import ScopeMissing
from app.domain.limits import BudgetExceeded, TooManyJobs, TooManyWrites

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
        # Who waited for the account's lock reads a clock that is behind that of whom he waited for.
        age_seconds = max(0.0, self.age_seconds)
        return max(1, math.ceil(LARGE_INPUTS_SECONDS - age_seconds))


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
    key: ApiKey | None = None
    """That the caller came by, as it was then. None: the operator's."""

    @property
    def draws(self) -> Mapping[Purse, int]:
        """On each purse that may be in force."""
        account_id, cost_tokens = self.job.account_id, self.job.cost_tokens
        budget = {} if self.key is None else {Purse(PurseKind.BUDGET, self.key.id): cost_tokens}
        return {
            Purse(PurseKind.BALANCE, account_id): cost_tokens,
            **budget,
            Purse(PurseKind.UNFINISHED_JOBS, account_id): 1,
            Purse(PurseKind.WRITES, account_id): 1,
        }

    @property
    def owned_key(self) -> OwnedKey | None:
        return None if self.idempotency is None else OwnedKey(self.job.account_id, self.idempotency.key)


@dataclass(frozen=True, slots=True)
class Accepted:
    job: Job
    is_replay: bool
    balance_tokens: int | None = None
    """After the debit, this request's or the first one's. None where nobody looked."""
    have_keys_changed: bool = False
    """Of the account, since the caller was looked up."""


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
    left: Mapping[Purse, int]
    """Of the purses in force. Locked are those of accounts whose orders have no known key; of all if an earlier try has
    written some. Other balances are as they were when the key was found: after the debit of its first use, that is.
    """
    limits: Mapping[UUID, AccountLimits] = field(default_factory=dict)
    """By account, where one is in force."""
    spending: Mapping[UUID, Spending] = field(default_factory=dict)
    """By key, where it has a budget."""
    changed_keys: Mapping[bytes | None, ApiKey | None] = field(default_factory=dict)
    """As they are now, where the keys of the account have changed since the caller was let in. None: it has ended."""
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
    left = dict(standing.left)
    first_uses = dict(standing.first_uses)
    large_inputs = dict(standing.large_inputs)
    decisions: list[OrderDecision] = []
    for order in orders:
        draws = order.draws
        decision = _known(order, standing, left, first_uses) or _decide(order, draws, standing, left, large_inputs)
        decisions.append(decision)
        if is_new(order, decision, standing):
            assert isinstance(decision, Accepted)
            draw(draws, left)
            if order.input_bytes is not None:
                large_inputs[order.job.account_id] = _with(large_inputs.get(order.job.account_id), order.input_bytes)
            if order.idempotency is not None and order.owned_key is not None:
                first_uses[order.owned_key] = FirstUse(order.idempotency.fingerprint, decision.job)
    return decisions


def _known(
    order: Order, standing: Standing, left: Mapping[Purse, int], first_uses: Mapping[OwnedKey, FirstUse]
) -> OrderDecision | None:
    """What is said to an order that has come before. No limit is looked at."""
    job = order.job
    balance = Purse(PurseKind.BALANCE, job.account_id)
    if job.id in standing.written:
        return Accepted(standing.written[job.id], is_replay=False, balance_tokens=left[balance])
    if order.idempotency is None or order.owned_key is None:
        return None
    if order.owned_key in standing.keys_in_use:
        return IdempotencyKeyInUse()
    first_use = first_uses.get(order.owned_key)
    if first_use is None:
        return None
    replay = Accepted(first_use.job, is_replay=True, balance_tokens=left.get(balance))
    return replay if first_use.fingerprint == order.idempotency.fingerprint else IdempotencyKeyReused()


def _decide(
    order: Order,
    draws: Mapping[Purse, int],
    standing: Standing,
    left: Mapping[Purse, int],
    large_inputs: Mapping[UUID, LargeInputs],
) -> OrderDecision:
    job = order.job
    have_keys_changed = order.key is not None and order.key.secret in standing.changed_keys
    if order.key is not None and have_keys_changed:
        key = standing.changed_keys[order.key.secret]
        if key is None:
            return InvalidApiKey()
        if Scope.GENERATE not in key.scopes:
            return ScopeMissing(Scope.GENERATE)
    short = short_purse(draws, left)
    if short is not None:
        return _refusal(short, draws[short], left[short], standing)
    recent = large_inputs.get(job.account_id)
    if order.input_bytes is not None and recent is not None and recent.leaves_no_room_for(order.input_bytes):
        return TooManyLargeInputs(retry_after_seconds=recent.seconds_to_wait)
    assert standing.accepted_at is not None
    balance_tokens = left[Purse(PurseKind.BALANCE, job.account_id)] - job.cost_tokens
    accepted = Job.accepted(job, standing.accepted_at)
    return Accepted(accepted, is_replay=False, balance_tokens=balance_tokens, have_keys_changed=have_keys_changed)


def _refusal(purse: Purse, required: int, left: int, standing: Standing) -> DomainError:
    match purse.kind:
        case PurseKind.BALANCE:
            return InsufficientBalance(required_tokens=required, balance_tokens=left)
        case PurseKind.BUDGET:
            spending = standing.spending[purse.owner_id]
            # What the orders before it have taken is spent as well.
            by_now = replace(spending, spent_tokens=spending.budget.tokens - left)
            return BudgetExceeded(by_now, required)
        case PurseKind.UNFINISHED_JOBS:
            return TooManyJobs(standing.limits[purse.owner_id].unfinished_jobs_max)
        case PurseKind.WRITES:
            assert standing.accepted_at is not None
            seconds = 60 - standing.accepted_at.second
            return TooManyWrites(standing.limits[purse.owner_id].writes_per_minute, retry_after_seconds=seconds)


def _with(recent: LargeInputs | None, input_bytes: int) -> LargeInputs:
    return (
        LargeInputs(size_bytes=input_bytes, age_seconds=0)
        if recent is None
        else replace(recent, size_bytes=recent.size_bytes + input_bytes)
    )


def is_new(order: Order, decision: OrderDecision, standing: Standing) -> bool:
    """Whether the decision accepts the order for the first time, so that it is to be written."""
    return isinstance(decision, Accepted) and not decision.is_replay and order.job.id not in standing.written
