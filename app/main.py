"""The uvicorn target: `uvicorn app.main:create_app --factory` serves what the environment configures."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress

from fastapi import FastAPI

from app import __version__
from app.application.use_cases import CustomerUseCases
from app.bootstrap import Runtime, build
from app.bootstrap.catalogue import load_catalogue
from app.domain.catalogue import Catalogue
from app.domain.media_errors import MediaUnavailable
from app.infrastructure.logging import configure_logging
from app.infrastructure.settings import RunnerHome, Settings, SettingsError, load_settings
from app.presentation.http.api import create_api
from app.presentation.http.root_path import RootPathTaken


def create_app(
    settings: Settings | None = None,
    catalogue: Catalogue | None = None,
    *,
    on_ready: Callable[[Runtime], Awaitable[None]] | None = None,
) -> FastAPI:
    """`on_ready` runs once everything is connected and the runner works. Raises SettingsError."""
    if settings is None:
        settings = load_settings()
        configure_logging(settings.log_level, as_json=settings.logs_as_json, secrets=settings.secrets)
    chosen, sold = settings, load_catalogue(settings) if catalogue is None else catalogue

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        async with (
            build(chosen) as runtime,
            runtime.heartbeats.beating("serve"),
            runtime.key_uses.writing(),
            runtime.sequencer.working(),
        ):
            await _open_to(api, runtime.customers(sold))
            if not chosen.is_production:
                api.state.welcome = runtime.operator.welcome
            is_embedded = chosen.runner is RunnerHome.EMBEDDED
            if is_embedded:
                runtime.runner.start()
            try:
                async with runtime.deliverer.working() if is_embedded else nullcontext():
                    if on_ready is not None:
                        await on_ready(runtime)
                    yield
            finally:
                await runtime.runner.stop()

    try:
        return create_api(
            sold,
            lifespan=lifespan,
            version=__version__,
            allow_private_media_urls=not chosen.is_production,
            is_safety_checker_required=chosen.is_safety_checker_required,
            root_path=chosen.root_path or "",
            cors_origins=chosen.cors_origins or (),
            reads_per_second=chosen.reads_per_second,
            streams_max=chosen.streams_max,
            public_url=chosen.public_url,
            has_newcomers=not chosen.is_production,
        )
    except RootPathTaken as error:
        raise SettingsError(f"ROOT_PATH: {error}") from None


async def _open_to(api: FastAPI, customers: CustomerUseCases) -> None:
    api.state.use_cases = customers
    # A store that cannot sign now is no reason not to start: the page then shows what this service itself serves.
    with suppress(MediaUnavailable):
        api.state.media_origin = await customers.media.open.store_origin()
