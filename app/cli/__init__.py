"""The command line: `python -m app --help`."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, NoReturn
from uuid import UUID, uuid4

import structlog
import typer
import uvloop
from pydantic import SecretStr
from rich.console import Console
from tabulate import tabulate

from app.bootstrap import Runtime, build
from app.domain.errors import DomainError
from app.domain.ledger import EntryKind, LedgerEntry
from app.domain.payments import EVENT_ID_LENGTH_MAX, TOPUP_TOKENS_MAX
from app.infrastructure.logging import configure_logging
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.migrations import migrate as apply_migrations
from app.infrastructure.settings import (
    DEVELOPMENT_WEBHOOK_SECRET,
    Settings,
    SettingsError,
    load_settings,
)
from app.main import create_app
from app.serving import BACKLOG, handle_stop_signals, serve_until_stopped, spare_the_collector
from devtools.demo import DemoError, run_demo
from devtools.embedded_postgres import EmbeddedPostgresError, embedded_postgres, running_dsn
from devtools.fal_simulator import SIMULATOR_ADMIN_KEY, SIMULATOR_KEY, SimulatorError, fal_simulator

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Metered AI image and video generation.")
keys = typer.Typer(no_args_is_help=True, help="Issue, rotate and revoke API keys.")
jobs = typer.Typer(no_args_is_help=True, help="Look at jobs and queue lost ones again.")
ledger = typer.Typer(no_args_is_help=True, help="Check the books.")
app.add_typer(keys, name="keys")
app.add_typer(jobs, name="jobs")
app.add_typer(ledger, name="ledger")

log = structlog.get_logger(__name__)

DEMO_TOKENS = 1_000

User = Annotated[UUID, typer.Argument(help="The user's id in your own system (external_user_id).")]
JobId = Annotated[UUID, typer.Argument(help="The job's id.")]


def main() -> None:
    app()


def _fail(reason: object) -> NoReturn:
    """One line, or one for each problem, instead of a traceback."""
    for line in str(reason).splitlines():
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(1)


def _run(work: Callable[[Settings], Awaitable[None]], *, is_quiet: bool = False) -> None:
    try:
        settings = load_settings()
        level = "WARNING" if is_quiet else settings.log_level
        configure_logging(level, as_json=settings.logs_as_json, secrets=settings.secrets)
        uvloop.run(_interruptible(work(settings)))
    except (SettingsError, EmbeddedPostgresError, SimulatorError, DemoError) as error:
        _fail(error)
    except DomainError as error:
        _fail(error.detail)
    except asyncio.CancelledError:
        raise typer.Exit(130) from None


async def _interruptible(work: Awaitable[None]) -> None:
    """Ctrl-C and SIGTERM cancel the work, at whatever point it is, so that what it started is stopped again."""
    task = asyncio.ensure_future(work)
    handle_stop_signals(task.cancel, task.cancel)
    await task


@asynccontextmanager
async def _with_database(settings: Settings, *, start: bool = False) -> AsyncIterator[Settings]:
    """The settings with a database: the given one, the embedded one that runs already, or one started for this."""
    if settings.database_url is not None:
        yield settings
        return
    dsn = None if start else running_dsn(settings.data_dir)
    async with AsyncExitStack() as stack:
        if dsn is None:
            dsn = await stack.enter_async_context(embedded_postgres(settings.data_dir))
        yield settings.model_copy(update={"database_url": SecretStr(dsn)})


@asynccontextmanager
async def _with_provider(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with a fal to talk to: the simulator where there is no key."""
    if settings.fal_key is not None:
        yield settings
        return
    async with fal_simulator(settings.data_dir) as url:
        update = {
            "fal_key": SecretStr(SIMULATOR_KEY),
            "fal_queue_url": url,
            "fal_rest_url": url,
            "fal_jwks_url": None,
            "fal_user_id": None,
            "fal_admin_key": SecretStr(SIMULATOR_ADMIN_KEY),
            "fal_api_url": f"{url}/v1",
            # The simulator reaches this machine, as fal could not.
            "public_url": settings.public_url or settings.base_url,
        }
        yield settings.model_copy(update=update)


async def _migrate(settings: Settings) -> None:
    assert settings.database_url is not None
    async with open_engine(settings.database_url.get_secret_value()) as engine:
        await apply_migrations(engine)


@app.command()
def serve() -> None:
    """Serve the API. Without DATABASE_URL it starts PostgreSQL, without FAL_KEY the fal simulator."""

    async def work(settings: Settings) -> None:
        listener = _listen(settings)
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        async with (
            _with_database(settings, start=True) as with_database,
            _with_provider(with_database) as complete,
        ):
            await _migrate(complete)
            await _serve(complete, listener, is_simulated=settings.fal_key is None)

    _run(work)


