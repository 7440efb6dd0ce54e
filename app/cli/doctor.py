"""Commands that look and change nothing: at the whole installation, and at this host's worker."""

import socket
from collections.abc import Callable, Mapping

import typer
import uvloop
from pydantic import SecretStr

from app.application.ports.health import Finding, Level
from app.bootstrap.doctor import examine
from app.bootstrap.steps import runner_duties
from app.cli.development import running_dsn
from app.cli.running import fail, run, url_of, with_database
from app.infrastructure.logging import configure_logging
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.heartbeats import DEAD_SECONDS, own_workers, silence
from app.infrastructure.settings import Settings, SettingsError, WorkerSettings, load_settings


def doctor() -> None:
    """Look at everything that the service needs. Exits with 1 where something is wrong."""
    findings: list[Finding] = []

    def show(finding: Finding) -> None:
        findings.append(finding)
        typer.echo(f"{finding.level:<9}{finding.subject}: {finding.text}")

    settings = _settings(show)
    if settings is not None:
        configure_logging("ERROR", as_json=settings.logs_as_json, secrets=settings.secrets)
        dsn = running_dsn(settings.data_dir) if settings.database_url is None else None
        if dsn is not None:
            settings = settings.model_copy(update={"database_url": SecretStr(dsn)})
        uvloop.run(_show_all(settings, show))
    wrong = sum(finding.level is Level.WRONG for finding in findings)
    if wrong:
        fail("1 thing is wrong" if wrong == 1 else f"{wrong} things are wrong")


def _settings(show: Callable[[Finding], None]) -> Settings | None:
    """What can be read of them: what is wrong with some of them does not end the look at the others."""
    try:
        settings = load_settings()
    except SettingsError as error:
        lines = str(error).splitlines()
    else:
        show(Finding(Level.OK, "settings", "they can be read"))
        for concern in settings.concerns:
            show(Finding(Level.WARNING, "settings", concern))
        return settings
    for line in lines:
        show(Finding(Level.WRONG, "settings", line))
    fields = Settings.model_fields
    unreadable = {line.partition(":")[0].lower() for line in lines} & fields.keys()
    try:
        # What others could do to it is no matter to a look that serves nobody.
        bare = {"app_env": "development", "host": "127.0.0.1"}
        return load_settings(**{name: fields[name].default for name in unreadable} | bare)
    except SettingsError:
        return None


async def _show_all(settings: Settings, show: Callable[[Finding], None]) -> None:
    async for finding in examine(settings):
        show(finding)


def check_worker() -> None:
    """Exits with 1 unless a worker of this host, or of this container, does all its duties."""

    async def work(settings: Settings) -> None:
        if settings.database_url is None and running_dsn(settings.data_dir) is None:
            fail("set DATABASE_URL: a worker shares the database of the API")
        async with (
            with_database(settings) as complete,
            open_engine(url_of(complete), pool_size=1) as engine,
        ):
            workers = await own_workers(engine)
        if not workers:
            fail(f"no worker beats on {socket.gethostname()}: it is starting, or does not run")
        missing = [_missing(ages) for ages in workers.values()]
        if "" not in missing:
            # The one that beat last is the one that should run.
            fail(f"the worker on {socket.gethostname()} hangs: {min(missing, key=len)}; restart it")
        typer.echo("the worker beats")

    run(work, is_quiet=True, kind=WorkerSettings)


def _missing(ages: Mapping[str, float]) -> str:
    never = [duty for duty in runner_duties() if duty not in ages]
    dead = {duty: age for duty, age in ages.items() if age > DEAD_SECONDS}
    return "; ".join([*([f"{', '.join(never)} never began"] if never else []), *([silence(dead)] if dead else [])])
