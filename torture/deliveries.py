"""Webhooks: whatever an endpoint wants comes at least once, whatever ends meanwhile, and a job's events in order.

Two parts, each on a database of its own:

1. kill -9 of APIs and workers, each of which delivers, while events come through the API. Some endpoints answer well,
   some with errors, some not at all now and then, some are gone or disabled for a time and are enabled and replayed by
   their owner. Days then pass in a minute, so that everything is delivered or given up.
2. Endpoints that are down for five days, and one that is disabled all the while, as events go on; then their owners
   enable them, and have what they missed replayed.

What the receiver wrote down is held against the log, and the log against the jobs and the ledger.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from torture.callers import Book
from torture.delivery_owners import Endpoint, Owner, looking_after, own
from torture.delivery_receiver import Hook, Mood, Receiver, open_receiver
from torture.delivery_time import pass_time, until_delivered, until_idle
from torture.delivery_truth import Delivered, delivery_checks, said_delivered
from torture.event_stage import Stage, open_stage
from torture.event_truth import ENDS, until_sequenced
from torture.event_writers import EVENTS_EACH, MARK_TOKENS, Writers
from torture.kills import KILL_SECONDS, KILLS, kill_members
from torture.report import Check, Outcome, Plan
from torture.timeline import Timeline, sampled
from torture.under_load import Trouble

# Few are spent in a short run, and the mark is to be crossed in that as well.
START_TOKENS = MARK_TOKENS + 10
KILLED_EVENTS = 20_000
KILLED_ACCOUNTS = 10
TROUBLED = (Mood.FAILING, Mood.HANGING, Mood.GONE, Mood.STUBBORN, Mood.SWITCHED)

DOWN_EVENTS = 3_000
DOWN_ACCOUNTS = 4
DOWN_HOURS_EACH = 6
# Of five days of each endpoint, about; some fail for the first time when others have failed for long.
DOWN_STEPS, DOWN_STEPS_MAX = 24, 60
DOWN_PAUSE_SECONDS = 0.5
# Others are at it all the while; an attempt for each that is down takes a second.
IDLE_SECONDS_MAX = 2
STEP_SECONDS = 2.5
# They are disabled by then, and what happens now they miss.
AFTERWARDS_SECONDS = 10.0

Part = tuple[list[Check], dict[str, Any]]


async def deliveries(plan: Plan) -> Outcome:
    directory = plan.directory / "deliveries"
    directory.mkdir()
    inner = replace(plan, directory=directory)
    began = time.monotonic()
    timeline = Timeline()
    parts = {"with kills": await with_kills(inner, timeline), "down for days": await down_for_days(inner)}
    checks = [replace(check, claim=f"{name}: {check.claim}") for name, (checks, _) in parts.items() for check in checks]
    counts = {name: counts for name, (_, counts) in parts.items()}
    return Outcome("deliveries", checks, counts, timeline, time.monotonic() - began)


async def with_kills(plan: Plan, timeline: Timeline) -> Part:
    rng = random.Random(f"{plan.seed}/deliveries with kills")
    kills, least = plan.count(KILLS), plan.count(KILLED_EVENTS)
    seconds = kills * KILL_SECONDS
    async with _post(plan, "kills", KILLED_ACCOUNTS, _hooks_of_any_kind, rng) as post:
        trouble = Trouble(post.stage.fleet, timeline, rng, may_end=True)

        async def trouble_them() -> None:
            await kill_members(trouble, kills)

        async with sampled(timeline, post.stage.dsn), looking_after(post.owners):
            pace = (round(least / EVENTS_EACH), seconds)
            writers = await post.stage.write_beside(plan, trouble_them, rng, pace, least)
            checks = await post.settle()
        checks += await post.checks(writers)
        replays = sum(len(endpoint.missed) for endpoint in post.endpoints)
        exhausted = sum(len(endpoint.given_up) for endpoint in post.endpoints)
        checks += [
            Check(f"at least {least:,} events", post.stage.seen, [] if post.stage.seen >= least else ["fewer"]),
            Check("endpoints are disabled, enabled and replayed meanwhile", replays),
            Check("some webhooks are given up, and shown so", exhausted),
        ]
    return checks, {**trouble.counts, **post.counts(writers)}


async def down_for_days(plan: Plan) -> Part:
    rng = random.Random(f"{plan.seed}/deliveries down for days")
    least = plan.count(DOWN_EVENTS)
    seconds = DOWN_STEPS * STEP_SECONDS + AFTERWARDS_SECONDS
    steps = 0
    async with _post(plan, "days", DOWN_ACCOUNTS, _hooks_that_are_down, rng) as post:
        for owner in post.owners:
            owner.keeps_off = True
            for endpoint in owner.endpoints:
                if endpoint.hook.mood is Mood.SWITCHED:
                    endpoint.hook.is_well = True
                    await owner.disable(endpoint)

        async def days() -> None:
            nonlocal steps
            down = [endpoint for endpoint in post.endpoints if endpoint.hook.mood is Mood.DOWN]
            steps = await _days_until(post, down)
            await asyncio.sleep(AFTERWARDS_SECONDS)

        writers = await post.stage.write_beside(plan, days, rng, (round(least / EVENTS_EACH), seconds), least)
        for owner in post.owners:
            owner.keeps_off = False
        async with looking_after(post.owners):
            checks = await post.settle()
        checks += await post.checks(writers)
        reasons = Counter(reason for owner in post.owners for reason in owner.reasons)
        not_disabled = ["not all were"] if steps == DOWN_STEPS_MAX else []
        given_up = [f"{endpoint.hook.name}: {seq}" for endpoint in post.endpoints for seq in endpoint.given_up]
        checks += [
            Check("endpoints that were down for five days were disabled for that", reasons["failing"], not_disabled),
            Check("endpoints that their owners had disabled are enabled again", reasons["by_you"]),
            Check("nothing is given up", len(post.endpoints), given_up),
        ]
    return checks, {"days_down": steps * DOWN_HOURS_EACH / 24, **post.counts(writers)}


async def _days_until(post: "_Post", down: Sequence[Endpoint]) -> int:
    """Until all of them are disabled, or it is enough; how many steps of hours that took."""
    owners = {endpoint.hook.user_id: owner for owner in post.owners for endpoint in owner.endpoints}
    connection = await asyncpg.connect(post.stage.dsn)
    try:
        for step in range(DOWN_STEPS_MAX):
            await asyncio.sleep(DOWN_PAUSE_SECONDS)
            await until_idle(connection, IDLE_SECONDS_MAX)
            views = [await owners[endpoint.hook.user_id].ask("GET", endpoint, 200) for endpoint in down]
            if not any(view["is_enabled"] for view in views):
                return step
            await pass_time(connection, DOWN_HOURS_EACH * 3_600)
    finally:
        await connection.close()
    return DOWN_STEPS_MAX


def _hooks_of_any_kind(number: int, book: Book) -> list[Hook]:
    steady = Hook(book.user_id, Mood.STEADY, types=ENDS | {"balance.low"} if number % 2 else None)
    troubled = {TROUBLED[number % len(TROUBLED)], TROUBLED[(number + 2) % len(TROUBLED)]}
    return [steady, Hook(book.user_id, Mood.OF_JOBS), *(Hook(book.user_id, mood) for mood in sorted(troubled))]


def _hooks_that_are_down(number: int, book: Book) -> list[Hook]:
    types = ENDS if number % 2 else None
    moods = (Mood.DOWN, Mood.SWITCHED if number % 2 else Mood.STEADY)
    return [Hook(book.user_id, Mood.OF_JOBS), *(Hook(book.user_id, mood, types) for mood in moods)]


@dataclass(slots=True)
class _Post:
    """The receiver, the owners of its endpoints, and what becomes of all deliveries at the end."""

    stage: Stage
    receiver: Receiver
    owners: Sequence[Owner]
    passed_seconds: float = 0.0

    @property
    def endpoints(self) -> list[Endpoint]:
        return [endpoint for owner in self.owners for endpoint in owner.endpoints]

    async def settle(self) -> list[Check]:
        """Until every job has ended, all endpoints are well and looked after, and nothing waits any more."""
        checks = await self.stage.settle([])
        self.receiver.all_are_well()

        def has_plans() -> bool:
            return any(endpoint.missed_after is not None for endpoint in self.endpoints)

        is_over, self.passed_seconds = await until_delivered(self.stage.dsn, has_plans)
        late = [] if is_over else ["something still waits"]
        return [*checks, Check("everything is delivered or given up in time", len(self.endpoints), late)]

    async def checks(self, writers: Writers) -> list[Check]:
        truth = await self.stage.truth()
        said = await said_delivered(self.stage.dsn)
        delivered = []
        for owner in self.owners:
            for endpoint in owner.endpoints:
                hook = endpoint.hook
                exhausted: Collection[int] = await owner.exhausted(endpoint) if hook.endpoint_id is not None else ()
                endpoint.given_up.update(exhausted)
                jobs = writers.with_webhook_url[hook.user_id] if hook.mood is Mood.OF_JOBS else ()
                delivered.append(Delivered(endpoint, exhausted, jobs, said.get(hook.endpoint_id or "", ())))
        return [*await self.stage.checks(truth, {}), *delivery_checks(delivered, self.receiver, truth)]

    def counts(self, writers: Writers) -> dict[str, Any]:
        receipts = [receipt for endpoint in self.endpoints for receipt in endpoint.hook.receipts]
        accepted = [
            len({receipt.told for receipt in endpoint.hook.receipts if receipt.is_accepted})
            for endpoint in self.endpoints
        ]
        return {
            "events": self.stage.seen,
            "operations": dict(writers.done),
            "endpoints": len(self.endpoints),
            "webhooks": len(receipts),
            "taken": sum(receipt.is_accepted for receipt in receipts),
            "taken_once_at_least": sum(accepted),
            "answers": dict(self.receiver.answers),
            "disabled": dict(Counter(reason for owner in self.owners for reason in owner.reasons)),
            "given_up": sum(len(endpoint.given_up) for endpoint in self.endpoints),
            "jobs_with_webhook_url": sum(map(len, writers.with_webhook_url.values())),
            "days_passed_at_the_end": self.passed_seconds / 86_400,
        }


@asynccontextmanager
async def _post(
    plan: Plan, name: str, accounts: int, hooks: Callable[[int, Book], list[Hook]], rng: random.Random
) -> AsyncIterator[_Post]:
    async with (
        open_receiver(f"{plan.seed}/{name}") as receiver,
        open_stage(plan, name, accounts, tokens=START_TOKENS) as stage,
    ):
        # Before the first endpoint, so that each hears of all that comes after it, and of nothing before.
        assert await until_sequenced(stage.dsn)
        owners = []
        for number, book in zip(itertools.count(), stage.books):
            owner = await own(
                book,
                hooks(number, book),
                callers=stage.callers,
                receiver=receiver,
                dsn=stage.dsn,
                rng=random.Random(rng.random()),
            )
            owners.append(owner)
        stage.webhook_urls = {
            hook.user_id: f"{receiver.url}{hook.path}" for hook in receiver.hooks.values() if hook.mood is Mood.OF_JOBS
        }
        yield _Post(stage, receiver, owners)
