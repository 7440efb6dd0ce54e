"""What /readyz finds out that a question alone would not: a database that keeps nothing, and runners that hang."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.application.execution.duties import HOUSEKEEPING, Duties
from app.application.execution.steps import LOOKS, SUBMISSIONS
from app.application.ports.health import Check
from app.domain.errors import DatabaseUnavailable
from app.infrastructure.postgres import failures as failures_module
from app.infrastructure.postgres import health as health_module
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.health import database_check, workers_check
from app.infrastructure.postgres.heartbeats import DEAD_SECONDS, Heartbeats
from tests.builders import Connection, accept_job, connect, open_account

DatabaseCheck = Callable[[], Awaitable[Check]]
DUTIES = [LOOKS.name, SUBMISSIONS.name, HOUSEKEEPING]
# As the server does it: the error code of a full disk, of a standby, of a missing right.
FAILING = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{code}', DETAIL = 'secret-detail', HINT = 'secret-hint';
END $$;
CREATE TRIGGER failing BEFORE INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION fail();
"""


@pytest.fixture
def heartbeats(engine: AsyncEngine) -> Heartbeats:
    return Heartbeats(engine, lambda: DUTIES)


@pytest.fixture
def check(engine: AsyncEngine, heartbeats: Heartbeats, monkeypatch: pytest.MonkeyPatch) -> DatabaseCheck:
    monkeypatch.setattr(health_module, "WRITE_SECONDS", 0.0)
    return database_check(engine, heartbeats)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("53100", "PostgreSQL's disk is full"),
        ("25006", "PostgreSQL is read-only"),
        ("42501", "PostgreSQL refuses the service's role a right"),
        ("57014", "PostgreSQL does not answer"),
    ],
)
async def test_a_database_that_takes_no_heartbeat_is_not_ready(
    sql: Connection, check: DatabaseCheck, code: str, said: str
) -> None:
    assert (await check()).ok
    await sql.execute(FAILING.format(code=code, table="heartbeats"))

    refused = await check()

    assert (refused.ok, refused.detail) == (False, said)


@pytest.mark.alone
async def test_it_is_ready_again_some_time_after_the_mend(
    sql: Connection, check: DatabaseCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures_module, "REFUSED_SECONDS", 0.5)
    await sql.execute(FAILING.format(code="53100", table="heartbeats"))
    assert not (await check()).ok
    await sql.execute("DROP TRIGGER failing ON heartbeats")

    assert not (await check()).ok
    await asyncio.sleep(0.6)
    assert (await check()).ok


@pytest.mark.parametrize("code", ["53100", "25006", "42501"])
async def test_what_requests_meet_counts_where_the_heartbeat_still_fits(
    engine: AsyncEngine, sql: Connection, check: DatabaseCheck, code: str
) -> None:
    customer = await open_account(engine, 100)
    assert (await check()).ok
    await sql.execute(FAILING.format(code=code, table="jobs"))
    with pytest.raises(DatabaseUnavailable):
        await accept_job(engine, customer)

    assert not (await check()).ok


async def test_one_event_a_second_says_what_the_server_said_and_counts_the_rest(
    engine: AsyncEngine, sql: Connection
) -> None:
    began = time.monotonic()
    customer = await open_account(engine, 1_000)
    await sql.execute(FAILING.format(code="53100", table="jobs"))

    with capture_logs() as logs:
        for _ in range(30):
            with pytest.raises(DatabaseUnavailable):
                await accept_job(engine, customer)
        await asyncio.sleep(failures_module.SAID_SECONDS)
        with pytest.raises(DatabaseUnavailable):
            await accept_job(engine, customer)

    seconds = time.monotonic() - began
    said = [log for log in logs if log["event"] == "database_failed"]
    assert 2 <= len(said) <= 1 + seconds / failures_module.SAID_SECONDS
    assert {(log["sqlstate"], log["message"]) for log in said} == {("53100", "could not extend file")}
    assert sum(log["count"] for log in said) == 31
    assert "secret" not in str(logs)


async def test_a_role_that_became_read_only_is_not_ready_and_recovers_with_its_pool(
    postgres_dsn: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(failures_module, "REFUSED_SECONDS", 0.1)
    name = database.partition("?")[0].rpartition("/")[2]
    async with connect(postgres_dsn) as admin:
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with open_engine(database) as engine:
            check = database_check(engine, Heartbeats(engine, list))
            refused = await check()
            await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            await asyncio.sleep(0.2)
            # The sessions that began read-only are gone.
            mended = await check()
            customer = await open_account(engine, 10)
            await accept_job(engine, customer)

    assert (refused.ok, refused.detail) == (False, "PostgreSQL is read-only")
    assert mended.ok


async def test_a_thousand_questions_write_once(engine: AsyncEngine) -> None:
    written: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: written.append(given[2]))
    check = database_check(engine, Heartbeats(engine, lambda: DUTIES))

    answers = await asyncio.gather(*(check() for _ in range(1_000)))

    assert all(answer.ok for answer in answers)
    assert len([statement for statement in written if "INSERT INTO heartbeats" in statement]) == 1


