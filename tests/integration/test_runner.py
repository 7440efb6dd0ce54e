"""The runner around steps that are only functions: what it runs, repeats, waits for and survives."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from pgqueuer.errors import FailingListenerError
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.application.execution.precedence import CountedAcceptance, Precedence
from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB, Lane, LeftToNewerRelease, RetryLater, Step
from app.bootstrap import build
from app.domain.errors import DatabaseUnavailable, Overloaded
from app.infrastructure.background import lanes as lanes_module
from app.infrastructure.background import queries as queries_module
from app.infrastructure.background import runner as runner_module
from app.infrastructure.background.runner import Runner
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.migrations import migrate
from app.infrastructure.settings import load_settings
from tests.builders import (
    BUILT_IN,
    STEPS,
    Connection,
    accept_job,
    claimed_job,
    connect,
    jobs_of,
    open_account,
    provider_request,
    queue_items,
    sweep_of,
    until,
)

StepFunction = Callable[[UUID], Awaitable[None]]
# What the service itself runs with; the fixture below sets its own.
DEQUEUE_TIMEOUT_SECONDS = lanes_module.DEQUEUE_TIMEOUT_SECONDS
# Less than a stop may take, which ends what hangs, and longer than a busy machine needs.
HANG_SECONDS = 20


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only how soon the runner looks again where nothing tells it to."""
    monkeypatch.setattr(lanes_module, "DEQUEUE_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(runner_module, "RESTART_SECONDS_MIN", 0.1)


@dataclass(slots=True)
class Calls:
    """Steps that note for which job they ran, and then do what a test wants."""

    seen: dict[Step, list[UUID]] = field(default_factory=lambda: defaultdict(list))

    def step(self, step: Step, then: StepFunction | None = None) -> StepFunction:
        async def run(job_id: UUID) -> None:
            self.seen[step].append(job_id)
            if then is not None:
                await then(job_id)

        return run

    async def wait_for(self, step: Step, *job_ids: UUID) -> None:
        async def have_come() -> bool:
            return sorted(self.seen[step]) == sorted(job_ids)

        await until(have_come)


def two_at_once(step: Step) -> Step:
    return replace(step, lane=replace(step.lane, concurrent_steps_max=2))


async def sweep_nothing() -> None:
    pass


async def wait_until_working(runner: Runner) -> None:
    async def is_working() -> bool:
        return (await runner.check()).ok

    await until(is_working)


async def wait_until_empty(sql: Connection) -> None:
    async def is_empty() -> bool:
        return not await queue_items(sql)

    await until(is_empty)


@asynccontextmanager
async def running(
    dsn: str,
    calls: Calls,
    submit: StepFunction | None = None,
    sweep: Callable[[], Awaitable[None]] = sweep_nothing,
    follow: StepFunction | None = None,
    *,
    precedence: Precedence | None = None,
    submit_step: Step = SUBMIT_JOB,
    follow_step: Step = FOLLOW_JOB,
) -> AsyncIterator[Runner]:
    steps = {submit_step: calls.step(SUBMIT_JOB, submit), follow_step: calls.step(FOLLOW_JOB, follow)}
    runner = Runner(dsn, steps, sweep, precedence)
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop()


async def test_runs_each_item_once_with_the_step_it_is_for(engine: AsyncEngine, database: str, sql: Connection) -> None:
    customer, calls = await open_account(engine, 100), Calls()
    waiting = [await accept_job(engine, customer) for _ in range(5)]
    submitted, attempt_token = await claimed_job(engine, customer)
    await jobs_of(engine).record_submission(submitted, attempt_token, provider_request())

    async with running(database, calls):
        await calls.wait_for(SUBMIT_JOB, *waiting, submitted)
        await calls.wait_for(FOLLOW_JOB, submitted)
        await wait_until_empty(sql)

    assert len(calls.seen[SUBMIT_JOB]) == 6
    assert len(calls.seen[FOLLOW_JOB]) == 1


async def test_runs_what_is_queued_while_it_works(engine: AsyncEngine, database: str, sql: Connection) -> None:
    customer, calls = await open_account(engine, 100), Calls()

    async with running(database, calls) as runner:
        await wait_until_working(runner)
        job_id = await accept_job(engine, customer)
        await calls.wait_for(SUBMIT_JOB, job_id)
        await wait_until_empty(sql)


async def test_an_idle_step_is_woken_for_what_is_queued(
    engine: AsyncEngine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "DEQUEUE_TIMEOUT_SECONDS", 600)
    customer, calls = await open_account(engine, 100), Calls()

    async with running(database, calls) as runner:
        await wait_until_working(runner)
        for accepted in range(1, 4):
            # Long enough for a step that looks by itself to have gone to sleep.
            await asyncio.sleep(0.3)
            job_id = await accept_job(engine, customer)
            await until_seen(calls, SUBMIT_JOB, accepted)
            assert calls.seen[SUBMIT_JOB][-1] == job_id


async def until_seen(calls: Calls, step: Step, count: int) -> None:
    async def has_seen() -> bool:
        return len(calls.seen[step]) == count

    await until(has_seen)


async def test_two_runners_share_the_items(engine: AsyncEngine, database: str, sql: Connection) -> None:
    customer, calls = await open_account(engine, 100), Calls()
    job_ids = [await accept_job(engine, customer) for _ in range(20)]

    async with running(database, calls), running(database, calls):
        await calls.wait_for(SUBMIT_JOB, *job_ids)
        await wait_until_empty(sql)

    assert sorted(calls.seen[SUBMIT_JOB]) == job_ids


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (RetryLater(0.1), None),
        (DatabaseUnavailable(), "step_postponed"),
        (Overloaded(), "step_postponed"),
        (ZeroDivisionError(), "step_failed"),
    ],
    ids=["retry-later", "outage", "overload", "unexpected"],
)
async def test_runs_an_item_again_after(
    engine: AsyncEngine, database: str, sql: Connection, error: Exception, event: str | None
) -> None:
    """Only what nobody expected is logged as a bug."""
    calls = Calls()
    job_id = await accept_job(engine, await open_account(engine, 100))

    async def fail_at_first(_: UUID) -> None:
        if len(calls.seen[SUBMIT_JOB]) == 1:
            raise error

    with capture_logs() as logs:
        async with running(database, calls, submit=fail_at_first):
            await calls.wait_for(SUBMIT_JOB, job_id, job_id)
            await wait_until_empty(sql)

    assert [log["event"] for log in logs if log["event"].startswith("step_")] == ([event] if event else [])


