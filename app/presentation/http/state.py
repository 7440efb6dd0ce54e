"""The types of what `create_api` and the lifespan put on the application; Starlette's own state has none."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from starlette.datastructures import State
from starlette.requests import HTTPConnection
from starlette.types import Scope

from app.application.execution.places import Places
from app.application.use_cases import CustomerUseCases
from app.presentation.http.rates import FailedAuthentications, Reads
from app.presentation.http.refusals import RefusalLog
from app.presentation.schemas.media_urls import ValidationContext

if TYPE_CHECKING:
    # It raises errors, which are answered with the help of the state.
    from app.presentation.http.body_room import BodyRoom
    from app.presentation.http.streams import OpenStreams

# Where a KeyedRoute puts the caller into the scope. A key of our own: `request.state` is open to every middleware.
CALLER = "tollgate.caller"
# Where it is noted that only the head is asked for, of what is answered as a GET.
IS_HEAD = "tollgate.is_head"


class ApiState(State):
    use_cases: CustomerUseCases
    body_room: "BodyRoom"
    validation_context: ValidationContext
    is_stopping: bool
    refusals: RefusalLog
    reads: Reads
    failed_authentications: FailedAuthentications
    streams: "OpenStreams"
    downloads: Places
    provider_downloads: Places
    passed_downloads: Places
    """For those of them that come from fal."""
    uploads: Places
    public_url: str | None
    media_origin: str | None
    """From where the store itself serves media, where it does."""
    welcome: Callable[[], Awaitable[str]]
    """Makes a key with a balance. Only in development."""


def state_of(scope: Scope) -> ApiState:
    state: ApiState = scope["app"].state
    return state


async def use_cases_of(request: HTTPConnection) -> CustomerUseCases:
    return state_of(request.scope).use_cases


UseCases = Annotated[CustomerUseCases, Depends(use_cases_of)]
