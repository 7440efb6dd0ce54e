"""A COMMIT that fails is never acknowledged; one whose answer is lost is found out, and nothing is done twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.application.execution import settlement
from app.application.execution.steps import FOLLOW_JOB, RetryLater
from app.domain.errors import DatabaseUnavailable
from app.domain.jobs import JobStatus
from app.infrastructure.postgres import database as database_module
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from tests.builders import (
    COST_TOKENS,
    OUTCOMES,
    TABLES,
    Connection,
    Customer,
    accept_job,
    balance_of,
    claimed_job,
    contents,
    job_in,
    jobs_of,
    open_account,
    payment,
    provider_request,
    queue_items,
    until,
)
from tests.fault.commit_cutter import CommitCutter, commit_cutter
from tests.fault.steps import Steps, open_steps
from tests.simulator_server import running_simulator

TEXT_TO_IMAGE = "/generations/images/text-to-image"
PICTURE = "https://example.com/picture.png"
BALANCE_TOKENS = 100
# Claim, record, look, settle, and what comes between.
COMMITS_OF_A_JOB = 4
SECRET = {"X-Webhook-Secret": "development-webhook-secret"}

REFUSE_COMMITS = """
CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not today''; END';
""" + "".join(
    f"CREATE CONSTRAINT TRIGGER refuse_commit AFTER INSERT OR UPDATE ON {table}"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_commit();"
    for table in TABLES
)
ALLOW_COMMITS = "DROP FUNCTION refuse_commit() CASCADE"

cut = pytest.mark.parametrize("is_done_first", [True, False], ids=["done", "not done"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logs kept in memory: where nothing configures them, a trace takes seconds."""
    monkeypatch.setattr(settlement, "PERSIST_PAUSE_SECONDS", 0.01)
    with capture_logs():
        yield


@pytest.fixture
def simulator() -> Iterator[str]:
    with running_simulator(run_seconds_image=0) as url:
        yield url


@pytest.fixture
async def cutter(database: str) -> AsyncIterator[CommitCutter]:
    async with commit_cutter(database) as cutter:
        yield cutter


@pytest.fixture
async def steps(cutter: CommitCutter, simulator: str) -> AsyncIterator[Steps]:
    async with open_steps(cutter.dsn, simulator) as steps:
        yield steps


@dataclass(frozen=True)
class Scene:
    steps: Steps
    engine: AsyncEngine
    customer: Customer

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.steps.http.post(path, json=body, headers={"X-API-Key": self.customer.api_key} | named)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.steps.http.request(
            method, path, json=body, headers={"X-API-Key": self.customer.api_key} | named
        )

    async def further_key(self) -> dict[str, Any]:
        made = await self.post("/keys", {"name": "further", "scopes": ["generate", "read"]})
        return dict(made.raise_for_status().json())


Ask = Callable[[], Awaitable[httpx.Response]]


async def first_key(scene: Scene) -> Ask:
    body = {"external_user_id": str(uuid4())}
    return lambda: scene.post("/auth", body)


async def next_key(scene: Scene) -> Ask:
    body = {"external_user_id": str(scene.customer.external_user_id), "rotate": True}
    return lambda: scene.post("/auth", body)


async def further_key(scene: Scene) -> Ask:
    body = {"name": "further", "scopes": ["read"]}
    return lambda: scene.post("/keys", body, Idempotency_Key="a name")


async def change_of_a_key(scene: Scene) -> Ask:
    key = await scene.further_key()
    return lambda: scene.call("PATCH", f"/keys/{key['id']}", {"budget": {"tokens": 7, "per": "ever"}})


async def rotation(scene: Scene) -> Ask:
    key = await scene.further_key()
    return lambda: scene.post(f"/keys/{key['id']}/rotate", {"overlap_seconds": 60})


async def end_of_a_key(scene: Scene) -> Ask:
    key = await scene.further_key()
    return lambda: scene.call("DELETE", f"/keys/{key['id']}")


async def end_of_its_own_key(scene: Scene) -> Ask:
    key = await scene.further_key()
    return lambda: scene.call("DELETE", "/keys/current", X_API_Key=key["api_key"])


async def top_up(scene: Scene) -> Ask:
    body = {"external_user_id": str(uuid4()), "amount": 7}
    return lambda: scene.post("/webhook/topup", body, X_Event_Id=str(uuid4()), **SECRET)