async def test_a_missing_right_is_an_outage_with_its_grant_in_the_log_and_not_a_bug(
    postgres_dsn: str, database: str, sql: Connection
) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    role = f"role_of_{name}"
    await sql.execute(f"CREATE ROLE {role} LOGIN")
    try:
        await sql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        async with open_engine(database.replace("postgres@", f"{role}@")) as engine:
            with capture_logs() as logs, pytest.raises(DatabaseUnavailable):
                await open_account(engine, 10)
    finally:
        await sql.execute(f"DROP OWNED BY {role}")
        await sql.execute(f"DROP ROLE {role}")

    (said,) = [log for log in logs if log["event"] == "database_failed"]
    assert said["sqlstate"] == "42501"
    assert said["message"].startswith("permission denied for table ")


async def rows(sql: Connection) -> dict[str, str]:
    return {row["duty"]: row["command"] for row in await sql.fetch("SELECT duty, command FROM heartbeats")}


async def until_rows(sql: Connection, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(await rows(sql)) != count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_process_has_a_row_for_each_duty_and_takes_them_away_at_its_end(
    heartbeats: Heartbeats, sql: Connection
) -> None:
    async with heartbeats.beating("worker"):
        await until_rows(sql, 4)
        assert await rows(sql) == dict.fromkeys([*DUTIES, "process"], "worker")

    assert await rows(sql) == {}


async def test_rows_of_the_dead_are_forgotten_after_a_day(heartbeats: Heartbeats, sql: Connection) -> None:
    await insert_rows(sql, 23 * 3600, [LOOKS.name])
    await insert_rows(sql, 25 * 3600, [SUBMISSIONS.name])

    await heartbeats.beat()

    old = await sql.fetch("SELECT duty FROM heartbeats WHERE beaten_at < now() - interval '1 minute'")
    assert [row["duty"] for row in old] == [LOOKS.name]


async def insert_rows(sql: Connection, age_seconds: float, duties: Sequence[str], command: str = "worker") -> None:
    await sql.execute(
        "INSERT INTO heartbeats SELECT gen_random_uuid(), duty, $2, 'host', now() - $3 * interval '1 second'"
        " FROM unnest($1::text[]) AS duty",
        duties,
        command,
        age_seconds,
    )


async def age_by(sql: Connection, seconds: float) -> None:
    await sql.execute("UPDATE heartbeats SET beaten_at = beaten_at - $1 * interval '1 second'", seconds)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1_000.0
        monkeypatch.setattr(health_module, "time", SimpleNamespace(monotonic=lambda: self.seconds))


async def test_an_api_waits_for_its_first_worker_and_then_says_that_there_is_none(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    check = workers_check(engine, DUTIES)

    at_first = await check()
    clock.seconds += health_module.WORKER_GRACE_SECONDS
    later = await check()

    assert (at_first.ok, at_first.detail) == (True, "external: waiting for a worker")
    assert not later.ok
    assert "no worker works on jobs" in later.detail


@pytest.mark.alone
async def test_a_worker_that_hangs_is_missed_at_once_and_its_duty_named(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    check = workers_check(engine, DUTIES)
    await insert_rows(sql, 1, DUTIES)
    assert (await check()).detail == "external: worker processes work on jobs"

    clock.seconds += DEAD_SECONDS
    await sql.execute("UPDATE heartbeats SET beaten_at = now() - interval '21 seconds' WHERE duty = $1", LOOKS.name)
    one_lane = await check()
    await age_by(sql, DEAD_SECONDS)
    all_of_it = await check()

    assert not one_lane.ok
    assert f"{LOOKS.name} has been silent for 21 s" in one_lane.detail
    assert SUBMISSIONS.name not in one_lane.detail
    assert not all_of_it.ok
    assert all(duty in all_of_it.detail for duty in DUTIES)


async def test_a_worker_that_is_replaced_is_not_missed_beside_an_old_dead_one(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    check = workers_check(engine, DUTIES)
    await insert_rows(sql, 3_600, DUTIES)
    await insert_rows(sql, 1, DUTIES)
    assert (await check()).ok
    await sql.execute("DELETE FROM heartbeats WHERE beaten_at > now() - interval '1 minute'")
    clock.seconds += 5

    assert (await check()).ok
    clock.seconds += health_module.WORKER_GRACE_SECONDS
    assert not (await check()).ok


async def test_a_worker_of_the_release_before_counts_although_it_does_not_beat(
    engine: AsyncEngine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    check = workers_check(engine, DUTIES)
    clock.seconds += health_module.WORKER_GRACE_SECONDS + 1
    old = await asyncpg.connect(database, server_settings={"application_name": "tollgate-runner"})
    try:
        while_it_runs = await check()
    finally:
        await old.close()

    assert while_it_runs.detail == "external: a worker of an older release works on jobs"
    assert while_it_runs.ok


async def test_duties_of_other_releases_are_not_judged(engine: AsyncEngine, sql: Connection) -> None:
    check = workers_check(engine, DUTIES)
    await insert_rows(sql, 1, [LOOKS.name, SUBMISSIONS.name])
    await insert_rows(sql, 3_600, ["a lane of another release"])

    assert (await check()).detail == "external: worker processes work on jobs"


def test_a_duty_is_dead_when_it_has_not_beaten_for_its_time() -> None:
    now = 0.0
    duties = Duties(lambda: now)
    duties.begin("quick", 5)
    duties.begin("slow", 50)

    now = 10.0
    assert (list(duties.alive), list(duties.dead)) == (["slow"], ["quick"])
    duties.beat("quick")
    assert list(duties.dead) == []
    duties.end()
    assert list(duties.alive) == []
