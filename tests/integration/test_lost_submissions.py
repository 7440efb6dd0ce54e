"""Submissions whose answer was lost, on a real database, with the simulator as fal and as the keeper of its history."""

import asyncio
import base64
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from PIL import Image
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.application.execution import evidence
from app.application.execution import follow as following
from app.application.execution.breaker import Breaker
from app.application.execution.evidence import SearchHistory, seed_of, with_seed
from app.application.execution.follow import FollowJob
from app.application.execution.forget import ForgetInput
from app.application.execution.limits import SUBMIT_LEASE_SECONDS
from app.application.execution.provider_events import ReceiveProviderEvent
from app.application.execution.steps import FORGET_INPUT, RetryLater
from app.application.execution.submit import SubmitJob
from app.application.ports.evidence import LostSubmission, LostSubmissions, RequestHistory
from app.application.ports.execution import Claim
from app.application.ports.provider import Observation, ProviderEvent, Succeeded
from app.application.restores import CheckRestored
from app.domain.errors import DatabaseUnavailable, InvalidProviderEvent
from app.domain.jobs import Job, JobStatus, Outcome
from app.domain.kinds import GenerationKind
from app.domain.terms import ResultShape
from app.infrastructure.fal import wire
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.history import FalHistory
from app.infrastructure.postgres.evidence import PostgresLostSubmissions
from app.infrastructure.postgres.jobs.inputs import LARGE_INPUT_BYTES, PostgresJobInputs
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.restores import PostgresRestoredJobs
from tests.builders import (
    COST_TOKENS,
    MODEL_IDS,
    RESULT,
    Connection,
    Customer,
    balance_of,
    connect,
    jobs_of,
    new_job,
    open_account,
    provider_wait,
    queue_items,
)
from tests.contract.fal_calls import PATIENT
from tests.fal_stub import NGINX_PAGE, Behaviour, drop, hang, reply, running_stub
from tests.media_samples import saved
from tests.simulator_server import running_simulator

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
KEY, ADMIN_KEY = "key-id:secret", "admin:secret"
BALANCE_TOKENS = 100
IMAGE = GenerationKind.TEXT_TO_IMAGE
OWN_SEED = {"prompt": "a lighthouse at dawn", "seed": 7}
DROPPED = {"prompt": "a lighthouse [submit:drop]"}


@dataclass(frozen=True)
class Stage:
    engine: AsyncEngine
    sql: Connection
    customer: Customer
    fal: FalClient
    fal_http: httpx.Client
    search: SearchHistory

    async def accept(
        self, parameters: Mapping[str, Any] = DROPPED, customer: Customer | None = None, *, takes_seed: bool = True
    ) -> UUID:
        job = new_job(customer or self.customer)
        kind = GenerationKind.IMAGE_TO_IMAGE if "image_urls" in parameters else IMAGE
        job = replace(job, kind=kind, model_id=MODEL_IDS[kind], parameters=dict(parameters))
        accepted = await jobs_of(self.engine).accept(replace(job, terms=replace(job.terms, takes_seed=takes_seed)))
        return accepted.job.id

    async def submit(self, job_id: UUID) -> None:
        await SubmitJob(jobs_of(self.engine), self.fal, Breaker(), has_history=True)(job_id)

    async def follow(self, job_id: UUID, search: SearchHistory | None = None) -> None:
        await FollowJob(jobs_of(self.engine), self.fal, search=search or self.search)(job_id)

    async def look_again(self, job_id: UUID, search: SearchHistory | None = None) -> float:
        """A look that leads to another one; after how many seconds."""
        with pytest.raises(RetryLater) as decision:
            await self.follow(job_id, search)
        return decision.value.delay_seconds

    async def lost(
        self,
        parameters: Mapping[str, Any],
        *,
        posts: int = 1,
        customer: Customer | None = None,
        takes_seed: bool = True,
    ) -> UUID:
        """A job as a process leaves it that ends between its claim and the record, and `posts` runs of it at fal."""
        job_id, attempt_token = await self.accept(parameters, customer, takes_seed=takes_seed), uuid4()
        claim = await jobs_of(self.engine).claim(job_id, attempt_token)
        assert claim is not None
        for _ in range(posts):
            await self.fal.submit(claim.model_id, with_seed(claim.input, attempt_token))
        assert await jobs_of(self.engine).record_submit_unknown(job_id, attempt_token, "the submitting process ended")
        return job_id

    async def given_up(self, job_id: UUID) -> float:
        """Its time is over. When the search for a late result comes."""
        await self.set_back(job_id, "deadline_at", 1)
        return await self.look_again(job_id)

    async def forget(self, job_id: UUID) -> None:
        """The step that the end of the job has queued."""
        assert (FORGET_INPUT, job_id) in await queue_items(self.sql)
        await ForgetInput(PostgresJobInputs(self.engine))(job_id)
        assert await self.column(job_id, "pg_column_size(parameters)") < LARGE_INPUT_BYTES

    @contextmanager
    def time_held(self) -> Iterator[None]:
        """fal's runs do not end before this does."""
        self.fal_http.post("/_sim/clock", json={"is_held": True}).raise_for_status()
        yield
        self.fal_http.post("/_sim/clock", json={"is_held": False, "advance_seconds": 10}).raise_for_status()

    async def found(self, job_id: UUID) -> Job:
        (job,) = [job for job in await jobs_of(self.engine).newest(limit=100) if job.id == job_id]
        return job

    async def column(self, job_id: UUID, name: str) -> Any:
        return await self.sql.fetchval(f"SELECT {name} FROM jobs WHERE id = $1", job_id)

    async def set_back(self, job_id: UUID, moment: str, seconds: float) -> None:
        await self.sql.execute(
            f"UPDATE jobs SET {moment} = clock_timestamp() - make_interval(secs => $2) WHERE id = $1", job_id, seconds
        )

    async def balance(self) -> int:
        assert await PostgresLedger(self.engine).violations() == []
        return await balance_of(self.engine, self.customer)

    def runs(self) -> Sequence[dict[str, Any]]:
        """What fal accepted, oldest first."""
        requests: list[dict[str, Any]] = self.fal_http.get("/_sim/requests").json()["requests"]
        return requests[::-1]

    def searches(self) -> int:
        calls = self.fal_http.get("/_sim/calls").json()
        return int(calls.get("history", {"count": 0})["count"])


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    with running_simulator() as url:
        yield url