async def reversal(scene: Scene) -> Ask:
    assert await PostgresPayments(scene.engine).credit(payment(scene.customer.external_user_id, 7, event_id="pay_1"))
    return await early_reversal(scene)


async def early_reversal(scene: Scene) -> Ask:
    body = {"payment_event_id": "pay_1", "amount": 5}
    return lambda: scene.post("/webhook/reversal", body, X_Event_Id="refund_1", **SECRET)


def start(path: str, **body: object) -> Callable[[Scene], Awaitable[Ask]]:
    async def prepare(scene: Scene) -> Ask:
        return lambda: scene.post(
            f"/generations/{path}", {"prompt": "a lighthouse", **body}, Idempotency_Key=str(uuid4())
        )

    return prepare


async def cancel_of_the_waiting(scene: Scene) -> Ask:
    job_id = await accept_job(scene.engine, scene.customer)
    return lambda: scene.post(f"/generations/{job_id}/cancel")


async def cancel_of_the_submitted(scene: Scene) -> Ask:
    job_id = await job_in(scene.engine, scene.customer, JobStatus.SUBMITTING)
    return lambda: scene.post(f"/generations/{job_id}/cancel")


async def event(scene: Scene) -> Ask:
    await scene.steps.submit(await scene.steps.start(scene.customer, "a lighthouse"))
    (told,) = (await scene.steps.events(1)).values()
    return lambda: scene.steps.http.post(told.path, content=told.body, headers=dict(told.headers))


WRITES: dict[str, Callable[[Scene], Awaitable[Ask]]] = {
    "first key": first_key,
    "next key": next_key,
    "further key": further_key,
    "change of a key": change_of_a_key,
    "rotation": rotation,
    "end of a key": end_of_a_key,
    "end of its own key": end_of_its_own_key,
    "top-up": top_up,
    "reversal": reversal,
    "reversal before its payment": early_reversal,
    "text to image": start("images/text-to-image"),
    "image to image": start("images/image-to-image", image_urls=[PICTURE]),
    "text to video": start("videos/text-to-video"),
    "image to video": start("videos/image-to-video", image_url=PICTURE),
    "cancel of a waiting job": cancel_of_the_waiting,
    "cancel of a submitted job": cancel_of_the_submitted,
    "event": event,
}


@pytest.mark.parametrize("prepare", WRITES.values(), ids=WRITES.keys())
async def test_what_fails_at_its_commit_is_not_acknowledged(
    steps: Steps, engine: AsyncEngine, sql: Connection, prepare: Callable[[Scene], Awaitable[Ask]]
) -> None:
    ask = await prepare(Scene(steps, engine, await open_account(engine, BALANCE_TOKENS)))
    await sql.execute(REFUSE_COMMITS)
    before = await contents(sql)

    refused = await ask()
    after = await contents(sql)
    await sql.execute(ALLOW_COMMITS)
    allowed = await ask()

    assert refused.status_code >= 500, refused.text
    assert after == before
    assert allowed.status_code < 300, allowed.text
    assert await contents(sql) != before


@cut
@pytest.mark.parametrize("commit", range(1, COMMITS_OF_A_JOB + 1))
@pytest.mark.parametrize(("words", "end"), [("", "COMPLETED"), ("[fail]", "FAILED")])
async def test_a_job_comes_to_its_end_whichever_commit_is_cut(
    steps: Steps,
    cutter: CommitCutter,
    engine: AsyncEngine,
    sql: Connection,
    *,
    commit: int,
    words: str,
    end: str,
    is_done_first: bool,
) -> None:
    scene = Scene(steps, engine, await open_account(engine, BALANCE_TOKENS))
    cutter.cut(commit, is_done_first=is_done_first)
    body, key = {"prompt": f"{uuid4()} {words} [slow:0.3] [webhook:never]"}, str(uuid4())

    answers = [await scene.post(TEXT_TO_IMAGE, body, Idempotency_Key=key) for _ in range(3)]
    accepted = [answer.json()["job_id"] for answer in answers if answer.status_code == 202]
    job_id = await sql.fetchval("SELECT id FROM jobs")
    for step in (steps.submit, steps.follow):
        await repeated(lambda step=step: step(job_id))  # type: ignore[misc]

    assert cutter.commits >= COMMITS_OF_A_JOB
    assert set(accepted) == {str(job_id)}
    assert await sql.fetchval("SELECT status FROM jobs") == end
    assert await balance_of(engine, scene.customer) == BALANCE_TOKENS - (COST_TOKENS if end == "COMPLETED" else 0)
    assert await PostgresLedger(engine).violations() == []
    assert await accepted_posts(steps, body["prompt"]) == 1


