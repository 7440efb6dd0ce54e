"""Files on their way to fal: one URL for each, made once, and no claim without it."""

import asyncio
import json
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution import evidence
from app.application.execution.breaker import Breaker
from app.application.execution.evidence import SearchHistory
from app.application.execution.follow import FollowJob
from app.application.execution.hand_over import INPUT_WAS_DELETED, HandOverFiles
from app.application.execution.steps import RetryLater
from app.application.execution.submit import SubmitJob
from app.application.execution.waits import ProviderWaits
from app.application.media import OpenMedia
from app.application.ports.execution import FilesNotSent
from app.application.ports.media import ProviderMedia, StoredCopy
from app.application.ports.media_store import MediaStore
from app.application.ports.provider import Provider, ProviderRequest, ProviderStorage, ProviderUnavailable
from app.domain.files import FileId, KeptFile
from app.domain.media_errors import MediaDeleted
from app.domain.outputs import DeletedBecause, OutputId
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.history import FalHistory
from app.infrastructure.fal.storage import FalStorage
from app.infrastructure.media_store.folder import Folder
from app.infrastructure.postgres.evidence import PostgresLostSubmissions
from app.infrastructure.postgres.files.own_outputs import PostgresOwnOutputs
from app.infrastructure.postgres.files.sending import PostgresFilesToSend
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from tests.builders import (
    COST_TOKENS,
    Connection,
    Customer,
    balance_of,
    connect,
    jobs_of,
    open_account,
    open_crowd,
    provider_request,
)
from tests.integration.test_outputs import URLS, completed, copies_of
from tests.kept_files import CONTENT, accept_with, content, files_of, job_with, kept_file
from tests.media import LINKS
from tests.simulator_server import running_simulator

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
KEY = "key-id:secret"
BALANCE_TOKENS = 1000
PUBLIC_URL = "https://api.example.com"
COPY_OF_CONTENT = StoredCopy(content_type="image/png", size_bytes=len(CONTENT), sha256=sha256(CONTENT).digest())


@dataclass
class RecordingProvider:
    """Takes everything, and knows what it was given."""

    inputs: list[Mapping[str, Any]] = field(default_factory=list)

    async def submit(self, model_id: str, parameters: Mapping[str, Any], **_: Any) -> ProviderRequest:
        self.inputs.append(parameters)
        return provider_request()

    def input_digest(self, parameters: Mapping[str, Any]) -> bytes:
        return sha256(json.dumps(parameters).encode()).digest()

    def urls(self) -> list[str]:
        return [url for given in self.inputs for url in given["image_urls"]]


