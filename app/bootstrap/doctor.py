"""Looks at everything that the service needs, one thing after the other, and goes on whatever it finds."""

import asyncio
import base64
import os
import resource
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from app.application.ports.health import EVERY_MODEL, Finding, Level
from app.application.ports.media_decoder import DecoderUnavailable
from app.application.ports.media_store import StoreUnavailable
from app.bootstrap.catalogue import load_catalogue, safety_concern
from app.bootstrap.steps import runner_duties
from app.domain.errors import DatabaseUnavailable
from app.domain.kinds import GenerationKind
from app.infrastructure.decoding.decoder import ConfinedDecoder
from app.infrastructure.fal.inspection import inspect_fal, inspect_public_url
from app.infrastructure.media_store.opening import open_store
from app.infrastructure.media_store.urls import folder_of
from app.infrastructure.postgres.database import open_engine, reading
from app.infrastructure.postgres.faults import NO_TABLE, fault_of
from app.infrastructure.postgres.heartbeats import DEAD_SECONDS, LOCKED, PAUSED, ages_seconds, silence, told_models
from app.infrastructure.postgres.inspection import inspect_database
from app.infrastructure.postgres.migrations import current_revision, head_revision, is_known
from app.infrastructure.postgres.reversals import OVERDUE_HOURS, PostgresPendingReversals
from app.infrastructure.settings import Settings, SettingsError
from app.infrastructure.settings.values import unmet_demands

LOOK_SECONDS_MAX = 5.0
# Less, so that it is the store that is told of.
STORE_SECONDS_MAX = 4.0
FREE_BYTES_MIN = 1_000_000_000
DESCRIPTORS_MIN = 4096
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
_UNKNOWN = "unknown while the database cannot be used"
# They say nothing then, and would only wait once more for a database that is silent.
_QUIET_WITHOUT_DATABASE = ("submissions", "reversals")


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """`settings` need not be good enough for production."""
    is_database_away = False
    for name, look in _looks(settings):
        if is_database_away and name in _QUIET_WITHOUT_DATABASE:
            continue
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                findings = await look()
        except TimeoutError:
            findings = [Finding(Level.WRONG, name, f"no answer within {LOOK_SECONDS_MAX:g} s")]
        except Exception as error:
            findings = [Finding(Level.WRONG, name, f"cannot be looked at ({type(error).__name__})")]
        for finding in findings:
            is_database_away |= finding.text == _UNKNOWN
            yield finding


def _looks(settings: Settings) -> Sequence[tuple[str, Callable[[], Awaitable[Sequence[Finding]]]]]:
    return [
        ("secrets", lambda: _secrets(settings)),
        ("database", lambda: _database(settings)),
        ("migrations", lambda: _migrations(settings)),
        ("runner", lambda: _runner(settings)),
        ("submissions", lambda: _submissions(settings)),
        ("reversals", lambda: _reversals(settings)),
        ("catalogue", lambda: _catalogue(settings)),
        ("fal", lambda: _fal(settings)),
        ("public url", lambda: _public_url(settings)),
        ("disk", lambda: _disk(settings.data_dir)),
        ("descriptors", _descriptors),
        ("uploads", _uploads),
        # The last one: nothing ends a wait for a file system that hangs.
        ("media", lambda: _media(settings)),
    ]


async def _secrets(settings: Settings) -> Sequence[Finding]:
    demands = unmet_demands(settings)
    if not demands:
        return [Finding(Level.OK, "secrets", "as production asks for them")]
    return [Finding(Level.WARNING, "secrets", f"production would refuse: {demand}") for demand in demands]


async def _database(settings: Settings) -> Sequence[Finding]:
    if settings.database_url is None:
        return [Finding(Level.OK, "database", "DATABASE_URL is not set: serve starts an embedded PostgreSQL")]
    url = settings.database_url.get_secret_value()
    return await inspect_database(url, connections_max=settings.database_connections_max)