@pytest.fixture
def fal_http(simulator: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=simulator, trust_env=False, timeout=60) as client:
        client.post("/_sim/reset").raise_for_status()
        yield client


@pytest.fixture
async def stage(engine: AsyncEngine, database: str, simulator: str, fal_http: httpx.Client) -> AsyncIterator[Stage]:
    async with (
        connect(database) as sql,
        FalClient.open(queue_url=simulator, key=KEY, ssl_context=PLAIN) as fal,
        FalHistory.open(api_url=f"{simulator}/v1", key=ADMIN_KEY, ssl_context=PLAIN) as history,
    ):
        search = SearchHistory(PostgresLostSubmissions(engine), history, fal.input_digest, former_digest_of=wire.digest)
        yield Stage(engine, sql, await open_account(engine, BALANCE_TOKENS), fal, fal_http, search)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first search comes with the first look."""
    monkeypatch.setattr(evidence, "SEARCH_SECONDS", (0, 300))


async def test_a_lost_answer_is_found_in_the_history_and_charged_once(stage: Stage) -> None:
    job_id = await stage.accept()

    await stage.submit(job_id)
    between = await stage.column(job_id, "status")
    with capture_logs() as logs:
        await stage.follow(job_id)

    (run,) = stage.runs()
    job = await stage.found(job_id)
    assert between == "SUBMITTING"
    assert (job.status, job.fal_request_id) == (JobStatus.COMPLETED, run["request_id"])
    assert await stage.balance() == BALANCE_TOKENS - COST_TOKENS
    adopted = [entry for entry in logs if entry["event"] == "generation_adopted"]
    assert [(entry["how"], entry["fal_request_id"]) for entry in adopted] == [("history", run["request_id"])]


async def test_sends_a_seed_that_follows_from_the_recorded_token(stage: Stage) -> None:
    job_id = await stage.accept()

    await stage.submit(job_id)

    assert stage.runs()[0]["input"] == {**DROPPED, "seed": seed_of(await stage.column(job_id, "attempt_token"))}
    assert await stage.sql.fetchval("SELECT parameters ? 'seed' FROM jobs WHERE id = $1", job_id) is False


async def test_keeps_the_users_own_seed_and_finds_it(stage: Stage) -> None:
    job_id = await stage.accept({**DROPPED, "seed": 0})

    await stage.submit(job_id)
    await stage.follow(job_id)

    assert stage.runs()[0]["input"] == {**DROPPED, "seed": 0}
    assert (await stage.found(job_id)).status is JobStatus.COMPLETED


async def test_without_an_admin_key_nothing_is_added_and_nothing_is_searched(stage: Stage) -> None:
    job_id = await stage.accept()

    await SubmitJob(jobs_of(stage.engine), stage.fal, Breaker())(job_id)
    follow = FollowJob(jobs_of(stage.engine), stage.fal)
    with pytest.raises(RetryLater) as decision:
        await follow(job_id)
    await stage.set_back(job_id, "deadline_at", 1)
    await follow(job_id)

    assert decision.value.delay_seconds == following.UNKNOWN_LOOK_SECONDS
    assert stage.runs()[0]["input"] == DROPPED
    assert stage.searches() == 0
    assert (await stage.found(job_id)).error_code == "submit_unknown"


async def test_a_run_without_a_mark_is_found_by_exactly_what_was_sent(stage: Stage) -> None:
    """By a process that had no history to search; another one has."""
    job_id = await stage.accept()

    await SubmitJob(jobs_of(stage.engine), stage.fal, Breaker())(job_id)
    await stage.follow(job_id)

    assert stage.runs()[0]["input"] == DROPPED
    assert (await stage.found(job_id)).fal_request_id == stage.runs()[0]["request_id"]


async def test_a_run_without_a_mark_is_not_taken_where_another_job_sent_the_same(stage: Stage) -> None:
    first, second = await stage.accept(), await stage.accept()

    for job_id in (first, second):
        await SubmitJob(jobs_of(stage.engine), stage.fal, Breaker())(job_id)
    with capture_logs() as logs:
        await stage.look_again(first)

    assert (await stage.found(first)).fal_request_id is None
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["generation_evidence_ambiguous"]


async def test_an_input_that_is_not_what_was_sent_proves_nothing(stage: Stage) -> None:
    job_id = await stage.accept()
    await stage.submit(job_id)

    await stage.sql.execute("UPDATE jobs SET input_bytes = 1, parameters = '{}' WHERE id = $1", job_id)
    await stage.look_again(job_id)

    assert (await stage.found(job_id)).fal_request_id is None
    assert stage.searches() == 0


async def test_what_a_killed_process_left_behind_is_found(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, attempt_token = await stage.accept({"prompt": "a boat"}), uuid4()
    claim = await jobs_of(stage.engine).claim(job_id, attempt_token)
    assert claim is not None
    posted = await stage.fal.submit(claim.model_id, with_seed(claim.input, attempt_token))
    await stage.set_back(job_id, "claimed_at", SUBMIT_LEASE_SECONDS + 1)
    monkeypatch.setattr(evidence, "SEARCH_SECONDS", (SUBMIT_LEASE_SECONDS,))

    await stage.submit(job_id)
    await stage.follow(job_id)

    job = await stage.found(job_id)
    assert (job.status, job.fal_request_id) == (JobStatus.COMPLETED, posted.id)
    assert len(stage.runs()) == 1
    assert await stage.balance() == BALANCE_TOKENS - COST_TOKENS


async def test_what_fal_never_got_is_refunded_at_the_time_limit(stage: Stage) -> None:
    job_id = await stage.lost({"prompt": "a boat"}, posts=0)

    await stage.look_again(job_id)
    within = (await stage.column(job_id, "status"), await stage.balance())
    late_seconds = await stage.given_up(job_id)

    job = await stage.found(job_id)
    assert within == ("SUBMITTING", BALANCE_TOKENS - COST_TOKENS)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "submit_unknown")
    assert late_seconds == following.LATE_SEARCH_SECONDS
    # One of them right before giving up.
    assert stage.searches() == 2
    assert await stage.balance() == BALANCE_TOKENS
    assert stage.runs() == []


async def test_is_found_at_the_last_moment(stage: Stage) -> None:
    job_id = await stage.lost({"prompt": "a boat [slow:0.3]"})
    await stage.look_again(job_id)
    await asyncio.sleep(0.5)

    # Far from the moments of the other searches.
    await stage.set_back(job_id, "claimed_at", 30)
    await stage.set_back(job_id, "deadline_at", 1)
    await stage.follow(job_id)

    assert (await stage.found(job_id)).status is JobStatus.COMPLETED
    assert await stage.balance() == BALANCE_TOKENS - COST_TOKENS


async def test_a_run_that_failed_is_found_and_refunded(stage: Stage) -> None:
    job_id = await stage.lost({"prompt": "[fail]"})

    await stage.follow(job_id)

    job = await stage.found(job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "content_policy_violation")
    assert await stage.balance() == BALANCE_TOKENS


async def test_two_requests_that_fit_are_left_to_the_operator(stage: Stage) -> None:
    job_id = await stage.lost({"prompt": "a boat"}, posts=2)

    with capture_logs() as logs:
        await stage.look_again(job_id)
    await stage.given_up(job_id)

    (ambiguous,) = [entry for entry in logs if entry["event"] == "generation_evidence_ambiguous"]
    assert ambiguous["log_level"] == "error"
    assert ambiguous["fal_request_ids"] == sorted(run["request_id"] for run in stage.runs())
    job = await stage.found(job_id)
    assert (job.error_code, job.fal_request_id) == ("submit_unknown", None)
    assert await stage.balance() == BALANCE_TOKENS


async def test_the_request_of_another_job_is_not_taken(stage: Stage) -> None:
    """The same prompt twice with the same seed of the user's: one of the answers came, the other run never was."""
    first = await stage.accept(OWN_SEED)
    await stage.submit(first)
    second = await stage.lost(OWN_SEED, posts=0)

    await stage.look_again(second)
    await stage.follow(first)
    await stage.look_again(second)
    await stage.given_up(second)

    assert (await stage.found(first)).status is JobStatus.COMPLETED
    assert (await stage.found(second)).error_code == "submit_unknown"
    assert await stage.balance() == BALANCE_TOKENS - COST_TOKENS


