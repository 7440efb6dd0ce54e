import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn
from uuid import UUID, uuid4

import structlog

from app.application.execution.breaker import Breaker, Paused
from app.application.execution.evidence import with_seed
from app.application.execution.hand_over import HandOverFiles
from app.application.execution.large_inputs import LargeInputPlaces
from app.application.execution.limits import SUBMIT_LEASE_SECONDS
from app.application.execution.pacing import (
    POLL_SECONDS_MIN,
    WAITING_STEPS_PER_SECOND,
    Backstop,
    Spread,
    backoff_seconds,
)
from app.application.execution.places import Place, Places
from app.application.execution.settlement import persist
from app.application.execution.steps import SUBMISSIONS, RetryLater
from app.application.execution.waits import BUSY, BUSY_WITH_LARGE_INPUTS, ProviderWaits, log_queue_timeout
from app.application.fault_points import reach
from app.application.ports.execution import (
    AttemptEnd,
    Claim,
    Crowds,
    FilesNotSent,
    JobState,
    JobSubmission,
    LargeInput,
    PlacesAtFal,
    Wait,
)
from app.application.ports.provider import (
    NotSubmitted,
    Provider,
    ProviderRequest,
    SubmitOutcomeUnknown,
    SubmitRefused,
)
from app.domain.attempts import JobInput
from app.domain.errors import Unavailable
from app.domain.jobs import JobStatus, Outcome, WaitingFor

log = structlog.get_logger(__name__)

# Before a step comes back whose account has its share of submissions under way.
BUSY_SECONDS = 0.5


