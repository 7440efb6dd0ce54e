"""Changes of keys beside each other and beside accepts: nothing is lost, and no bound is passed."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.application.keys import new_key
from app.domain.accounts import ALL_SCOPES, ApiKey, Scope
from app.domain.budgets import Budget, Period
from app.domain.errors import DomainError
from app.domain.jobs import Outcome
from app.domain.keys import KeySettings, NewKey, digest_of, stored_form
from app.domain.orders import IdempotencyKey
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.keys import issuing as issuing_module
from app.infrastructure.postgres.keys import management as management_module
from app.infrastructure.postgres.keys import windows
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.keys.management import PostgresKeyManagement
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import Connection, Customer, find_caller, jobs_of, new_job, open_account

DAY = Budget(20, Period.DAY)


async def full_key(engine: AsyncEngine, customer: Customer) -> ApiKey:
    return (await find_caller(engine, customer.api_key)).key


def wanted(budget: Budget | None = None, *, expires_at: datetime | None = None) -> NewKey:
    settings = KeySettings(name="a key", scopes=ALL_SCOPES, budget=budget, expires_at=expires_at)
    return NewKey(id=uuid7(), settings=settings, secret=stored_form(new_key()))


async def made(engine: AsyncEngine, customer: Customer, budget: Budget | None = None) -> tuple[NewKey, str]:
    secret = new_key()
    new = NewKey(
        id=uuid7(),
        settings=KeySettings(name="a key", scopes=ALL_SCOPES, budget=budget),
        secret=stored_form(secret),
    )
    await PostgresKeyManagement(engine).create(customer.account_id, new, None)
    return new, secret


async def code_of(action: Awaitable[Any]) -> str:
    try:
        await action
    except DomainError as error:
        return error.code
    return "done"


async def spend(engine: AsyncEngine, customer: Customer, secret: str, cost_tokens: int) -> str:
    caller = await PostgresKeys(engine).find_by_key(digest_of(secret))
    if caller is None:
        return "invalid_api_key"
    return await code_of(PostgresJobDesk(engine).accept(new_job(customer, cost_tokens=cost_tokens), key=caller.key))


async def spent(engine: AsyncEngine, customer: Customer, new: NewKey) -> int:
    spending = (await PostgresKeyManagement(engine).get(customer.account_id, new.id)).spending
    assert spending is not None
    return spending.spent_tokens


async def test_of_many_creates_at_once_the_hundredth_key_is_the_last(
    engine: AsyncEngine, crowd: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine)
    by, manager = await full_key(engine, customer), PostgresKeyManagement(crowd)
    for _ in range(97):
        await manager.create(customer.account_id, wanted(), by)

    codes = await asyncio.gather(*(code_of(manager.create(customer.account_id, wanted(), by)) for _ in range(8)))

    assert Counter(codes) == {"done": 2, "too_many_keys": 6}
    assert len(await manager.live(customer.account_id)) == 100
    assert await sql.fetchval("SELECT count(*) FROM keys") == 100
    assert await sql.fetchval("SELECT count(*) FROM api_keys") == 100


async def test_keys_that_have_ended_make_room(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(management_module, "LIVE_KEYS_MAX", 3)
    customer, manager = await open_account(engine), PostgresKeyManagement(engine)
    expiring = wanted(expires_at=datetime.now(UTC) + timedelta(hours=1))
    for new in (expiring, deleted := wanted()):
        await manager.create(customer.account_id, new, None)
    assert await code_of(manager.create(customer.account_id, wanted(), None)) == "too_many_keys"

    await manager.delete(customer.account_id, deleted.id, None)
    assert await code_of(manager.create(customer.account_id, wanted(), None)) == "done"
    await sql.execute("UPDATE keys SET expires_at = now() WHERE id = $1", expiring.id)
    assert await code_of(manager.create(customer.account_id, wanted(), None)) == "done"
    assert await code_of(manager.create(customer.account_id, wanted(), None)) == "too_many_keys"


async def test_a_day_has_so_many_new_secrets(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuing_module, "SECRETS_A_DAY_MAX", 4)
    customer, manager = await open_account(engine), PostgresKeyManagement(engine)
    by, new = await full_key(engine, customer), wanted()
    await manager.create(customer.account_id, new, by)

    def rotate(by: ApiKey | None) -> Awaitable[Any]:
        secret = stored_form(new_key())
        return manager.rotate(customer.account_id, new.id, secret, overlap_seconds=0, by=by)

    async def rotate_anew() -> str:
        return await code_of(rotate(await full_key(engine, customer)))

    assert [await rotate_anew() for _ in range(3)] == ["done", "done", "too_many_new_keys"]
    by = await full_key(engine, customer)
    assert await code_of(manager.create(customer.account_id, wanted(), by)) == "too_many_new_keys"
    assert await code_of(rotate(None)) == "done"
    await sql.execute("UPDATE api_keys SET created_at = created_at - interval '1 day'")
    assert await rotate_anew() == "done"


async def test_a_key_that_was_restricted_after_its_look_up_makes_none(engine: AsyncEngine) -> None:
    customer, manager = await open_account(engine), PostgresKeyManagement(engine)
    new, secret = await made(engine, customer)
    by, other = (await find_caller(engine, secret)).key, await made(engine, customer)

    await manager.change(customer.account_id, new.id, {"scopes": frozenset({Scope.MANAGE})}, None)
    codes = [
        await code_of(manager.create(customer.account_id, wanted(), by)),
        await code_of(manager.change(customer.account_id, other[0].id, {"name": "mine"}, by)),
        await code_of(manager.delete(customer.account_id, other[0].id, by)),
    ]
    assert codes == ["key_restricted"] * 3

    await manager.delete(customer.account_id, new.id, None)
    assert await code_of(manager.create(customer.account_id, wanted(), by)) == "invalid_api_key"
    assert len(await manager.live(customer.account_id)) == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, Budget(40, Period.DAY)),
        (Budget(50, Period.DAY), Budget(40, Period.MONTH)),
        (Budget(50, Period.MONTH), Budget(40, Period.EVER)),
        (Budget(50, Period.EVER), Budget(40, Period.DAY)),
        (Budget(50, Period.DAY), Budget(40, Period.DAY)),
    ],
    ids=["none to day", "day to month", "month to ever", "ever to day", "day to day"],
)
async def test_another_budget_knows_what_was_spent_before(
    engine: AsyncEngine, before: Budget | None, after: Budget
) -> None:
    customer, manager = await open_account(engine, 1000), PostgresKeyManagement(engine)
    new, secret = await made(engine, customer, before)
    caller = await find_caller(engine, secret)
    # What another key of the account spends is none of it.
    assert await spend(engine, customer, customer.api_key, 3) == "done"
    jobs = [
        (await PostgresJobDesk(engine).accept(new_job(customer, cost_tokens=10), key=caller.key)).job for _ in range(3)
    ]
    await jobs_of(engine).settle(jobs[0].id, Outcome.canceled())

    changed = await manager.change(customer.account_id, new.id, {"budget": after}, None)

    assert changed.spending is not None
    assert (changed.spending.budget, changed.spending.spent_tokens) == (after, 20)
    assert await PostgresLedger(engine).violations() == []
    assert [await spend(engine, customer, secret, cost) for cost in (21, 20, 1)] == [
        "budget_exceeded", "done", "budget_exceeded"
    ]  # fmt: skip
    await jobs_of(engine).settle(jobs[1].id, Outcome.canceled())
    assert await spent(engine, customer, new) == 30
    assert await PostgresLedger(engine).violations() == []


async def test_a_budget_below_what_is_spent_lets_nothing_more_through(engine: AsyncEngine) -> None:
    customer, manager = await open_account(engine, 1000), PostgresKeyManagement(engine)
    new, secret = await made(engine, customer, DAY)
    assert await spend(engine, customer, secret, 15) == "done"

    await manager.change(customer.account_id, new.id, {"budget": Budget(5, Period.DAY)}, None)

    assert await spend(engine, customer, secret, 1) == "budget_exceeded"
    await manager.change(customer.account_id, new.id, {"budget": None}, None)
    assert await spend(engine, customer, secret, 100) == "done"
    assert await PostgresLedger(engine).violations() == []
    await manager.change(customer.account_id, new.id, {"budget": Budget(116, Period.DAY)}, None)
    assert [await spend(engine, customer, secret, cost) for cost in (2, 1)] == ["budget_exceeded", "done"]


async def test_changes_of_a_budget_beside_accepts_and_refunds_lose_nothing(
    engine: AsyncEngine, crowd: AsyncEngine, sql: Connection
) -> None:
    customer, manager = await open_account(engine, 10_000), PostgresKeyManagement(crowd)
    new, secret = await made(engine, customer, DAY)
    desks = [PostgresJobDesk(crowd) for _ in range(3)]
    budgets = [Budget(200, Period.MONTH), None, Budget(300, Period.EVER), Budget(250, Period.DAY)]
    outcomes: Counter[str] = Counter()

    async def accept(desk: PostgresJobDesk) -> None:
        for number in range(40):
            caller = await find_caller(crowd, secret)
            try:
                accepted = await desk.accept(new_job(customer, cost_tokens=1 + number % 5), key=caller.key)
            except DomainError as error:
                outcomes[error.code] += 1
                continue
            outcomes["accepted"] += 1
            if number % 3 == 0:
                await jobs_of(crowd).settle(accepted.job.id, Outcome.canceled())

    async def change() -> None:
        for number in range(24):
            budget = budgets[number % len(budgets)]
            await manager.change(customer.account_id, new.id, {"budget": budget}, None)
            assert await PostgresLedger(crowd).violations() == []

    await asyncio.gather(*(accept(desk) for desk in desks), change())

    assert set(outcomes) <= {"accepted", "budget_exceeded"}
    assert outcomes["accepted"] > 40
    booked = await sql.fetchval("SELECT sum(cost_tokens - refunded_tokens) FROM jobs WHERE key_id = $1", new.id)
    assert await spent(engine, customer, new) == booked
    assert await PostgresLedger(engine).violations() == []


async def test_an_accept_that_began_before_midnight_finds_its_window(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change of a budget leaves the windows of both days, each with what was spent in it."""
    customer, manager = await open_account(engine, 1000), PostgresKeyManagement(engine)
    new, secret = await made(engine, customer, DAY)
    assert await spend(engine, customer, secret, 15) == "done"
    # As if it were a moment after midnight, and the job of the day before.
    monkeypatch.setattr(windows, "_LATE_ACCEPT", timedelta(days=1))

    await manager.change(customer.account_id, new.id, {"budget": Budget(30, Period.DAY)}, None)

    rows = await sql.fetch("SELECT limit_tokens, spent_tokens FROM key_windows ORDER BY starts_at")
    assert [tuple(row) for row in rows] == [(30, 0), (30, 15)]
    assert await PostgresLedger(engine).violations() == []