async def test_a_run_that_another_lost_job_asked_for_more_exactly_is_not_taken(stage: Stage) -> None:
    """Both answers were lost, and fal got only the second: all that the first one sent is in it, too."""
    stranger = await open_account(stage.engine, BALANCE_TOKENS)
    own = await stage.lost(OWN_SEED, posts=0)
    theirs = await stage.lost({**OWN_SEED, "negative_prompt": "text"}, customer=stranger)

    await stage.look_again(own)
    await stage.follow(theirs)

    assert (await stage.found(own)).fal_request_id is None
    assert (await stage.found(theirs)).status is JobStatus.COMPLETED


async def test_each_of_two_jobs_with_the_same_input_gets_its_own_run(stage: Stage) -> None:
    first = await stage.accept(OWN_SEED)
    await stage.submit(first)
    second = await stage.lost(OWN_SEED)

    await stage.follow(second)
    await stage.follow(first)

    ids = [(await stage.found(job_id)).fal_request_id for job_id in (first, second)]
    assert ids == [run["request_id"] for run in stage.runs()]
    assert await stage.balance() == BALANCE_TOKENS - 2 * COST_TOKENS


@pytest.mark.parametrize("posts_of_the_other", [0, 1])
async def test_no_run_is_taken_that_may_be_that_of_somebody_else_with_the_same_input(
    stage: Stage, posts_of_the_other: int
) -> None:
    stranger = await open_account(stage.engine, BALANCE_TOKENS)
    own = await stage.lost(OWN_SEED)
    others = await stage.lost(OWN_SEED, posts=posts_of_the_other, customer=stranger)

    for job_id in (own, others):
        await stage.look_again(job_id)
        # Also when the other one has been given up already.
        await stage.given_up(job_id)
        assert (await stage.found(job_id)).fal_request_id is None

    assert await stage.balance() == BALANCE_TOKENS
    assert await balance_of(stage.engine, stranger) == BALANCE_TOKENS