class SubmitJob:
    """Claim the job, make the one POST, record what came of it.

    The claim is committed before the POST, so a process that dies in between leaves SUBMITTING behind,
    which is never posted again: fal has no idempotency key, and a second POST would be a second paid job.
    """

    def __init__(
        self,
        jobs: JobSubmission,
        provider: Provider,
        breaker: Breaker,
        webhooks_url: str | None = None,
        backstop: Backstop | None = None,
        *,
        hand_over: HandOverFiles | None = None,
        crowds: Crowds | None = None,
        places_at_fal: PlacesAtFal | None = None,
        has_history: bool = False,
        wait_seconds_max: int | None = None,
    ) -> None:
        """`places_at_fal`, if they are bounded: a place was given to the job of each step.

        `wait_seconds_max`: for how long a job may wait because of fal; None for ever.
        `has_history`: lost submissions are searched for in fal's request history, so that inputs get a mark."""
        self.jobs = jobs
        self.provider = provider
        self.breaker = breaker
        self._hand_over = hand_over
        self._webhooks_url = webhooks_url
        self._backstop = backstop
        self._has_history = has_history
        self._waits = ProviderWaits(wait_seconds_max)
        self._places = Places(SUBMISSIONS.provider_calls_max)
        self._spread = Spread()
        self._large_inputs = LargeInputPlaces(self._spread)
        self._crowds = crowds
        self._places_at_fal = places_at_fal
        self._claimed: set[UUID] = set()
        self._crowd_being_put_off: UUID | None = None

    async def __call__(self, job_id: UUID) -> None:
        try:
            await self._take_turn(job_id)
        finally:
            if job_id in self._claimed:
                self._claimed.remove(job_id)
            elif self._places_at_fal is not None:
                # If that fails, the place comes free by itself after some seconds.
                with suppress(Unavailable):
                    await self._places_at_fal.give_back(job_id)

    async def _take_turn(self, job_id: UUID) -> None:
        """The account of a job is only asked for if it matters: if anything pauses, or few places are left."""
        place = await self._places.take_soon() if self.breaker.is_calm else None
        if place is not None:
            with place:
                # Something may have begun to pause while it waited for the place.
                if self.breaker.is_calm:
                    await self._submit(job_id, place)
                    return
        state = await self._look_after_lost_claim(job_id)
        # The release of a held job queues the step anew.
        if state is None or state.status is not JobStatus.QUEUED or state.is_held:
            return
        place = self._places.take(state.account_id)
        if place is None:
            if self._places.are_stuck(state.account_id):
                if state.waiting_for != BUSY.waiting_for:
                    await self.jobs.record_waiting(job_id, BUSY)
                await self._come_back(state.account_id, BUSY_SECONDS, BUSY)
            raise RetryLater(random.uniform(BUSY_SECONDS, 2 * BUSY_SECONDS))
        with place:
            try:
                with self.breaker.turn(state.account_id, state.model_id):
                    await self._submit(job_id, place)
            except Paused as paused:
                await self._wait(state, paused)

    async def _wait(self, state: JobState, paused: Paused) -> None:
        wait = self._waits.wait(paused.reason, paused.waiting_for, state.seconds_waiting_for_provider)
        is_told = (state.status_reason, state.waiting_for) == (wait.reason, wait.waiting_for)
        if (not is_told or wait.seconds_max is not None) and await self.jobs.record_waiting(state.id, wait):
            log_queue_timeout(state.id)
            return
        if paused.is_own:
            await self._come_back(state.account_id, paused.seconds, wait)
        # What pauses for all may go on at any moment, and nothing would bring those forward that were put off.
        raise RetryLater(self._spread.delay_seconds(state.account_id, paused.seconds))

    async def _come_back(self, account_id: UUID, seconds: float, wait: Wait) -> NoReturn:
        """The step comes back later, and with it, if many have been sent back already, those of its account behind it.

        Each of these would only learn the same, and whatever is younger would wait for all of them.
        """
        delay_seconds = self._spread.delay_seconds(account_id, seconds)
        is_crowd = self._crowds is not None and self._spread.is_crowded(account_id)
        if is_crowd and self._crowd_being_put_off is None:
            assert self._crowds is not None
            self._crowd_being_put_off = account_id
            try:
                spacing_seconds = 1 / WAITING_STEPS_PER_SECOND
                steps = await self._crowds.put_off_submissions(
                    account_id, delay_seconds + spacing_seconds, spacing_seconds, wait
                )
                self._spread.add_crowd(account_id, steps)
            finally:
                self._crowd_being_put_off = None
        raise RetryLater(delay_seconds)

    async def _submit(self, job_id: UUID, place: Place) -> None:
        try:
            await self._claim_and_post(job_id, place, may_be_large=False)
        except FilesNotSent as lacking:
            place.belongs_to(lacking.account_id)
            if self._hand_over is not None and await self._hand_over(job_id, lacking.account_id):
                # In its next turn, which comes at once, it is claimed.
                raise RetryLater(0) from None
        except LargeInput as large:
            try:
                large_place = self._large_inputs.take(large.account_id)
            except RetryLater:
                await self.jobs.record_waiting(job_id, BUSY_WITH_LARGE_INPUTS)
                raise
            with large_place:
                await self._claim_and_post(job_id, place, may_be_large=True)

    async def _claim_and_post(self, job_id: UUID, place: Place, *, may_be_large: bool) -> None:
        # Asked before the claim: between claim and POST nothing should take time or fail.
        look_after_seconds = 0.0 if self._backstop is None else await self._backstop.seconds_to_look(0)
        attempt_token = uuid4()
        claim = await persist(lambda: self.jobs.claim(job_id, attempt_token, may_be_large=may_be_large))
        if claim is not None:
            self._claimed.add(job_id)
            place.belongs_to(claim.account_id)
            look_after_seconds = min(look_after_seconds, claim.time_limit_seconds + POLL_SECONDS_MIN)
            await self._post(job_id, attempt_token, claim, look_after_seconds)
            return
        state = await self._look_after_lost_claim(job_id)
        if state is not None and state.status is JobStatus.QUEUED and not state.is_held:
            # It was given back just now: the claim waited for that transaction, and did not see what it wrote. Or it
            # lost its place at fal, because it took too long, and comes back with another one.
            raise RetryLater(0)

    async def _post(self, job_id: UUID, attempt_token: UUID, claim: Claim, look_after_seconds: float) -> None:
        # The claim has recorded the token, and the seed follows from it.
        parameters = self._sent(claim.input, attempt_token)
        try:
            reach("submit.before_post")
            request = await self.provider.submit(
                claim.model_id,
                parameters,
                webhook_url=self._webhook_url(attempt_token),
                tags={"job": str(job_id), "attempt": str(claim.attempt)},
            )
            reach("submit.after_post")
        except NotSubmitted as error:
            self.breaker.record_failure(claim.account_id, claim.model_id, error)
            await self._release(job_id, attempt_token, claim, error, self.provider.input_digest(parameters))
        except SubmitRefused as error:
            self.breaker.record_success(claim.account_id, claim.model_id)
            log.warning("generation_refused", job_id=str(job_id), code=error.code)
            outcome = Outcome.failed(error.code, error.reason)
            refused = AttemptEnd(token=attempt_token, refused_input=self.provider.input_digest(parameters))
            await persist(lambda: self.jobs.settle(job_id, outcome, refused))
        except SubmitOutcomeUnknown as error:
            self.breaker.record_failure(claim.account_id, claim.model_id, error)
            await self._record_unknown(job_id, attempt_token, str(error), self.provider.input_digest(parameters))
        else:
            self.breaker.record_success(claim.account_id, claim.model_id)
            input_digest = self.provider.input_digest(parameters)
            await self._record(job_id, attempt_token, request, look_after_seconds, input_digest)

    def _sent(self, given: JobInput, attempt_token: UUID) -> Mapping[str, Any]:
        """What an attempt sends follows from the job and the token, for whichever process asks."""
        return with_seed(given, attempt_token) if self._has_history else given.parameters

    def _webhook_url(self, attempt_token: UUID) -> str | None:
        """The URL for fal's event. Its token finds the job before fal's request id is known, and cannot be guessed."""
        return None if self._webhooks_url is None else f"{self._webhooks_url}/{attempt_token}"

    async def _release(
        self, job_id: UUID, attempt_token: UUID, claim: Claim, error: NotSubmitted, input_digest: bytes
    ) -> None:
        delay_seconds = max(backoff_seconds(claim.attempt), error.retry_after_seconds or 0)
        reason = str(error)
        waiting_for = WaitingFor.PROVIDER_LOCKED if error.is_operators_matter else WaitingFor.PROVIDER
        wait = self._waits.wait(reason, waiting_for, claim.seconds_waiting_for_provider)
        log.info(
            "generation_submit_postponed", job_id=str(job_id), reason=reason, delay_seconds=round(delay_seconds, 1)
        )
        is_released = await persist(lambda: self.jobs.release(job_id, attempt_token, wait, input_digest=input_digest))
        if not is_released and wait.seconds_max is not None:
            log_queue_timeout(job_id)
        raise RetryLater(delay_seconds)

    async def _record(
        self,
        job_id: UUID,
        attempt_token: UUID,
        request: ProviderRequest,
        look_after_seconds: float,
        input_digest: bytes,
    ) -> None:
        # The line is written before the database has the request: if all else is lost, the operator finds it here.
        log.info("generation_submitted", job_id=str(job_id), fal_request_id=request.id)
        if await persist(
            lambda: self.jobs.record_submission(
                job_id, attempt_token, request, look_after_seconds=look_after_seconds, input_digest=input_digest
            )
        ):
            return
        log.warning("generation_submission_unclaimed", job_id=str(job_id), fal_request_id=request.id)
        # If the attempt is still ours, fal has named the request of another one. Otherwise the job ended meanwhile, or
        # goes on with another request: what fal runs now is an orphan, and was recorded as such.
        reason = "fal named the request of another attempt"
        if not await self._record_unknown(job_id, attempt_token, reason, input_digest):
            log.warning("generation_orphaned", job_id=str(job_id), fal_request_id=request.id, how="answer")

    async def _record_unknown(self, job_id: UUID, attempt_token: UUID, reason: str, input_digest: bytes) -> bool:
        is_recorded = await persist(
            lambda: self.jobs.record_submit_unknown(job_id, attempt_token, reason, input_digest=input_digest)
        )
        if is_recorded:
            log.warning("generation_submit_unknown", job_id=str(job_id), reason=reason)
        return is_recorded

    async def _look_after_lost_claim(self, job_id: UUID) -> JobState | None:
        state = await self.jobs.load(job_id)
        if state is None or state.status is not JobStatus.SUBMITTING or state.is_submit_unknown:
            return state
        if state.seconds_since_claim < SUBMIT_LEASE_SECONDS:
            raise RetryLater(SUBMIT_LEASE_SECONDS - state.seconds_since_claim + 1)
        assert state.attempt_token is not None
        log.warning("generation_submit_lost", job_id=str(job_id))
        input_digest = await self._digest_of_lost(state, state.attempt_token)
        await self.jobs.record_submit_unknown(
            job_id, state.attempt_token, "the submitting process ended", input_digest=input_digest
        )
        return state

    async def _digest_of_lost(self, state: JobState, attempt_token: UUID) -> bytes:
        # The input may be large.
        with self._large_inputs.take(state.account_id):
            given = await self.jobs.load_input(state.id)
            return self.provider.input_digest(self._sent(given, attempt_token))
