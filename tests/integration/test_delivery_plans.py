"""What a claim and a record read where very much is pending, by plans from when nothing was."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.webhooks import Attempt, DeliveryState, Verdict
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.webhooks.delivery_queue import PostgresDeliveryQueue
from tests.builders import Connection, open_account
from tests.deliveries import Lab, open_lab
from tests.integration.test_query_plans import ROWS, rows_read

# The first one of each job waits for so long.
HEADS_WAIT = timedelta(hours=1)
ATTEMPT, DELIVERED = Attempt(milliseconds=1, status=200), Verdict(state=DeliveryState.DELIVERED)
PENDING = """
INSERT INTO deliveries (endpoint_id, event_seq, job_id, due_at)
SELECT $1, $2 + number, job_id, now() + $3::interval FROM (
    SELECT row_number() OVER () AS number, job_id FROM unnest($4::uuid[]) AS job_id) AS jobs
"""


@pytest.fixture
async def lab(engine: AsyncEngine) -> AsyncIterator[Lab]:
    async with open_lab(engine) as lab:
        yield lab


async def endpoint_of(lab: Lab) -> UUID:
    return (await lab.add(await open_account(lab.engine, 100))).endpoint.id


async def add_pending(
    sql: Connection, endpoint_id: UUID, jobs: list[UUID], *, first_seq: int = 0, due_in: timedelta = timedelta()
) -> None:
    await sql.execute(PENDING, endpoint_id, first_seq, due_in, jobs)
    due = "UPDATE webhook_endpoints SET next_due_at = least(next_due_at, now()) WHERE id = $1"
    await sql.execute(due, endpoint_id)


async def test_what_is_due_is_found_by_its_key_however_much_is_pending(sql: Connection, database: str) -> None:
    async with open_engine(database) as engine, open_lab(engine) as lab:
        full, other = await endpoint_of(lab), await endpoint_of(lab)
    await sql.execute("ANALYZE")
    await add_pending(sql, full, [uuid4() for _ in range(2 * ROWS)])
    await add_pending(sql, other, [uuid4()], first_seq=2 * ROWS)

    async def work(engine: AsyncEngine) -> None:
        queue = PostgresDeliveryQueue(engine)
        claimed = await queue.claim(2, leave_out=())
        assert {delivery.endpoint_id for delivery in claimed} == {full, other}
        await asyncio.gather(*map(queue.give_back, claimed))

    assert await rows_read(sql, database, work) == set()


async def test_deliveries_behind_those_that_wait_are_put_off_with_them(lab: Lab, sql: Connection) -> None:
    endpoint_id = await endpoint_of(lab)
    jobs = [uuid4() for _ in range(10)]
    await add_pending(sql, endpoint_id, jobs, due_in=HEADS_WAIT)
    await add_pending(sql, endpoint_id, jobs, first_seq=100)

    assert await lab.claim() == []

    waiting = "SELECT count(DISTINCT due_at), min(due_at) > now() FROM deliveries"
    assert tuple(await sql.fetchrow(waiting) or ()) == (1, True)

    await lab.claim()
    await lab.pass_time(HEADS_WAIT.total_seconds())
    taken: list[int] = []
    while claimed := await lab.claim():
        taken += [delivery.event_seq for delivery in claimed]
        await asyncio.gather(*(lab.queue.record(delivery, ATTEMPT, DELIVERED) for delivery in claimed))
    assert sorted(taken) == [*range(1, 11), *range(101, 111)]
    assert all(taken.index(head) < taken.index(head + 100) for head in range(1, 11))
