from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import Lifespan

from app.application.execution.places import Places
from app.application.media import PASSED_AT_ONCE_MAX
from app.domain.catalogue import Catalogue
from app.presentation.http import description
from app.presentation.http import openapi as documentation
from app.presentation.http.body_room import BodyRoom
from app.presentation.http.browsers import allow_origins
from app.presentation.http.documents import store_documents
from app.presentation.http.downloads import DOWNLOADS_MAX, PROVIDER_DOWNLOADS_MAX
from app.presentation.http.errors import EXCEPTION_HANDLERS
from app.presentation.http.middleware import RequestContext
from app.presentation.http.rates import FailedAuthentications, Reads
from app.presentation.http.refusals import RefusalLog
from app.presentation.http.root_path import check_root_path
from app.presentation.http.routing import splice
from app.presentation.http.state import ApiState
from app.presentation.http.streams import STREAMS_MAX, OpenStreams
from app.presentation.http.studio import add_studio
from app.presentation.http.uploads import UPLOADS_MAX
from app.presentation.routers import (
    account,
    auth,
    events,
    files,
    generations,
    jobs,
    keys,
    ledger,
    media,
    models,
    payments,
    provider_events,
    quotes,
    reversals,
    system,
    webhook_messages,
    webhook_secrets,
    webhooks,
)
from app.presentation.schemas.generations import CATALOGUES_MAX
from app.presentation.schemas.media_urls import ValidationContext


def create_api(
    catalogue: Catalogue,
    *,
    version: str,
    lifespan: Lifespan[FastAPI] | None = None,
    allow_private_media_urls: bool = False,
    is_safety_checker_required: bool = False,
    root_path: str = "",
    cors_origins: Sequence[str] = (),
    reads_per_second: int = 0,
    streams_max: int = STREAMS_MAX,
    public_url: str | None = None,
    has_newcomers: bool = False,
) -> FastAPI:
    """The web application around the use cases.

    The lifespan sets `state.use_cases`, once what they need has started, and `state.media_origin`. Whoever stops the
    process sets `state.is_stopping` first: it is no longer ready, and asks its callers to connect anew.
    `allow_private_media_urls` lets `*_url` fields name http on loopback, where the simulator keeps its media.
    `is_safety_checker_required` refuses requests that switch fal's safety checker off.
    `root_path` is the path behind which a proxy publishes all of it. Raises RootPathTaken.
    Pages from `cors_origins` may call it. A key reads at most `reads_per_second` times, and an
    account has at most `streams_max` streams and waits open; 0 is no limit. Links to media begin with `public_url`.
    `has_newcomers` lets the page at `/` make itself a key with a balance, on this machine: only in development.
    """
    api = _without_routes(version, lifespan)
    api.state = _state(
        {
            "allow_private_media_urls": allow_private_media_urls,
            "is_safety_checker_required": is_safety_checker_required,
        },
        reads_per_second=reads_per_second,
        streams_max=streams_max,
        public_url=public_url,
    )
    # Middleware that is added later stands around this one, as in every application of FastAPI.
    api.add_middleware(RequestContext, root_path=root_path)
    if cors_origins:
        allow_origins(api, cors_origins)
    # include_router serves these routers as safely, but takes more than twice the time for /balance: it matches each
    # request twice more and never calls an endpoint directly.
    splice(api, *_routers(catalogue))
    webhook_messages.describe(api)
    _complete_document(api, is_safety_checker_required=is_safety_checker_required)
    store_documents(api)
    add_studio(api, has_newcomers=has_newcomers)
    check_root_path(api, root_path)
    return api


def _state(context: ValidationContext, *, reads_per_second: int, streams_max: int, public_url: str | None) -> ApiState:
    return ApiState(
        {
            "validation_context": context,
            "body_room": BodyRoom(),
            "is_stopping": False,
            "refusals": RefusalLog(),
            "reads": Reads(reads_per_second),
            "failed_authentications": FailedAuthentications(),
            "streams": OpenStreams(streams_max),
            "downloads": Places(DOWNLOADS_MAX),
            "provider_downloads": Places(PROVIDER_DOWNLOADS_MAX),
            "passed_downloads": Places(PASSED_AT_ONCE_MAX),
            "uploads": Places(UPLOADS_MAX),
            "public_url": public_url,
            "media_origin": None,
        }
    )


def _without_routes(version: str, lifespan: Lifespan[FastAPI] | None) -> FastAPI:
    return FastAPIOffline(
        title="Tollgate",
        version=version,
        summary="Metered image and video generation.",
        description=description.DESCRIPTION,
        openapi_tags=description.TAGS,
        lifespan=lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
        # A redirect would answer a path that does not exist, with a URL made of the caller's Host header.
        redirect_slashes=False,
        # Nothing here sets OpenTelemetry up; the search for it costs each request as much as a validation.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        swagger_ui_parameters={"persistAuthorization": False, "displayRequestDuration": True},
    )


@lru_cache(CATALOGUES_MAX)
def _routers(catalogue: Catalogue) -> Sequence[APIRouter]:
    """Routes are tried in turn, so the busiest come first. Made once for each catalogue, as classes of bodies are."""
    return [
        jobs.router,
        generations.generations_router(catalogue),
        ledger.router,
        events.router,
        media.router,
        files.router,
        payments.router,
        reversals.router,
        provider_events.router,
        system.router,
        auth.router,
        account.router,
        keys.router,
        webhooks.router,
        webhook_secrets.router,
        quotes.quotes_router(catalogue),
        models.models_router(catalogue),
    ]


def _complete_document(api: FastAPI, *, is_safety_checker_required: bool) -> None:
    generate = api.openapi
    completed: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        nonlocal completed
        document = generate()
        # FastAPI makes the document anew once a route was added, and hands out the same one until then.
        if document is not completed:
            webhook_messages.complete_message(document)
            documentation.complete(document, api.routes)
            if is_safety_checker_required:
                documentation.require_safety_checker(document)
            completed = document
        return document

    api.openapi = openapi  # type: ignore[method-assign]
