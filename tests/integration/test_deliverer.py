"""The loop that delivers: it wakes when there is something, shares its places, and leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import DatabaseUnavailable
from app.domain.webhooks import ClaimedDelivery
from app.infrastructure.background import deliverer
from app.infrastructure.background.deliverer import Deliverer
from app.infrastructure.postgres.event_feed import PostgresEventFeed
from app.infrastructure.postgres.event_sequencer import EventSequencer
from tests.builders import Connection, open_account, until
from tests.deliveries import Lab, open_lab

SECONDS = 30.0


@pytest.fixture
async def lab(engine: AsyncEngine) -> AsyncIterator[Lab]:
    async with open_lab(engine) as lab:
        yield lab


@asynccontextmanager
async def delivering(lab: Lab) -> AsyncIterator[Deliverer]:
    made = Deliverer(lab.queue, lab.replays, lab.deliver, PostgresEventFeed(lab.engine).waking)
    async with made.working():
        yield made


def all_taken(lab: Lab, count: int) -> Callable[[], Awaitable[object]]:
    async def are() -> bool:
        return len(lab.receiver.taken) >= count

    return are


@pytest.mark.alone
async def test_it_hears_of_what_happens_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "LOOK_SECONDS", 60)
    customer = await open_account(lab.engine)
    await lab.add(customer)
    async with delivering(lab), EventSequencer(lab.engine).working():
        await asyncio.sleep(0.5)
        await lab.note(customer, *["balance.low"] * 30)
        await until(all_taken(lab, 30), seconds=SECONDS)
    assert set(await lab.states()) == {"delivered"}
    assert len(lab.receiver.taken) == 30


async def test_what_hangs_when_it_stops_goes_back(lab: Lab, sql: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "STOP_SECONDS_MAX", 0.3)
    customer = await open_account(lab.engine)
    await lab.add(customer, "/hang")
    await lab.note(customer, "balance.low")
    async with delivering(lab):
        await until(all_taken(lab, 1), seconds=SECONDS)
        assert await sql.fetchval("SELECT claim IS NOT NULL FROM deliveries")
    row = await sql.fetchrow("SELECT claim, attempts, attempt_log, due_at <= now() AS is_due FROM deliveries")
    assert row is not None
    assert tuple(row) == (None, 0, "[]", True)


async def test_a_replay_goes_on_by_itself(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    await lab.note(customer, *["balance.low"] * 9)
    endpoint = (await lab.add(customer)).endpoint
    await lab.webhooks.endpoints.replay(customer.account_id, endpoint.id, 0)
    async with delivering(lab):
        await until(all_taken(lab, 9), seconds=SECONDS)


async def test_one_account_does_not_have_all_places(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "ATTEMPTS_AT_ONCE_MAX", 24)
    greedy, other = await open_account(lab.engine), await open_account(lab.engine)
    for number in range(19):
        await lab.add(greedy, f"/hang/{number}")
    await lab.add(other, "/fine")
    await lab.note(greedy, *["balance.low"] * 4)
    async with delivering(lab):
        await asyncio.sleep(1)
        await lab.note(other, *["balance.low"] * 8)
        await until(all_taken(lab, 1), seconds=SECONDS)

        async def fine() -> bool:
            return len(lab.receiver.ids("/fine")) == 8

        await until(fine, seconds=SECONDS)
        hanging = sum(count for path, count in lab.receiver.at_once.items() if path.startswith("/hang"))
        assert hanging < 24 - 3


class FailingQueue:
    def __init__(self) -> None:
        self.claims = 0

    async def claim(self, endpoints_max: int, *, leave_out: Collection[UUID]) -> Sequence[ClaimedDelivery]:
        del endpoints_max, leave_out
        self.claims += 1
        raise DatabaseUnavailable if self.claims % 2 else ValueError("unforeseen")


async def test_it_goes_on_after_the_database_was_away(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "FAILED_SECONDS", 0.01)
    monkeypatch.setattr(deliverer, "LOOK_SECONDS", 0.01)
    queue = FailingQueue()
    feed = PostgresEventFeed(lab.engine)
    async with Deliverer(queue, lab.replays, lab.deliver, feed.waking).working():  # type: ignore[arg-type]

        async def has_tried() -> bool:
            return queue.claims >= 4

        await until(has_tried, seconds=SECONDS)


async def test_no_delivery_is_refused_while_secrets_are_exchanged(lab: Lab) -> None:
    """The receiver knows one secret at a time: the old one until it has the new one, which takes it a moment."""
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    secret, verified = endpoint.secret, 0

    def verify_new() -> None:
        nonlocal verified
        for taken in lab.receiver.taken[verified:]:
            assert taken.event(secret)["type"] == "balance.low"
        verified = len(lab.receiver.taken)

    async with delivering(lab), EventSequencer(lab.engine).working():
        for _ in range(8):
            await lab.note(customer, *["balance.low"] * 10)
            rotated = await lab.webhooks.rotate_secret(customer.account_id, endpoint.endpoint.id, overlap_seconds=60)
            await lab.note(customer, *["balance.low"] * 10)
            await asyncio.sleep(0.1)
            verify_new()
            secret = rotated.secret
        await until(all_taken(lab, 160), seconds=SECONDS)
    verify_new()
    assert verified == 160
