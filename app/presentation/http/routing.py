"""Ordinary routes of FastAPI, of which those that are asked all the time take a shorter way through it.

Authentication stands in `get_route_handler`, which FastAPI calls for a route of an application and again for each
inclusion of its router. So a route asks for its key however it is added.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol, Self, cast, runtime_checkable

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from app.presentation.http.answers import json_bytes
from app.presentation.http.bodies import JsonBody

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Reader = Callable[..., Awaitable[Any]]


@runtime_checkable
class DocumentedParameter(Protocol):
    """A dependency that reads a parameter by itself, and knows how the document describes it."""

    @property
    def parameter(self) -> dict[str, Any]: ...


class DirectRoute(APIRoute):
    """A route that calls its endpoint and its dependencies directly, if these need nothing but the request.

    FastAPI's search for parameters costs more than most endpoints do. Whatever is not that simple goes FastAPI's
    way: other parameters, dependencies of dependencies, `yield`, endpoints that are plain functions.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._options = options
        self.is_direct = False
        super().__init__(path, endpoint, **options)
        self.openapi_extra = _documented(self.openapi_extra or {}, self.dependant)
        if _is_simple(self):
            self.is_direct = True
            self.app = _short_way(self.get_route_handler(), self.app)
            self.is_direct = False

    def get_route_handler(self) -> Handler:
        # FastAPI itself always gets the whole handler. It asks again for each inclusion of the router, and an inclusion
        # may bring dependencies that only FastAPI knows.
        return _direct_handler(self) if self.is_direct else super().get_route_handler()

    def of(self, api: FastAPI) -> Self:
        """Makes the same route for this application, whose `dependency_overrides` it then obeys."""
        options = {**self._options, "dependency_overrides_provider": api}
        # What guards the whole application guards this route as well.
        options["dependencies"] = [*api.router.dependencies, *(options.get("dependencies") or ())]
        return type(self)(self.path, self.endpoint, **options)


def splice(api: FastAPI, *routers: APIRouter) -> None:
    """Make the routes of the routers the application's own, before those that it has already.

    Raises TypeError for a route that is no DirectRoute, such as a websocket: only include_router can add it.
    """
    routes: list[DirectRoute] = []
    for route in (route for router in routers for route in router.routes):
        if not isinstance(route, DirectRoute):
            raise TypeError(f"{route} is no DirectRoute")
        routes.append(route.of(api))
    api.router.routes[:0] = routes


def _short_way(handler: Handler, whole_way: ASGIApp) -> ASGIApp:
    """Leaves out the exit stacks that FastAPI has around a handler, because a direct call opens nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["app"].dependency_overrides:
            await whole_way(scope, receive, send)
            return
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def _direct_handler(route: APIRoute) -> Handler:
    endpoint, model = route.endpoint, route.response_model
    serialize = TypeAdapter(model).dump_json
    request_name = route.dependant.request_param_name
    readers = [
        (sub.name, sub.request_param_name or sub.http_connection_param_name or "", cast(Reader, sub.call))
        for sub in route.dependant.dependencies
    ]

    async def call(request: Request) -> Response:
        values: dict[str, Any] = {} if request_name is None else {request_name: request}
        for name, parameter, read in readers:
            value = await read(**{parameter: request})
            # The dependencies of a route and of its router have no name; their values go nowhere.
            if name is not None:
                values[name] = value
        answer = await endpoint(**values)
        if isinstance(answer, Response):
            return answer
        if not isinstance(answer, model):
            answer = model.model_validate(answer, from_attributes=True)
        # By the model's own serializer: like FastAPI it leaves out what a subclass adds.
        return json_bytes(request, serialize(answer, by_alias=True))

    return call


def _is_simple(route: APIRoute) -> bool:
    """Whether a direct call does all that FastAPI would do."""
    whole = route.dependant
    calls = {id(sub.call) for sub in whole.dependencies}
    return (
        inspect.iscoroutinefunction(route.endpoint)
        and route.max_body_size is None
        and _answers_simply(route)
        # FastAPI calls a dependency once, however often it is named.
        and len(calls) == len(whole.dependencies)
        and all(map(_reads_only_the_request, whole.dependencies))
        # FastAPI sees to whatever else a Dependant holds, now or in a later release.
        and whole
        == Dependant(
            call=whole.call,
            path=whole.path,
            scope=whole.scope,
            dependencies=whole.dependencies,
            request_param_name=whole.request_param_name,
        )
    )


def _reads_only_the_request(dependant: Dependant) -> bool:
    names = [dependant.request_param_name, dependant.http_connection_param_name]
    call = dependant.call
    return (
        # The dependency is a coroutine function, or an object that is called like one.
        any(map(inspect.iscoroutinefunction, (call, type(call).__call__)))
        and names.count(None) == 1
        and dependant
        == Dependant(
            call=call,
            name=dependant.name,
            path=dependant.path,
            scope=dependant.scope,
            request_param_name=dependant.request_param_name,
            http_connection_param_name=dependant.http_connection_param_name,
            own_oauth_scopes=dependant.own_oauth_scopes,
            parent_oauth_scopes=dependant.parent_oauth_scopes,
        )
    )


def _answers_simply(route: APIRoute) -> bool:
    annotation = inspect.signature(route.endpoint).return_annotation
    if not inspect.isclass(annotation):
        return False
    return issubclass(annotation, Response) or (
        issubclass(annotation, BaseModel)
        and route.response_model is annotation
        and isinstance(route.response_class, DefaultPlaceholder)
        and route.response_model_by_alias
        and not any(
            (
                route.response_model_include,
                route.response_model_exclude,
                route.response_model_exclude_unset,
                route.response_model_exclude_defaults,
                route.response_model_exclude_none,
            )
        )
    )


def calls_of(dependant: Dependant) -> Iterator[object]:
    """Lists what FastAPI would call before the endpoint, dependencies of dependencies first."""
    for sub in dependant.dependencies:
        yield from calls_of(sub)
        if sub.call is not None:
            yield sub.call


def _documented(extra: dict[str, Any], dependant: Dependant) -> dict[str, Any]:
    """Adds what our own dependencies read, which FastAPI's description of the route does not know."""
    calls = list(dict.fromkeys(calls_of(dependant)))
    documented = dict(extra)
    if parameters := [call.parameter for call in calls if isinstance(call, DocumentedParameter)]:
        documented["parameters"] = [*extra.get("parameters", ()), *parameters]
    if bodies := [call.request_body for call in calls if isinstance(call, JsonBody)]:
        (documented["requestBody"],) = bodies
    return documented