async def test_a_model_without_a_seed_is_sent_what_was_asked_for_and_found_by_it(stage: Stage) -> None:
    job_id = await stage.accept(takes_seed=False)
    await stage.lost({"prompt": "a boat"}, takes_seed=False)

    await stage.submit(job_id)
    await stage.follow(job_id)

    *_, run = stage.runs()
    assert run["input"] == DROPPED
    assert (await stage.found(job_id)).fal_request_id == run["request_id"]
    assert await stage.balance() == BALANCE_TOKENS - 2 * COST_TOKENS


@pytest.mark.parametrize("posts_of_the_other", [0, 1])
async def test_no_run_of_a_model_without_a_seed_is_taken_that_may_be_somebody_elses(
    stage: Stage, posts_of_the_other: int
) -> None:
    stranger = await open_account(stage.engine, BALANCE_TOKENS)
    asked_for = {"prompt": "a boat"}
    own = await stage.lost(asked_for, takes_seed=False)
    others = await stage.lost(asked_for, posts=posts_of_the_other, customer=stranger, takes_seed=False)

    for job_id in (own, others):
        await stage.look_again(job_id)
        await stage.given_up(job_id)
        assert (await stage.found(job_id)).fal_request_id is None

    assert [run["input"] for run in stage.runs()] == [asked_for] * (1 + posts_of_the_other)
    assert await stage.balance() == BALANCE_TOKENS
    assert await balance_of(stage.engine, stranger) == BALANCE_TOKENS