async def test_a_key_that_is_deleted_and_rotated_at_once_is_over(crowd: AsyncEngine, engine: AsyncEngine) -> None:
    customer, manager = await open_account(engine), PostgresKeyManagement(crowd)
    for _ in range(10):
        new, secret = await made(engine, customer)
        rotated = new_key()

        codes = await asyncio.gather(
            code_of(manager.delete(customer.account_id, new.id, None)),
            code_of(manager.rotate(customer.account_id, new.id, stored_form(rotated), overlap_seconds=60, by=None)),
        )

        assert codes[0] == "done"
        assert codes[1] in ("done", "key_not_found")
        for one in (secret, rotated):
            assert await PostgresKeys(engine).find_by_key(digest_of(one)) is None


async def test_one_of_many_rotations_at_once_has_the_last_word(crowd: AsyncEngine, engine: AsyncEngine) -> None:
    customer, manager = await open_account(engine), PostgresKeyManagement(crowd)
    new, secret = await made(engine, customer)
    secrets = [new_key() for _ in range(12)]

    await asyncio.gather(
        *(manager.rotate(customer.account_id, new.id, stored_form(one), overlap_seconds=60, by=None) for one in secrets)
    )

    found = [await PostgresKeys(engine).find_by_key(digest_of(one)) for one in (secret, *secrets)]
    alive = [caller for caller in found if caller is not None]
    assert len(alive) == 2
    assert {caller.key.id for caller in alive} == {new.id}