async def _migrations(settings: Settings) -> Sequence[Finding]:
    if settings.database_url is None:
        return []
    head = head_revision()
    try:
        async with open_engine(settings.database_url.get_secret_value(), pool_size=1) as engine:
            current = await current_revision(engine)
    except DatabaseUnavailable:
        return [Finding(Level.WARNING, "migrations", _UNKNOWN)]
    if current is None:
        text = f"the tables of revision {head} are not there yet: run python -m app migrate; serve does so by itself"
        return [Finding(Level.WARNING, "migrations", text)]
    if not is_known(current):
        text = "the version table names a revision that no release of this service has: is it the right database?"
        return [Finding(Level.WRONG, "migrations", text)]
    if current < head:
        text = f"at revision {current}, this release needs {head}: run python -m app migrate"
        return [Finding(Level.WARNING, "migrations", text)]
    return [Finding(Level.OK, "migrations", f"at revision {current}")]


async def _runner(settings: Settings) -> Sequence[Finding]:
    if settings.database_url is None:
        return []
    try:
        async with open_engine(settings.database_url.get_secret_value(), pool_size=1) as engine:
            ages = await ages_seconds(engine, runner_duties())
    except DatabaseUnavailable as error:
        is_early = fault_of(error.__cause__ or error).kind == NO_TABLE
        reason = "none before the first migration" if is_early else _UNKNOWN
        return [Finding(Level.WARNING, "runner", reason)]
    dead = {duty: age for duty, age in ages.items() if age > DEAD_SECONDS}
    if not ages:
        text = "no runner beats: start python -m app serve, or with RUNNER=external python -m app worker"
        return [Finding(Level.WARNING, "runner", text)]
    if dead:
        return [Finding(Level.WRONG, "runner", f"{silence(dead)}: restart the process that works on jobs")]
    return [Finding(Level.OK, "runner", f"{', '.join(sorted(ages))} beat")]


async def _submissions(settings: Settings) -> Sequence[Finding]:
    if settings.database_url is None:
        return []
    try:
        async with (
            open_engine(settings.database_url.get_secret_value(), pool_size=1) as engine,
            reading(engine) as asked,
        ):
            locked, paused = await told_models(asked, LOCKED), await told_models(asked, PAUSED)
    except DatabaseUnavailable:
        # What is wrong with it stands above.
        return []
    findings = []
    if locked:
        text = (
            f"fal refuses the key or your account for {_models(locked)}: top up or unlock it at"
            " fal.ai/dashboard/billing, or set a good FAL_KEY and restart; jobs wait meanwhile"
        )
        findings.append(Finding(Level.WRONG, "submissions", text))
    if paused - locked:
        text = f"those of {_models(paused - locked)} pause: /readyz or the log of the runner says why"
        findings.append(Finding(Level.WARNING, "submissions", text))
    return findings or [Finding(Level.OK, "submissions", "no process pauses them")]


def _models(told: Collection[str]) -> str:
    return "all models" if EVERY_MODEL in told else ", ".join(sorted(told))


async def _reversals(settings: Settings) -> Sequence[Finding]:
    if settings.database_url is None:
        return []
    try:
        async with open_engine(settings.database_url.get_secret_value(), pool_size=1) as engine:
            overdue = await PostgresPendingReversals(engine).overdue()
    except DatabaseUnavailable:
        # What is wrong with it stands above.
        return []
    if not overdue:
        return [Finding(Level.OK, "reversals", "none waits for long")]
    counts = ", ".join(f"{count} of {source}" for source, count in overdue.items())
    text = (
        f"{counts} have waited for their payment for more than {OVERDUE_HOURS} hours:"
        " python -m app tokens pending lists them; see reversal_pending in docs/runbook.md"
    )
    return [Finding(Level.WARNING, "reversals", text)]


async def _catalogue(settings: Settings) -> Sequence[Finding]:
    try:
        catalogue = load_catalogue(settings)
    except SettingsError as error:
        return [Finding(Level.WRONG, "catalogue", line) for line in str(error).splitlines()]
    sold, concern = f"{len(catalogue)} models are sold", safety_concern(settings, catalogue)
    return [Finding(Level.OK, "catalogue", sold), *([Finding(Level.WARNING, "catalogue", concern)] if concern else [])]