async def test_no_run_is_taken_that_an_earlier_attempt_of_somebody_else_may_have_made(stage: Stage) -> None:
    """fal seemed to refuse it, and the other job went on with another attempt, which fal accepted."""
    stranger = await open_account(stage.engine, BALANCE_TOKENS)
    asked_for = {"prompt": "a boat"}
    own = await stage.lost(asked_for, posts=0, takes_seed=False)
    other, refused, accepted = await stage.accept(asked_for, stranger, takes_seed=False), uuid4(), uuid4()
    jobs = jobs_of(stage.engine)
    claim = await jobs.claim(other, refused)
    assert isinstance(claim, Claim)
    await stage.fal.submit(claim.model_id, with_seed(claim.input, refused))
    assert await jobs.release(other, refused, provider_wait("fal was busy"))
    assert await jobs.claim(other, accepted) is not None
    request = await stage.fal.submit(claim.model_id, with_seed(claim.input, accepted))
    assert await jobs.record_submission(other, accepted, request)

    with capture_logs() as logs:
        await stage.look_again(own)

    assert (await stage.found(own)).fal_request_id is None
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["generation_evidence_ambiguous"]


async def test_jobs_with_the_same_prompt_and_no_seed_do_not_stand_in_each_others_way(stage: Stage) -> None:
    job_ids = [await stage.lost({"prompt": "a boat"}) for _ in range(3)]

    for job_id in job_ids:
        await stage.follow(job_id)

    ids = [(await stage.found(job_id)).fal_request_id for job_id in job_ids]
    assert ids == [run["request_id"] for run in stage.runs()]


async def test_jobs_with_the_same_seed_and_another_prompt_do_not_stand_in_each_others_way(stage: Stage) -> None:
    job_ids = [await stage.lost({**OWN_SEED, "prompt": prompt}) for prompt in ("a boat", "a ship")]

    for job_id in job_ids:
        await stage.follow(job_id)

    ids = [(await stage.found(job_id)).fal_request_id for job_id in job_ids]
    assert ids == [run["request_id"] for run in stage.runs()]


async def test_a_run_of_another_time_is_not_taken(stage: Stage) -> None:
    await stage.fal.submit("fal-ai/wan-25-preview/text-to-image", OWN_SEED)
    job_id = await stage.lost(OWN_SEED, posts=0)
    await stage.set_back(job_id, "claimed_at", 301)

    await stage.look_again(job_id)

    assert stage.searches() == 1
    assert (await stage.found(job_id)).fal_request_id is None


@dataclass(frozen=True)
class Interrupted:
    """The port on PostgreSQL; something happens right after an operation."""

    submissions: LostSubmissions
    after_load: Callable[[], Awaitable[object]] | None = None
    after_known: Callable[[], Awaitable[object]] | None = None

    async def load(self, job_id: UUID) -> LostSubmission | None:
        loaded = await self.submissions.load(job_id)
        if self.after_load is not None:
            await self.after_load()
        return loaded

    async def known(self, request_ids: Sequence[str]) -> set[str]:
        known = await self.submissions.known(request_ids)
        if self.after_known is not None:
            await self.after_known()
        return known

    async def has_rival(self, job_id: UUID, within: Any) -> bool:
        return await self.submissions.has_rival(job_id, within)


async def test_a_request_that_another_job_takes_meanwhile_is_no_error(stage: Stage) -> None:
    job_id = await stage.lost(OWN_SEED)
    (run,) = stage.runs()
    other, attempt_token = await stage.accept(OWN_SEED), uuid4()

    async def take() -> None:
        jobs = jobs_of(stage.engine)
        assert await jobs.claim(other, attempt_token) is not None
        request = stage.fal.request_of("fal-ai/wan-25-preview/text-to-image", run["request_id"])
        assert await jobs.record_submission(other, attempt_token, request)

    search = SearchHistory(
        Interrupted(stage.search.submissions, after_known=take), stage.search.history, stage.fal.input_digest
    )
    await stage.look_again(job_id, search)

    assert (await stage.found(job_id)).fal_request_id is None
    assert (await stage.found(other)).fal_request_id == run["request_id"]
    await stage.given_up(job_id)
    assert await stage.balance() == BALANCE_TOKENS - COST_TOKENS


async def test_an_event_that_comes_during_the_last_search_counts(stage: Stage) -> None:
    job_id = await stage.lost({"prompt": "a boat [slow:60]"})
    (run,) = stage.runs()
    attempt_token = await stage.column(job_id, "attempt_token")
    request = stage.fal.request_of("fal-ai/wan-25-preview/text-to-image", run["request_id"])

    async def hear() -> None:
        assert await jobs_of(stage.engine).record_submission(job_id, attempt_token, request)

    await stage.set_back(job_id, "deadline_at", 1)
    search = SearchHistory(
        Interrupted(stage.search.submissions, after_load=hear), stage.search.history, stage.fal.input_digest
    )
    await stage.follow(job_id, search)

    # fal was told to stop, and has confirmed it: nobody but the time limit wanted that.
    job = await stage.found(job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "timed_out")
    assert stage.runs()[0]["cancel_requested_at"] is not None


