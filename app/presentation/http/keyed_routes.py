"""Routes for users: they ask for an API key before anything else, however they are added."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from starlette.requests import ClientDisconnect, HTTPConnection

from app.application.keys import Authenticate
from app.domain.accounts import Account, Caller, Scope
from app.domain.errors import CommitUnknown, InvalidApiKey
from app.domain.key_errors import KeyOutdated, ScopeMissing
from app.domain.limits import TooManyReads
from app.presentation.http.api_keys import SECURITY, presented_key
from app.presentation.http.bodies import declared_bytes
from app.presentation.http.body_room import SMALL_BODY_BYTES_MAX
from app.presentation.http.routing import DirectRoute, Handler
from app.presentation.http.scopes import is_read, scope_of
from app.presentation.http.state import CALLER, state_of


class KeyedRoute(DirectRoute):
    """A route for users: it looks the key up before it reads or judges anything else of the request.

    The look-up is no dependency, so no override can switch it off.
    """

    takes_remembered = False
    is_long = False

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        # The route always asks for the key, so no option may document otherwise.
        options["openapi_extra"] = {**(options.get("openapi_extra") or {}), "security": list(SECURITY)}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()
        scope = scope_of(self.operation_id)
        # Whatever else is asked for the request, by the router or the application, may do something for the caller.
        is_alone = self.is_direct and all(sub.name is not None for sub in self.dependant.dependencies)
        takes_remembered, is_long = self.takes_remembered and is_alone, self.is_long

        async def authenticate_first(request: Request) -> Response:
            authenticate = state_of(request.scope).use_cases.keys.authenticate
            presented = presented_key(request.scope["headers"])
            known = _remembered(authenticate, presented, request) if takes_remembered else None
            if known is None or not _is_let_in(request, known, scope):
                async with state_of(request.scope).streams.letting_in if is_long else nullcontext():
                    caller = await authenticate(presented)
                _let_in(request, caller, scope)
                return await handler(request)
            try:
                return await handler(request)
            except KeyOutdated:
                _check_scope(request, await authenticate(presented), scope)
                return await handler(request)
            except InvalidApiKey:
                # Or what has ended would go on asking in the name of its account.
                authenticate.forget(known)
                raise
            except (ClientDisconnect, CommitUnknown):
                # Nobody hears of it, or what may be written must not be said to be refused.
                raise
            except Exception:
                # Told only to whoever still may ask.
                _check_scope(request, await authenticate(presented), scope)
                raise

        return authenticate_first


def _let_in(request: Request, caller: Caller, scope: Scope | None) -> None:
    """Raises ScopeMissing, TooManyReads."""
    _check_scope(request, caller, scope)
    if is_read(request.method, scope):
        state_of(request.scope).reads.count(caller)


def _is_let_in(request: Request, known: Caller, scope: Scope | None) -> bool:
    """Whoever may not by what is remembered may be allowed to by now."""
    with suppress(ScopeMissing, TooManyReads):
        _let_in(request, known, scope)
        return True
    return False


def _check_scope(request: Request, caller: Caller, scope: Scope | None) -> None:
    if scope is not None and scope not in caller.key.scopes:
        raise ScopeMissing(scope)
    request.scope[CALLER] = caller


class StreamRoute(KeyedRoute):
    """A route whose answers stay open, so that all of its callers ask again at once when a process stops.

    Few of them are looked up at a time: whoever asks for anything else meanwhile comes between them.
    """

    is_long = True


class VersionedRoute(KeyedRoute):
    """A route whose endpoint tells nothing and does nothing unless the `version` of the caller's key is still right.

    So whoever was looked up some seconds ago need not be looked up again. What is refused is only told after another
    look: a key that has ended since is answered as everywhere else. An endpoint that reads no body may raise
    KeyOutdated, and is then called again.
    """

    takes_remembered = True


def _remembered(authenticate: Authenticate, presented: str | None, request: Request) -> Caller | None:
    # The repeat of a request is answered without a look at the version, and the room of a large body is not given away
    # on memory alone.
    size_bytes = declared_bytes(request)
    if size_bytes is None or size_bytes > SMALL_BODY_BYTES_MAX or "idempotency-key" in request.headers:
        return None
    return authenticate.remembered(presented)


async def caller_of(request: HTTPConnection) -> Caller:
    """Whose key the request carries. Raises RuntimeError if its route is no KeyedRoute."""
    caller: Caller | None = request.scope.get(CALLER)
    if caller is None:
        raise RuntimeError(f"{request.scope['route'].path} asks for an account, and its route for no key")
    return caller


async def account_of(request: HTTPConnection) -> Account:
    """Raises RuntimeError if its route is no KeyedRoute."""
    return (await caller_of(request)).account


CurrentCaller = Annotated[Caller, Depends(caller_of)]
CurrentAccount = Annotated[Account, Depends(account_of)]