async def _fal(settings: Settings) -> Sequence[Finding]:
    if settings.fal_key is None:
        return [Finding(Level.OK, "fal", "FAL_KEY is not set: the simulator stands in")]
    try:
        model_id = load_catalogue(settings).default_of(GenerationKind.TEXT_TO_IMAGE).id
    except SettingsError:
        return [Finding(Level.WARNING, "fal", "unknown while the catalogue cannot be used")]
    return await inspect_fal(settings.fal_queue_url, settings.fal_key.get_secret_value(), model_id, settings.egress)


async def _public_url(settings: Settings) -> Sequence[Finding]:
    if settings.public_url is None:
        if settings.fal_key is None and not settings.is_production:
            text = "PUBLIC_URL is not set: the simulator reaches this machine without it, and its webhooks are on"
            return [Finding(Level.OK, "public url", text)]
        text = "PUBLIC_URL is not set: fal's webhooks are off, jobs are polled"
        if not settings.is_production:
            return [Finding(Level.OK, "public url", text)]
        text += (
            f"; links to files in webhooks begin with {settings.links_url}, where no customer finds them:"
            " set it to the address at which customers reach this service"
        )
        return [Finding(Level.WARNING, "public url", text)]
    return await inspect_public_url(settings.public_url, settings.egress)


async def _disk(data_dir: Path) -> Sequence[Finding]:
    free_bytes = shutil.disk_usage(_existing(data_dir)).free
    text = f"{free_bytes / 1e9:,.1f} GB are free for DATA_DIR"
    if free_bytes < FREE_BYTES_MIN:
        return [Finding(Level.WARNING, "disk", f"only {text}: make room, or move it")]
    return [Finding(Level.OK, "disk", text)]


def _existing(directory: Path) -> Path:
    place = directory.resolve()
    while not place.exists():
        place = place.parent
    return place


async def _media(settings: Settings) -> Sequence[Finding]:
    url = settings.store_url
    if url is None:
        return [Finding(Level.OK, "media", f"MEDIA_URL is none: fal keeps files for {settings.media_days} days")]
    folder = folder_of(url)
    if folder is not None and not folder.exists():
        # Made by whoever looks, it could be one that the service itself may not use.
        return [Finding(Level.OK, "media", f"{folder} is not there yet: the service makes it")]
    if folder is not None and folder.stat().st_uid != os.geteuid():
        text = f"{folder} is another user's: run doctor as the user of the service, to see whether he may use it"
        return [Finding(Level.WARNING, "media", text)]
    try:
        store = open_store(url)
        async with asyncio.timeout(STORE_SECONDS_MAX):
            await store.check()
    except (StoreUnavailable, TimeoutError) as error:
        reason = error.reason if isinstance(error, StoreUnavailable) else "The store does not answer in time."
        text = (
            f"{reason} Until that is mended, files are not copied and stored ones answer 503. Let the service write,"
            " read and delete there, or name another folder or bucket in MEDIA_URL, and a bucket's credentials, region"
            " and endpoint in the environment"
        )
        return [Finding(Level.WRONG, "media", text)]
    return [Finding(Level.OK, "media", "the store can be written to, read and deleted from")]


async def _uploads() -> Sequence[Finding]:
    with TemporaryDirectory() as directory:
        source = Path(directory, "picture")
        await asyncio.to_thread(source.write_bytes, _PIXEL)
        try:
            async with ConfinedDecoder.open() as decoder:
                await decoder.examine(source, Path(directory, "cleaned"), owner=None)
        except DecoderUnavailable as error:
            text = (
                f"no file can be looked at safely here ({error.reason}), and POST /files answers 503: let the service"
                " use prctl and seccomp, which the profile of a container may forbid"
            )
            return [Finding(Level.WRONG, "uploads", text)]
    return [Finding(Level.OK, "uploads", "files are looked at in processes that can do nothing else")]


async def _descriptors() -> Sequence[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_MIN:
        text = f"this process may open {hard} files and connections: raise the limit (ulimit -n) to {DESCRIPTORS_MIN}"
        return [Finding(Level.WARNING, "descriptors", text)]
    return [Finding(Level.OK, "descriptors", "enough may be opened")]
