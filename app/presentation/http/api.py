import functools
from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi_offline import FastAPIOffline
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, ExceptionHandler, Lifespan

from app.presentation.http import openapi as documentation
from app.presentation.http.errors import EXCEPTION_HANDLERS
from app.presentation.http.middleware import RequestContext
from app.presentation.routers import jobs, keys, ledger, payments, provider_events, system
from app.presentation.schemas.jobs import (
    ImageToImageRequest,
    ImageToVideoRequest,
    TextToImageRequest,
    TextToVideoRequest,
)
from app.presentation.schemas.keys import IssueKeyRequest
from app.presentation.schemas.media_urls import ValidationContext
from app.presentation.schemas.payments import TopUpRequest

REQUEST_MODELS = (
    IssueKeyRequest,
    TopUpRequest,
    TextToImageRequest,
    ImageToImageRequest,
    TextToVideoRequest,
    ImageToVideoRequest,
)


def create_api(
    *,
    version: str,
    lifespan: Lifespan[FastAPI] | None = None,
    allow_private_media_urls: bool = False,
) -> FastAPI:
    """The web application around the use cases.

    The lifespan sets `state.use_cases`, once what they need has started. Whoever stops the process sets
    `state.is_stopping` first: it is no longer ready, and asks its callers to connect anew.
    `allow_private_media_urls` lets `*_url` fields name http on loopback, where the simulator keeps its media.
    """
    api = FastAPIOffline(
        title="Tollgate",
        version=version,
        summary="Metered image and video generation.",
        description=documentation.DESCRIPTION,
        openapi_tags=documentation.TAGS,
        lifespan=lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
        # A redirect would answer a path that does not exist, with a URL made of the caller's Host header.
        redirect_slashes=False,
        # Nothing here sets OpenTelemetry up; the search for it costs each request as much as a validation.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        swagger_ui_parameters={"persistAuthorization": True, "displayRequestDuration": True},
    )
    context: ValidationContext = {"allow_private_media_urls": allow_private_media_urls}
    api.state.validation_context = context
    api.state.is_stopping = False
    # include_router would match every request twice more, a quarter of the time that a request takes.
    # What it would add (prefixes, dependencies) these routers bring along themselves.
    # Routes are tried one after the other: the busiest come first, the documentation's own last.
    routers = (
        jobs.router,
        ledger.router,
        payments.router,
        provider_events.router,
        system.router,
        keys.router,
    )
    api.router.routes[:0] = [route for router in routers for route in router.routes]
    api.middleware_stack = _layers_around(api)
    _complete_document(api)
    return api


def _layers_around(api: FastAPI) -> ASGIApp:
    """Ours in the place of FastAPI's, which each request would pass for nothing: RequestContext answers whatever is
    raised, bodies have their limits where they are read, and telemetry is off.
    """
    handlers = cast(Mapping[Any, ExceptionHandler], api.exception_handlers)
    return RequestContext(ExceptionMiddleware(AsyncExitStackMiddleware(api.router), handlers=handlers))


def _complete_document(api: FastAPI) -> None:
    generate = api.openapi

    @functools.cache
    def openapi() -> dict[str, Any]:
        document = generate()
        documentation.complete(document, api.routes, REQUEST_MODELS)
        return document

    api.openapi = openapi  # type: ignore[method-assign]
