"""Twenty cancels at once for each job, at any moment of its life."""

import asyncio
import random
import time
import uuid

import asyncpg

from torture.books import checks_of
from torture.callers import Book, Callers, Order, calling
from torture.evidence import ends, evidence_of, until_settled
from torture.fleet import running_fleet
from torture.report import Check, Outcome, Plan
from torture.timeline import Timeline, sampled
from torture.wishes import Wish

JOBS = 1_000
CANCELS_EACH = 20
JOBS_AT_ONCE = 6
USERS = 20
TOKENS = 5_000
# From before the claim to after the end: a job takes about a second.
PHASE_SECONDS_MAX = 1.6
EITHER = {"CANCELED": 0, "COMPLETED": 1}
WISHES = (
    Wish("", EITHER, is_canceled=True, weight=8),
    Wish("[slow:2]", EITHER, is_canceled=True, weight=3),
    Wish("[ignore-cancel]", EITHER, is_canceled=True, weight=2),
    Wish("[webhook:early]", EITHER, is_canceled=True, weight=2),
    Wish("[submit:429x1]", EITHER, is_canceled=True),
    Wish("[partial:1]", EITHER, images=2, is_canceled=True),
    Wish("[fail]", {"CANCELED": 0, "FAILED": 0}, is_canceled=True),
    Wish("[stuck]", {"CANCELED": 0}, is_canceled=True),
)


async def cancels(plan: Plan) -> Outcome:
    rng = random.Random(f"{plan.seed}/cancels")
    directory = plan.directory / "cancels"
    directory.mkdir()
    began = time.monotonic()
    connections = JOBS_AT_ONCE * CANCELS_EACH
    async with running_fleet(directory) as fleet, calling(fleet.url, connections=connections) as callers:
        books = [await callers.register(TOKENS) for _ in range(USERS)]
        timeline = Timeline()
        async with sampled(timeline, fleet.postgres.dsn):
            await _storms(callers, books, rng, plan.count(JOBS))
            await until_settled(fleet)
        evidence = await evidence_of(fleet, callers, books)
        refunds = await _refunds(fleet.postgres.dsn)
        checks = [
            *checks_of(evidence),
            Check(
                "a job is refunded at most once",
                len(evidence.rows),
                [f"{job}: {n} refunds" for job, n in refunds if n > 1],
            ),
            Check("no other answer than 200 and 400", callers.answers.total(), callers.not_served),
        ]
        counts = {
            "jobs": len(evidence.rows),
            "cancels": len(evidence.rows) * CANCELS_EACH,
            "ends": ends(evidence),
            "answers": dict(callers.answers),
        }
    return Outcome("cancels", checks, counts, timeline, time.monotonic() - began)


async def _storms(callers: Callers, books: list[Book], rng: random.Random, count: int) -> None:
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            await _storm(callers, books[number % len(books)], number, rng)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(JOBS_AT_ONCE):
            tasks.create_task(one_after_the_other())


async def _storm(callers: Callers, book: Book, number: int, rng: random.Random) -> None:
    (wish,) = rng.choices(WISHES, [wish.weight for wish in WISHES])
    phase_seconds = rng.uniform(0, PHASE_SECONDS_MAX)
    order = Order(f"cancel {number} {wish.words}", wish, str(uuid.uuid4()))
    book.orders.append(order)
    job_id = await callers.place(book, order)
    if job_id is None:
        return
    await asyncio.sleep(phase_seconds)
    await asyncio.gather(*(callers.cancel(book, order, job_id) for _ in range(CANCELS_EACH)))


async def _refunds(dsn: str) -> list[tuple[str, int]]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT job_id::text, count(*) FROM ledger_entries WHERE kind = 'REFUND' GROUP BY job_id"
        )
    finally:
        await connection.close()
    return [(job_id, count) for job_id, count in rows]
