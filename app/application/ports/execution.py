"""What the steps of a job read and write. Each operation is atomic and may be repeated.

Every operation may raise DatabaseUnavailable: nothing is half done then, after CommitUnknown all or nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from app.application.execution.steps import Step
from app.application.ports.provider import ProviderRequest
from app.domain.attempts import AttemptOutcome, JobInput
from app.domain.jobs import JobStatus, Outcome, WaitingFor
from app.domain.kinds import GenerationKind
from app.domain.terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to make the one POST of this attempt."""

    account_id: UUID
    model_id: str
    input: JobInput
    attempt: int
    time_limit_seconds: int
    seconds_waiting_for_provider: float | None = None
    """Since it first could not be submitted because of fal, without its turns in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why a QUEUED job is not submitted yet, after a try to do so."""

    reason: str
    """For whoever looks at the job."""
    waiting_for: WaitingFor
    is_providers: bool
    """fal is what it waits for, so that the time counts."""
    seconds_max: int | None = None
    """The job ends if it has waited for fal for so long. None: it goes on waiting."""


class NotYetClaimable(Exception):
    def __init__(self, account_id: UUID) -> None:
        self.account_id = account_id


class LargeInput(NotYetClaimable):
    """The job carries pictures or sounds in its parameters."""


class FilesNotSent(NotYetClaimable):
    """fal has no URL yet of a kept file that the job names, or none that is good for long enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """Where a job stands, by the database's clock."""

    id: UUID
    account_id: UUID
    kind: GenerationKind | str
    model_id: str
    status: JobStatus
    status_reason: str | None
    attempt_token: UUID | None
    request: ProviderRequest | None
    cancel_requested: bool
    terms: Terms
    seconds_since_claim: float
    seconds_since_cancel_sent: float | None
    is_submit_unknown: bool
    seconds_to_deadline: float
    """Infinite before the claim, negative after the deadline."""
    seconds_since_overdue_noticed: float | None
    is_held: bool = False
    """The operator decides first whether it may be submitted; only of a QUEUED job."""
    waiting_for: str | None = None
    seconds_waiting_for_provider: float | None = None
    provider_position: int | None = None

    @property
    def is_overdue(self) -> bool:
        return self.seconds_to_deadline < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptState:
    """An attempt of a job, not always the one that the job follows."""

    job: JobState
    token: UUID
    request_id: str | None
    """Of what fal made of this attempt, once that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """What is written of an attempt together with the end of its job."""

    token: UUID
    billed_units: Decimal | None = None
    refused_input: bytes | None = None
    """The digest of an input that fal refused at the submission."""
    takes_over: ProviderRequest | None = None
    """The job does not follow this attempt: it delivered first, and the job takes its request over."""

    @property
    def outcome(self) -> AttemptOutcome | None:
        return None if self.refused_input is None else AttemptOutcome.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A request at fal that no job follows, although one of our attempts caused it."""

    attempt_token: UUID
    request_id: str
    seconds_since_orphaned: float
    is_cancel_sent: bool


class JobSteps(Protocol):
    """What the submission, the looks and the events have in common."""

    async def load(self, job_id: UUID) -> JobState | None:
        """Raises LeftToNewerRelease."""
        ...

    async def record_submission(
        self,
        job_id: UUID,
        attempt_token: UUID,
        request: ProviderRequest,
        *,
        look_after_seconds: float = 0,
        input_digest: bytes | None = None,
    ) -> bool:
        """SUBMITTING → SUBMITTED, and queue the first look at the job, due in `look_after_seconds`.

        Also QUEUED → SUBMITTED, by any attempt that was given back and is at fal all the same. With `input_digest`
        this is fal's answer to the POST, otherwise evidence. False: another attempt has this request, and nothing is
        written; or the job goes on, or ended, without this attempt. A request that fal named in its answer is then
        an orphan, and its cancel is queued, also where the attempt has another request already.
        """
        ...

    async def settle(self, job_id: UUID, outcome: Outcome, by: AttemptEnd | None = None) -> bool:
        """The one way into a final status, with the refund that belongs to it. Atomic.

        False: the job was final already, and does not change. Locks the job row, then the account row. If `by` takes
        over, what the job followed before is an orphan, and its cancel is queued.
        """
        ...


class JobEnds(JobSteps, Protocol):
    """What the looks and the events have in common."""

    async def record_late_result(self, job_id: UUID, result: Mapping[str, Any]) -> None:
        """Keep for the operator what fal made of a job that was given up. Never charged, never shown."""
        ...

    async def record_orphan(self, attempt_token: UUID, request_id: str, *, is_over: bool) -> bool:
        """Note a request that the job of the attempt does not follow, and queue its cancel unless the run is over.

        Nothing is written if the job follows it after all. False: the attempt has another request, or another attempt
        has this one. Locks the job row.
        """
        ...


