"""Outputs in PostgreSQL: a row with each end, one copy, and a deletion that is for ever."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import COPY_OUTPUTS, ERASE_MEDIA
from app.application.ports.media import StoredCopy
from app.domain.errors import JobNotFound
from app.domain.events import Event
from app.domain.jobs import JobStatus, Outcome
from app.domain.media_errors import JobUnfinished
from app.domain.outputs import DeletedBecause, OutputId
from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.infrastructure.postgres.media import deletion as deletion_module
from app.infrastructure.postgres.media.copies import PostgresOutputCopies
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from tests.builders import (
    Connection,
    Customer,
    blocked,
    connect,
    event_log_of,
    job_in,
    jobs_of,
    open_account,
    queue_items,
    sweep_of,
)
from tests.media import MEDIA_DAYS

URLS = ["https://v3b.fal.media/files/a.png", "https://v3b.fal.media/files/b.png"]
RESULT: Mapping[str, Any] = {
    "images": [{"url": url, "width": 1024, "content_type": "image/png"} for url in URLS],
    "seeds": [7, 8],
    "prompt": "a sign that says https://example.com",
}
SCRUBBED: Mapping[str, Any] = {**RESULT, "images": [{**image, "url": None} for image in RESULT["images"]]}
COPY = StoredCopy(content_type="image/png", size_bytes=1482113, sha256=b"\x9f" * 32)
OTHER_COPY = StoredCopy(content_type="image/webp", size_bytes=7, sha256=b"\x01" * 32)
DAYS = "SELECT number, round(extract(epoch FROM expires_at - now()) / 86400)::int FROM outputs ORDER BY number"
STORED = "UPDATE outputs SET stored_at = now(), content_type = 'image/png', size_bytes = 1, sha256 = '\\x00'"


async def completed(engine: AsyncEngine, customer: Customer, result: Mapping[str, Any] = RESULT) -> UUID:
    job_id = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    assert await jobs_of(engine).settle(job_id, Outcome.completed(result))
    return job_id


def copies_of(engine: AsyncEngine, days_kept: int = MEDIA_DAYS) -> PostgresOutputCopies:
    return PostgresOutputCopies(engine, days_kept)


async def told_of(engine: AsyncEngine, customer: Customer) -> Sequence[Event]:
    await EventSequencer(engine).move()
    page = await event_log_of(engine).page(
        customer.account_id, after=None, types=("output.stored",), job_id=None, limit=100
    )
    return page.events


async def result_of(sql: Connection, job_id: UUID) -> Any:
    return json.loads(await sql.fetchval("SELECT result FROM jobs WHERE id = $1", job_id))


async def test_each_output_has_a_row_with_the_end_of_its_job(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)

    job_id = await completed(engine, customer)

    assert [tuple(row) for row in await sql.fetch(DAYS)] == [(0, 3), (1, 3)]
    assert (COPY_OUTPUTS, job_id) in await queue_items(sql)
    job = await jobs_of(engine).get(customer.account_id, job_id)
    assert [(str(output.id), output.provider_url, output.kept.is_stored) for output in job.outputs] == [
        (f"{job_id}-0", URLS[0], False),
        (f"{job_id}-1", URLS[1], False),
    ]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELED])
async def test_a_job_without_a_result_has_no_outputs(engine: AsyncEngine, sql: Connection, status: JobStatus) -> None:
    customer = await open_account(engine, 100)

    job_id = await job_in(engine, customer, status)

    assert await sql.fetchval("SELECT count(*) FROM outputs") == 0
    assert (COPY_OUTPUTS, job_id) not in await queue_items(sql)
    assert (await jobs_of(engine).get(customer.account_id, job_id)).outputs == ()


WITHOUT_TERMS = """
ALTER TABLE jobs DISABLE TRIGGER USER;
UPDATE jobs SET terms = NULL, kind = '{kind}';
ALTER TABLE jobs ENABLE TRIGGER USER
"""


@pytest.mark.parametrize(
    ("kind", "result", "numbers"),
    [
        (None, {"images": [{"url": "a"}, {"url": "b"}]}, [0, 1]),
        (None, {"images": {"url": "a"}}, [0]),
        (None, {"images": [None, 7, "https://a"]}, [0, 1, 2]),
        (None, {"images": []}, []),
        (None, {"images": 7}, []),
        (None, {"images": None}, []),
        (None, {"video": {"url": "a"}}, []),
        ("TEXT_TO_IMAGE", {"images": [{"url": "a"}]}, [0]),
        ("TEXT_TO_VIDEO", {"video": {"url": "a"}}, [0]),
        ("IMAGE_TO_VIDEO", {"video": {"url": "a"}, "images": [1, 2]}, [0]),
    ],
    ids=ascii,
)
async def test_what_a_former_release_settles_has_its_rows_and_is_copied_all_the_same(
    engine: AsyncEngine, sql: Connection, kind: str | None, result: Mapping[str, Any], numbers: Sequence[int]
) -> None:
    customer = await open_account(engine, 100)
    job_id = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    if kind is not None:
        await sql.execute(WITHOUT_TERMS.format(kind=kind))
    await sql.execute("DELETE FROM pgqueuer")

    await sql.execute("UPDATE jobs SET status = 'COMPLETED', result = $1", json.dumps(result))

    assert [row[0] for row in await sql.fetch(DAYS)] == numbers
    job = await jobs_of(engine).get(customer.account_id, job_id)
    assert [output.id.number for output in job.outputs] == numbers
    assert await queue_items(sql) == set()
    await sweep_of(engine)()
    assert await queue_items(sql) == ({(COPY_OUTPUTS, job_id)} if numbers else set())
    assert [output.id.number for output in await copies_of(engine).to_copy(job_id)] == numbers


async def test_lost_steps_come_back_until_nothing_waits_for_them(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    job_id = await completed(engine, customer)
    await sql.execute("DELETE FROM pgqueuer")
    copies, jobs = copies_of(engine), jobs_of(engine)

    assert await jobs.requeue_lost() == [job_id]
    assert await jobs.requeue_lost() == []
    await sql.execute("DELETE FROM pgqueuer")
    assert await copies.record_stored(OutputId(job_id, 0), COPY)
    await copies.give_up(OutputId(job_id, 1), is_kept_at_provider=False)
    assert await jobs.requeue_lost() == []

    await PostgresMediaDeletion(engine).delete(None, job_id, DeletedBecause.REQUESTED)
    assert await queue_items(sql) == {(ERASE_MEDIA, job_id)}
    await sql.execute("DELETE FROM pgqueuer")
    assert await jobs.requeue_lost() == [job_id]
    await sql.execute("DELETE FROM pgqueuer")
    await sql.execute("UPDATE outputs SET erased_at = now()")
    assert await jobs.requeue_lost() == []


async def test_a_copy_is_recorded_once_and_told_of_once(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    job_id = await completed(engine, customer)
    copies = copies_of(engine)

    assert await copies.record_stored(OutputId(job_id, 1), COPY)
    assert await copies.record_stored(OutputId(job_id, 1), OTHER_COPY)

    (event,) = await told_of(engine, customer)
    assert event.job == await jobs_of(engine).get(customer.account_id, job_id)
    assert event.job is not None
    first, second = event.job.outputs
    assert (first.kept.is_stored, second.kept.is_stored) == (False, True)
    assert (second.content_type, second.size_bytes, second.kept.sha256) == ("image/png", 1482113, "9f" * 32)
    assert [tuple(row) for row in await sql.fetch(DAYS)] == [(0, 3), (1, MEDIA_DAYS)]
    assert [output.id.number for output in await copies.to_copy(job_id)] == [0]
    assert await copies.record_stored(OutputId(job_id, 0), COPY)
    assert len(await told_of(engine, customer)) == 2
    facts = "SELECT facts ->> 'number' FROM events WHERE type = 'output.stored' ORDER BY seq"
    assert [row[0] for row in await sql.fetch(facts)] == ["1", "0"]


async def test_many_who_record_the_same_copy_tell_of_it_once(crowd: AsyncEngine) -> None:
    customer = await open_account(crowd, 100)
    job_id = await completed(crowd, customer)

    recorded = await asyncio.gather(*(copies_of(crowd).record_stored(OutputId(job_id, 0), COPY) for _ in range(20)))

    assert recorded == [True] * 20
    assert len(await told_of(crowd, customer)) == 1


async def test_its_time_never_ends_earlier(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    first, second, third = [await completed(engine, customer) for _ in range(3)]
    await sql.execute("UPDATE outputs SET expires_at = now() + interval '90 days' WHERE job_id = $1", second)

    for job_id in (first, second):
        assert await copies_of(engine, days_kept=1).record_stored(OutputId(job_id, 0), COPY)
        await copies_of(engine, days_kept=1).give_up(OutputId(job_id, 1), is_kept_at_provider=True)
    await copies_of(engine).give_up(OutputId(third, 0), is_kept_at_provider=True)
    await copies_of(engine).give_up(OutputId(third, 1), is_kept_at_provider=False)

    days = "SELECT round(extract(epoch FROM expires_at - now()) / 86400)::int FROM outputs ORDER BY job_id, number"
    assert [row[0] for row in await sql.fetch(days)] == [3, 3, 90, 90, MEDIA_DAYS, 3]


async def test_what_was_given_up_is_not_recorded_by_who_went_on_with_its_copy(
    engine: AsyncEngine, sql: Connection
) -> None:
    """So that an object which belongs to it can be taken out of the store without a look at who writes it."""
    customer = await open_account(engine, 100)
    job_id = await completed(engine, customer)

    await copies_of(engine).give_up(OutputId(job_id, 0), is_kept_at_provider=False)
    assert not await copies_of(engine).record_stored(OutputId(job_id, 0), COPY)

    row = await sql.fetchrow("SELECT given_up_at IS NULL, stored_at IS NULL FROM outputs WHERE number = 0")
    assert row is not None
    assert tuple(row) == (False, True)


@pytest.mark.parametrize(
    "change",
    [
        "SET content_type = 'text/html'",
        "SET size_bytes = 2",
        "SET sha256 = '\\x01'",
        "SET stored_at = stored_at + interval '1 second'",
        "SET stored_at = NULL, content_type = NULL, size_bytes = NULL, sha256 = NULL",
        "SET given_up_at = now()",
        "SET expires_at = expires_at - interval '1 microsecond'",
        "SET deleted_at = now()",
        "SET deleted_because = 'requested'",
        "SET erased_at = now()",
        "SET number = -1",
    ],
)
async def test_a_stored_output_stays_as_it_is(engine: AsyncEngine, sql: Connection, change: str) -> None:
    await completed(engine, await open_account(engine, 100))
    await sql.execute(STORED)
    before = await sql.fetch("SELECT * FROM outputs ORDER BY number")

    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(f"UPDATE outputs {change} WHERE number = 0")

    assert await sql.fetch("SELECT * FROM outputs ORDER BY number") == before


@pytest.mark.parametrize(
    "change",
    [
        "SET deleted_at = NULL, deleted_because = NULL",
        "SET deleted_at = deleted_at + interval '1 second'",
        "SET deleted_because = 'expired'",
        STORED.partition("outputs ")[2],
    ],
)
async def test_a_deletion_is_for_ever(engine: AsyncEngine, sql: Connection, change: str) -> None:
    job_id = await completed(engine, await open_account(engine, 100))
    await PostgresMediaDeletion(engine).delete(None, job_id, DeletedBecause.REQUESTED)

    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(f"UPDATE outputs {change}")


@pytest.mark.parametrize(
    "result",
    [
        {},
        {**SCRUBBED, "seeds": [7]},
        {**SCRUBBED, "images": []},
        {**RESULT, "images": [{**RESULT["images"][0], "url": None}, RESULT["images"][1]]},
        {**SCRUBBED, "prompt": None},
        {**RESULT, "images": [{**image, "url": "https://evil.example/"} for image in RESULT["images"]]},
    ],
    ids=["empty", "a seed less", "no images", "half", "no prompt", "another URL"],
)
async def test_a_final_result_changes_to_nothing_but_itself_without_urls(
    engine: AsyncEngine, sql: Connection, result: Mapping[str, Any]
) -> None:
    job_id = await completed(engine, await open_account(engine, 100))

    with pytest.raises(asyncpg.CheckViolationError, match="a final job never changes"):
        await sql.execute("UPDATE jobs SET result = $1", json.dumps(result))
    await sql.execute("UPDATE jobs SET result = $1", json.dumps(SCRUBBED))
    with pytest.raises(asyncpg.CheckViolationError, match="a final job never changes"):
        await sql.execute("UPDATE jobs SET result = $1", json.dumps(RESULT))
    assert await result_of(sql, job_id) == SCRUBBED


@pytest.mark.parametrize(
    ("value", "without"),
    [
        ("https://a/b?c#d", None),
        ("HTTP://A", None),
        ("data:image/png;base64,AAAA", None),
        ("see https://a", "see https://a"),
        ("https://a is a page", "https://a is a page"),
        ("ftp://a", "ftp://a"),
        ("https:", "https:"),
        ("", ""),
        (7, 7),
        (1.50, 1.50),
        (None, None),
        (True, True),
        ([], []),
        ({}, {}),
        (["https://a", ["https://b", 1], {"https://c": "https://d"}], [None, [None, 1], {"https://c": None}]),
        ({"a": {"b": [{"url": "https://a"}]}, "url": None}, {"a": {"b": [{"url": None}]}, "url": None}),
    ],
    ids=ascii,
)
async def test_urls_go_and_nothing_else_does(sql: Connection, value: Any, without: Any) -> None:
    found = await sql.fetchval("SELECT without_urls($1::jsonb)", json.dumps(value))

    assert json.loads(found) == without
    assert await sql.fetchval("SELECT without_urls($1::jsonb) = $1::jsonb", found)


async def test_what_is_nested_as_deeply_as_fals_answers_may_be_is_scrubbed(sql: Connection) -> None:
    value: Any = "https://a"
    for _ in range(64):
        value = {"a": [value]}

    found = await sql.fetchval("SELECT without_urls($1::jsonb)", json.dumps(value))

    assert found == json.dumps(value).replace('"https://a"', "null")


async def test_its_owner_deletes_an_output_and_nobody_else_does(engine: AsyncEngine, sql: Connection) -> None:
    owner, other = await open_account(engine, 100), await open_account(engine, 100)
    job_id, kept_id = await completed(engine, owner), await completed(engine, owner)
    unfinished = await job_in(engine, owner, JobStatus.IN_QUEUE)
    assert await copies_of(engine).record_stored(OutputId(job_id, 0), COPY)
    deletion = PostgresMediaDeletion(engine)

    for account_id, missing in (
        (other.account_id, job_id),
        (owner.account_id, uuid4()),
        (other.account_id, unfinished),
    ):
        with pytest.raises(JobNotFound):
            await deletion.delete(account_id, missing, DeletedBecause.REQUESTED)
    with pytest.raises(JobUnfinished):
        await deletion.delete(owner.account_id, unfinished, DeletedBecause.REQUESTED)
    assert await sql.fetchval("SELECT count(*) FROM outputs WHERE deleted_at IS NOT NULL") == 0

    deleted = await deletion.delete(owner.account_id, job_id, DeletedBecause.REQUESTED)
    again = await deletion.delete(owner.account_id, job_id, DeletedBecause.REQUESTED)

    assert deleted == again == await jobs_of(engine).get(owner.account_id, job_id)
    assert deleted.result == await result_of(sql, job_id) == SCRUBBED
    assert [output.kept.deleted_because for output in deleted.outputs] == [DeletedBecause.REQUESTED] * 2
    assert [output.provider_url for output in deleted.outputs] == [None, None]
    assert (ERASE_MEDIA, job_id) in await queue_items(sql)
    assert await result_of(sql, kept_id) == RESULT
    assert await sql.fetchval("SELECT count(*) FROM ledger_violations") == 0


async def test_urls_stay_as_long_as_one_output_does(engine: AsyncEngine, sql: Connection) -> None:
    owner = await open_account(engine, 100)
    job_id = await completed(engine, owner)
    await sql.execute("UPDATE jobs SET late_result = result")
    deletion = PostgresMediaDeletion(engine)

    await deletion.delete(None, job_id, DeletedBecause.LOST, 0)
    assert await result_of(sql, job_id) == RESULT
    await deletion.delete(owner.account_id, job_id, DeletedBecause.REQUESTED)

    because = await sql.fetch("SELECT deleted_because FROM outputs ORDER BY number")
    assert [row[0] for row in because] == ["lost", "requested"]
    assert await result_of(sql, job_id) == SCRUBBED
    assert json.loads(await sql.fetchval("SELECT late_result FROM jobs")) == SCRUBBED


async def test_what_the_database_computes_for_itself_needs_nothing_of_ours(
    engine: AsyncEngine, sql: Connection
) -> None:
    """With a search path of its own, as the restore of a backup has one, too."""
    await completed(engine, await open_account(engine, 100))
    await sql.execute("UPDATE jobs SET late_result = result")

    await sql.execute("ANALYZE jobs")
    await sql.execute("REINDEX TABLE jobs")
    await sql.execute("SET search_path = ''")
    assert json.loads(await sql.fetchval("SELECT public.without_urls(result) FROM public.jobs")) == SCRUBBED


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"url": "https://a.b/c"}, {"url": None}),
        (
            {"URLS": ["HTTP://a.b/c", "ftp://a.b/c", "https://a.b/c d"]},
            {"URLS": [None, "ftp://a.b/c", "https://a.b/c d"]},
        ),
        ({"a": {"b": [["data:image/png;base64,AAAA"]]}}, {"a": {"b": [[None]]}}),
        ({"prompt": 'say "https://a.b/c" and "http://d"'}, {"prompt": 'say "https://a.b/c" and "http://d"'}),
        ({"x": "\\", "https://key": 1, "y": "https://v"}, {"x": "\\", "https://key": 1, "y": None}),
        ({"x": "https://a.b/\u00e9?q=%22&r=[1]"}, {"x": None}),
        ({"x": " https://a.b/c"}, {"x": " https://a.b/c"}),
        ({"x": "https:"}, {"x": "https:"}),
        ({"x": '[ "https://a.b"'}, {"x": '[ "https://a.b"'}),
        ([], []),
        ({"n": 1.5, "t": True, "none": None}, {"n": 1.5, "t": True, "none": None}),
    ],
    ids=range(11),
)
async def test_values_that_are_urls_go_and_nothing_else(sql: Connection, value: object, left: object) -> None:
    found = await sql.fetchval("SELECT without_urls($1::jsonb)::text", json.dumps(value))

    assert json.loads(found) == left


async def test_who_has_no_result_has_nothing_to_delete(engine: AsyncEngine) -> None:
    owner = await open_account(engine, 100)
    job_id = await job_in(engine, owner, JobStatus.FAILED)

    job = await PostgresMediaDeletion(engine).delete(owner.account_id, job_id, DeletedBecause.REQUESTED)

    assert (job.status, job.outputs, job.result) == (JobStatus.FAILED, (), None)


@pytest.mark.parametrize("comes_first", ["copy", "deletion"])
async def test_of_a_copy_and_a_deletion_that_meet_the_later_one_sees_the_other(
    engine: AsyncEngine, database: str, sql: Connection, comes_first: str
) -> None:
    """The lock of the row decides, and whoever comes second waits for it."""
    owner = await open_account(engine, 100)
    job_id = await completed(engine, owner)
    is_row, first = f"job_id = '{job_id}' AND number = 0", "stored" if comes_first == "copy" else "deleted"
    statement = STORED if first == "stored" else "UPDATE outputs SET deleted_at = now(), deleted_because = 'requested'"
    async with connect(database) as rival:
        transaction = rival.transaction()
        await transaction.start()
        await rival.execute(f"{statement} WHERE {is_row}")
        if first == "stored":
            second = asyncio.create_task(PostgresMediaDeletion(engine).delete(None, job_id, DeletedBecause.REQUESTED))
            await blocked(sql)
            await transaction.commit()
            assert [output.kept.is_stored for output in (await second).outputs] == [True, False]
        else:
            copy = asyncio.create_task(copies_of(engine).record_stored(OutputId(job_id, 0), COPY))
            await blocked(sql)
            await transaction.commit()
            assert await copy is False
    stored, deleted = await sql.fetchrow(f"SELECT stored_at, deleted_at FROM outputs WHERE {is_row}") or (None, None)
    assert (stored is not None, deleted is not None) == (first == "stored", True)


async def test_copies_and_deletions_at_once_leave_each_either_stored_or_without_its_copy(
    crowd: AsyncEngine, sql: Connection
) -> None:
    owner = await open_account(crowd, 1000)
    job_ids = [await completed(crowd, owner) for _ in range(12)]
    ids = [OutputId(job_id, number) for job_id in job_ids for number in (0, 1)]
    deletion = PostgresMediaDeletion(crowd)

    deletions = [deletion.delete(owner.account_id, job_id, DeletedBecause.REQUESTED) for job_id in job_ids]
    deleting = asyncio.gather(*deletions)
    answers = await asyncio.gather(*(copies_of(crowd).record_stored(each, COPY) for each in ids))
    await deleting
    recorded = dict(zip(ids, answers, strict=True))

    rows = await sql.fetch("SELECT job_id, number, stored_at IS NOT NULL, deleted_at IS NOT NULL FROM outputs")
    assert {OutputId(row[0], row[1]): row[2] for row in rows} == {each: recorded[each] for each in ids}
    assert all(row[3] for row in rows)
    assert len(await told_of(crowd, owner)) == sum(recorded.values())


async def test_only_what_is_over_expires_and_in_portions(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion_module, "EXPIRED_AT_ONCE", 2)
    customer = await open_account(engine, 1000)
    over = [await completed(engine, customer) for _ in range(3)]
    half, fresh = await completed(engine, customer), await completed(engine, customer)
    await sql.execute(
        "ALTER TABLE outputs DISABLE TRIGGER USER;"
        "UPDATE outputs SET expires_at = now() - interval '1 second';"
        f"UPDATE outputs SET expires_at = now() + interval '1 hour' WHERE job_id = '{fresh}'"
        f" OR job_id = '{half}' AND number = 1;"
        "ALTER TABLE outputs ENABLE TRIGGER USER"
    )
    deletion, portions = PostgresMediaDeletion(engine), []

    while portion := await deletion.delete_expired():
        portions.append(portion)

    # A portion is of whole jobs.
    assert sum(portions) == 7
    assert len(portions) > 1
    assert await deletion.delete_expired() == 0
    left = await sql.fetch("SELECT job_id, number FROM outputs WHERE deleted_at IS NULL ORDER BY 1, 2")
    assert [tuple(row) for row in left] == [(half, 1), (fresh, 0), (fresh, 1)]
    assert {row[0] for row in await sql.fetch("SELECT DISTINCT deleted_because FROM outputs")} == {None, "expired"}
    assert [await result_of(sql, job_id) for job_id in (*over, half)] == [SCRUBBED] * 3 + [RESULT]
    assert {job_id for step, job_id in await queue_items(sql) if step is ERASE_MEDIA} == {*over, half}


async def test_expiry_deletions_and_copies_at_once_do_each_thing_once(
    crowd: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion_module, "EXPIRED_AT_ONCE", 5)
    owner = await open_account(crowd, 1000)
    job_ids = [await completed(crowd, owner) for _ in range(12)]
    await sql.execute(
        "ALTER TABLE outputs DISABLE TRIGGER USER; UPDATE outputs SET expires_at = now();"
        "ALTER TABLE outputs ENABLE TRIGGER USER"
    )
    # What is copied now would live for 30 days from the end of its job on.
    deletion, copies = PostgresMediaDeletion(crowd), copies_of(crowd)

    async def expire() -> int:
        return sum([await deletion.delete_expired() for _ in range(8)])

    counts = await asyncio.gather(
        *(expire() for _ in range(4)),
        *(copies.record_stored(OutputId(job_id, 1), COPY) for job_id in job_ids[:4]),
        *(deletion.delete(owner.account_id, job_id, DeletedBecause.REQUESTED) for job_id in job_ids[8:]),
    )
    expired = sum(counts[:4]) + await expire()  # type: ignore[arg-type]

    query = "SELECT deleted_because, count(*)::int FROM outputs WHERE deleted_at IS NOT NULL GROUP BY 1"
    by_reason = {row[0]: row[1] for row in await sql.fetch(query)}
    live = await sql.fetchval("SELECT count(*) FROM outputs WHERE deleted_at IS NULL")
    assert by_reason["expired"] == expired
    assert sum(by_reason.values()) + live == 24
    assert await sql.fetchval("SELECT count(*) FROM outputs WHERE deleted_at IS NULL AND stored_at IS NULL") == 0


async def test_an_expiry_passes_over_a_job_that_somebody_holds(engine: AsyncEngine, database: str) -> None:
    owner = await open_account(engine, 100)
    held, free = await completed(engine, owner), await completed(engine, owner)
    async with connect(database) as rival:
        await rival.execute(
            "ALTER TABLE outputs DISABLE TRIGGER USER; UPDATE outputs SET expires_at = now();"
            "ALTER TABLE outputs ENABLE TRIGGER USER"
        )
        transaction = rival.transaction()
        await transaction.start()
        await rival.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", held)
        assert await PostgresMediaDeletion(engine).delete_expired() == 2
        await transaction.rollback()
        deleted = await rival.fetch("SELECT DISTINCT job_id FROM outputs WHERE deleted_at IS NOT NULL")
        assert [row[0] for row in deleted] == [free]
    assert await PostgresMediaDeletion(engine).delete_expired() == 2


async def test_what_was_stored_is_erased_at_once_and_what_was_not_a_day_later(
    engine: AsyncEngine, sql: Connection
) -> None:
    owner = await open_account(engine, 100)
    job_id = await completed(engine, owner)
    copies, stored, unstored = copies_of(engine), OutputId(job_id, 0), OutputId(job_id, 1)
    assert await copies.record_stored(stored, COPY)
    assert list(await copies.to_erase(job_id)) == []
    assert not await copies.record_erased(stored)

    await PostgresMediaDeletion(engine).delete(owner.account_id, job_id, DeletedBecause.REQUESTED)

    assert list(await copies.to_copy(job_id)) == []
    assert list(await copies.to_erase(job_id)) == [stored, unstored]
    assert await copies.record_erased(stored)
    assert not await copies.record_erased(stored)
    assert not await copies.record_erased(unstored)
    assert list(await copies.to_erase(job_id)) == [unstored]
    # A copy that began before the deletion and ends after it.
    assert not await copies.record_stored(unstored, COPY)
    await sql.execute(
        "ALTER TABLE outputs DISABLE TRIGGER USER; UPDATE outputs SET deleted_at = now() - interval '25 hours';"
        "ALTER TABLE outputs ENABLE TRIGGER USER"
    )
    assert await copies.record_erased(unstored)
    assert list(await copies.to_erase(job_id)) == []


async def test_moments_are_told_in_utc_whatever_the_time_zone_of_the_database(
    engine: AsyncEngine, sql: Connection
) -> None:
    owner = await open_account(engine, 100)
    job_id = await completed(engine, owner)
    expected = await sql.fetchval("SELECT expires_at FROM outputs WHERE number = 0")
    await sql.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Kolkata''', current_database()); END $$"
    )
    await engine.dispose()

    job = await jobs_of(engine).get(owner.account_id, job_id)

    assert str(job.outputs[0].kept.expires_at) == str(expected)