@dataclass
class Stage:
    engine: AsyncEngine
    sql: Connection
    customer: Customer
    folder: Path
    storage: FalStorage
    fal: httpx.Client
    provider: RecordingProvider = field(default_factory=RecordingProvider)

    @property
    def store(self) -> Folder:
        return Folder(self.folder)

    async def file(self, **of: Any) -> KeptFile:
        return await kept_file(self.engine, self.customer, self.store, **of)

    async def output(self, job_id: UUID, *, is_stored: bool) -> KeptFile:
        """The first output of a job, as it is used again."""
        output_id = OutputId(job_id, 0)
        if is_stored:
            await self.store.put(output_id.store_key, content())
            assert await copies_of(self.engine).record_stored(output_id, COPY_OF_CONTENT)
        outputs = PostgresOwnOutputs(self.engine, copies_of(self.engine))
        file = await outputs.as_file(self.customer.account_id, output_id)
        assert file is not None
        return file

    async def accept(self, *files: KeptFile) -> UUID:
        return await accept_with(self.engine, self.customer, *files)

    def submitter(self, *, provider: Provider | None = None, **settings: Any) -> SubmitJob:
        """As one process has it."""
        hand_over = HandOverFiles(
            **{
                "jobs": jobs_of(self.engine),
                "files": PostgresFilesToSend(self.engine, copies_of(self.engine)),
                "store": self.store,
                "storage": self.storage,
                "links": LINKS,
                "public_url": None,
                "waits": ProviderWaits(None),
                **settings,
            }
        )
        provider, has_history = provider or cast(Provider, self.provider), provider is not None
        return SubmitJob(jobs_of(self.engine), provider, Breaker(), hand_over=hand_over, has_history=has_history)

    async def submit(self, job_id: UUID, submit: SubmitJob | None = None) -> None:
        """Until there is nothing left to do, as the runner does it."""
        submit = submit or self.submitter()
        for _ in range(500):
            try:
                return await submit(job_id)
            except RetryLater as later:
                await asyncio.sleep(min(later.delay_seconds, 0.05))
        raise AssertionError("it comes back again and again")

    async def comes_back(self, job_id: UUID, submit: SubmitJob) -> None:
        with pytest.raises(RetryLater):
            await submit(job_id)

    async def job(self, job_id: UUID, *columns: str) -> tuple[Any, ...]:
        row = await self.sql.fetchrow(f"SELECT {', '.join(columns)} FROM jobs WHERE id = $1", job_id)
        assert row is not None
        return tuple(row)

    async def row(self, file: KeptFile, *columns: str) -> tuple[Any, ...]:
        row = await self.sql.fetchrow(f"SELECT {', '.join(columns)} FROM files WHERE id = $1", file.id)
        assert row is not None
        return tuple(row)

    def uploads(self) -> Sequence[Mapping[str, Any]]:
        return list(self.fal.get("/_sim/uploads").json()["uploads"])

    def at_fal(self, url: str) -> bytes:
        return self.fal.get(url).raise_for_status().content

    async def assert_refunded(self, *job_ids: UUID, code: str = "input_deleted") -> None:
        for job_id in job_ids:
            assert await self.job(job_id, "status", "error_code", "refunded_tokens") == ("FAILED", code, COST_TOKENS)
        assert await self.sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'REFUND'") == len(job_ids)
        assert await PostgresLedger(self.engine).violations() == []

    async def balance(self) -> int:
        return await balance_of(self.engine, self.customer)


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    with running_simulator() as url:
        yield url


@pytest.fixture
def fal_http(simulator: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=simulator, trust_env=False, timeout=60) as client:
        client.post("/_sim/reset").raise_for_status()
        yield client


@pytest.fixture
async def stage(database: str, simulator: str, fal_http: httpx.Client, tmp_path: Path) -> AsyncIterator[Stage]:
    async with (
        open_crowd(database, 12) as engine,
        connect(database) as sql,
        FalStorage.open(rest_url=simulator, key=KEY, ssl_context=PLAIN) as storage,
    ):
        customer = await open_account(engine, BALANCE_TOKENS)
        yield Stage(engine, sql, customer, tmp_path / "media", storage, fal_http)


async def test_a_file_is_uploaded_once_though_many_jobs_with_it_are_submitted_at_once(stage: Stage) -> None:
    file = await stage.file()
    job_ids = [await stage.accept(file) for _ in range(10)]
    submitters = [stage.submitter() for _ in range(5)]

    await asyncio.gather(*(stage.submit(job_id, submitters[place % 5]) for place, job_id in enumerate(job_ids)))
    await stage.submit(await stage.accept(file))

    (upload,) = stage.uploads()
    assert (upload["content_type"], upload["size_bytes"]) == ("image/png", len(CONTENT))
    assert len(stage.provider.inputs) == 11
    (url,) = set(stage.provider.urls())
    assert stage.at_fal(url) == CONTENT
    assert {await stage.job(job_id, "status", "attempts") for job_id in job_ids} == {("SUBMITTED", 1)}
    assert await stage.row(file, "sent_url", "handed_over_until") == (url, None)
    assert await stage.balance() == BALANCE_TOKENS - 11 * COST_TOKENS


async def test_each_file_of_a_job_is_sent_in_its_own_place(stage: Stage) -> None:
    first, second = await stage.file(), await stage.file()

    await stage.submit(await stage.accept(second, first, second))

    urls = stage.provider.urls()
    sent = {file.id: (await stage.row(file, "sent_url"))[0] for file in (first, second)}
    assert urls == [sent[second.id], sent[first.id], sent[second.id]]
    assert len(stage.uploads()) == 2