def _listen(settings: Settings) -> socket.socket:
    """Before anything else starts, so that a port in use costs nothing and is one clear line."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        # Two bound sockets get along; only one of them may listen.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        _fail(f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another PORT or HOST")
    return listener


async def _serve(settings: Settings, listener: socket.socket, *, is_simulated: bool) -> None:
    url = settings.base_url

    async def announce(runtime: Runtime) -> None:
        if not settings.is_production:
            _print_welcome(url, await _demo_key(runtime), settings, is_simulated=is_simulated)
        log.info("service_ready", url=url)

    if not await serve_until_stopped(settings, listener, announce):
        _fail("the service could not start; the log above says why")


async def _demo_key(runtime: Runtime) -> str:
    """A fresh user with a balance, so that the first curl line works when pasted."""
    user = uuid4()
    await runtime.operator.top_up(user, DEMO_TOKENS, event_id=str(uuid4()), source="development")
    return await runtime.operator.keys.issue_first(user)


def _print_welcome(url: str, key: str, settings: Settings, *, is_simulated: bool) -> None:
    lines = [
        "",
        f"  Tollgate is ready at {url}    documentation: {url}/docs",
        "",
    ]
    if is_simulated:
        lines += [
            "  FAL_KEY is not set: a SIMULATOR stands in for fal.ai. It draws its own pictures; no model runs.",
            f"  The simulator: {settings.fal_queue_url}",
        ]
    if settings.auth_secret is None:
        lines.append("  AUTH_SECRET is not set: anybody who reaches this port can get a key for a new user.")
    if settings.payment_webhook_secret is None:
        lines.append(f"  PAYMENT_WEBHOOK_SECRET is not set: top-ups are open with {DEVELOPMENT_WEBHOOK_SECRET!r}.")
    lines += [
        "",
        f"  An API key with {DEMO_TOKENS} tokens:  {key}",
        "",
        "  Try it:",
        f"  curl -s {url}/generations/images/text-to-image -H 'X-API-Key: {key}' \\",
        "    -H 'Content-Type: application/json' -d '{\"prompt\": \"a lighthouse at dawn\"}'",
        "",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


@app.command()
def worker() -> None:
    """Work on jobs without serving HTTP. Start as many as you like against one PostgreSQL."""

    async def work(settings: Settings) -> None:
        if settings.database_url is None and running_dsn(settings.data_dir) is None:
            _fail("set DATABASE_URL: a worker shares the database of the API")
        if settings.fal_key is None:
            _fail("set FAL_KEY (and FAL_QUEUE_URL for a simulator): a worker talks to fal")
        async with _with_database(settings) as complete, build(complete) as runtime:
            runner = runtime.runner
            runner.start()
            spare_the_collector()
            handle_stop_signals(runner.begin_stop, lambda: runner.begin_stop(at_once=True))
            await runner.wait()
            await runner.stop()

    _run(work)


@app.command()
def migrate() -> None:
    """Bring the database to this release's schema. Safe to run in several processes at once."""

    async def work(settings: Settings) -> None:
        async with _with_database(settings) as complete:
            await _migrate(complete)

    _run(work)


def _with_runtime(work: Callable[[Runtime], Awaitable[None]]) -> None:
    """For one-off commands: connected, with nothing running in the background."""

    async def wrapped(settings: Settings) -> None:
        async with _with_database(settings) as complete:
            if settings.database_url is None:
                await _migrate(complete)
            async with build(complete) as runtime:
                await work(runtime)

    _run(wrapped, is_quiet=True)


@keys.command("issue")
def issue_key(user: User) -> None:
    """Issue the user's first key and print it. It is shown this once."""

    async def work(runtime: Runtime) -> None:
        typer.echo(await runtime.operator.keys.issue_first(user))

    _with_runtime(work)


@keys.command("rotate")
def rotate_key(user: User) -> None:
    """Replace the user's key and print the new one. The old one stops working at once."""

    async def work(runtime: Runtime) -> None:
        typer.echo(await runtime.operator.keys.rotate(user))

    _with_runtime(work)


@keys.command("revoke")
def revoke_key(user: User) -> None:
    """Revoke the user's key. Balance and jobs stay; `keys rotate` gives a new one."""

    async def work(runtime: Runtime) -> None:
        await runtime.operator.keys.revoke(user)
        typer.echo("revoked")

    _with_runtime(work)


