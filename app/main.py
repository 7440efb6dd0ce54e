"""The uvicorn target: `uvicorn app.main:create_app --factory` serves what the environment configures."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import __version__
from app.bootstrap import Runtime, build
from app.infrastructure.logging import configure_logging
from app.infrastructure.settings import RunnerHome, Settings, SettingsError, load_settings
from app.presentation.http.api import create_api


def create_app(
    settings: Settings | None = None, *, on_ready: Callable[[Runtime], Awaitable[None]] | None = None
) -> FastAPI:
    """`on_ready` runs once everything is connected and the runner works."""
    chosen = _of_the_environment() if settings is None else settings

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        async with build(chosen) as runtime:
            api.state.use_cases = runtime.customers
            if chosen.runner is RunnerHome.EMBEDDED:
                runtime.runner.start()
            try:
                if on_ready is not None:
                    await on_ready(runtime)
                yield
            finally:
                await runtime.runner.stop()

    return create_api(lifespan=lifespan, version=__version__, allow_private_media_urls=not chosen.is_production)


def _of_the_environment() -> Settings:
    """Ends the process in one line if it must not start: whoever called this takes errors for bugs, and traces them."""
    try:
        settings = load_settings()
    except SettingsError as error:
        raise SystemExit(f"error: {error}") from None
    if not settings.is_production and settings.demands_of_others:
        # HOST says nothing here, because whoever called this listens where its own command line says.
        demands = "; ".join(settings.demands_of_others)
        raise SystemExit(f"error: where other machines may get in, {demands}; or start python -m app serve")
    configure_logging(settings.log_level, as_json=settings.logs_as_json, secrets=settings.secrets)
    settings.warn()
    return settings