async def test_no_job_is_claimed_before_each_of_its_files_has_a_url(stage: Stage) -> None:
    sent, lacking = await stage.file(), await stage.file()
    sending, jobs = PostgresFilesToSend(stage.engine, copies_of(stage.engine)), jobs_of(stage.engine)
    job_id, until = await stage.accept(sent, lacking), datetime.now(UTC) + timedelta(days=7)
    await sending.record_sent(sent.id, "https://v3.fal.media/files/a", until)

    assert [each.file.id for each in await sending.of_job(job_id)] == [lacking.id]
    with pytest.raises(FilesNotSent) as refused:
        await jobs.claim(job_id, uuid4())
    await SubmitJob(jobs, cast(Provider, stage.provider), Breaker())(job_id)
    assert refused.value.account_id == stage.customer.account_id
    assert await stage.job(job_id, "status", "attempts") == ("QUEUED", 0)
    await sending.record_sent(lacking.id, "https://v3.fal.media/files/b", until)
    claim = await jobs.claim(job_id, uuid4())

    assert claim is not None
    assert claim.input.parameters["image_urls"] == [f"https://v3.fal.media/files/{name}" for name in "ab"]


async def test_a_job_that_is_held_is_not_made_ready_for_fal(stage: Stage) -> None:
    """Its operator decides first, who may find that it has run already."""
    file = await stage.file()
    job_id = await stage.accept(file)
    await stage.sql.execute("UPDATE jobs SET held_at = now()")

    await stage.submit(job_id)
    await files_of(stage.engine).delete(file.id, DeletedBecause.REQUESTED)
    await stage.submit(job_id)

    assert stage.uploads() == []
    assert await stage.job(job_id, "status", "held_at IS NOT NULL") == ("QUEUED", True)


async def test_a_job_that_somebody_has_claimed_does_not_end_for_a_file(stage: Stage) -> None:
    file = await stage.file()
    job_id = await stage.accept(file)
    await stage.submit(job_id)
    sending = PostgresFilesToSend(stage.engine, copies_of(stage.engine))

    assert not await sending.end_queued(job_id, INPUT_WAS_DELETED)

    assert await stage.job(job_id, "status", "refunded_tokens") == ("SUBMITTED", 0)


async def test_a_url_is_judged_by_the_clock_of_the_database_alone(stage: Stage) -> None:
    """Or a process with another one would hand a file over again and again."""
    file = await stage.output(await completed(stage.engine, stage.customer), is_stored=True)
    await pass_days(stage, 1.97)
    job_id = await stage.accept(file)
    submit = stage.submitter()

    with pytest.raises(RetryLater) as later:
        await submit(job_id)
    await submit(job_id)

    assert later.value.delay_seconds == 0
    assert len(stage.uploads()) == 1
    assert await stage.job(job_id, "status") == ("SUBMITTED",)


async def test_only_one_hands_a_file_over_until_its_time_is_over(stage: Stage) -> None:
    """So whoever dies meanwhile keeps nobody for longer."""
    file, sending = await stage.file(), PostgresFilesToSend(stage.engine, copies_of(stage.engine))

    assert Counter(await asyncio.gather(*(sending.begin(file.id, 60) for _ in range(10)))) == {True: 1, False: 9}
    await stage.comes_back(await stage.accept(file), stage.submitter())
    await stage.sql.execute("UPDATE files SET handed_over_until = now() - interval '1 second'")
    assert await sending.begin(file.id, 60)
    assert not await sending.begin(file.id, 60)
    await sending.give_back(file.id)
    assert await sending.begin(file.id, 60)
    await sending.record_sent(file.id, "https://v3.fal.media/files/a", datetime.now(UTC) + timedelta(days=7))
    assert not await sending.begin(file.id, 60)


