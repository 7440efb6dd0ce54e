"""The caller's own name for a request: one job and one debit, however often it is sent."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import SUBMIT_JOB
from app.application.jobs import fingerprint_of
from app.domain.catalogue import Catalogue
from app.domain.errors import DomainError, IdempotencyKeyInUse
from app.domain.jobs import JobStatus
from app.domain.kinds import GenerationKind
from app.domain.orders import IdempotencyKey
from app.infrastructure.postgres.jobs import acceptance
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from tests.builders import (
    BUILT_IN,
    COST_TOKENS,
    OUTCOMES,
    Connection,
    Customer,
    balance_of,
    blocked,
    contents,
    job_in,
    jobs_of,
    new_job,
    open_account,
    open_crowd,
    payment,
    queue_items,
    sweep_of,
)
from tests.integration.api_on_postgres import TEXT_TO_VIDEO, Api, job_id_of, open_api

KEY = "order-4711"


async def everything(sql: Connection) -> dict[str, list[str]]:
    keys = await sql.fetch("SELECT row::text FROM idempotency_keys AS row ORDER BY 1")
    return {**await contents(sql), "idempotency_keys": [row[0] for row in keys]}


async def debits(sql: Connection) -> int:
    return int(await sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'DEBIT'"))


async def end(engine: AsyncEngine, job_id: UUID, status: JobStatus) -> None:
    await jobs_of(engine).claim(job_id, uuid4())
    assert await jobs_of(engine).settle(job_id, OUTCOMES[status])


def assert_is_replay_of(first: httpx.Response, later: httpx.Response) -> None:
    assert (first.status_code, later.status_code) == (202, 202), later.text
    assert "Idempotent-Replayed" not in first.headers
    assert later.headers["Idempotent-Replayed"] == "true"
    assert later.headers["Location"] == first.headers["Location"] == f"/generations/{first.json()['job_id']}"
    assert {**later.json(), "status": ""} == {**first.json(), "status": ""}


def assert_is_reuse(answer: httpx.Response) -> None:
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/Idempotency-Key", "idempotency_key_reused")


async def test_twenty_requests_at_once_with_one_key_make_one_job_and_one_debit(database: str, sql: Connection) -> None:
    async with open_crowd(database, 20) as engine, open_api(engine) as api:
        customer = await open_account(engine, 100)

        answers = await asyncio.gather(*(api.start(customer, KEY) for _ in range(20)))
        later = await api.start(customer, KEY)

        balance = await balance_of(engine, customer)
        violations = await PostgresLedger(engine).violations()
    (first,) = [
        answer for answer in answers if answer.status_code == 202 and "Idempotent-Replayed" not in answer.headers
    ]
    for answer in answers:
        if answer.status_code == 202 and answer is not first:
            assert_is_replay_of(first, answer)
        elif answer is not first:
            assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
            assert int(answer.headers["Retry-After"]) >= 1
    assert_is_replay_of(first, later)
    assert await queue_items(sql) == {(SUBMIT_JOB, job_id_of(first))}
    assert (await debits(sql), balance) == (1, 100 - COST_TOKENS)
    assert violations == []


async def test_a_refusal_of_the_price_does_not_call_undone_what_is_just_being_done(
    database: str, sql: Connection
) -> None:
    """The first request is under way, and its repeat would be refused by itself."""
    async with open_crowd(database, 4) as engine, open_api(engine) as api:
        customer = await open_account(engine, 100)
        dearer = {"prompt": "a lighthouse", "max_cost_tokens": 1}
        refused = await api.start(customer, KEY, dearer)
        async with sql.transaction():
            await sql.execute("LOCK TABLE pgqueuer IN EXCLUSIVE MODE")
            working = asyncio.create_task(api.start(customer, KEY))
            await blocked(sql)

            async with asyncio.timeout(20):
                twin = await api.start(customer, KEY, dearer)
        first = await working
        later = await api.start(customer, KEY, dearer)

    assert (refused.status_code, refused.json()["code"]) == (409, "price_exceeds_maximum")
    assert (twin.status_code, twin.json()["code"]) == (409, "idempotency_key_in_use")
    assert_is_replay_of(first, later)
    assert await debits(sql) == 1


async def test_a_request_meets_its_twin_at_work_and_is_told_to_come_back(database: str, sql: Connection) -> None:
    async with open_crowd(database, 4) as engine, open_api(engine) as api:
        customer = await open_account(engine, 100)
        async with sql.transaction():
            await sql.execute("LOCK TABLE pgqueuer IN EXCLUSIVE MODE")
            working = asyncio.create_task(api.start(customer, KEY))
            await blocked(sql)

            async with asyncio.timeout(20):
                twin = await api.start(customer, KEY)
                other_request = await api.start(customer, KEY, {"prompt": "another"})
        first = await working
        later = await api.start(customer, KEY)

    for answer in (twin, other_request):
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
        assert int(answer.headers["Retry-After"]) >= 1
    assert_is_replay_of(first, later)
    assert await debits(sql) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generations/images/text-to-image", {"prompt": "a lighthouse at dawn"}),
        ("/generations/images/text-to-image", {"prompt": "a lighthouse", "num_images": 2}),
        (TEXT_TO_VIDEO, {"prompt": "a lighthouse"}),
    ],
    ids=["other-prompt", "other-number", "other-kind"],
)
async def test_a_key_of_another_request_is_refused_and_nothing_is_written(
    engine: AsyncEngine, sql: Connection, api: Api, path: str, body: dict[str, object]
) -> None:
    customer = await open_account(engine, 100)
    await api.start(customer, KEY, {"prompt": "a lighthouse"})
    before = await everything(sql)

    answer = await api.start(customer, KEY, body, path=path)

    assert_is_reuse(answer)
    assert await everything(sql) == before


async def test_what_is_left_out_and_its_default_are_the_same_request(engine: AsyncEngine, api: Api) -> None:
    customer = await open_account(engine, 100)
    first = await api.start(customer, KEY, {"prompt": "a lighthouse"})

    later = await api.start(customer, KEY, {"seed": None, "num_images": 1, "prompt": "a lighthouse"})

    assert_is_replay_of(first, later)


async def test_the_same_key_of_another_account_is_another_key(engine: AsyncEngine, sql: Connection, api: Api) -> None:
    one, other = await open_account(engine, 100), await open_account(engine, 100)
    first = await api.start(one, KEY)

    second = await api.start(other, KEY, {"prompt": "something else"})

    assert "Idempotent-Replayed" not in second.headers
    assert job_id_of(second) != job_id_of(first)
    assert [await balance_of(engine, each) for each in (one, other)] == [100 - COST_TOKENS] * 2
    assert await debits(sql) == 2


async def test_without_a_key_every_request_is_a_job(engine: AsyncEngine, sql: Connection, api: Api) -> None:
    customer = await open_account(engine, 100)

    answers = [await api.start(customer, None) for _ in range(2)]

    assert len({job_id_of(answer) for answer in answers}) == 2
    assert (await everything(sql))["idempotency_keys"] == []


@pytest.mark.parametrize("body", [{"prompt": "a lighthouse"}, {"prompt": "a cheaper one"}], ids=["same", "another"])
async def test_a_key_that_was_answered_402_can_be_used_after_a_top_up(
    engine: AsyncEngine, sql: Connection, api: Api, body: dict[str, object]
) -> None:
    customer = await open_account(engine, COST_TOKENS - 1)
    before = await everything(sql)

    refused = await api.start(customer, KEY, {"prompt": "a lighthouse"})
    after_refusal = await everything(sql)
    await PostgresPayments(engine).credit(payment(customer.external_user_id, 1))
    accepted = await api.start(customer, KEY, body)

    assert (refused.status_code, after_refusal) == (402, before)
    assert accepted.status_code == 202
    assert "Idempotent-Replayed" not in accepted.headers
    assert await balance_of(engine, customer) == 0


async def test_a_replay_needs_no_balance(engine: AsyncEngine, api: Api) -> None:
    customer = await open_account(engine, 2 * COST_TOKENS)
    first = await api.start(customer, KEY)
    await api.start(customer, None)

    later = await api.start(customer, KEY)

    assert_is_replay_of(first, later)
    assert await balance_of(engine, customer) == 0


async def test_a_replay_needs_no_model_in_the_catalogue(database: str, sql: Connection) -> None:
    """One process sells the model no more, and another one still accepts a job of it."""
    body = {"model": "fal-ai/flux/dev", "prompt": "a lighthouse", "guidance_scale": 3}
    without = Catalogue([model for model in BUILT_IN if model.is_default], BUILT_IN.types)
    async with open_crowd(database, 4) as engine, open_api(engine) as api, open_api(engine, without) as later:
        customer = await open_account(engine, 100)
        before = await everything(sql)
        refused = await later.start(customer, KEY, body)
        assert await everything(sql) == before
        async with sql.transaction():
            await sql.execute("LOCK TABLE pgqueuer IN EXCLUSIVE MODE")
            working = asyncio.create_task(api.start(customer, KEY, body))
            await blocked(sql)

            async with asyncio.timeout(20):
                twin = await later.start(customer, KEY, body)
        first = await working
        written = await everything(sql)
        repeats = await asyncio.gather(*(later.start(customer, KEY, body) for _ in range(8)))
        other = await later.start(customer, KEY, body | {"prompt": "another"})
        unknown = await later.start(customer, "another key", body)

    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")
    assert (twin.status_code, twin.json()["code"]) == (409, "idempotency_key_in_use")
    for repeat in repeats:
        assert_is_replay_of(first, repeat)
        assert repeat.headers["X-Balance-Tokens"] == first.headers["X-Balance-Tokens"]
    assert_is_reuse(other)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_model")
    assert await everything(sql) == written
    assert await debits(sql) == 1


async def test_all_twins_at_once_are_told_what_the_one_debit_left(database: str) -> None:
    async with open_crowd(database, 20) as engine, open_api(engine) as api:
        customer = await open_account(engine, 100)

        answers = await asyncio.gather(*(api.start(customer, KEY) for _ in range(20)))

    told = {answer.headers["X-Balance-Tokens"] for answer in answers if answer.status_code == 202}
    assert told == {str(100 - COST_TOKENS)}


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
async def test_a_replay_shows_a_job_that_has_ended(engine: AsyncEngine, api: Api, status: JobStatus) -> None:
    customer = await open_account(engine, 100)
    first = await api.start(customer, KEY)
    await end(engine, job_id_of(first), status)
    balance = await balance_of(engine, customer)

    later = await api.start(customer, KEY)

    assert_is_replay_of(first, later)
    assert later.json()["status"] == status.value
    assert await balance_of(engine, customer) == balance


async def test_a_transaction_that_fails_leaves_no_key(
    engine: AsyncEngine, sql: Connection, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = acceptance._write

    async def write_and_fail(*arguments: Any) -> None:
        await write(*arguments)
        raise ConnectionResetError

    customer = await open_account(engine, 100)
    before = await everything(sql)

    with monkeypatch.context() as patch:
        patch.setattr(acceptance, "_write", write_and_fail)
        failed = await api.start(customer, KEY)
    after_failure = await everything(sql)
    accepted = await api.start(customer, KEY)

    assert (failed.status_code, failed.json()["code"]) == (503, "database_unavailable")
    assert after_failure == before
    assert accepted.status_code == 202
    assert "Idempotent-Replayed" not in accepted.headers


@pytest.mark.parametrize(
    ("values", "status"), [([""], 422), (["x" * 256], 422), (["clé"], 422), (["one", "two"], 422), (["x" * 255], 202)]
)
async def test_writes_nothing_under_a_key_that_is_none(
    engine: AsyncEngine, sql: Connection, api: Api, values: list[str], status: int
) -> None:
    customer = await open_account(engine, 100)
    before = await everything(sql)
    headers = [(b"X-API-Key", customer.api_key.encode()), *((b"Idempotency-Key", each.encode()) for each in values)]

    answer = await api.http.post("/generations/images/text-to-image", json={"prompt": "a lighthouse"}, headers=headers)

    assert answer.status_code == status
    assert (await everything(sql) == before) is (status == 422)


async def kept_for(sql: Connection, customer: Customer, job_id: UUID, hours: float) -> None:
    """As if the key of this job had been used so long ago."""
    await sql.execute(
        "INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id, created_at)"
        " VALUES ($1, $2, $3, $4, now() - make_interval(secs => $5))",
        customer.account_id,
        f"{job_id}",
        bytes(32),
        job_id,
        hours * 3600,
    )


async def test_forgets_only_the_old_keys_of_final_jobs(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 200)
    old = {status: await job_in(engine, customer, status) for status in JobStatus}
    young = [await job_in(engine, customer, status) for status in JobStatus]
    for job_id in old.values():
        await kept_for(sql, customer, job_id, hours=24.1)
    for job_id in young:
        await kept_for(sql, customer, job_id, hours=23.9)

    forgotten = await jobs_of(engine).forget_idempotency_keys()

    kept = {row["job_id"] for row in await sql.fetch("SELECT job_id FROM idempotency_keys")}
    assert forgotten == 3
    assert kept == {*young, *(job_id for status, job_id in old.items() if not status.is_final)}


async def test_the_sweep_forgets_and_the_key_names_a_new_job_then(
    engine: AsyncEngine, sql: Connection, api: Api
) -> None:
    customer = await open_account(engine, 100)
    first = await api.start(customer, KEY)
    await end(engine, job_id_of(first), JobStatus.COMPLETED)
    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")

    await sweep_of(engine)()

    second = await api.start(customer, KEY, {"prompt": "something else"})
    assert job_id_of(second) != job_id_of(first)
    assert "Idempotent-Replayed" not in second.headers


async def test_the_database_refuses_a_key_without_its_job(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine)

    with pytest.raises(asyncpg.ForeignKeyViolationError, match="idempotency_keys_job_id_fkey"):
        await kept_for(sql, customer, customer.account_id, hours=0)


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
PARAMETERS = st.dictionaries(st.text(max_size=8), VALUES | st.lists(VALUES, max_size=2), min_size=1, max_size=6)


@given(PARAMETERS, st.randoms(use_true_random=False), st.sampled_from(GenerationKind))
def test_thefingerprint_of_does_not_depend_on_the_order_of_the_fields(
    parameters: dict[str, object], random: Random, kind: GenerationKind
) -> None:
    names = sorted(parameters)
    random.shuffle(names)
    shuffled = {name: parameters[name] for name in reversed(names)}

    assert fingerprint_of([kind.value, shuffled]) == fingerprint_of([kind.value, parameters])


@given(PARAMETERS, PARAMETERS, st.sampled_from(GenerationKind), st.sampled_from(GenerationKind))
def test_thefingerprint_ofs_of_two_requests_differ(
    one: dict[str, object], other: dict[str, object], kind: GenerationKind, other_kind: GenerationKind
) -> None:
    are_the_same = (repr(sorted(one.items())), kind) == (repr(sorted(other.items())), other_kind)

    assert (fingerprint_of([kind.value, one]) == fingerprint_of([other_kind.value, other])) is are_the_same


async def test_a_cancel_that_is_repeated_with_its_key_is_answered_again(
    api: Api, engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, 2 * COST_TOKENS)
    job_id = await job_in(engine, customer, JobStatus.QUEUED)
    other = await job_in(engine, customer, JobStatus.QUEUED)

    first = await api.cancel(customer, job_id, KEY)
    before = await everything(sql)
    again = await api.cancel(customer, job_id, KEY)
    without = await api.cancel(customer, job_id, None)
    reused = await api.cancel(customer, other, KEY)

    assert (first.status_code, again.status_code) == (200, 200)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    assert first.json()["status"] == "CANCELED"
    assert (without.status_code, without.json()["code"]) == (400, "cannot_cancel_finished_job")
    assert_is_reuse(reused)
    assert await everything(sql) == before
    assert await balance_of(engine, customer) == COST_TOKENS


async def test_a_key_that_started_a_job_cancels_none(api: Api, engine: AsyncEngine) -> None:
    customer = await open_account(engine, COST_TOKENS)
    job_id = job_id_of(await api.start(customer, KEY))

    assert_is_reuse(await api.cancel(customer, job_id, KEY))
    assert await balance_of(engine, customer) == 0


async def test_a_cancel_that_finds_the_job_finished_leaves_no_key(
    api: Api, engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, COST_TOKENS)
    job_id = await job_in(engine, customer, JobStatus.COMPLETED)

    answers = [await api.cancel(customer, job_id, KEY) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [400, 400]
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 0


async def test_twenty_cancels_at_once_with_one_key_refund_once(api: Api, engine: AsyncEngine) -> None:
    customer = await open_account(engine, COST_TOKENS)
    job_id = await job_in(engine, customer, JobStatus.QUEUED)

    answers = await asyncio.gather(*(api.cancel(customer, job_id, KEY) for _ in range(20)))

    assert {answer.status_code for answer in answers} <= {200, 409}
    assert sum(answer.status_code == 200 and "Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert await balance_of(engine, customer) == COST_TOKENS
    assert await PostgresLedger(engine).violations() == []


async def test_a_key_that_names_a_cancel_and_a_job_at_once_makes_nobody_wait(database: str) -> None:
    """Each would wait for the other: the one holds the key and wants the account, the other one holds the account."""
    async with open_crowd(database, 12) as engine:
        customer, others = await open_account(engine, 10_000), [await open_account(engine, 10_000) for _ in range(4)]
        desk = PostgresJobDesk(engine)
        outcomes: Counter[str] = Counter()

        async def tried(name: str, coroutine: Coroutine[Any, Any, object]) -> None:
            try:
                await coroutine
            except DomainError as error:
                outcomes[f"{name} {type(error).__name__}"] += 1

        for number in range(40):
            job_id = await job_in(engine, customer, JobStatus.QUEUED)
            key = IdempotencyKey(f"order-{number}", b"x" * 32)
            await asyncio.gather(
                tried("cancel", desk.request_cancel(customer.account_id, job_id, key)),
                tried("accept", desk.accept(new_job(customer), IdempotencyKey(key.key, b"y" * 32))),
                *(tried("other", desk.accept(new_job(other), IdempotencyKey("mine", b"z" * 32))) for other in others),
            )

    assert set(outcomes) <= {"cancel IdempotencyKeyInUse", "accept IdempotencyKeyInUse", "accept IdempotencyKeyReused"}


async def test_a_cancel_does_not_wait_for_the_job_that_is_being_given_its_key(database: str, sql: Connection) -> None:
    async with open_crowd(database, 4) as engine:
        customer = await open_account(engine, 100)
        job_id, desk = await job_in(engine, customer, JobStatus.QUEUED), PostgresJobDesk(engine)
        async with sql.transaction():
            await sql.execute("LOCK TABLE pgqueuer IN EXCLUSIVE MODE")
            accepting = asyncio.create_task(desk.accept(new_job(customer), IdempotencyKey(KEY, b"x" * 32)))
            await blocked(sql)

            async with asyncio.timeout(20):
                with pytest.raises(IdempotencyKeyInUse):
                    await desk.request_cancel(customer.account_id, job_id, IdempotencyKey(KEY, b"y" * 32))
        await accepting
