"""Jobs of models with several price lines: in one batch, under races, and beside the release before."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.jobs import StartJob, TimeLimits, Wish
from app.domain.errors import InsufficientBalance
from app.domain.jobs import JobStatus, outcome_of_result
from app.domain.kinds import GenerationKind
from app.domain.orders import Accepted
from app.domain.quotes import Quote
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.quotes import SignedQuotes
from tests.builders import (
    BUILT_IN,
    MODEL_IDS,
    Connection,
    Customer,
    balance_of,
    jobs_of,
    open_account,
    open_crowd,
    provider_request,
)

QUOTES = SignedQuotes(["the secret that signs the quotes here"])
# Of models that differ in their lines, their results, their inputs and whether they have a seed.
WISHES: Mapping[str, Mapping[str, Any]] = {
    "fal-ai/wan-25-preview/text-to-image": {"num_images": 2},
    "fal-ai/wan-25-preview/text-to-video": {"duration": 10},
    "fal-ai/nano-banana-2": {"num_images": 3, "enable_web_search": True},
    "fal-ai/flux-2-pro": {"image_size": "landscape_16_9"},
    "xai/grok-imagine-image": {},
    "fal-ai/kling-video/v2.6/pro/text-to-video": {"duration": 5},
}
# Of models that differ in their lines alone: the database sees that those of a job come to its cost.
WISHES_OF_ONE_PRICE: Mapping[str, Mapping[str, Any]] = {
    "fal-ai/wan-25-preview/text-to-image": {"num_images": 3},
    "xai/grok-imagine-image": {"num_images": 5},
}
ACCEPT_AS_BEFORE = """
WITH job AS (
    INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)
    VALUES ($1, $2, $3, $4, $5, $6, 1, 1200) RETURNING *
)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'DEBIT', cost_tokens, id FROM job
"""


def wish_of(model_id: str, **others: Any) -> Wish:
    model = BUILT_IN.get(model_id)
    assert model is not None
    return Wish(model=model, parameters={"prompt": "a lighthouse", **WISHES.get(model_id, {}), **others})


def starts(engine: AsyncEngine) -> StartJob:
    return StartJob(jobs_of(engine), QUOTES, TimeLimits())


async def run_at_fal(engine: AsyncEngine, job_id: UUID) -> None:
    token = uuid4()
    assert await jobs_of(engine).claim(job_id, token)
    assert await jobs_of(engine).record_submission(job_id, token, provider_request())


def files(count: int) -> list[dict[str, str]]:
    return [{"url": f"https://fal.media/{number}.png"} for number in range(count)]


@pytest.mark.parametrize("wishes", [WISHES, WISHES_OF_ONE_PRICE], ids=["many prices", "one price"])
async def test_jobs_of_many_models_that_share_a_transaction_keep_their_own_lines(
    engine: AsyncEngine, sql: Connection, wishes: Mapping[str, Mapping[str, Any]]
) -> None:
    customers = [await open_account(engine, 1000) for _ in range(3)]
    start = starts(engine)

    accepted = await asyncio.gather(
        *(
            start(customer.account_id, wish_of(model_id, **others))
            # Those of one model do not come one after the other: a batch would have no others.
            for customer in customers
            for model_id, others in wishes.items()
        )
    )

    assert await sql.fetchval("SELECT count(DISTINCT created_at) FROM jobs") < len(accepted)
    for answer in accepted:
        wish = wish_of(answer.job.model_id, **wishes[answer.job.model_id])
        stored = await sql.fetchrow("SELECT * FROM jobs WHERE id = $1", answer.job.id)
        assert stored is not None
        assert json.loads(stored["terms"]) == wish.model.terms(wish.completed()).as_json()
        assert json.loads(stored["parameters"]) == wish.model.fal_input(wish.completed())
        assert stored["cost_tokens"] == sum(line["tokens"] for line in json.loads(stored["terms"])["lines"])
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.parametrize("balance_tokens", [10_000, 300], ids=["enough", "too little"])
async def test_the_balances_that_racing_accepts_tell_are_those_of_the_ledger(
    database: str, engine: AsyncEngine, sql: Connection, balance_tokens: int
) -> None:
    """Of two processes, and several requests of each at once."""
    customer = await open_account(engine, balance_tokens)
    async with open_crowd(database, 5) as one, open_crowd(database, 5) as other:
        processes = [starts(one), starts(other)]
        answers = await asyncio.gather(
            *(
                start(customer.account_id, wish_of(model_id), idempotency_key=key)
                for number in range(4)
                for model_id in WISHES
                for start in processes
                for key in (None, str(uuid4()))[number % 2 :]
            ),
            return_exceptions=True,
        )

    accepted = [answer for answer in answers if isinstance(answer, Accepted)]
    refused = [answer for answer in answers if not isinstance(answer, Accepted)]
    entries = await sql.fetch("SELECT job_id, balance_after FROM ledger_entries WHERE kind = 'DEBIT'")
    assert {row["job_id"]: row["balance_after"] for row in entries} == {
        answer.job.id: answer.balance_tokens for answer in accepted
    }
    assert len({answer.balance_tokens for answer in accepted}) == len(accepted) > 10
    assert bool(refused) is (balance_tokens == 300)
    assert all(isinstance(answer, InsufficientBalance) for answer in refused)
    assert min(answer.balance_tokens or 0 for answer in accepted) == await balance_of(engine, customer)
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.parametrize(
    ("model_id", "result", "refunded_lines"),
    [
        ("fal-ai/nano-banana-2", {"images": files(1)}, {0: 22, 1: 4}),
        ("fal-ai/nano-banana-2", {"images": files(3)}, {}),
        ("fal-ai/wan-25-preview/text-to-image", {"images": files(2), "has_nsfw_concepts": [True, False]}, {0: 5}),
        ("fal-ai/kling-video/v2.6/pro/text-to-video", {"video": files(1)[0]}, {}),
    ],
)
async def test_of_many_processes_that_end_a_job_one_books_its_lines(
    database: str,
    engine: AsyncEngine,
    sql: Connection,
    *,
    model_id: str,
    result: Any,
    refunded_lines: Mapping[int, int],
) -> None:
    customer = await open_account(engine, 1000)
    job = (await starts(engine)(customer.account_id, wish_of(model_id))).job
    await run_at_fal(engine, job.id)
    state = await jobs_of(engine).load(job.id)
    assert state is not None

    async with open_crowd(database, 10) as crowd:
        ends = [jobs_of(crowd).settle(job.id, outcome_of_result(result, state.terms)) for _ in range(10)]
        assert sum(await asyncio.gather(*ends)) == 1

    ended = await jobs_of(engine).get(customer.account_id, job.id)
    expected = {job.price[number].line: tokens for number, tokens in refunded_lines.items()}
    assert ended.refunded_lines == (expected or None)
    entries = await sql.fetch("SELECT amount FROM ledger_entries WHERE job_id = $1 AND kind = 'REFUND'", job.id)
    assert [row["amount"] for row in entries] == ([sum(expected.values())] if expected else [])
    billing = ended.billing
    assert billing is not None
    assert sum(line.charged_tokens for line in billing.lines) == billing.charged_tokens
    assert sum(line.refunded_tokens for line in billing.lines) == billing.refunded_tokens == sum(expected.values())
    assert await PostgresLedger(engine).violations() == []


async def accepted_before(
    sql: Connection, customer: Customer, kind: GenerationKind, parameters: Mapping[str, Any], cost_tokens: int
) -> UUID:
    """As the release before accepts a job of one of its four models."""
    job_id = uuid4()
    await sql.execute(
        ACCEPT_AS_BEFORE, job_id, customer.account_id, kind, MODEL_IDS[kind], json.dumps(parameters), cost_tokens
    )
    return job_id


@pytest.mark.parametrize("kind", [GenerationKind.TEXT_TO_VIDEO, GenerationKind.IMAGE_TO_VIDEO])
async def test_sends_a_film_that_the_release_before_accepted_as_that_one_would(
    engine: AsyncEngine, sql: Connection, kind: GenerationKind
) -> None:
    """It stored the length as a number, and sent it as a text."""
    customer = await open_account(engine, 100)
    job_id = await accepted_before(sql, customer, kind, {"prompt": "a boat", "duration": 10}, 50)

    claim = await jobs_of(engine).claim(job_id, uuid4())
    again = await jobs_of(engine).load_input(job_id)

    assert claim is not None
    assert claim.input == again
    assert claim.input.parameters == {"prompt": "a boat", "duration": "10"}
    assert claim.input.can_be_marked


async def test_what_a_model_has_as_a_number_stays_one(engine: AsyncEngine) -> None:
    """Only the release before stored what it did not send."""
    customer = await open_account(engine, 100_000)
    for model in BUILT_IN.of_kind(GenerationKind.TEXT_TO_VIDEO):
        asked_for = Wish(model=model, parameters={"prompt": "a boat"})
        job = (await starts(engine)(customer.account_id, asked_for)).job

        claim = await jobs_of(engine).claim(job.id, uuid4())

        assert claim is not None
        assert claim.input.parameters == model.fal_input(asked_for.completed())


async def test_refunds_a_film_that_the_release_before_accepted(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    job_id = await accepted_before(sql, customer, GenerationKind.TEXT_TO_VIDEO, {"duration": 5}, 25)
    await run_at_fal(engine, job_id)
    state = await jobs_of(engine).load(job_id)
    assert state is not None

    assert await jobs_of(engine).settle(
        job_id, outcome_of_result({"video": files(1)[0], "has_nsfw_concepts": [True]}, state.terms)
    )

    job = await jobs_of(engine).get(customer.account_id, job_id)
    assert (job.status, job.refunded_tokens) == (JobStatus.FAILED, 25)
    assert await balance_of(engine, customer) == 100
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.parametrize(
    ("model_id", "others", "can_be_marked"),
    [
        ("fal-ai/wan-25-preview/text-to-image", {}, True),
        ("fal-ai/wan-25-preview/text-to-image", {"seed": 7}, False),
        ("xai/grok-imagine-image", {}, False),
        ("fal-ai/kling-video/v2.6/pro/text-to-video", {}, False),
        # With a seed all images would be the same, each charged.
        ("fal-ai/nano-banana-2", {"num_images": 3}, False),
        ("fal-ai/nano-banana-2", {"num_images": 1}, True),
    ],
)
async def test_marks_an_attempt_with_a_seed_only_where_that_changes_nothing_else(
    engine: AsyncEngine, model_id: str, others: dict[str, Any], can_be_marked: bool
) -> None:
    customer = await open_account(engine, 1000)
    asked_for = wish_of(model_id, **others)
    quoted = QUOTES.text_of(_quote(customer, asked_for))
    for wish in (asked_for, Wish(model=asked_for.model, parameters=asked_for.parameters, quote=quoted)):
        job = (await starts(engine)(customer.account_id, wish)).job
        claim = await jobs_of(engine).claim(job.id, uuid4())
        assert claim is not None
        assert claim.input.can_be_marked is can_be_marked


def _quote(customer: Customer, wish: Wish) -> Quote:
    return Quote.of(customer.account_id, wish.model, wish.completed(), datetime.now(UTC))