async def test_waits_as_long_as_the_step_asks_before_it_runs_again(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    calls = Calls()
    job_id = await accept_job(engine, await open_account(engine, 100))

    async def ask_for_an_hour(_: UUID) -> None:
        raise RetryLater(3600)

    async def is_postponed() -> bool:
        return bool(
            await sql.fetchval(
                "SELECT count(*) FROM pgqueuer WHERE status = 'queued'"
                " AND execute_after BETWEEN now() + interval '50 minutes' AND now() + interval '60 minutes'"
            )
        )

    async with running(database, calls, submit=ask_for_an_hour):
        await until(is_postponed)

    assert calls.seen[SUBMIT_JOB] == [job_id]


async def test_gives_back_what_only_a_newer_release_knows_and_says_so_once(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    calls, customer = Calls(), await open_account(engine, 100)
    job_ids = [await accept_job(engine, customer) for _ in range(3)]

    async def leave(job_id: UUID) -> None:
        raise LeftToNewerRelease(job_id)

    async def is_given_back() -> bool:
        given_back = await sql.fetchval(
            "SELECT count(*) FROM pgqueuer WHERE status = 'queued' AND queue_manager_id IS NULL"
            " AND execute_after BETWEEN now() AND now() + interval '8 s'"
        )
        return bool(given_back == len(job_ids))

    with capture_logs() as logs:
        async with running(database, calls, submit=leave):
            await calls.wait_for(SUBMIT_JOB, *job_ids)
            await until(is_given_back)

    said = [log for log in logs if log["event"] not in ("runner_started", "runner_stopped")]
    assert said == [
        {"event": "steps_left_to_newer_release", "log_level": "warning", "step": "generation.submit", "steps": 1}
    ]


async def test_one_failing_item_does_not_hold_up_the_others(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    customer, calls = await open_account(engine, 100), Calls()
    bad, *good = [await accept_job(engine, customer) for _ in range(6)]

    async def fail_for_one(job_id: UUID) -> None:
        if job_id == bad:
            raise RetryLater(3600)

    async def only_the_bad_one_is_left() -> bool:
        return await queue_items(sql) == {(SUBMIT_JOB, bad)}

    async with running(database, calls, submit=fail_for_one):
        await calls.wait_for(SUBMIT_JOB, bad, *good)
        await until(only_the_bad_one_is_left)


async def test_runs_the_jobs_that_the_queue_had_lost_when_it_starts(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    calls = Calls()
    job_id = await accept_job(engine, await open_account(engine, 100))
    await sql.execute("DELETE FROM pgqueuer")

    async with running(database, calls, sweep=sweep_of(engine)):
        await calls.wait_for(SUBMIT_JOB, job_id)


async def test_stopping_waits_for_the_step_that_runs_and_starts_nothing_new(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    customer, calls = await open_account(engine, 100), Calls()
    running_id, may_end = await accept_job(engine, customer), asyncio.Event()
    finished: list[UUID] = []

    async def take_long(job_id: UUID) -> None:
        await may_end.wait()
        finished.append(job_id)

    async with running(database, calls, submit=take_long) as runner:
        await calls.wait_for(SUBMIT_JOB, running_id)

        stop = asyncio.create_task(runner.stop())
        await asyncio.sleep(0.1)
        late_id = await accept_job(engine, customer)
        await asyncio.sleep(0.7)
        was_waiting = not stop.done()
        may_end.set()
        await stop

    assert was_waiting
    assert finished == [running_id]
    assert await queue_items(sql) == {(SUBMIT_JOB, late_id)}


async def test_an_item_that_a_dead_runner_held_is_run_by_the_next(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "HEARTBEAT_TIMEOUT_SECONDS", 1)
    calls = Calls()
    job_id = await accept_job(engine, await open_account(engine, 100))
    await sql.execute("UPDATE pgqueuer SET status = 'picked', queue_manager_id = $1", uuid4())

    async with running(database, calls):
        await calls.wait_for(SUBMIT_JOB, job_id)


async def test_comes_back_after_its_connections_were_killed(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    customer, calls = await open_account(engine, 100), Calls()

    async with running(database, calls) as runner:
        await wait_until_working(runner)
        killed = await sql.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'tollgate-runner' AND datname = current_database()"
        )
        job_id = await accept_job(engine, customer)
        await calls.wait_for(SUBMIT_JOB, job_id)
        await wait_until_working(runner)

    assert killed


async def test_starts_to_work_once_the_schema_is_there(empty_database: str) -> None:
    calls = Calls()

    async with open_engine(empty_database) as engine, running(empty_database, calls) as runner:
        await asyncio.sleep(0.3)
        was_working = (await runner.check()).ok
        await migrate(engine)
        job_id = await accept_job(engine, await open_account(engine, 100))
        await calls.wait_for(SUBMIT_JOB, job_id)

    assert not was_working


async def test_comes_back_after_a_sweep_that_failed(engine: AsyncEngine, database: str) -> None:
    calls, sweeps = Calls(), 0
    job_id = await accept_job(engine, await open_account(engine, 100))

    async def fail_at_first() -> None:
        nonlocal sweeps
        sweeps += 1
        if sweeps == 1:
            raise ZeroDivisionError

    async with running(database, calls, sweep=fail_at_first):
        await calls.wait_for(SUBMIT_JOB, job_id)

    assert sweeps >= 2


@pytest.mark.alone
async def test_comes_back_as_soon_as_at_first_once_it_has_worked_for_a_while(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "RESTART_FORGOTTEN_SECONDS", 2)
    monkeypatch.setattr(lanes_module, "POOL_CLOSE_SECONDS_MAX", 0.1)
    lives_seconds, is_over = [0.0, 0.0, 2.1, 0.0], asyncio.Event()

    async def end_after_a_while() -> None:
        if not lives_seconds:
            is_over.set()
            return
        await asyncio.sleep(lives_seconds.pop(0))
        raise ZeroDivisionError

    with capture_logs() as logs:
        async with running(database, Calls(), sweep=end_after_a_while):
            async with asyncio.timeout(HANG_SECONDS):
                await is_over.wait()

    waits = [log["retry_seconds"] for log in logs if log["event"] == "runner_interrupted"]
    assert waits == [0.1, 0.2, 0.1, 0.2]


async def test_the_check_is_good_only_while_it_works(database: str) -> None:
    runner = Runner(database, {SUBMIT_JOB: Calls().step(SUBMIT_JOB)}, sweep_nothing)

    before = await runner.check()
    runner.start()
    await wait_until_working(runner)
    await runner.stop()
    after = await runner.check()

    assert (before.name, before.ok, after.ok) == ("runner", False, False)


async def test_the_check_is_bad_while_nobody_listens() -> None:
    async with running("postgresql://postgres@127.0.0.1:1/postgres", Calls()) as runner:
        await asyncio.sleep(0.3)

        check = await runner.check()

    assert not check.ok


async def test_stopping_is_quick_when_nothing_was_started_or_reached(database: str) -> None:
    unstarted = Runner(database, {}, sweep_nothing)
    unreached = Runner("postgresql://postgres@127.0.0.1:1/postgres", {}, sweep_nothing)
    unreached.start()
    await asyncio.sleep(0.1)

    async with asyncio.timeout(HANG_SECONDS):
        await unstarted.stop()
        await unreached.stop()


async def test_giving_up_the_wait_leaves_the_runner_alone(engine: AsyncEngine, database: str) -> None:
    calls = Calls()

    async with running(database, calls) as runner:
        await wait_until_working(runner)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runner.wait(), 0.05)

        job_id = await accept_job(engine, await open_account(engine, 100))
        await calls.wait_for(SUBMIT_JOB, job_id)


RUNNERS = "FROM pg_stat_activity WHERE application_name = 'tollgate-runner' AND datname = $1"


async def submitted_job(engine: AsyncEngine, sql: Connection) -> UUID:
    """Nothing but its look is in the queue."""
    job_id, attempt_token = await claimed_job(engine, await open_account(engine, 100))
    assert await jobs_of(engine).record_submission(job_id, attempt_token, provider_request())
    await sql.execute("DELETE FROM pgqueuer WHERE entrypoint = $1 AND payload = $2", SUBMIT_JOB.name, job_id.bytes)
    return job_id


async def test_comes_back_after_a_failed_check_of_its_listener(
    engine: AsyncEngine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, checks, is_healthy = Calls(), 0, QueueManager.listener_healthy

    async def fail_at_first(manager: QueueManager, timeout: timedelta = timedelta(seconds=10)) -> object:
        nonlocal checks
        checks += 1
        if checks == 1:
            raise FailingListenerError
        return await is_healthy(manager, timeout)

    async def has_begun_again() -> bool:
        return checks > 1

    monkeypatch.setattr(QueueManager, "listener_healthy", fail_at_first)
    async with running(database, calls) as runner:
        await until(has_begun_again)
        job_id = await accept_job(engine, await open_account(engine, 100))
        await calls.wait_for(SUBMIT_JOB, job_id)
        await wait_until_working(runner)


async def test_keeps_its_steps_while_the_housekeeping_fails(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "HOUSEKEEPING_SECONDS", 0.05)
    calls, sweeps = Calls(), 0

    async def fail_after_the_first() -> None:
        nonlocal sweeps
        sweeps += 1
        if sweeps > 1:
            raise ConnectionResetError

    async def has_failed_thrice() -> bool:
        return sweeps > 3

    async with running(database, calls, sweep=fail_after_the_first):
        await until(has_failed_thrice)
        job_id = await accept_job(engine, await open_account(engine, 100))
        await calls.wait_for(SUBMIT_JOB, job_id)
        await wait_until_empty(sql)


async def test_sweeps_from_time_to_time_and_leaves_no_log(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "HOUSEKEEPING_SECONDS", 0.05)
    calls = Calls()

    async def was_run_again() -> bool:
        return len(calls.seen[SUBMIT_JOB]) > 1

    async with running(database, calls, sweep=sweep_of(engine)) as runner:
        await wait_until_working(runner)
        first = await accept_job(engine, await open_account(engine, 100))
        await until(was_run_again)

    assert set(calls.seen[SUBMIT_JOB]) == {first}
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer_log") == 0


async def test_the_queue_wakes_a_step_only_for_what_it_can_take_now(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    """A step that is woken asks the queue several times, and walks through all that waits there."""
    heard: list[str] = []
    async with connect(database) as listener:
        for channel in (*STEPS, "ch_pgqueuer"):
            await listener.add_listener(
                channel, lambda *said: heard.append(f"{said[2]} {json.loads(said[3])['operation']}")
            )

        async def said_by(statement: str, *arguments: object) -> list[str]:
            heard.clear()
            await sql.execute(statement, *arguments)
            # Notifications come in the order of the commits.
            await sql.execute("SELECT pg_notify('ch_pgqueuer', '{\"operation\": \"end\"}')")
            await until(is_over)
            return sorted(heard[:-1])

        async def is_over() -> bool:
            return "ch_pgqueuer end" in heard

        insert = """
            INSERT INTO pgqueuer (priority, entrypoint, status, execute_after)
            SELECT 0, entrypoint, 'queued', now() + make_interval(secs => seconds)
              FROM unnest($1::text[]) AS entrypoint, unnest($2::float8[]) AS seconds, generate_series(1, 3)
        """
        assert await said_by(insert, ["generation.submit"], [0]) == ["generation.submit insert"]
        assert await said_by(insert, ["generation.follow"], [5]) == []
        assert await said_by(insert, list(STEPS), [0.0, 5.0]) == [
            "attempt.cancel insert",
            "file.erase insert",
            "generation.follow insert",
            "generation.submit insert",
            "input.forget insert",
            "media.erase insert",
            "output.copy insert",
        ]
        assert await said_by("DELETE FROM pgqueuer WHERE entrypoint <> 'generation.submit'") == []
        # Room for the next one.
        assert await said_by("UPDATE pgqueuer SET status = 'picked'") == []
        assert await said_by("DELETE FROM pgqueuer") == ["generation.submit delete"]


async def test_works_again_after_the_database_was_away_over_its_housekeeping(
    engine: AsyncEngine, database: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "HOUSEKEEPING_SECONDS", 0.2)
    monkeypatch.setattr(runner_module, "RESTART_SECONDS_MAX", 0.5)
    calls, name = Calls(), urlsplit(database).path[1:]
    customer = await open_account(engine, 100)

    async with connect(postgres_dsn) as outside, running(database, calls) as runner:
        await wait_until_working(runner)
        await outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await outside.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)

        async def has_noticed() -> bool:
            return not (await runner.check()).ok

        await until(has_noticed)
        await outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await engine.dispose()
        await wait_until_working(runner)
        job_id = await accept_job(engine, customer)
        await calls.wait_for(SUBMIT_JOB, job_id)


async def test_a_step_outlives_the_loss_of_its_connections_and_stopping_waits_for_it(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    calls, may_end, ends = Calls(), asyncio.Event(), list[str]()
    job_id = await accept_job(engine, await open_account(engine, 100))

    async def take_long(_: UUID) -> None:
        try:
            await may_end.wait()
            ends.append("finished")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async with running(database, calls, submit=take_long) as runner:
        await calls.wait_for(SUBMIT_JOB, job_id)
        await sql.execute(f"SELECT pg_terminate_backend(pid) {RUNNERS}", urlsplit(database).path[1:])
        await asyncio.sleep(1)
        stop = asyncio.create_task(runner.stop())
        await asyncio.sleep(0.7)
        was_waiting = not stop.done()
        may_end.set()
        await stop

    assert was_waiting
    assert ends == ["finished"]


async def test_what_takes_longer_than_a_stop_may_is_cut_off(
    engine: AsyncEngine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "STOP_SECONDS_MAX", 0.3)
    calls, was_cut_off = Calls(), asyncio.Event()
    job_id = await accept_job(engine, await open_account(engine, 100))

    async def never_end(_: UUID) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            was_cut_off.set()

    async with running(database, calls, submit=never_end) as runner:
        await calls.wait_for(SUBMIT_JOB, job_id)
        async with asyncio.timeout(HANG_SECONDS):
            await runner.stop()

    assert was_cut_off.is_set()


@pytest.mark.alone
async def test_connections_that_do_not_close_hold_up_nothing(
    database: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "POOL_CLOSE_SECONDS_MAX", 0.2)
    is_asked = asyncio.Event()

    async def hang(_: "asyncpg.Pool[Any]") -> None:
        is_asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncpg.pool.Pool, "close", hang)
    async with connect(postgres_dsn) as outside, running(database, Calls()) as runner:
        await wait_until_working(runner)
        began_seconds = time.monotonic()

        await runner.stop()

        async def are_closed() -> bool:
            return not await outside.fetchval(f"SELECT count(*) {RUNNERS}", urlsplit(database).path[1:])

        await until(are_closed)

    assert is_asked.is_set()
    assert time.monotonic() - began_seconds < 5


async def test_submits_a_few_at_once_while_looks_go_on(engine: AsyncEngine, database: str, sql: Connection) -> None:
    calls, may_end, at_once, most = Calls(), asyncio.Event(), 0, 0
    looked_at = [await submitted_job(engine, sql) for _ in range(3)]
    customer = await open_account(engine, 100)
    job_ids = [await accept_job(engine, customer) for _ in range(6)]

    async def take_long(_: UUID) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await may_end.wait()
        at_once -= 1

    async def two_have_begun() -> bool:
        return len(calls.seen[SUBMIT_JOB]) >= 2

    async with running(database, calls, submit=take_long, submit_step=two_at_once(SUBMIT_JOB)):
        await calls.wait_for(FOLLOW_JOB, *looked_at)
        await until(two_have_begun)
        await asyncio.sleep(0.3)
        while_waiting = len(calls.seen[SUBMIT_JOB])
        may_end.set()
        await calls.wait_for(SUBMIT_JOB, *job_ids)
        await wait_until_empty(sql)

    assert while_waiting == 2
    assert most == 2


class Rush(Precedence):
    is_rush = True


@pytest.mark.alone
async def test_submits_wait_for_a_rush_of_accepts_and_go_on_a_batch_at_a_time(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_seconds = 1
    monkeypatch.setattr(lanes_module, "BATCH_SIZE_MAX", 2)
    monkeypatch.setattr(queries_module, "RUSH_PAUSE_SECONDS", pause_seconds)
    calls, rush = Calls(), Rush()
    looked_at = [await submitted_job(engine, sql) for _ in range(5)]
    customer = await open_account(engine, 100)
    job_ids = [await accept_job(engine, customer) for _ in range(12)]
    begun: list[float] = []

    async def note(_: UUID) -> None:
        begun.append(time.monotonic())

    async with running(database, calls, submit=note, precedence=rush):
        async with asyncio.timeout(pause_seconds):
            await calls.wait_for(FOLLOW_JOB, *looked_at)

        async def three_times() -> bool:
            return len(begun) >= 6

        await until(three_times)
        rush.is_rush = False
        await calls.wait_for(SUBMIT_JOB, *job_ids)

    pauses = [later - earlier for earlier, later in pairwise(begun)]
    assert [pauses[1] > pause_seconds * 0.7, pauses[3] > pause_seconds * 0.7] == [True, True]
    assert [pauses[0] < pause_seconds / 2, pauses[2] < pause_seconds / 2, pauses[4] < pause_seconds / 2] == [True] * 3
    # What waits does not wait for the end of its pause once the rush is over.
    assert begun[6] - begun[5] < pause_seconds / 2
    assert begun[-1] - begun[5] < 2 * pause_seconds


async def test_what_waits_for_a_rush_is_not_taken_any_more_by_a_runner_that_stops(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "BATCH_SIZE_MAX", 2)
    monkeypatch.setattr(queries_module, "RUSH_PAUSE_SECONDS", 60)
    calls = Calls()
    customer = await open_account(engine, 100)
    for _ in range(5):
        await accept_job(engine, customer)

    async def first_batch() -> bool:
        return len(calls.seen[SUBMIT_JOB]) == 2

    async with running(database, calls, precedence=Rush()):
        await until(first_batch)
        # Into the pause before the second batch.
        await asyncio.sleep(0.1)
        stopped_at = time.monotonic()

    assert time.monotonic() - stopped_at < HANG_SECONDS
    assert len(calls.seen[SUBMIT_JOB]) == 2
    left = await sql.fetch("SELECT DISTINCT status::text, attempts FROM pgqueuer")
    assert [tuple(item) for item in left] == [("queued", 0)]


async def test_the_runner_hears_of_the_accepts_of_its_process(database: str) -> None:
    settings = load_settings(_env_file=None, database_url=SecretStr(database), fal_key=SecretStr("test:key"))
    async with build(settings) as runtime:
        acceptance = runtime.customers(BUILT_IN).jobs.start._jobs
        assert isinstance(acceptance, CountedAcceptance)
        assert runtime.runner._precedence is acceptance.precedence


async def test_looks_go_on_while_more_submits_wait_than_may_run(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    calls, may_end = Calls(), asyncio.Event()
    looked_at = await submitted_job(engine, sql)
    customer = await open_account(engine, 100)
    for _ in range(6):
        await accept_job(engine, customer)

    async def take_long(_: UUID) -> None:
        await may_end.wait()

    async with running(database, calls, submit=take_long, submit_step=two_at_once(SUBMIT_JOB)):
        try:
            async with asyncio.timeout(HANG_SECONDS):
                await calls.wait_for(FOLLOW_JOB, looked_at)
        finally:
            may_end.set()


async def test_stopping_begins_no_submit_that_still_waits_for_its_turn(engine: AsyncEngine, database: str) -> None:
    calls, may_end = Calls(), asyncio.Event()
    customer = await open_account(engine, 100)
    for _ in range(5):
        await accept_job(engine, customer)

    async def take_long(_: UUID) -> None:
        await may_end.wait()

    async def all_are_taken() -> bool:
        return len(runner._executor.running) == 2

    async with running(database, calls, submit=take_long, submit_step=two_at_once(SUBMIT_JOB)) as runner:
        await until(all_are_taken)
        stop = asyncio.create_task(runner.stop())
        await asyncio.sleep(0.1)
        may_end.set()
        await stop

    assert len(calls.seen[SUBMIT_JOB]) == 2


async def given_back(sql: Connection) -> int:
    """How many items anybody may pick now."""
    count: int = await sql.fetchval(
        "SELECT count(*) FROM pgqueuer"
        " WHERE status = 'queued' AND queue_manager_id IS NULL AND execute_after <= clock_timestamp()"
    )
    return count


async def test_stopping_gives_back_what_was_picked_and_has_not_begun(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    dequeue, picked = Queries.dequeue, list[int]()

    async def dequeue_and_stop(self: Queries, *args: Any, **kwargs: Any) -> list[Any]:
        items = await dequeue(self, *args, **kwargs)
        if items:
            picked.append(len(items))
            runner.begin_stop()
        return items

    monkeypatch.setattr(Queries, "dequeue", dequeue_and_stop)
    calls = Calls()
    customer = await open_account(engine, 100)
    for _ in range(5):
        await accept_job(engine, customer)

    async with running(database, calls) as runner:
        async with asyncio.timeout(HANG_SECONDS):
            await runner.wait()
        await runner.stop()

    assert picked == [5]
    assert not calls.seen
    assert await given_back(sql) == 5


async def test_stopping_at_once_cuts_off_what_runs_and_gives_it_back(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    calls = Calls()
    customer = await open_account(engine, 100)
    job_ids = [await accept_job(engine, customer) for _ in range(3)]

    async def never_end(_: UUID) -> None:
        await asyncio.Event().wait()

    async with running(database, calls, submit=never_end) as runner:
        await calls.wait_for(SUBMIT_JOB, *job_ids)
        runner.begin_stop()
        await asyncio.sleep(0.1)
        was_waiting = bool(runner._executor.running)
        runner.begin_stop(at_once=True)
        async with asyncio.timeout(HANG_SECONDS):
            await runner.stop()

    assert was_waiting
    assert await given_back(sql) == 3


async def test_stopping_ends_also_where_the_queue_takes_nothing_back(
    engine: AsyncEngine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "GIVE_BACK_SECONDS_MAX", 0.3)
    calls, is_asked = Calls(), asyncio.Event()
    job_id = await accept_job(engine, await open_account(engine, 100))

    async def hang(*_: object) -> None:
        is_asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Queries, "retry_job", hang)

    async def never_end(_: UUID) -> None:
        await asyncio.Event().wait()

    async with running(database, calls, submit=never_end) as runner:
        await calls.wait_for(SUBMIT_JOB, job_id)
        runner.begin_stop(at_once=True)
        async with asyncio.timeout(HANG_SECONDS):
            await runner.stop()

    assert is_asked.is_set()


async def test_a_new_job_is_submitted_while_more_looks_wait_than_steps_may_run(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    calls, may_end = Calls(), asyncio.Event()
    for _ in range(5):
        await submitted_job(engine, sql)
    job_id = await accept_job(engine, await open_account(engine, 100))

    async def take_long(_: UUID) -> None:
        await may_end.wait()

    async with running(database, calls, follow=take_long, follow_step=two_at_once(FOLLOW_JOB)):
        try:
            async with asyncio.timeout(HANG_SECONDS):
                await calls.wait_for(SUBMIT_JOB, job_id)
        finally:
            may_end.set()


@pytest.mark.alone
async def test_a_look_that_is_asked_for_soon_comes_soon_on_an_idle_service(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "DEQUEUE_TIMEOUT_SECONDS", DEQUEUE_TIMEOUT_SECONDS)
    calls, moments = Calls(), list[float]()
    job_id = await submitted_job(engine, sql)

    async def ask_for_another(_: UUID) -> None:
        moments.append(time.monotonic())
        if len(moments) < 5:
            raise RetryLater(0.2)

    async with running(database, calls, follow=ask_for_another):
        await calls.wait_for(FOLLOW_JOB, *[job_id] * 5)

    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert all(0.2 <= pause < 1.5 for pause in pauses)


async def test_what_hangs_is_abandoned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(lane: Lane, manager: QueueManager) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(lanes_module, "_run_manager", never)
    managers = {step.lane: cast(QueueManager, SimpleNamespace(shutdown=asyncio.Event())) for step in STEPS.values()}
    waiting = asyncio.create_task(lanes_module.run_until_one_ends(managers))
    await asyncio.sleep(0)

    waiting.cancel()
    async with asyncio.timeout(HANG_SECONDS):
        await asyncio.wait({waiting})
    assert waiting.cancelled()
