"""Endpoints of customers, and what becomes of a delivery to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypedDict
from uuid import UUID

from app.domain.errors import Conflict, NotFound
from app.domain.events import Event, EventType

ENDPOINTS_MAX = 20
"""Of an account."""
DESCRIPTION_LENGTH_MAX = 200
HOUR_SECONDS = 3600
# How long after each attempt the next one is made (Standard Webhooks 1.0 gives the beginning of it).
RETRY_SECONDS: Sequence[int] = (
    5,
    5 * 60,
    30 * 60,
    *(hours * HOUR_SECONDS for hours in (2, 5, 10, 14, 20, 24, 24, 24)),
)
ATTEMPTS_MAX = len(RETRY_SECONDS) + 1
RETRY_AFTER_SECONDS_MAX = 24 * HOUR_SECONDS
JITTER = 0.1
"""Up to so much of the time is added, so that what failed together does not come back together."""
FAILING = timedelta(days=5)
"""An endpoint is disabled after."""
QUIET = timedelta(days=2)
"""Longer than two attempts are apart: whoever fails after it begins to fail."""
GONE = 410
# The endpoint asks for less of everything by these, and by the others of this event alone.
SLOW_DOWN = (429, 503)
AT_ONCE_MAX = 4
"""Of the deliveries to one endpoint."""
FAILURES_MIN = 5
"""After so many failures in a row one delivery at a time tries the endpoint, with pauses between them."""
PAUSE_SECONDS_MIN = 5
PAUSE_SECONDS_MAX = 300


class EndpointNotFound(NotFound):
    code = "endpoint_not_found"
    default_detail = "There is no such webhook endpoint. GET /webhook-endpoints lists yours."


class TooManyEndpoints(Conflict):
    code = "too_many_endpoints"
    default_detail = f"An account has at most {ENDPOINTS_MAX} webhook endpoints: delete one that you do not need."


class EndpointDisabled(Conflict):
    code = "endpoint_disabled"
    default_detail = 'The endpoint is disabled: PATCH it with {"is_enabled": true} first.'


class DeliveryNotFound(NotFound):
    code = "delivery_not_found"
    default_detail = "There is no such delivery to this endpoint. GET .../deliveries lists those that are kept."


class DisabledReason(StrEnum):
    BY_YOU = "by_you"
    FAILING = "failing"
    """For so long as FAILING each attempt has failed."""
    GONE = "gone"
    """It answered 410."""


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    """Given up. A redelivery begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    id: UUID
    url: str
    types: Sequence[str] | None
    """None: all of them."""
    description: str | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: DisabledReason | str | None
    missed_after: int | None
    """Since it was disabled: a replay from here on brings whatever it has missed."""
    failing_since: datetime | None
    is_replaying: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    id: UUID
    url: str
    types: Sequence[str] | None
    description: str | None
    secret: str


class EndpointChanges(TypedDict, total=False):
    url: str
    types: Sequence[str] | None
    description: str | None
    is_enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecret:
    """By which the webhooks are signed that the jobs of an account name for themselves."""

    secret: str
    old_secret_until: datetime | None
    """Until then they are signed by the one before as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one endpoint."""

    event_seq: int
    event_type: EventType | str
    job_id: UUID | None
    state: DeliveryState | str
    attempts: int
    attempt_log: Sequence[Mapping[str, Any]]
    """The last ones, the oldest first."""
    created_at: datetime
    next_attempt_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """The right to make the next attempt, for as long as the claim lasts."""

    endpoint_id: UUID
    event_seq: int
    claim: UUID
    account_id: UUID | None
    """Whose endpoint it is. None: the operator's."""
    is_of_job: bool
    """The URL is that of a job, and no endpoint that somebody could enable again."""
    attempts: int
    """That were made before."""
    url: str
    secrets: Sequence[str] = field(repr=False)
    """In force, the newest first."""
    event: Event | None
    """None: it is not kept any more."""
    external_user_id: UUID | None = None
    """Whose event it is. None: that of the endpoint's owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one attempt."""

    milliseconds: int
    status: int | None = None
    """Of the answer. None: there was none."""
    error: str | None = None
    """Why it counts as failed, in one sentence for whoever owns the endpoint. None: it was delivered."""
    answer: str | None = None
    """How the answer to a failed attempt begins."""
    retry_after_seconds: float | None = None
    is_own_fault: bool = False
    """It failed by us, and says nothing of the endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a delivery by an attempt, and what is learnt of its endpoint."""

    state: DeliveryState
    retry_seconds: float = 0
    """From now, where it is pending."""
    asked_seconds: float = 0
    """For so long the endpoint wants nothing at all."""
    has_failed: bool = False
    is_gone: bool = False


