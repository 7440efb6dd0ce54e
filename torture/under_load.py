"""What the kill, PostgreSQL and backend scenarios share: orders come in while something is done to the service."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torture.books import checks_of
from torture.callers import Book, Callers, Load, calling
from torture.evidence import ends, evidence_of, until_settled
from torture.fleet import Fleet, running_fleet
from torture.report import Check, Outcome, Plan
from torture.timeline import Timeline, sampled

USERS = 20
# Of every other user, who asks for more.
BUDGET_TOKENS = 900
LOAD_LOOK_SECONDS = 5


@dataclass(slots=True)
class Trouble:
    """What is done to the service, and what it finds out about it."""

    fleet: Fleet
    timeline: Timeline
    rng: random.Random
    counts: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    may_end: bool = False
    """Whether processes end; they are then started again by hand, and callers go without an answer."""


async def suffer(
    plan: Plan,
    scenario: str,
    *,
    jobs: int,
    seconds: float,
    trouble: Callable[[Trouble], Awaitable[None]],
    may_end: bool = False,
) -> Outcome:
    """`seconds`: how long the trouble is expected to take, over which the orders are spread."""
    rng = random.Random(f"{plan.seed}/{scenario}")
    directory = plan.directory / scenario
    directory.mkdir()
    began = time.monotonic()
    async with running_fleet(directory) as fleet, calling(fleet.url) as callers:
        books = await asyncio.gather(*(callers.register() for _ in range(USERS)))
        await asyncio.gather(
            *(
                callers.spend_by_budget(book, plan.count(BUDGET_TOKENS), per)
                for book, per in zip(books[::2], itertools.cycle(("ever", "day", "month")))
            )
        )
        timeline = Timeline()
        done = Trouble(fleet, timeline, rng, may_end=may_end)
        async with sampled(timeline, fleet.postgres.dsn):
            await _both(plan, done, callers, books, jobs=plan.count(jobs), seconds=seconds * plan.scale, work=trouble)
            await fleet.until_ready()
            settled_seconds = await until_settled(fleet)
        evidence = await evidence_of(fleet, callers, books)
        checks = [
            *checks_of(evidence),
            _ledger_all_along(timeline),
            *_answers(callers, may_end),
            no_bug_is_logged(fleet),
            *done.checks,
        ]
        counts = {
            **done.counts,
            "orders": sum(len(book.orders) for book in books),
            "orders_over_budget": sum(order.is_refused for _, order in evidence.orders()),
            "jobs": len(evidence.rows),
            "submissions": len(evidence.posts),
            "ends": ends(evidence),
            "answers": dict(callers.answers),
            "unanswered": len(callers.unanswered),
            "seconds_to_settle": settled_seconds,
            "log_events": _log_events(fleet),
        }
    return Outcome(scenario, checks, counts, timeline, time.monotonic() - began)


async def _both(
    plan: Plan,
    done: Trouble,
    callers: Callers,
    books: list[Book],
    *,
    jobs: int,
    seconds: float,
    work: Callable[[Trouble], Awaitable[None]],
) -> None:
    async def nemesis() -> None:
        await work(done)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(nemesis())
        load = Load(callers, books, done.rng, jobs, seconds, is_enough=task.done)
        tasks.create_task(load.run())
        tasks.create_task(_tell(plan, done, load, task))


async def _tell(plan: Plan, done: Trouble, load: Load, task: "asyncio.Task[None]") -> None:
    while not (task.done() and load.is_over):
        await asyncio.sleep(LOAD_LOOK_SECONDS)
        plan.console.log(f"{len(done.timeline.marks)} marks, {load.placed} orders of {load.count}")


def _ledger_all_along(timeline: Timeline) -> Check:
    return Check("the ledger had no violation all along", timeline.ledger_looks, timeline.violating_samples)


def _answers(callers: Callers, may_end: bool) -> list[Check]:
    asked = callers.answers.total()
    checks = [Check("answers are right, or 503 with Retry-After", asked, callers.wrong_answers)]
    if not may_end:
        checks.append(Check("every request is answered", asked, callers.unanswered))
    return checks


def no_bug_is_logged(fleet: Fleet) -> Check:
    found = [line for member in fleet.members for event in BUGS for line in member.logged(event)]
    return Check("no process logs what only a bug can cause", sum(member.starts for member in fleet.members), found)


# By the runbook, and what asyncio says of an error that nobody looked at.
BUGS = (
    "step_failed",
    "request_failed",
    "deliveries_not_claimed",
    "delivery_failed",
    "replay_failed",
    "webhook_message_failed",
    "exception was never retrieved",
    "was destroyed but it is pending",
)
EVENTS = (
    "step_postponed",
    "runner_interrupted",
    "generation_requeued",
    "generation_submit_lost",
    "generation_adopted",
    "generation_submit_given_up",
    "generation_result_late",
    "generation_submission_unclaimed",
    "submissions_paused",
    "Traceback",
)


def _log_events(fleet: Fleet) -> Mapping[str, int]:
    counts = {event: sum(len(member.logged(event)) for member in fleet.members) for event in EVENTS}
    return {event: count for event, count in counts.items() if count}
