"""What the commands share: how one runs, on which database, and what it says when it fails."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, NoReturn
from uuid import UUID

import typer
import uvloop
from pydantic import SecretStr
from tabulate import tabulate

from app.application.use_cases import OperatorUseCases
from app.bootstrap import build_operator
from app.cli.development import DevelopmentError, embedded_postgres, running_dsn
from app.domain.errors import CommitUnknown, DomainError, JobNotFound, KeyAlreadyIssued, ProofRequired
from app.domain.key_errors import KeyNotFound, TooManyKeys
from app.domain.keys import LIVE_KEYS_MAX
from app.infrastructure.logging import configure_logging
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.dsn import Dsn
from app.infrastructure.postgres.faults import DATABASE_ERRORS, DatabaseRefused, explained
from app.infrastructure.postgres.inspection import check_before_start
from app.infrastructure.postgres.migrations import check_migrated, migrate
from app.infrastructure.settings import Settings, SettingsError, load_settings
from app.serving import handle_stop_signals

# What a caller of the API is told would send an operator to headers and routes.
_FOR_OPERATORS: Mapping[type[DomainError], str] = {
    JobNotFound: "There is no job with this id. `jobs list` shows the newest ones.",
    KeyAlreadyIssued: "This user has, or had, a key. `keys rotate USER` replaces the first one by a new one.",
    KeyNotFound: "This user has no live key with this id. `keys list USER` shows those there are.",
    ProofRequired: "No account of this user ever had a key. `keys issue USER` makes the first one.",
    TooManyKeys: f"This user has {LIVE_KEYS_MAX} live keys, the most. Nothing was done. "
    "`keys revoke USER --key KEY` ends one.",
}

User = Annotated[UUID, typer.Argument(help="The user's id in your own system (external_user_id).")]


def fail(reason: object) -> NoReturn:
    """One line, or one for each problem, instead of a traceback."""
    for line in str(reason).splitlines():
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(1)


def run(
    work: Callable[[Settings], Awaitable[None]], *, is_quiet: bool = False, kind: type[Settings] = Settings
) -> None:
    try:
        settings = load_settings(kind)
        # What a command fails of is its own one line.
        level = "ERROR" if is_quiet else settings.log_level
        configure_logging(level, as_json=settings.logs_as_json, secrets=settings.secrets)
        uvloop.run(_interruptible(_naming_database_faults(work, settings)))
    except (SettingsError, DevelopmentError, DatabaseRefused) as error:
        fail(error)
    except DomainError as error:
        fail(_FOR_OPERATORS.get(type(error), error.detail))
    except asyncio.CancelledError:
        raise typer.Exit(130) from None


async def _naming_database_faults(work: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
    """Raises DatabaseRefused, with the cause and the mend, for whatever the database refuses."""
    try:
        await work(settings)
    except DATABASE_ERRORS as error:
        url = settings.database_url
        sentence = explained(error, Dsn.read("postgresql://" if url is None else url.get_secret_value()))
        if sentence is None or isinstance(error, CommitUnknown):
            raise
        raise DatabaseRefused(sentence) from error


async def _interruptible(work: Awaitable[None]) -> None:
    """Ctrl-C and SIGTERM cancel the work, at whatever point it is, so that what it started is stopped again."""
    task = asyncio.ensure_future(work)
    handle_stop_signals(task.cancel, task.cancel)
    await task


def run_for_operator(work: Callable[[OperatorUseCases], Awaitable[None]]) -> None:
    """For one-off commands: connected to the database alone, with nothing running in the background.

    A database that was given is migrated by whoever deploys, and by no command in passing.
    """

    async def connected(settings: Settings) -> None:
        async with with_database(settings) as complete:
            if settings.database_url is None:
                await migrate_database(complete)
            else:
                await _check_migrated(complete)
            async with build_operator(complete) as operator:
                await work(operator)

    run(connected, is_quiet=True)


@asynccontextmanager
async def with_database(settings: Settings, *, start: bool = False) -> AsyncIterator[Settings]:
    """The settings with a database: the given one, the embedded one that runs already, or one started for this."""
    if settings.database_url is not None:
        yield settings
        return
    dsn = None if start else running_dsn(settings.data_dir)
    if dsn is not None:
        yield _with_dsn(settings, dsn)
        return
    async with embedded_postgres(settings.data_dir) as dsn:
        yield _with_dsn(settings, dsn)


def _with_dsn(settings: Settings, dsn: str) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(dsn)})


async def migrate_database(settings: Settings) -> None:
    """Raises DatabaseRefused, with one line."""
    await check_database(settings)
    # An index of a large table takes longer than any request may.
    async with open_engine(url_of(settings), pool_size=1, is_patient=True) as engine:
        await migrate(engine)


async def _check_migrated(settings: Settings) -> None:
    """Raises DatabaseRefused, with one line."""
    async with open_engine(url_of(settings), pool_size=1) as engine:
        await check_migrated(engine)


async def check_database(settings: Settings) -> None:
    """Raises DatabaseRefused, with one line."""
    await check_before_start(url_of(settings), connections_max=settings.database_connections_max)


def url_of(settings: Settings) -> str:
    assert settings.database_url is not None, "the command line sees to a database first"
    return settings.database_url.get_secret_value()


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Whole ids, however narrow the terminal: they are there to be copied."""
    shown = [[printable(value) for value in row] for row in rows]
    typer.echo(tabulate(shown, headings, tablefmt="plain", disable_numparse=True) if rows else "nothing yet")


def moment_text(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def printable(value: object) -> str:
    """Users name their keys: what they wrote neither breaks a row nor gives orders to the operator's terminal."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