@pytest.mark.parametrize("is_public", [True, False])
async def test_a_url_that_is_good_for_less_than_a_day_is_made_again(stage: Stage, *, is_public: bool) -> None:
    file = await stage.file()
    submit = stage.submitter(public_url=PUBLIC_URL if is_public else None)
    await stage.submit(await stage.accept(file), submit)

    await stage.sql.execute("UPDATE files SET sent_until = now() + interval '25 hours'")
    await stage.submit(await stage.accept(file), submit)
    assert len(set(stage.provider.urls())) == 1
    await stage.sql.execute("UPDATE files SET sent_until = now() + interval '23 hours', sent_url = 'https://old'")
    await stage.submit(await stage.accept(file), submit)

    url, days = await stage.row(file, "sent_url", "round(extract(epoch FROM sent_until - now()) / 86400)::int")
    assert (stage.provider.urls()[-1], days) == (url, 7)
    assert url != "https://old"
    assert len(stage.uploads()) == (0 if is_public else 2)


async def test_a_public_service_is_where_fal_gets_a_file_from_as_long_as_it_is_not_deleted(stage: Stage) -> None:
    """Also after the file's own time, which may end while a job waits."""
    file = await stage.file()
    await stage.submit(await stage.accept(file), stage.submitter(public_url=PUBLIC_URL))
    (url,) = stage.provider.urls()
    link = urlsplit(url)
    media_id = f"fal-{FileId(file.id)}"
    query = {name: value for name, (value,) in parse_qs(link.query).items()}
    files, copies = files_of(stage.engine), copies_of(stage.engine)
    opening = OpenMedia(LINKS, copies, files, cast(ProviderMedia, None), cast(MediaStore, stage.store))

    assert url.startswith(f"{PUBLIC_URL}/media/{media_id}/file.png?")
    await stage.sql.execute("UPDATE files SET expires_at = now() - interval '1 hour'")
    found = await opening.find(media_id, query["expires"], query["signature"])
    assert b"".join([chunk async for chunk in opening.read(found.medium, 0, len(CONTENT))]) == CONTENT
    assert timedelta(days=6) < found.ends_at - datetime.now(UTC) <= timedelta(days=7)
    await files.delete(file.id, DeletedBecause.REQUESTED)
    with pytest.raises(MediaDeleted):
        await opening.find(media_id, query["expires"], query["signature"])
    assert stage.uploads() == []


@pytest.mark.parametrize("was_sent", [False, True])
async def test_a_job_whose_file_was_deleted_ends_with_one_refund(stage: Stage, *, was_sent: bool) -> None:
    file, other = await stage.file(), await stage.file()
    if was_sent:
        await stage.submit(await stage.accept(file))
    posts = len(stage.provider.inputs)
    job_ids = [await stage.accept(file, other) for _ in range(3)]
    await files_of(stage.engine).delete(file.id, DeletedBecause.REQUESTED)

    await asyncio.gather(*(stage.submit(job_id) for job_id in job_ids * 3))

    assert len(stage.provider.inputs) == posts
    await stage.assert_refunded(*job_ids)
    assert await stage.balance() == BALANCE_TOKENS - posts * COST_TOKENS
    assert await stage.row(file, "sent_url", "sent_until") == (None, None)


async def test_a_deletion_that_races_with_claims_leads_to_a_post_or_one_refund(stage: Stage) -> None:
    refunded, submitted = 0, 0
    for place in range(8):
        file = await stage.file()
        job_ids = [await stage.accept(file) for _ in range(4)]

        async def delete(file_id: UUID, seconds: float) -> None:
            await asyncio.sleep(seconds)
            await files_of(stage.engine).delete(file_id, DeletedBecause.REQUESTED)

        await asyncio.gather(*map(stage.submit, job_ids), delete(file.id, place * 0.012))

        states = Counter([await stage.job(job_id, "status", "error_code", "attempts") for job_id in job_ids])
        assert states.keys() <= {("SUBMITTED", None, 1), ("FAILED", "input_deleted", 0)}
        submitted += states["SUBMITTED", None, 1]
        refunded += states["FAILED", "input_deleted", 0]
        assert await stage.row(file, "sent_url") == (None,)

    assert len(stage.provider.inputs) == submitted
    assert await stage.balance() == BALANCE_TOKENS - submitted * COST_TOKENS
    assert await stage.sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'REFUND'") == refunded
    assert all(url.startswith("http") for url in stage.provider.urls())
    assert await PostgresLedger(stage.engine).violations() == []


