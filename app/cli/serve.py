"""The processes of the service, and the schema that they need."""

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import structlog
import typer

from app.application.welcome import WELCOME_TOKENS
from app.bootstrap import Runtime, build
from app.bootstrap.catalogue import load_catalogue, safety_concern
from app.cli.development import running_dsn, simulated_fal
from app.cli.doctor import check_worker
from app.cli.running import check_database, fail, migrate_database, run, with_database
from app.domain.catalogue import Catalogue
from app.infrastructure.background.runner import Runner
from app.infrastructure.process import (
    TooFewDescriptors,
    connections_within,
    give_large_memory_back,
    raise_descriptor_limit,
)
from app.infrastructure.settings import DEVELOPMENT_WEBHOOK_SECRET, Settings, WorkerSettings
from app.serving import BACKLOG, handle_stop_signals, serve_until_stopped, spare_the_collector

log = structlog.get_logger(__name__)


def serve() -> None:
    """Serve the API. Without DATABASE_URL it starts PostgreSQL, without FAL_KEY the fal simulator."""

    async def work(settings: Settings) -> None:
        connections_max = _connections_max()
        # A mistake in a file is told before a database is started or its schema changed.
        catalogue = load_catalogue(settings)
        _say_what_is_doubtful(settings, catalogue)
        listener = _listen(settings)
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        async with (
            with_database(settings, start=True) as on_database,
            _with_provider(on_database) as complete,
        ):
            await migrate_database(complete)
            await _serve(complete, catalogue, listener, connections_max, is_simulated=settings.fal_key is None)

    run(work)


def _connections_max() -> int:
    give_large_memory_back()
    try:
        return connections_within(raise_descriptor_limit())
    except TooFewDescriptors as error:
        fail(error)


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
        fail(f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another PORT or HOST")
    return listener


@asynccontextmanager
async def _with_provider(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with a fal to talk to: the simulator where there is no key."""
    if settings.fal_key is not None:
        yield settings
        return
    async with simulated_fal(settings) as simulated:
        yield simulated


def _say_what_is_doubtful(settings: Settings, catalogue: Catalogue) -> None:
    for concern in (*settings.concerns, safety_concern(settings, catalogue)):
        if concern is not None:
            log.warning("settings_doubtful", reason=concern)


async def _serve(
    settings: Settings, catalogue: Catalogue, listener: socket.socket, connections_max: int, *, is_simulated: bool
) -> None:
    url = settings.base_url

    async def announce(runtime: Runtime) -> None:
        if not settings.is_production:
            _print_welcome(url, await runtime.operator.welcome(), settings, is_simulated=is_simulated)
        log.info("service_ready", url=url, connections_max=connections_max)

    if not await serve_until_stopped(settings, catalogue, listener, announce, connections_max=connections_max):
        fail("the service could not start; the log above says why")


def _print_welcome(url: str, key: str, settings: Settings, *, is_simulated: bool) -> None:
    lines = [
        "",
        f"  Tollgate is ready: the studio is at {url} and the documentation at {url}/docs",
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
        f"  An API key with {WELCOME_TOKENS} tokens:  {key}",
        "",
        "  Try it:",
        f"  curl -s {url}/generations/images/text-to-image -H 'X-API-Key: {key}' \\",
        "    -H 'Content-Type: application/json' -d '{\"prompt\": \"a lighthouse at dawn\"}'",
        "",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def worker(
    check: Annotated[
        bool, typer.Option("--check", help="Only tell, by the exit code, whether this host's worker works.")
    ] = False,
) -> None:
    """Work on jobs without serving HTTP. Start as many as you like against one PostgreSQL."""
    if check:
        check_worker()
        return

    async def work(settings: Settings) -> None:
        raise_descriptor_limit()
        give_large_memory_back()
        if settings.database_url is None and running_dsn(settings.data_dir) is None:
            fail("set DATABASE_URL: a worker shares the database of the API")
        if settings.fal_key is None:
            fail("set FAL_KEY (and FAL_QUEUE_URL for a simulator): a worker talks to fal")
        async with with_database(settings) as complete:
            await check_database(complete)
            async with (
                build(complete) as runtime,
                runtime.heartbeats.beating("worker"),
                runtime.sequencer.working(),
                runtime.deliverer.working(),
            ):
                await _work_until_stopped(runtime.runner)

    run(work, kind=WorkerSettings)


async def _work_until_stopped(runner: Runner) -> None:
    runner.start()
    spare_the_collector()
    handle_stop_signals(runner.begin_stop, lambda: runner.begin_stop(at_once=True))
    await runner.wait()
    await runner.stop()


def migrate() -> None:
    """Bring the database to this release's schema. Safe to run in several processes at once."""

    async def work(settings: Settings) -> None:
        async with with_database(settings) as complete:
            await migrate_database(complete)

    # A container migrates before it works.
    run(work, kind=WorkerSettings)