BAD_ANSWERS = [
    pytest.param(reply(403, {"error": {"type": "authorization_error"}}), id="403"),
    pytest.param(reply(503, NGINX_PAGE), id="503"),
    pytest.param(reply(200, b'{"items": ['), id="cut-short"),
    pytest.param(reply(200, {"items": [None, 7, {"request_id": []}, {"request_id": "r"}]}), id="garbage"),
    pytest.param(drop, id="dropped"),
    pytest.param(hang, id="hanging"),
]


@asynccontextmanager
async def history_that_answers(*behaviours: Behaviour) -> AsyncIterator[RequestHistory]:
    # A busy machine makes any answer late, so that only one which never comes has little time.
    limits = replace(PATIENT, read_seconds=0.2, exchange_seconds=0.3) if hang in behaviours else PATIENT
    async with running_stub() as stub:
        stub.then(*behaviours)
        async with FalHistory.open(api_url=stub.url, key=ADMIN_KEY, limits=limits, ssl_context=PLAIN) as history:
            yield history


@pytest.mark.parametrize("answer", BAD_ANSWERS)
async def test_a_bad_history_breaks_nothing_and_the_time_limit_decides(stage: Stage, answer: Behaviour) -> None:
    job_id = await stage.lost({"prompt": "a boat"})

    async with history_that_answers(*[answer] * 6) as history:
        search = replace(stage.search, history=history)
        await stage.look_again(job_id, search)
        within = await stage.column(job_id, "status")
        await stage.set_back(job_id, "deadline_at", 1)
        await stage.look_again(job_id, search)
        await stage.follow(job_id, search)

    assert within == "SUBMITTING"
    assert (await stage.found(job_id)).error_code == "submit_unknown"
    assert await stage.balance() == BALANCE_TOKENS


async def test_a_search_that_the_database_cannot_make_does_not_keep_a_job_from_its_end(stage: Stage) -> None:
    job_id = await stage.lost(OWN_SEED)

    async def fail() -> None:
        raise DatabaseUnavailable

    search = SearchHistory(
        Interrupted(stage.search.submissions, after_known=fail), stage.search.history, stage.fal.input_digest
    )
    await stage.look_again(job_id, search)
    await stage.set_back(job_id, "deadline_at", 1)
    await stage.look_again(job_id, search)

    assert (await stage.found(job_id)).error_code == "submit_unknown"
    assert await stage.balance() == BALANCE_TOKENS


async def test_a_history_that_names_what_the_queue_does_not_know_ends_nothing_before_its_time(stage: Stage) -> None:
    job_id = await stage.lost({"prompt": "a boat"})
    (run,) = stage.runs()
    stage.fal_http.post("/_sim/reset").raise_for_status()
    past = {"request_id": run["request_id"], "endpoint_id": run["endpoint_id"], "sent_at": run["submitted_at"]}

    async with history_that_answers(reply(200, {"items": [past | {"json_input": run["input"]}]})) as history:
        await stage.look_again(job_id, replace(stage.search, history=history))

    job = await stage.found(job_id)
    assert (job.status, job.fal_request_id) == (JobStatus.SUBMITTED, run["request_id"])
    assert await stage.balance() == BALANCE_TOKENS - COST_TOKENS


async def test_what_fal_made_of_a_job_that_was_given_up_is_kept_and_not_charged(stage: Stage) -> None:
    job_id = await stage.lost({"prompt": "a boat [slow:0.3]"})
    await stage.given_up(job_id)
    await asyncio.sleep(0.5)

    with capture_logs() as logs:
        await stage.follow(job_id)

    (run,) = stage.runs()
    (late,) = [entry for entry in logs if entry["event"] == "generation_result_late"]
    assert late["fal_request_id"] == run["request_id"]
    assert '"images"' in await stage.column(job_id, "late_result")
    job = await stage.found(job_id)
    assert (job.status, job.result) == (JobStatus.FAILED, None)
    assert await stage.balance() == BALANCE_TOKENS


async def test_a_given_up_job_without_a_run_is_searched_for_once_more_only(stage: Stage) -> None:
    job_id = await stage.lost({"prompt": "a boat"}, posts=0)
    await stage.given_up(job_id)
    before = stage.searches()

    await stage.follow(job_id)

    assert stage.searches() == before + 1
    assert await stage.column(job_id, "late_result") is None