async def repeated(step: Callable[[], Awaitable[None]]) -> None:
    """As the runner does."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await step()
            except (RetryLater, DatabaseUnavailable):
                await asyncio.sleep(0.05)


async def accepted_posts(steps: Steps, prompt: str) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as fal:
        requests = (await fal.get(f"{steps.fal_url}/_sim/requests")).json()["requests"]
    return sum(request["input"]["prompt"] == prompt for request in requests)


@cut
@pytest.mark.parametrize("has_key", [True, False])
async def test_a_job_whose_commit_was_cut_is_answered_once(
    steps: Steps, cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, has_key: bool, is_done_first: bool
) -> None:
    scene = Scene(steps, engine, await open_account(engine, BALANCE_TOKENS))
    headers = {"Idempotency_Key": str(uuid4())} if has_key else {}
    cutter.cut(1, is_done_first=is_done_first)

    answer = await scene.post(TEXT_TO_IMAGE, {"prompt": "a lighthouse"}, **headers)

    assert cutter.commits >= 1
    assert answer.status_code == 202, answer.text
    assert [str(row["id"]) for row in await sql.fetch("SELECT id FROM jobs")] == [answer.json()["job_id"]]
    assert await balance_of(engine, scene.customer) == BALANCE_TOKENS - COST_TOKENS
    assert await PostgresLedger(engine).violations() == []


@cut
async def test_a_payment_whose_commit_was_cut_is_credited_once(
    steps: Steps, cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, is_done_first: bool
) -> None:
    scene = Scene(steps, engine, await open_account(engine))
    body = {"external_user_id": str(scene.customer.external_user_id), "amount": 7}
    cutter.cut(1, is_done_first=is_done_first)

    answer = await scene.post("/webhook/topup", body, X_Event_Id=str(uuid4()), **SECRET)

    assert cutter.commits >= 1
    assert answer.status_code == 200, answer.text
    assert await balance_of(engine, scene.customer) == 7


@cut
@pytest.mark.parametrize("is_early", [True, False], ids=["early", "late"])
async def test_a_reversal_whose_commit_was_cut_is_booked_once(
    steps: Steps, cutter: CommitCutter, engine: AsyncEngine, *, is_early: bool, is_done_first: bool
) -> None:
    scene = Scene(steps, engine, await open_account(engine))
    paid = payment(scene.customer.external_user_id, 7, event_id="pay_1")
    if not is_early:
        assert await PostgresPayments(engine).credit(paid)
    cutter.cut(1, is_done_first=is_done_first)

    answer = await scene.post(
        "/webhook/reversal", {"payment_event_id": "pay_1", "amount": 5}, X_Event_Id="refund_1", **SECRET
    )
    if is_early:
        assert await PostgresPayments(engine).credit(paid)

    assert cutter.commits >= 1
    assert answer.status_code == (202 if is_early else 200), answer.text
    assert await balance_of(engine, scene.customer) == 2
    assert await PostgresLedger(engine).violations() == []


@cut
@pytest.mark.parametrize("other", ["X_Event_Id", "Idempotency_Key"])
async def test_a_payment_whose_commit_was_cut_is_credited_once_under_both_names(
    steps: Steps, cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, other: str, is_done_first: bool
) -> None:
    scene = Scene(steps, engine, await open_account(engine))
    body = {"external_user_id": str(scene.customer.external_user_id), "amount": 7}
    cutter.cut(1, is_done_first=is_done_first)

    answers = [
        await scene.post("/webhook/topup", body, **{name: "pay_1"}, **SECRET)
        for name in ("X_Event_Id", "Idempotency_Key", other)
    ]

    assert cutter.commits >= 1
    assert [answer.status_code for answer in answers] == [200] * 3
    assert await balance_of(engine, scene.customer) == 7
    assert await PostgresLedger(engine).violations() == []


@cut
async def test_a_refusal_whose_commit_was_cut_is_on_the_list_once_it_is_answered(
    steps: Steps, cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, is_done_first: bool
) -> None:
    scene = Scene(steps, engine, await open_account(engine))
    body = {"external_user_id": str(scene.customer.external_user_id), "amount": 7}
    assert (await scene.post("/webhook/topup", body, X_Event_Id="pay_1", **SECRET)).status_code == 200
    # The first of these commits nothing but that it looked.
    cutter.cut(2, is_done_first=is_done_first)

    answers = [await scene.post("/webhook/topup", body | {"amount": 8}, X_Event_Id="pay_1", **SECRET) for _ in range(3)]

    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {409, 503}
    assert statuses[-1] == 409
    rows = [tuple(row) for row in await sql.fetch("SELECT event_id, amount FROM refused_payments")]
    assert rows == [("pay_1", 8)]
    assert await sql.fetchval("SELECT deliveries FROM refused_payments") >= statuses.count(409)
    assert await balance_of(engine, scene.customer) == 7


@cut
async def test_a_first_key_whose_commit_was_cut_is_shown_and_opens(
    steps: Steps, cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, is_done_first: bool
) -> None:
    scene = Scene(steps, engine, await open_account(engine))
    cutter.cut(1, is_done_first=is_done_first)

    answer = await scene.post("/auth", {"external_user_id": str(uuid4())})

    assert cutter.commits >= 1
    assert answer.status_code == 201, answer.text
    balance = await steps.http.get("/balance", headers={"X-API-Key": answer.json()["api_key"]})
    assert balance.status_code == 200


@cut
async def test_a_change_of_keys_whose_commit_was_cut_is_answered_as_it_is(
    steps: Steps, cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, is_done_first: bool
) -> None:
    scene = Scene(steps, engine, await open_account(engine))

    async def cut_off(method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        cutter.cut(1, is_done_first=is_done_first)
        answer = await scene.call(method, path, body, **headers)
        assert cutter.commits >= 1
        return answer

    async def balance(secret: str) -> int:
        return (await steps.http.get("/balance", headers={"X-API-Key": secret})).status_code

    made = await cut_off("POST", "/keys", {"name": "further", "scopes": ["read"]})
    assert made.status_code == 201, made.text
    first, path = made.json()["api_key"], f"/keys/{made.json()['id']}"
    assert await balance(first) == 200
    changed = await cut_off("PATCH", path, {"name": "changed"})
    assert (changed.status_code, changed.json()["name"]) == (200, "changed")
    rotated = await cut_off("POST", f"{path}/rotate", {"overlap_seconds": 0})
    assert rotated.status_code == 200, rotated.text
    second = rotated.json()["api_key"]
    assert [await balance(first), await balance(second)] == [401, 200]
    assert (await cut_off("DELETE", path)).status_code == 204
    own = (await scene.further_key())["api_key"]
    assert (await cut_off("DELETE", "/keys/current", X_API_Key=own)).status_code == 204
    assert [await balance(second), await balance(own)] == [401, 401]
    assert await sql.fetchval("SELECT count(*) FROM keys") == 3
    assert await sql.fetchval("SELECT count(*) FROM api_keys") == 4


@cut
async def test_claims_whose_commit_was_cut_are_granted_once(
    cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, is_done_first: bool
) -> None:
    customer = await open_account(engine, BALANCE_TOKENS)
    attempts = [(await accept_job(engine, customer), uuid4()) for _ in range(3)]
    rival = (attempts[0][0], uuid4())

    async with open_engine(cutter.dsn) as cut_engine:
        cutter.cut(1, is_done_first=is_done_first)
        jobs = jobs_of(cut_engine)
        claims = await asyncio.gather(*(jobs.claim(*attempt) for attempt in (*attempts, rival)))

    assert cutter.commits == 2
    won = {attempt for attempt, claim in zip((*attempts, rival), claims, strict=True) if claim is not None}
    rows = await sql.fetch("SELECT id, attempt_token, attempts FROM jobs")
    assert {(row["id"], row["attempt_token"]) for row in rows} == won
    assert {row["attempts"] for row in rows} == {1} == {claim.attempt for claim in claims if claim is not None}


@cut
async def test_submissions_whose_commit_was_cut_are_recorded_and_said_to_be(
    cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, is_done_first: bool
) -> None:
    customer = await open_account(engine, BALANCE_TOKENS)
    attempts = [await claimed_job(engine, customer) for _ in range(3)]
    requests = [provider_request() for _ in attempts]

    async with open_engine(cutter.dsn) as cut_engine:
        cutter.cut(1, is_done_first=is_done_first)
        jobs = jobs_of(cut_engine)
        recorded = await asyncio.gather(
            *(jobs.record_submission(*attempt, request) for attempt, request in zip(attempts, requests, strict=True)),
            jobs.record_submission(*attempts[0], requests[0]),
            jobs.record_submission(attempts[1][0], uuid4(), provider_request()),
        )

    assert cutter.commits == 2
    assert list(recorded) == [True, True, True, False, False]
    rows = await sql.fetch("SELECT id, fal_request_id FROM jobs")
    assert {tuple(row) for row in rows} == {
        (job_id, request.id) for (job_id, _), request in zip(attempts, requests, strict=True)
    }
    assert {item for item in await queue_items(sql) if item[0] is FOLLOW_JOB} == {
        (FOLLOW_JOB, job_id) for job_id, _ in attempts
    }


@cut
async def test_ends_whose_commit_was_cut_are_written_once_and_said_to_be(
    cutter: CommitCutter, engine: AsyncEngine, *, is_done_first: bool
) -> None:
    customer = await open_account(engine, BALANCE_TOKENS)
    completed, failed, canceled, ended = [
        await job_in(engine, customer, status) for status in (*[JobStatus.IN_PROGRESS] * 3, JobStatus.FAILED)
    ]

    async with open_engine(cutter.dsn) as cut_engine:
        cutter.cut(1, is_done_first=is_done_first)
        jobs = jobs_of(cut_engine)
        settled = await asyncio.gather(
            jobs.settle(completed, OUTCOMES[JobStatus.COMPLETED]),
            jobs.settle(failed, OUTCOMES[JobStatus.FAILED]),
            jobs.settle(canceled, OUTCOMES[JobStatus.CANCELED]),
            jobs.settle(completed, OUTCOMES[JobStatus.COMPLETED]),
            jobs.settle(failed, OUTCOMES[JobStatus.COMPLETED]),
            jobs.settle(ended, OUTCOMES[JobStatus.COMPLETED]),
        )

    assert cutter.commits == 2
    assert list(settled) == [True, True, True, False, False, False]
    assert await balance_of(engine, customer) == BALANCE_TOKENS - COST_TOKENS
    assert await PostgresLedger(engine).violations() == []


@cut
async def test_an_event_whose_commit_was_cut_delivers_and_leaves_no_late_result(
    steps: Steps, cutter: CommitCutter, engine: AsyncEngine, sql: Connection, *, is_done_first: bool
) -> None:
    scene = Scene(steps, engine, await open_account(engine, BALANCE_TOKENS))
    hear = await event(scene)
    cutter.cut(1, is_done_first=is_done_first)

    with capture_logs() as logs:
        answer = await hear()

    assert cutter.commits == 2
    assert answer.status_code == 200, answer.text
    assert [log["status"] for log in logs if log["event"] == "generation_settled"] == ["COMPLETED"]
    assert await sql.fetchval("SELECT status || ' ' || (late_result IS NULL) FROM jobs") == "COMPLETED true"
    assert await balance_of(engine, scene.customer) == BALANCE_TOKENS - COST_TOKENS


@pytest.mark.alone
@pytest.mark.parametrize("fate", ["doomed", "silent"])
async def test_one_dead_connection_makes_all_that_are_as_old_suspect(
    cutter: CommitCutter, fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "COMMAND_TIMEOUT_SECONDS", 0.5)
    async with open_engine(cutter.dsn, pool_size=5) as engine:
        customer = await open_account(engine, 7)
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(engine.connect()) for _ in range(5)))
        getattr(cutter, fate).update(cutter.open)

        failures = 0
        for _ in range(6):
            try:
                assert await balance_of(engine, customer) == 7
            except DatabaseUnavailable:
                failures += 1

    assert failures == 1


@pytest.mark.alone
async def test_an_order_that_a_silent_network_swallows_makes_all_other_connections_suspect(
    cutter: CommitCutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "COMMAND_TIMEOUT_SECONDS", 0.5)
    async with open_engine(cutter.dsn, pool_size=5) as engine:
        customer = await open_account(engine, BALANCE_TOKENS)
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(engine.connect()) for _ in range(5)))
        cutter.silent.update(cutter.open)

        await accept_job(engine, customer)

        balances = await asyncio.gather(*(balance_of(engine, customer) for _ in range(4)))
        assert balances == [BALANCE_TOKENS - COST_TOKENS] * 4

        # None of them is left to whoever collects garbage: the other end would hold its session until then.
        async def are_gone() -> bool:
            return cutter.silent.isdisjoint(cutter.open)

        await until(are_gone)