async def test_creates_with_one_name_at_once_make_one_key(crowd: AsyncEngine, engine: AsyncEngine) -> None:
    customer, manager = await open_account(engine), PostgresKeyManagement(crowd)
    by = await full_key(engine, customer)
    named = IdempotencyKey("a name", b"f" * 32)
    news = [
        NewKey(
            id=uuid7(),
            settings=KeySettings(name="a key", scopes=ALL_SCOPES),
            secret=stored_form(new_key()),
            idempotency=named,
        )
        for _ in range(10)
    ]

    created = await asyncio.gather(*(manager.create(customer.account_id, new, by) for new in news))

    assert Counter(one.is_replay for one in created) == {True: 9, False: 1}
    assert len({one.key.id for one in created}) == 1


async def test_the_use_of_a_key_is_written_to_the_minute_and_once(engine: AsyncEngine, sql: Connection) -> None:
    customer, keys = await open_account(engine), PostgresKeys(engine)
    caller = await keys.find_by_key(digest_of(customer.api_key))
    assert caller is not None
    assert await sql.fetchval("SELECT last_used_at FROM keys") is None

    await keys.uses.write()

    written = await sql.fetch("SELECT last_used_at, xmin::text FROM keys")
    used_at = written[0]["last_used_at"]
    assert timedelta(0) <= datetime.now(UTC) - used_at < timedelta(minutes=2)
    assert (used_at.second, used_at.microsecond) == (0, 0)
    again = await keys.find_by_key(digest_of(customer.api_key))
    assert again is not None
    assert again.key.version == caller.key.version
    await keys.uses.write()
    later = await sql.fetch("SELECT last_used_at, xmin::text FROM keys")
    assert later == written or later[0]["last_used_at"] > used_at


async def test_uses_never_wait_for_a_key_that_somebody_changes(engine: AsyncEngine, sql: Connection) -> None:
    customer, keys = await open_account(engine), PostgresKeys(engine)
    await keys.find_by_key(digest_of(customer.api_key))

    async with sql.transaction():
        await sql.execute("SELECT FROM keys FOR UPDATE")
        await asyncio.wait_for(keys.uses.write(), 20)

    assert await sql.fetchval("SELECT last_used_at FROM keys") is None


async def test_uses_take_a_bounded_room(engine: AsyncEngine) -> None:
    uses = PostgresKeys(engine).uses

    for _ in range(10_500):
        uses.note(uuid4())

    assert len(uses._used) == 10_000