@pytest.mark.parametrize(
    ("age_seconds", "searches", "delay_seconds"),
    [(60, 0, 10), (294, 0, 6), (301, 1, 10), (306, 1, 10), (311, 0, 10)],
)
async def test_searches_at_its_moments_only(
    stage: Stage, age_seconds: float, searches: int, delay_seconds: float
) -> None:
    job_id = await stage.lost({"prompt": "a boat"}, posts=0)
    await stage.set_back(job_id, "claimed_at", age_seconds)

    delay = await stage.look_again(job_id)

    assert stage.searches() == searches
    assert delay_seconds - 3 < delay <= delay_seconds


async def test_does_not_search_while_the_post_may_still_be_under_way(stage: Stage) -> None:
    job_id = await stage.accept()
    assert await jobs_of(stage.engine).claim(job_id, uuid4()) is not None

    await stage.look_again(job_id)

    assert stage.searches() == 0


@dataclass(frozen=True)
class Events:
    def check_headers(self, headers: Mapping[str, str]) -> None: ...

    """Takes every event for fal's."""

    request_id: str
    result: Mapping[str, Any] = field(default_factory=lambda: RESULT)

    async def verify(self, headers: Mapping[str, str], body: bytes) -> ProviderEvent:
        return ProviderEvent(self.request_id, self.result)

    def observation(self, event: ProviderEvent, shape: ResultShape) -> Observation | None:
        return Succeeded(self.result)


@pytest.mark.parametrize("blanked", [True, False])
async def test_an_event_after_the_refund_is_a_late_result_only_where_something_was_made(
    stage: Stage, blanked: bool
) -> None:
    job_id = await stage.accept({"prompt": "a boat"})
    await stage.submit(job_id)
    request_id = (await stage.found(job_id)).fal_request_id
    assert request_id is not None
    assert await jobs_of(stage.engine).settle(job_id, Outcome.failed("no_output", "Nothing was made."))
    events = Events(request_id, {**RESULT, "has_nsfw_concepts": [blanked]})

    with capture_logs() as logs:
        await ReceiveProviderEvent(jobs_of(stage.engine), stage.fal, events)(
            await stage.column(job_id, "attempt_token"), {}, b""
        )

    late = [entry for entry in logs if entry["event"] == "generation_result_late"]
    assert len(late) == (0 if blanked else 1)
    assert (await stage.column(job_id, "late_result") is None) is blanked


def picture_uri(seed: int = 1) -> str:
    """A PNG of 3.6 MB."""
    noise = Image.frombytes("RGB", (1100, 1100), random.Random(seed).randbytes(3 * 1100 * 1100))
    content = saved(noise, "PNG", compress_level=0)
    assert 3_600_000 < len(content) < 3_700_000
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


PICTURE_URI = picture_uri()
WITH_PICTURE = {"prompt": "a fox", "image_urls": [PICTURE_URI]}


@pytest.mark.parametrize("takes_seed", [True, False])
async def test_a_large_input_is_forgotten_at_once_and_its_run_found_all_the_same(
    stage: Stage, takes_seed: bool
) -> None:
    job_id = await stage.accept({**WITH_PICTURE, "prompt": "a fox [submit:drop] [slow:1]"}, takes_seed=takes_seed)
    with stage.time_held():
        await stage.submit(job_id)
        assert await stage.column(job_id, "submit_unknown_at") is not None
        assert await stage.given_up(job_id) == following.LATE_SEARCH_SECONDS

    await stage.forget(job_id)
    await stage.follow(job_id)

    (run,) = stage.runs()
    job = await stage.found(job_id)
    assert (job.status, job.error_code, job.result) == (JobStatus.FAILED, "submit_unknown", None)
    assert '"images"' in await stage.column(job_id, "late_result")
    orphan = await stage.sql.fetchval("SELECT fal_request_id FROM attempts WHERE orphaned_at IS NOT NULL")
    assert orphan == run["request_id"]
    assert await stage.balance() == BALANCE_TOKENS


