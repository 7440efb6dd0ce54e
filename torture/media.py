"""Media: what is not deleted is stored, whole and right; of what is deleted nothing is left, whatever ends meanwhile.

kill -9 of two APIs and two workers, which copy, deliver and serve, while users start pictures whose downloads from fal
fail in several ways, follow their links, and delete what they have, some of it while it is copied and some of it by two
APIs at once. The store is a folder, which is away for some periods.

No file is kept for less than three days, and the database refuses to move its end to an earlier time. So the torture
does that as the superuser of its own PostgreSQL, under `session_replication_role = replica`, for some outputs that are
stored: their time is over from one moment to the next. In the same way hours pass at the end for what fal has lost and
for what was deleted before it was stored, and two days for all files in the folder before the audit looks at them.

Beside them users send pictures, start jobs with them, with data: URIs and with own outputs, and delete them again; see
`media_files`. By an even seed fal can reach the service, and is given links of ours, which lead nowhere while the first
API is killed. By an odd one it cannot, so that files go to fal's storage, and there are no webhooks.

What the rows say is then held against the folder, against what the simulator serves, and against every link.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from torture.books import checks_of
from torture.callers import Book, Callers
from torture.event_truth import until_sequenced
from torture.event_writers import answers_are_right, calling_all
from torture.evidence import ends, evidence_of, until_settled
from torture.fleet import Fleet, running_fleet
from torture.kills import KILL_SECONDS, KILLS
from torture.media_evidence import findings_of
from torture.media_files import BYTES_MAX, FileUsers
from torture.media_files_evidence import Kills, file_findings_of
from torture.media_files_time import TimePassed, until_files_quiet
from torture.media_files_truth import FileFindings, file_checks
from torture.media_time import until_quiet
from torture.media_trouble import AWAY_SECONDS, StoreTrouble
from torture.media_truth import PART, Audit, Findings, digests_differ, media_checks
from torture.media_users import Users
from torture.pace import Pace
from torture.report import Check, Outcome, Plan
from torture.timeline import Timeline, sampled
from torture.under_load import Trouble, no_bug_is_logged

JOBS = 3_000
USERS = 20
FILE_STORIES = 1_200
FILE_USERS_MIN = 4
TOKENS = 20_000
AWAYS = 20
SETTINGS = {"IMAGE_TIME_LIMIT_SECONDS": "90", "FILES_BYTES_MAX": str(BYTES_MAX)}
# Beyond what was planned; whatever is missing then is said.
LATE_SECONDS_MAX = 300
DOWNLOAD_SECONDS_MAX = 60
TELL_SECONDS = 10


@dataclass(slots=True)
class _Scene:
    plan: Plan
    fleet: Fleet
    callers: Sequence[Callers]
    books: list[Book]
    session: aiohttp.ClientSession
    rng: random.Random
    timeline: Timeline
    store: StoreTrouble

    @property
    def dsn(self) -> str:
        return self.fleet.postgres.dsn


async def media(plan: Plan) -> Outcome:
    directory = plan.directory / "media"
    directory.mkdir()
    rng, timeline, began = random.Random(f"{plan.seed}/media"), Timeline(), time.monotonic()
    settings = SETTINGS if plan.seed % 2 == 0 else {**SETTINGS, "PUBLIC_URL": None}
    timeout = aiohttp.ClientTimeout(total=DOWNLOAD_SECONDS_MAX)
    async with (
        running_fleet(directory, workers=2, apis=2, settings=settings) as fleet,
        calling_all(fleet.urls) as callers,
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=100)) as session,
    ):
        books = [await callers[number % len(callers)].register(TOKENS) for number in range(USERS)]
        store = StoreTrouble(Trouble(fleet, timeline, rng, may_end=True), directory / "media")
        scene = _Scene(plan, fleet, callers, books, session, rng, timeline, store)
        async with sampled(timeline, fleet.postgres.dsn):
            users, file_users = await _suffer(scene)
            in_time, passed, seconds = await _rest(scene)
        checks, counts = await _judge(scene, users, file_users, passed)
    counts |= {"seconds_to_rest": seconds}
    return Outcome("media", [in_time, *checks], counts, timeline, time.monotonic() - began)


async def _suffer(scene: _Scene) -> tuple[Users, FileUsers]:
    plan = scene.plan
    kills, aways = plan.count(KILLS), max(2, plan.count(AWAYS))
    seconds = kills * KILL_SECONDS + aways * sum(AWAY_SECONDS) / 2
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(scene.store.run(kills, aways))
        seconds_max = 2 * seconds + LATE_SECONDS_MAX
        users = Users(
            scene.callers,
            scene.fleet.urls,
            scene.session,
            scene.books,
            scene.dsn,
            scene.rng,
            Pace(plan.count(JOBS), seconds, task.done, seconds_max),
        )
        file_users = FileUsers(
            scene.callers,
            scene.books[: max(FILE_USERS_MIN, plan.count(USERS))],
            scene.dsn,
            scene.rng,
            Pace(plan.count(FILE_STORIES), seconds, task.done, seconds_max, at_once_max=40),
        )
        work = [tasks.create_task(users.run()), tasks.create_task(file_users.run())]
        tasks.create_task(_tell(scene, users, file_users, work))
    return users, file_users


async def _tell(scene: _Scene, users: Users, files: FileUsers, work: "Sequence[asyncio.Task[None]]") -> None:
    while not all(each.done() for each in work):
        kills, jobs, downloads = len(scene.timeline.marks), users.placed, len(users.downloads)
        scene.plan.console.log(
            f"{kills} marks, {jobs:,} jobs of {users.pace.count:,}, {downloads:,} downloads, {files.begun:,} stories"
        )
        await asyncio.wait(work, timeout=TELL_SECONDS)


async def _rest(scene: _Scene) -> tuple[Check, TimePassed, float]:
    """Left alone, until nothing is left to do, or nothing more can be waited for."""
    began = time.monotonic()
    await scene.fleet.until_ready()
    await until_settled(scene.fleet)
    (left, _), passed = await asyncio.gather(
        until_quiet(scene.dsn), until_files_quiet(scene.dsn, scene.plan.directory / "media" / "uploads")
    )
    left += passed.left
    if not await until_sequenced(scene.dsn):
        left.append("the inbox is not empty")
    return Check("everything comes to rest in time", 1, left), passed, time.monotonic() - began


async def _judge(
    scene: _Scene, users: Users, file_users: FileUsers, passed: TimePassed
) -> tuple[list[Check], dict[str, Any]]:
    evidence = await evidence_of(scene.fleet, scene.callers[0], scene.books)
    views = {job_id: job for jobs in evidence.views.values() for job_id, job in jobs.items()}
    completed = {job_id: job for job_id, job in views.items() if job["status"] == "COMPLETED"}
    findings, stored, removed = await findings_of(scene.fleet, scene.store.root, users, completed)
    kills = [mark for mark in scene.timeline.marks if mark.kind.startswith("kill")]
    of_workers = sum("worker" in mark.kind for mark in kills)
    killed = Kills(of_workers, time.time() - scene.timeline.now + max(mark.seconds for mark in kills))
    files = await file_findings_of(scene.fleet, file_users, scene.session, stored=stored, time=passed, kills=killed)
    checks = [
        *media_checks(findings),
        digests_differ(findings),
        *file_checks(files),
        Check("a store that is away is not made anew", _times_away(scene.store), scene.store.wrong),
        # Nobody has a budget here.
        *(check for check in checks_of(evidence) if check.claim != "no budget is exceeded"),
        answers_are_right(scene.callers),
        no_bug_is_logged(scene.fleet),
    ]
    counts = {
        "kills": scene.store.tally["working"] + scene.store.tally["starting"],
        "trouble": dict(scene.store.tally),
        "seconds_away": scene.store.away_seconds,
        "jobs": len(evidence.rows),
        "ends": ends(evidence),
        "users": dict(users.done),
        **_counts(findings, removed, users),
        "files": _file_counts(files, file_users),
        "log_events": {event: sum(len(each.logged(event)) for each in scene.fleet.members) for event in EVENTS},
    }
    return checks, counts


def _file_counts(found: FileFindings, users: FileUsers) -> Mapping[str, Any]:
    return {
        "stories": dict(users.done),
        "answered_201": len(found.told),
        "rows": len(found.kept),
        "live": sum(each.is_live for each in found.kept.values()),
        "deleted": dict(Counter(each.deleted_because for each in found.kept.values() if each.deleted_because)),
        "full": len(found.full),
        "jobs": len(found.jobs),
        "ends": dict(Counter(job.error_code or job.status for job in found.jobs)),
        "handed_over": "links" if found.is_by_links else "fal's storage",
        "at_fal": sum(found.at_fal.values()),
        "received_and_left": len(found.time.received),
        "of_data_put_off": found.time.put_off,
    }


EVENTS = ("output_stored", "output_copy_failed", "media_store_away", "media_erased", "media_orphan_removed")


def _times_away(store: StoreTrouble) -> int:
    return store.tally["renamed"] + store.tally["replaced"]


def _counts(findings: Findings, removed: Audit, users: Users) -> Mapping[str, Any]:
    kept = findings.kept.values()
    parts = sum(PART.fullmatch(file.name) is not None for file in findings.before)
    known = {each.id for each in findings.deleted}
    return {
        "outputs": len(kept),
        "stored": sum(each.is_stored for each in kept),
        "deleted": dict(Counter(each.deleted_because for each in findings.deleted)),
        "deleted_before_stored": sum(each.is_deleted and not each.is_stored for each in kept),
        "downloads": dict(Counter(str(each.status) for each in users.downloads)),
        "cut_off": dict(users.cut_off),
        "links_at_the_end": dict(Counter(str(look.status) for look in findings.looks)),
        "objects": len(findings.before),
        "unfinished_writes": parts,
        "objects_of_deleted": sum(file.name in known for file in findings.before),
        "orphans_removed": removed.totals[1] if removed.totals else 0,
    }