@app.command()
def topup(
    user: User,
    amount: Annotated[int, typer.Argument(min=1, max=TOPUP_TOKENS_MAX, help="Tokens to credit.")],
    event_id: Annotated[
        str, typer.Option(help="Credits once for each event id: name the reason, such as a ticket number.")
    ],
) -> None:
    """Credit tokens by hand, once for each event id."""

    if not 1 <= len(event_id) <= EVENT_ID_LENGTH_MAX:
        _fail(f"--event-id must have 1 to {EVENT_ID_LENGTH_MAX} characters")

    async def work(runtime: Runtime) -> None:
        await runtime.operator.top_up(user, amount, event_id=event_id, source="command-line")
        typer.echo("ok")

    _with_runtime(work)


@jobs.command("list")
def list_jobs(
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only jobs that are not final.")] = False,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Only jobs of which nobody knows whether fal got them.")
    ] = False,
    late: Annotated[bool, typer.Option("--late", help="Only jobs whose result came after their end.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
) -> None:
    """Show the newest jobs of all users. Options add up."""

    async def work(runtime: Runtime) -> None:
        found = await runtime.operator.jobs.newest(
            unfinished_only=unfinished, unknown_only=unknown, late_only=late, limit=limit
        )
        _print_table(
            ("job", "type", "status", "tokens", "refunded", "created", "error"),
            [
                (
                    job.id,
                    job.kind.value,
                    job.status.value,
                    job.cost_tokens,
                    job.refunded_tokens,
                    job.created_at.isoformat(timespec="seconds"),
                    job.error_code or "",
                )
                for job in found
            ],
        )

    _with_runtime(work)


@jobs.command("show")
def show_job(job_id: JobId) -> None:
    """Show everything that is known about one job, as JSON."""

    async def work(runtime: Runtime) -> None:
        typer.echo(json.dumps(await runtime.operator.jobs.inspect(job_id), indent=2, default=str))

    _with_runtime(work)


@jobs.command("requeue")
def requeue_job(job_id: JobId) -> None:
    """Queue an unfinished job again that has lost its queue item. The service does this by itself each minute."""

    async def work(runtime: Runtime) -> None:
        requeued = await runtime.operator.steps.requeue_lost(job_id)
        typer.echo(
            "requeued" if any(requeued.values()) else "nothing to do: the job is final, unknown, or queued already"
        )

    _with_runtime(work)


@ledger.command("verify")
def verify_ledger() -> None:
    """Recompute every balance and job from the entries. Exits with 1 where anything differs."""

    async def work(runtime: Runtime) -> None:
        violations = await runtime.operator.ledger.violations()
        for violation in violations:
            typer.echo(f"{violation.invariant}: {violation.subject}")
        if violations:
            _fail(f"{len(violations)} differences")
        typer.echo("the ledger is right: every token is accounted for")

    _with_runtime(work)


@ledger.command("show")
def show_ledger(
    user: User,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
) -> None:
    """Show the user's newest entries."""

    async def work(runtime: Runtime) -> None:
        entries = await runtime.operator.ledger.entries(user, limit=limit)
        _print_entries(entries)

    _with_runtime(work)


def _print_entries(entries: Sequence[LedgerEntry]) -> None:
    _print_table(
        ("time", "kind", "tokens", "balance", "job or payment event"),
        [
            (
                entry.created_at.isoformat(timespec="seconds"),
                entry.kind.value,
                f"{'-' if entry.kind is EntryKind.DEBIT else '+'}{entry.amount}",
                entry.balance_after,
                entry.job_id or entry.payment_event_id,
            )
            for entry in entries
        ],
    )


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Whole ids, however narrow the terminal: they are there to be copied."""
    typer.echo(tabulate(rows, headings, tablefmt="plain", disable_numparse=True) if rows else "nothing yet")


@app.command("settings")
def show_settings() -> None:
    """Print the settings in force; secrets are masked."""
    try:
        settings = load_settings()
    except SettingsError as error:
        _fail(error)
    shown: dict[str, Any] = settings.model_dump(mode="json")
    shown["token_prices_json"] = dict(settings.token_prices_json.overrides)
    typer.echo(json.dumps(shown, indent=2, default=str))


@app.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    document = create_app(Settings.model_construct()).openapi()
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@app.command()
def demo() -> None:
    """Take the running service through its main job and save the results under DATA_DIR/demo."""

    async def work(settings: Settings) -> None:
        user = await run_demo(settings, Console(highlight=False))
        async with _with_database(settings) as complete, build(complete) as runtime:
            _print_entries(await runtime.operator.ledger.entries(user, limit=50))

    _run(work, is_quiet=True)