async def test_a_file_that_the_store_has_lost_ends_its_job_with_a_refund(stage: Stage) -> None:
    file, job_ids = await stage.file(), []
    (stage.folder / FileId(file.id).store_key).unlink()
    job_ids.append(await stage.accept(file))

    await stage.submit(job_ids[0])

    await stage.assert_refunded(*job_ids)
    assert stage.uploads() == []


WAITING = ("status", "status_reason", "waiting_for", "provider_waiting_since IS NOT NULL")


async def test_while_the_store_is_away_a_job_waits_and_says_so(stage: Stage) -> None:
    file = await stage.file()
    job_id, submit, away = await stage.accept(file), stage.submitter(), stage.folder.with_name("away")
    stage.folder.rename(away)

    await stage.comes_back(job_id, submit)
    assert await stage.job(job_id, *WAITING) == (
        "QUEUED",
        "The store of files cannot be read right now.",
        "provider",
        True,
    )
    assert await stage.row(file, "sent_url", "handed_over_until") == (None, None)
    away.rename(stage.folder)
    await stage.submit(job_id, submit)

    assert await stage.job(job_id, *WAITING[:3]) == ("SUBMITTED", None, None)
    assert len(stage.uploads()) == 1


class RefusingStorage:
    async def upload(self, **_: Any) -> str:
        raise ProviderUnavailable("fal's storage answered 503 to an upload")


async def test_while_fal_takes_no_files_a_job_waits_and_its_time_ends_with_a_refund(stage: Stage) -> None:
    file = await stage.file()
    job_id, other = await stage.accept(file), await stage.accept(file)
    refusing = stage.submitter(storage=cast(ProviderStorage, RefusingStorage()), waits=ProviderWaits(60))

    for _ in range(2):
        await stage.comes_back(job_id, refusing)
        assert await stage.job(job_id, *WAITING) == ("QUEUED", "fal takes no files right now.", "provider", True)
    await stage.sql.execute(
        "UPDATE jobs SET provider_waiting_since = now() - interval '61 seconds' WHERE id = $1", job_id
    )
    await stage.submit(job_id, refusing)
    await stage.submit(other)

    await stage.assert_refunded(job_id, code="queue_timeout")
    assert await stage.job(other, "status") == ("SUBMITTED",)
    assert len(stage.provider.inputs) == 1


async def pass_days(stage: Stage, days: float) -> None:
    """For outputs, whose times nobody may move."""
    await stage.sql.execute(
        f"SET session_replication_role = replica; UPDATE outputs SET created_at = created_at - interval '{days} days', "
        f"expires_at = expires_at - interval '{days} days'; RESET session_replication_role"
    )


async def test_an_output_is_sent_by_fals_own_url_while_fal_has_it_and_then_from_our_store(stage: Stage) -> None:
    file = await stage.output(await completed(stage.engine, stage.customer), is_stored=True)

    await stage.submit(await stage.accept(file))
    assert stage.provider.urls() == [URLS[0]]
    assert await stage.row(file, "round(extract(epoch FROM sent_until - now()) / 86400)::int") == (3,)
    await stage.sql.execute("UPDATE files SET sent_until = now() + interval '23 hours'")
    await pass_days(stage, 2.1)
    await stage.submit(await stage.accept(file))

    url = stage.provider.urls()[-1]
    assert stage.at_fal(url) == CONTENT
    await stage.sql.execute("UPDATE files SET sent_until = now() + interval '23 hours'")
    await stage.submit(await stage.accept(file), stage.submitter(public_url=PUBLIC_URL))
    assert stage.provider.urls()[-1].startswith(f"{PUBLIC_URL}/media/fal-{await output_of(stage)}/file.png?")


async def output_of(stage: Stage) -> OutputId:
    row = await stage.sql.fetchrow("SELECT output_job_id, output_number FROM files")
    assert row is not None
    return OutputId(*row)


async def test_an_output_that_only_fal_keeps_is_sent_by_its_url_for_as_long_as_fal_keeps_it(stage: Stage) -> None:
    """As in a service without a store."""
    job_id = await completed(stage.engine, stage.customer)
    await copies_of(stage.engine).give_up(OutputId(job_id, 0), is_kept_at_provider=True)
    file = await stage.output(job_id, is_stored=False)

    await pass_days(stage, 20)
    await stage.submit(await stage.accept(file), stage.submitter(store=None))

    assert stage.provider.urls() == [URLS[0]]


