"""Files in PostgreSQL: counted under a lock, kept for as long as was said, and deleted for ever."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.application.execution.erase import LOOK_AGAIN_SECONDS, STORE_AWAY_SECONDS, EraseFile
from app.application.execution.steps import ERASE_FILE, RetryLater
from app.application.ports.media_store import ObjectMissing
from app.bootstrap.steps import lost_steps_of_media
from app.domain.budgets import AccountLimits
from app.domain.errors import InsufficientBalance
from app.domain.file_errors import FilesFull
from app.domain.files import FileId
from app.domain.jobs import JobStatus
from app.domain.limits import TooManyWrites
from app.domain.outputs import DeletedBecause
from app.infrastructure.media_store.folder import Folder
from app.infrastructure.postgres.files import records
from app.infrastructure.postgres.files.records import PostgresFiles
from tests.builders import (
    Connection,
    begin_minute_of_writes,
    blocked,
    connect,
    job_in,
    open_account,
    queue_items,
)
from tests.kept_files import CONTENT, accept_with, content, files_of, kept_file, miscounted, new_file
from tests.media import FILES_BYTES_MAX, MEDIA_DAYS

LEFT = "SELECT round(extract(epoch FROM expires_at - now()) / 3600)::int FROM files WHERE id = $1"
COUNTED = "SELECT files_bytes FROM accounts WHERE id = $1"


async def hours_left(sql: Connection, file_id: UUID) -> int:
    return int(await sql.fetchval(LEFT, file_id))


async def make_over(sql: Connection, *file_ids: UUID) -> None:
    await sql.execute("UPDATE files SET expires_at = now() - interval '1 second' WHERE id = ANY($1::uuid[])", file_ids)


async def end_long_ago(sql: Connection, job_id: UUID, hours: int) -> None:
    await sql.execute("ALTER TABLE jobs DISABLE TRIGGER USER")
    await sql.execute("UPDATE jobs SET updated_at = now() - make_interval(hours => $2) WHERE id = $1", job_id, hours)
    await sql.execute("ALTER TABLE jobs ENABLE TRIGGER USER")


async def test_a_file_counts_from_its_reservation_and_is_there_once_it_is_stored(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer, files = await open_account(engine), files_of(engine)
    file = new_file(customer)

    reserved = await files.reserve(file, FILES_BYTES_MAX)
    listed = await files.list(customer.account_id, limit=10, before=None)
    assert (reserved.is_stored, listed.files, listed.used_bytes) == (False, [], len(CONTENT))
    assert await hours_left(sql, file.id) == 1
    stored = await files.record_stored(file.id)
    again = await files.record_stored(file.id)

    assert stored is not None
    assert stored == again == await files.find(file.id)
    assert (stored.is_stored, stored.sha256, stored.width) == (True, file.sha256, 300)
    assert await hours_left(sql, file.id) == MEDIA_DAYS * 24
    listed = await files.list(customer.account_id, limit=10, before=None)
    assert (listed.files, listed.used_bytes) == ([stored], len(CONTENT))
    assert await files.of_account(customer.account_id, [file.id]) == {file.id: stored}


async def test_nobody_else_finds_a_file(engine: AsyncEngine) -> None:
    owner, other = await open_account(engine), await open_account(engine)
    file, files = await kept_file(engine, owner), files_of(engine)

    assert await files.of_account(other.account_id, [file.id]) == {}
    listed = await files.list(other.account_id, limit=10, before=None)
    assert (listed.files, listed.used_bytes) == ([], 0)


async def test_pages_go_on_where_the_last_one_ended_also_if_that_file_was_deleted(engine: AsyncEngine) -> None:
    customer, files = await open_account(engine), files_of(engine)
    kept = [await kept_file(engine, customer) for _ in range(5)][::-1]

    first = await files.list(customer.account_id, limit=2, before=None)
    await files.delete(first.files[-1].id, DeletedBecause.REQUESTED)
    second = await files.list(customer.account_id, limit=10, before=first.files[-1].id)

    assert [*first.files, *second.files] == kept
    assert (await files.list(customer.account_id, limit=10, before=uuid7())).files == []


async def test_of_many_that_reserve_at_once_as_many_fit_as_fit(crowd: AsyncEngine, sql: Connection) -> None:
    customer, files = await open_account(crowd), files_of(crowd)

    answers = await asyncio.gather(
        *(files.reserve(new_file(customer, size_bytes=30), 100) for _ in range(20)), return_exceptions=True
    )

    refusals = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(refusals) == 17
    assert all(isinstance(refusal, FilesFull) for refusal in refusals)
    assert await sql.fetchval(COUNTED, customer.account_id) == 90
    assert await miscounted(sql) == []
    with pytest.raises(FilesFull) as refused:
        await files.reserve(new_file(customer, size_bytes=11), 100)
    assert refused.value.figures == {"used_bytes": 90, "bytes_max": 100, "size_bytes": 11}
    await files.reserve(new_file(customer, size_bytes=10), 100)


async def test_an_upload_is_a_write_before_it_is_read_and_a_data_uri_is_one_with_its_job(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, 1)
    files = PostgresFiles(engine, MEDIA_DAYS, AccountLimits(writes_per_minute=2))
    await begin_minute_of_writes(sql)

    await files.admit(customer.account_id, 1, FILES_BYTES_MAX)
    await files.reserve(new_file(customer), FILES_BYTES_MAX)
    await files.reserve(new_file(customer, job_id=uuid7()), FILES_BYTES_MAX)
    with pytest.raises(FilesFull):
        await files.admit(customer.account_id, 1, 2 * len(CONTENT))

    with pytest.raises(TooManyWrites):
        await files.admit(customer.account_id, 1, FILES_BYTES_MAX)
    with pytest.raises(TooManyWrites):
        await files.reserve(new_file(customer, job_id=uuid7()), FILES_BYTES_MAX)
    assert await sql.fetchval(COUNTED, customer.account_id) == 2 * len(CONTENT)


async def test_a_file_is_told_of_for_a_month_after_it_was_erased_and_then_forgotten(
    engine: AsyncEngine, sql: Connection
) -> None:
    """Whoever uploads and deletes pays nothing for the rows. One that an unfinished job names stays."""
    customer, files = await open_account(engine, 100), files_of(engine)
    young, old, used, live = [await kept_file(engine, customer) for _ in range(4)]
    await accept_with(engine, customer, used)
    for file in (young, old, used):
        await files.delete(file.id, DeletedBecause.REQUESTED)
    await sql.execute("UPDATE files SET erased_at = now() - interval '29 days' WHERE deleted_at IS NOT NULL")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await sql.execute("DELETE FROM files WHERE id = $1", old.id)
    assert await files.forget_erased() == 0
    gone = "UPDATE files SET erased_at = now() - interval '31 days' WHERE id = ANY($1)"
    await sql.execute(gone, [old.id, used.id])

    assert await files.forget_erased() == 1

    left = {row["id"] for row in await sql.fetch("SELECT id FROM files")}
    assert left == {young.id, used.id, live.id}
    assert await miscounted(sql) == []


async def test_files_of_many_accounts_that_are_over_lock_one_account_at_a_time(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    customers = sorted([await open_account(engine) for _ in range(3)], key=lambda customer: customer.account_id)
    for customer in customers:
        await make_over(sql, (await kept_file(engine, customer)).id)
    async with connect(database) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", customers[1].account_id)
        sweep = asyncio.create_task(files_of(engine).delete_over())
        await blocked(sql)
        # The one before is done and free, the one after is not begun.
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE NOWAIT", customers[0].account_id)
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE NOWAIT", customers[2].account_id)
        assert await sql.fetchval(COUNTED, customers[0].account_id) == 0
        await transaction.commit()

    assert await sweep == 3


async def test_a_file_in_use_is_kept_on(engine: AsyncEngine, sql: Connection) -> None:
    customer, files = await open_account(engine), files_of(engine)
    short, long = [await kept_file(engine, customer) for _ in range(2)]
    await sql.execute("UPDATE files SET expires_at = now() + interval '1 hour' WHERE id = $1", short.id)

    for file in (short, long):
        await files.keep_on(file.id)

    found = {file_id: await files.find(file_id) for file_id in (short.id, long.id)}
    assert found[long.id] == long
    assert (kept := found[short.id]) is not None
    assert timedelta(days=1.9) < kept.expires_at - datetime.now(UTC) <= timedelta(days=2)


async def test_who_has_nothing_to_spend_uploads_nothing(engine: AsyncEngine) -> None:
    customer = await open_account(engine)

    with pytest.raises(InsufficientBalance):
        await files_of(engine).admit(customer.account_id, 1, FILES_BYTES_MAX)


async def test_files_that_are_taken_back_are_one_write(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine)
    files = PostgresFiles(engine, MEDIA_DAYS, AccountLimits(writes_per_minute=1))
    await begin_minute_of_writes(sql)
    made = [(await files.reserve(new_file(customer, job_id=uuid7()), FILES_BYTES_MAX)).id for _ in range(2)]

    await files.take_back(customer.account_id, made)

    assert await sql.fetchval("SELECT writes FROM accounts") == 1
    assert await sql.fetchval(COUNTED, customer.account_id) == 0
    assert await queue_items(sql) == {(ERASE_FILE, file_id) for file_id in made}


async def test_files_are_locked_before_their_account_by_whoever_takes_them_back(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    """As by their owner and by the expiry: two that meet must not wait for each other."""
    customer, files = await open_account(engine), files_of(engine)
    file = await kept_file(engine, customer, job_id=uuid7())
    async with connect(database) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT FROM files FOR UPDATE")
        taking_back = asyncio.create_task(files.take_back(customer.account_id, [file.id]))
        await blocked(sql)
        await other.execute("UPDATE files SET deleted_at = now(), deleted_because = 'requested'")
        await transaction.commit()
    await taking_back

    assert await miscounted(sql) == []


async def test_whatever_is_done_at_once_the_count_is_the_sum(
    crowd: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "OVER_AT_ONCE", 3)
    customers = [await open_account(crowd) for _ in range(3)]
    made: list[UUID] = []

    async def act(seed: int) -> None:
        random, files = Random(seed), files_of(crowd)
        for _ in range(30):
            match random.choice(("reserve", "reserve", "store", "delete", "expire")):
                case "reserve":
                    of_job = random.choice((None, uuid7()))
                    file = new_file(random.choice(customers), size_bytes=random.randint(1, 40), job_id=of_job)
                    try:
                        made.append((await files.reserve(file, 100)).id)
                    except FilesFull:
                        continue
                case "store" if made:
                    await files.record_stored(random.choice(made))
                case "delete" if made:
                    await files.delete(random.choice(made), DeletedBecause.REQUESTED)
                case "expire" if made:
                    async with crowd.begin() as connection:
                        over = random.choice(made).hex
                        await connection.exec_driver_sql(
                            f"UPDATE files SET expires_at = now() - interval '1 second' WHERE id = '{over}'"
                        )
                    await files.delete_over()

    workers = asyncio.gather(*(act(seed) for seed in range(16)))
    while not workers.done():
        assert await miscounted(sql) == []
        assert await sql.fetchval("SELECT max(files_bytes) FROM accounts") <= 100
        await asyncio.sleep(0.01)
    await workers

    assert await miscounted(sql) == []
    states = await sql.fetch("SELECT DISTINCT deleted_because FROM files")
    assert {row[0] for row in states} == {None, "requested", "expired"}
    assert await sql.fetchval("SELECT count(*) FROM files") == len(made)


@pytest.mark.parametrize("rival", ["owner", "expiry"])
async def test_a_deletion_waits_for_another_one_and_counts_once(
    engine: AsyncEngine, database: str, sql: Connection, rival: str
) -> None:
    customer, files = await open_account(engine), files_of(engine)
    file = await kept_file(engine, customer)
    await make_over(sql, file.id)
    async with connect(database) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE files SET deleted_at = now(), deleted_because = 'expired'")
        if rival == "owner":
            second = asyncio.create_task(files.delete(file.id, DeletedBecause.REQUESTED))
            await blocked(sql)
        else:
            assert await files.delete_over() == 0
        await transaction.commit()
        if rival == "owner":
            deleted = await second
            assert deleted is not None
            assert deleted.deleted_because is DeletedBecause.EXPIRED

    assert await sql.fetchval(COUNTED, customer.account_id) == 0
    assert await miscounted(sql) == []


async def test_what_is_deleted_counts_no_more_and_is_erased(engine: AsyncEngine, sql: Connection) -> None:
    customer, files = await open_account(engine), files_of(engine)
    file = await kept_file(engine, customer)
    assert await files.delete(uuid7(), DeletedBecause.REQUESTED) is None

    deleted = await files.delete(file.id, DeletedBecause.REQUESTED)
    again = await files.delete(file.id, DeletedBecause.EXPIRED)

    assert deleted is not None
    assert (deleted, deleted.deleted_because) == (again, DeletedBecause.REQUESTED)
    assert await queue_items(sql) == {(ERASE_FILE, file.id)}
    assert await sql.fetchval(COUNTED, customer.account_id) == 0
    assert (await files.list(customer.account_id, limit=10, before=None)).files == []
    await sql.execute("DELETE FROM pgqueuer")
    assert (await lost_steps_of_media(engine).requeue_lost())[ERASE_FILE] == [file.id]
    await sql.execute("DELETE FROM pgqueuer; UPDATE files SET erased_at = now()")
    assert (await lost_steps_of_media(engine).requeue_lost())[ERASE_FILE] == []


async def test_files_that_are_over_go_in_portions_and_others_stay(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "OVER_AT_ONCE", 2)
    customers, files = [await open_account(engine) for _ in range(2)], files_of(engine)
    over = [await kept_file(engine, customers[number % 2]) for number in range(3)]
    fresh = await kept_file(engine, customers[0])
    await make_over(sql, *(file.id for file in over))

    assert [await files.delete_over() for _ in range(3)] == [2, 1, 0]

    rows = await sql.fetch("SELECT id FROM files WHERE deleted_at IS NULL")
    assert [row[0] for row in rows] == [fresh.id]
    assert await queue_items(sql) == {(ERASE_FILE, file.id) for file in over}
    assert await miscounted(sql) == []


@pytest.mark.parametrize("is_of_data", [False, True])
async def test_a_file_whose_bytes_never_came_is_over_within_an_hour(
    engine: AsyncEngine, sql: Connection, *, is_of_data: bool
) -> None:
    customer, files = await open_account(engine), files_of(engine)
    file = new_file(customer, job_id=uuid7() if is_of_data else None)
    reserved = await files.reserve(file, FILES_BYTES_MAX)

    assert reserved.expires_at - reserved.created_at == timedelta(hours=1)
    await make_over(sql, file.id)
    assert await files.delete_over() == 1
    assert await files.record_stored(file.id) is None
    assert await sql.fetchval(COUNTED, customer.account_id) == 0


async def test_the_file_of_a_data_uri_whose_job_never_came_is_over_within_an_hour(
    engine: AsyncEngine, sql: Connection
) -> None:
    file = await kept_file(engine, await open_account(engine), job_id=uuid7())

    assert await hours_left(sql, file.id) == 1
    await make_over(sql, file.id)
    assert await files_of(engine).delete_over() == 1
    assert await sql.fetchval("SELECT deleted_because FROM files") == "expired"


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.SUBMITTING, JobStatus.IN_PROGRESS])
async def test_the_file_of_a_data_uri_stays_while_its_job_is_unfinished(
    engine: AsyncEngine, sql: Connection, status: JobStatus
) -> None:
    customer, files = await open_account(engine, 100), files_of(engine)
    file = await kept_file(engine, customer, job_id=await job_in(engine, customer, status))

    for _ in range(2):
        await make_over(sql, file.id)
        assert await files.delete_over() == 1
        assert await files.delete_over() == 0
        assert await hours_left(sql, file.id) == 24

    assert await sql.fetchval("SELECT count(*) FROM files WHERE deleted_at IS NULL") == 1


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
async def test_the_file_of_a_data_uri_goes_a_day_after_the_end_of_its_job(
    engine: AsyncEngine, sql: Connection, status: JobStatus
) -> None:
    customer, files = await open_account(engine, 100), files_of(engine)
    job_id = await job_in(engine, customer, status)
    file = await kept_file(engine, customer, job_id=job_id)

    await end_long_ago(sql, job_id, hours=20)
    await make_over(sql, file.id)
    assert await files.delete_over() == 1
    assert await hours_left(sql, file.id) == 4
    await end_long_ago(sql, job_id, hours=25)
    await make_over(sql, file.id)
    assert await files.delete_over() == 1

    assert await sql.fetchval("SELECT deleted_because FROM files") == "expired"
    assert await sql.fetchval(COUNTED, customer.account_id) == 0


CHANGES = (
    "SET size_bytes = 1",
    "SET content_type = 'text/html'",
    "SET sha256 = '\\x01'",
    "SET origin = 'data', job_id = id",
    "SET account_id = (SELECT max(id::text)::uuid FROM accounts)",
    "SET erased_at = now()",
    "SET deleted_because = 'requested'",
    "SET sent_url = 'https://v3.fal.media/files/a'",
)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_file_stays_what_it_is(engine: AsyncEngine, sql: Connection, change: str) -> None:
    await kept_file(engine, await open_account(engine))
    await open_account(engine)
    before = await sql.fetch("SELECT * FROM files")

    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(f"UPDATE files {change}")

    assert await sql.fetch("SELECT * FROM files") == before


@pytest.mark.parametrize(
    "change",
    [
        "SET deleted_at = NULL, deleted_because = NULL",
        "SET deleted_at = deleted_at + interval '1 second'",
        "SET deleted_because = 'expired'",
        "SET stored_at = NULL",
        "SET sent_url = 'https://v3.fal.media/files/a', sent_until = now()",
    ],
)
async def test_what_is_deleted_stays_deleted(engine: AsyncEngine, sql: Connection, change: str) -> None:
    customer, files = await open_account(engine), files_of(engine)
    file = await kept_file(engine, customer)
    await files.delete(file.id, DeletedBecause.REQUESTED)

    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(f"UPDATE files {change}")
    assert await files.record_stored(file.id) is None
    assert await sql.fetchval(COUNTED, customer.account_id) == 0


async def test_no_row_of_a_file_is_deleted(engine: AsyncEngine, sql: Connection) -> None:
    await kept_file(engine, await open_account(engine))

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await sql.execute("DELETE FROM files")
    assert await sql.fetchval("SELECT count(*) FROM files") == 1


async def keys_in(store: Folder) -> Sequence[str]:
    return [found.key async for found in store.each("files")]


async def test_what_was_stored_is_erased_at_once_and_the_object_goes_first(
    engine: AsyncEngine, sql: Connection, tmp_path: Path
) -> None:
    customer, files, store = await open_account(engine), files_of(engine), Folder(tmp_path / "media")
    file = await kept_file(engine, customer, store)
    erase = EraseFile(files, store)

    await erase(file.id)
    assert await keys_in(store) == [FileId(file.id).store_key]
    await files.delete(file.id, DeletedBecause.REQUESTED)
    away = tmp_path / "away"
    (tmp_path / "media").rename(away)
    (tmp_path / "media").write_text("a file in the place of the folder")
    with pytest.raises(RetryLater) as postponed:
        await erase(file.id)
    assert postponed.value.delay_seconds == STORE_AWAY_SECONDS
    assert await sql.fetchval("SELECT erased_at FROM files") is None
    (tmp_path / "media").unlink()
    away.rename(tmp_path / "media")
    await erase(file.id)
    await erase(file.id)

    assert await keys_in(store) == []
    assert await sql.fetchval("SELECT erased_at FROM files") is not None


async def test_what_may_still_be_on_its_way_is_looked_for_during_a_day(
    engine: AsyncEngine, sql: Connection, tmp_path: Path
) -> None:
    customer, files, store = await open_account(engine), files_of(engine), Folder(tmp_path / "media")
    file = new_file(customer)
    await files.reserve(file, FILES_BYTES_MAX)
    await files.delete(file.id, DeletedBecause.EXPIRED)
    erase, key = EraseFile(files, store), FileId(file.id).store_key

    with pytest.raises(RetryLater) as later:
        await erase(file.id)
    assert later.value.delay_seconds == LOOK_AGAIN_SECONDS
    await store.put(key, content())
    await sql.execute(
        "ALTER TABLE files DISABLE TRIGGER USER; UPDATE files SET deleted_at = now() - interval '25 hours';"
        "ALTER TABLE files ENABLE TRIGGER USER"
    )
    await erase(file.id)

    assert await keys_in(store) == []
    assert not await files.is_to_erase(file.id)


async def test_without_a_store_a_deletion_is_written_down_all_the_same(engine: AsyncEngine, sql: Connection) -> None:
    customer, files = await open_account(engine), files_of(engine)
    file = await kept_file(engine, customer)
    await files.delete(file.id, DeletedBecause.REQUESTED)

    await EraseFile(files, None)(file.id)

    assert await sql.fetchval("SELECT erased_at FROM files") is not None


async def test_what_is_put_reads_back_and_what_was_erased_does_not(engine: AsyncEngine, tmp_path: Path) -> None:
    customer, files, store = await open_account(engine), files_of(engine), Folder(tmp_path / "media")
    file = await kept_file(engine, customer, store)
    key = FileId(file.id).store_key

    assert b"".join([chunk async for chunk in store.read(key, 0, len(CONTENT))]) == CONTENT
    await files.delete(file.id, DeletedBecause.REQUESTED)
    await EraseFile(files, store)(file.id)
    with pytest.raises(ObjectMissing):
        await anext(store.read(key, 0, 1))