def is_delivered(status: int) -> bool:
    return 200 <= status < 300


def verdict_on(attempt: Attempt, attempts_before: int, *, is_of_job: bool, chance: float) -> Verdict:
    """`is_of_job`: there is no endpoint to be enabled again. `chance`, from 0 to 1, spreads what failed together."""
    if attempt.error is None:
        return Verdict(state=DeliveryState.DELIVERED)
    has_failed = not attempt.is_own_fault
    is_gone = attempt.status == GONE
    asked_seconds = min(attempt.retry_after_seconds or 0, RETRY_AFTER_SECONDS_MAX)
    pause_seconds = asked_seconds if attempt.status in SLOW_DOWN else 0
    # Whoever enables an endpoint again that was gone gets also what it has refused.
    if attempts_before + 1 >= ATTEMPTS_MAX or (is_gone and is_of_job):
        return Verdict(
            state=DeliveryState.EXHAUSTED, asked_seconds=pause_seconds, has_failed=has_failed, is_gone=is_gone
        )
    planned_seconds = RETRY_SECONDS[attempts_before] * (1 + JITTER * chance)
    return Verdict(
        state=DeliveryState.PENDING,
        retry_seconds=max(planned_seconds, asked_seconds),
        asked_seconds=pause_seconds,
        has_failed=has_failed,
        is_gone=is_gone,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of an endpoint by its last attempts."""

    failures: int = 0
    """In a row."""
    failing_since: datetime | None = None
    last_failed_at: datetime | None = None
    backs_off_until: datetime | None = None
    """After failures."""
    asked_until: datetime | None = None
    """As it wanted itself."""

    def after(self, verdicts: Sequence[Verdict], now: datetime, *, chance: float) -> "Health":
        asked_seconds = max((verdict.asked_seconds for verdict in verdicts), default=0)
        asked_until = self.asked_until
        if asked_seconds:
            asked_until = max(asked_until or now, now + timedelta(seconds=asked_seconds))
        if any(verdict.state is DeliveryState.DELIVERED for verdict in verdicts):
            return Health(asked_until=asked_until)
        failed = sum(verdict.has_failed for verdict in verdicts)
        if not failed:
            return replace(self, asked_until=asked_until)
        failures = self.failures + failed
        is_another_time = self.last_failed_at is None or self.last_failed_at < now - QUIET
        return Health(
            failures=failures,
            failing_since=now if is_another_time else self.failing_since or now,
            last_failed_at=now,
            backs_off_until=_back_off(failures, now, chance) or self.backs_off_until,
            asked_until=asked_until,
        )

    def reason_to_disable(self, verdicts: Sequence[Verdict], now: datetime) -> DisabledReason | None:
        """After these verdicts, which it has seen."""
        if any(verdict.is_gone for verdict in verdicts):
            return DisabledReason.GONE
        has_failed = self.last_failed_at == now and self.failing_since is not None
        if has_failed and self.failing_since is not None and self.failing_since < now - FAILING:
            return DisabledReason.FAILING
        return None


def _back_off(failures: int, now: datetime, chance: float) -> datetime | None:
    if failures < FAILURES_MIN:
        return None
    doublings = min(failures - FAILURES_MIN, 10)
    seconds = min(PAUSE_SECONDS_MIN * 2**doublings, PAUSE_SECONDS_MAX)
    return now + timedelta(seconds=seconds * (0.75 + chance / 2))