async def test_an_output_that_nobody_has_any_more_ends_its_job_with_a_refund(stage: Stage) -> None:
    file = await stage.output(await completed(stage.engine, stage.customer), is_stored=False)
    late = await stage.accept(file)
    await pass_days(stage, 2.1)
    await stage.submit(late)
    await stage.assert_refunded(late)

    deleted = await stage.accept(file)
    await PostgresMediaDeletion(stage.engine).delete(None, (await output_of(stage)).job_id, DeletedBecause.REQUESTED)
    await stage.submit(deleted)

    await stage.assert_refunded(late, deleted)
    assert stage.provider.inputs == []


@pytest.mark.parametrize("takes_seed", [True, False])
async def test_a_lost_submission_with_a_file_is_found_in_fals_history_by_the_url_that_was_sent(
    stage: Stage, simulator: str, monkeypatch: pytest.MonkeyPatch, *, takes_seed: bool
) -> None:
    monkeypatch.setattr(evidence, "SEARCH_SECONDS", (0, 300))
    jobs, file = jobs_of(stage.engine), await stage.file()
    job = job_with(stage.customer, file)
    parameters = {**job.parameters, "prompt": "a lighthouse [submit:drop]"}
    terms = replace(job.terms, takes_seed=takes_seed)
    job_id = (await jobs.accept(replace(job, parameters=parameters, terms=terms))).job.id
    async with (
        FalClient.open(queue_url=simulator, key=KEY, ssl_context=PLAIN) as fal,
        FalHistory.open(api_url=f"{simulator}/v1", key="admin:secret", ssl_context=PLAIN) as history,
    ):
        await stage.submit(job_id, stage.submitter(provider=fal))
        assert await stage.job(job_id, "status", "fal_request_id") == ("SUBMITTING", None)
        search = SearchHistory(PostgresLostSubmissions(stage.engine), history, fal.input_digest)
        await FollowJob(jobs, fal, search=search)(job_id)

    (run,) = stage.fal.get("/_sim/requests").json()["requests"]
    assert [run["input"]["image_urls"]] == [list(await stage.row(file, "sent_url"))]
    assert await stage.job(job_id, "status", "fal_request_id") == ("COMPLETED", run["request_id"])
    assert await stage.balance() == BALANCE_TOKENS - COST_TOKENS


async def test_without_files_terms_stay_as_the_release_before_knows_them(stage: Stage) -> None:
    with_file, without = await stage.accept(await stage.file()), await stage.accept()

    assert await stage.job(with_file, "terms ->> 'form'", "file_ids IS NULL") == ("2", False)
    assert await stage.job(without, "terms ->> 'form'", "file_ids IS NULL") == ("1", True)


# It knows nothing of files, and would send fal what stands in the row.
THE_RELEASE_BEFORE = """
import asyncio, sys
from uuid import UUID, uuid4
from app.domain import terms

terms.FORMS = (terms.FORM,)

from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.jobs.execution import PostgresJobExecution


async def main():
    async with open_engine(sys.argv[1]) as engine:
        for job_id in sys.argv[2:]:
            print(await PostgresJobExecution(engine).claim(UUID(job_id), uuid4()) is not None)


asyncio.run(main())
"""


async def test_a_process_of_the_release_before_leaves_jobs_with_files_alone(stage: Stage, database: str) -> None:
    file = await stage.file()
    await stage.submit(await stage.accept(file))
    with_file, without = await stage.accept(file), await stage.accept()

    before = await asyncio.create_subprocess_exec(
        sys.executable, "-c", THE_RELEASE_BEFORE, database, str(with_file), str(without), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await before.communicate()

    assert printed.split() == [b"False", b"True"]
    assert await stage.job(with_file, "status", "attempts") == ("QUEUED", 0)
    await stage.submit(with_file)
    assert await stage.job(with_file, "status") == ("SUBMITTED",)