@pytest.mark.parametrize("release", ["this one", "the one before"])
async def test_a_large_input_that_is_still_there_is_found_and_charged(stage: Stage, release: str) -> None:
    job_id = await stage.accept({**WITH_PICTURE, **DROPPED})
    await stage.submit(job_id)
    if release == "the one before":
        given = await jobs_of(stage.engine).load_input(job_id)
        sent = with_seed(given, await stage.column(job_id, "attempt_token"))
        await stage.sql.execute("UPDATE attempts SET input_digest = $1", wire.digest(sent))

    await stage.follow(job_id)
    await stage.forget(job_id)

    (run,) = stage.runs()
    job = await stage.found(job_id)
    assert (job.status, job.fal_request_id) == (JobStatus.COMPLETED, run["request_id"])
    assert await stage.balance() == BALANCE_TOKENS - COST_TOKENS


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_job_whose_input_was_forgotten_is_a_rival_only_with_the_same_picture(
    stage: Stage, is_same: bool
) -> None:
    theirs = WITH_PICTURE if is_same else {**WITH_PICTURE, "image_urls": [picture_uri(2)]}
    stranger = await open_account(stage.engine, BALANCE_TOKENS)
    own = await stage.lost(WITH_PICTURE, takes_seed=False)
    other = await stage.lost({**theirs, "negative_prompt": ""}, posts=0, customer=stranger, takes_seed=False)
    await stage.given_up(other)
    await stage.forget(other)

    if is_same:
        await stage.look_again(own)
    else:
        await stage.follow(own)

    assert (await stage.found(own)).status is (JobStatus.SUBMITTING if is_same else JobStatus.COMPLETED)


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_forgotten_input_has_the_rivals_that_it_had(stage: Stage, is_same: bool) -> None:
    theirs = WITH_PICTURE if is_same else {**WITH_PICTURE, "image_urls": [picture_uri(2)]}
    with stage.time_held():
        own = await stage.lost({**WITH_PICTURE, "prompt": "a fox [slow:1]"}, takes_seed=False)
        await stage.lost({**theirs, "prompt": "a fox [slow:1]"}, posts=0, takes_seed=False)
        await stage.given_up(own)
    await stage.forget(own)

    await stage.follow(own)

    assert (await stage.column(own, "late_result") is None) is is_same


async def test_a_restored_job_is_found_by_its_picture_and_a_forgotten_one_is_none_of_them(stage: Stage) -> None:
    ended = await stage.lost(WITH_PICTURE, posts=0)
    await stage.given_up(ended)
    await stage.forget(ended)
    waits, other = [await stage.accept({**WITH_PICTURE, "seed": seed}) for seed in (1, 2)]
    model_id = (await stage.found(waits)).model_id
    # fal had got it before the backup was restored.
    request = await stage.fal.submit(model_id, {**WITH_PICTURE, "seed": 1, "num_images": 1})
    restored = PostgresRestoredJobs(stage.engine, jobs_of(stage.engine))
    assert await restored.hold() == 2

    check = CheckRestored(restored, stage.search.submissions, stage.search.history, stage.fal.request_of)
    findings = {finding.job.id: finding async for finding in check({waits: request.id})}
    await stage.follow(waits)

    assert {job_id: finding.request_id for job_id, finding in findings.items()} == {waits: request.id, other: None}
    assert "no such request" in findings[other].sentence
    assert (await stage.found(waits)).status is JobStatus.COMPLETED
    assert await stage.column(ended, "late_result") is None


async def test_an_event_that_names_the_request_of_another_job_is_refused(stage: Stage) -> None:
    first = await stage.accept({"prompt": "a boat"})
    await stage.submit(first)
    taken = (await stage.found(first)).fal_request_id
    assert taken is not None
    second = await stage.lost({"prompt": "a boat"}, posts=0)
    receive = ReceiveProviderEvent(jobs_of(stage.engine), stage.fal, Events(taken))

    with pytest.raises(InvalidProviderEvent):
        await receive(await stage.column(second, "attempt_token"), {}, b"")

    assert await stage.column(second, "status") == "SUBMITTING"
    assert await stage.balance() == BALANCE_TOKENS - 2 * COST_TOKENS


async def test_shows_the_operator_unknown_and_late_jobs(stage: Stage) -> None:
    jobs = jobs_of(stage.engine)
    adopted, waiting, given_up, late = [
        await stage.lost({"prompt": "a boat [slow:0]"}, posts=posts) for posts in (1, 0, 0, 0)
    ]
    await stage.follow(adopted)
    for job_id in (given_up, late):
        await stage.given_up(job_id)
    await jobs.record_late_result(late, RESULT)

    async def listed(**filters: bool) -> set[UUID]:
        return {job.id for job in await jobs.newest(limit=10, **filters)}

    assert await listed() == {adopted, waiting, given_up, late}
    assert await listed(unknown_only=True) == {waiting, given_up, late}
    assert await listed(unknown_only=True, unfinished_only=True) == {waiting}
    assert await listed(late_only=True) == {late}