class JobSubmission(JobSteps, Protocol):
    async def claim(self, job_id: UUID, attempt_token: UUID, *, may_be_large: bool = True) -> Claim | None:
        """QUEUED → SUBMITTING, with a new attempt. None: the job is not waiting to be submitted.

        Nor is a held job granted to anybody, nor one without a place where the places at fal are bounded. May be
        repeated with the same token if the answer was lost. Raises LargeInput if the claim would load more than a few
        kilobytes of input and may not, and FilesNotSent before its files were handed over: nothing is claimed then.
        """
        ...

    async def record_waiting(self, job_id: UUID, wait: Wait) -> bool:
        """Say in a QUEUED job why it is not submitted yet. True: it had waited for too long, and has ended FAILED.

        A job that may have been sent is never ended by this. Locks the job row, then the account row.
        """
        ...

    async def release(
        self, job_id: UUID, attempt_token: UUID, wait: Wait, *, input_digest: bytes | None = None
    ) -> bool:
        """SUBMITTING → QUEUED, for an attempt of which fal's answer proves that it was not queued.

        False: it was not the job's attempt any more; or the job is final by this, because its owner had asked to cancel
        it, or because it had waited for too long.
        """
        ...

    async def record_submit_unknown(
        self, job_id: UUID, attempt_token: UUID, reason: str, *, input_digest: bytes | None = None
    ) -> bool:
        """Note that the POST left and its outcome is not known, and queue a look. The tokens stay debited."""
        ...

    async def load_input(self, job_id: UUID) -> JobInput:
        """The input of a job, with its pictures: megabytes."""
        ...


class Crowds(Protocol):
    async def put_off_submissions(
        self, account_id: UUID, delay_seconds: float, spacing_seconds: float, wait: Wait
    ) -> int:
        """Let the account's submissions that would be taken next be due in `delay_seconds`, one after the other.

        Their jobs say why. Returns how many of them there were; there may be more.
        """
        ...


class PlacesAtFal(Protocol):
    """Of as many as the operator allows. A job is given one before its step begins, and holds it from the claim on."""

    async def give_back(self, job_id: UUID) -> None:
        """Let the next one have the place of a job that was not claimed in it."""
        ...


class JobFollowing(JobEnds, Protocol):
    async def record_progress(
        self, job_id: UUID, status: JobStatus, *, provider_position: int | None = None
    ) -> bool: ...

    async def record_cancel_sent(self, job_id: UUID) -> None: ...

    async def record_overdue(self, job_id: UUID) -> None:
        """Note the first look after the deadline, with which fal's period of grace begins."""
        ...


class JobEvents(JobEnds, Protocol):
    async def load_attempt(self, attempt_token: UUID) -> AttemptState | None:
        """The attempt with this token, the newest of its job or an earlier one. Raises LeftToNewerRelease."""
        ...

    async def look_now(self, job_id: UUID) -> None:
        """Bring the next look at the job forward to now, if one waits."""
        ...


class JobOrphans(JobEnds, Protocol):
    async def load_orphans(self, job_id: UUID) -> Sequence[Orphan]:
        """The orphans of the job with which something is left to do."""
        ...

    async def update_orphan(
        self, attempt_token: UUID, *, is_cancel_sent: bool = False, is_over: bool = False, units: Decimal | None = None
    ) -> None:
        """Note that fal was told to stop it, or that nothing is left to do with it; and what fal billed."""
        ...


class JobUpkeep(Protocol):
    async def count_waiting_looks(self) -> int:
        """Count the jobs that are looked at from time to time."""
        ...

    async def forget_idempotency_keys(self) -> int:
        """Drop the idempotency keys of final jobs that are older than a day, and return how many those were."""
        ...

    async def forget_waits(self) -> int:
        """Let jobs that could be submitted by now, and only wait for their turn, say so; some of them at a time.

        Returns how many those were. The time in which they waited for fal is forgotten, too.
        """
        ...


class JobInputs(Protocol):
    async def forget(self, job_id: UUID) -> bool:
        """Replace each data: URI that an ended job was given by its type, digest and size. False: there is none."""
        ...

    async def mark_older(self) -> int:
        """Find a few of the large inputs that an older release accepted, and return how many those were."""
        ...


class StepUpkeep(Protocol):
    async def requeue_lost(self, subject_id: UUID | None = None) -> Mapping[Step, Sequence[UUID]]:
        """Queue each step for all subjects (or this one) that wait for it while no item will take it to them.

        Returns the subjects whose steps were queued.
        """
        ...
