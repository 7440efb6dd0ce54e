"""Bodies, read strictly and by a dependency of the endpoint.

FastAPI reads and parses a body that an endpoint declares before it runs the first dependency. Here a caller without a
secret gets 401 before a byte of the body is read or judged, the limit gives our own answer also for a chunked body
(Starlette's middleware answers in plain text), and validation gets a context.
"""

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from app.domain.errors import UnknownModel
from app.presentation.http.body_room import SMALL_BODY_BYTES_MAX, HeldBody, hold_body
from app.presentation.http.errors import (
    InvalidJson,
    InvalidRequest,
    RequestBodyTooLarge,
    RequestTimeout,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
)
from app.presentation.http.field_errors import field_errors
from app.presentation.http.state import CALLER, state_of

# So much must come in so long, or the end: slow callers pass, and those who only keep a request open do not.
PROGRESS_SECONDS = 10.0
PROGRESS_BYTES = 16 * 1024
LARGE_PROGRESS_BYTES = 64 * 1024
# And on the average, after a while: who is allowed to bring 16 MiB in drops holds room of all others for half an hour.
PACE_BYTES_PER_SECOND = 32 * 1024
PACE_AFTER_SECONDS = 60.0
# Our largest body has some twenty fields; its texts may hold some two thousand commas.
SEPARATORS_MAX = 5_000

SCHEMA_REFERENCE = "#/components/schemas/{model}"

Body = TypeVar("Body", bound=BaseModel)
Body_co = TypeVar("Body_co", bound=BaseModel, covariant=True)
# A look at what a request says before its body is read. It raises what refuses the request.
Check = Callable[[Request], Awaitable[None]]

_JSON_MEDIA_TYPE = re.compile(r'application/json[ \t]*(;[ \t]*(charset="?utf-8"?[ \t]*)?)?', re.ASCII | re.IGNORECASE)


class OneOfBodies(Protocol[Body_co]):
    """Bodies of which the document itself says which one it is."""

    @property
    def models(self) -> Sequence[type[BaseModel]]: ...

    def model_validate(self, document: Any, context: Mapping[str, Any]) -> Body_co:
        """Raises ValidationError, or a refusal of its own."""
        ...

    def explained(self, errors: Iterable[Mapping[str, Any]], document: Any) -> Iterable[Mapping[str, Any]]:
        """Pydantic's errors, in types of our own where the document lets more be said."""
        ...


@dataclass(frozen=True, slots=True)
class RefusedBody:
    """A document that is no body of its endpoint, or none any more."""

    document: Any
    refusal: Callable[[], Exception]
    """Makes what is to be raised: an exception kept here would hold the document in a circle with its traceback."""


@dataclass(frozen=True, eq=False)
class JsonBody(Generic[Body]):
    """Reads and documents a JSON body. Raises RefusedRequest."""

    model: type[Body] | OneOfBodies[Body]
    examples: Mapping[str, object]
    size_bytes_max: int = SMALL_BODY_BYTES_MAX
    before_large: Check | None = None
    hands_on_refused: bool = False
    """The endpoint gets a RefusedBody where this would raise InvalidRequest or UnknownModel."""
    may_be_left_out: bool = False
    """Every field has a default: a request without a body, and without a type of one, asks for all of them."""

    async def __call__(self, request: Request) -> Body | RefusedBody:
        is_left_out = self.may_be_left_out and "content-type" not in request.headers
        if not is_left_out:
            _check_media_type(request)
        body = await read_body(request, self.size_bytes_max, self.before_large)
        if is_left_out:
            if body:
                raise UnsupportedMediaType
            body = b"{}"
        context = state_of(request.scope).validation_context
        if len(body) <= SMALL_BODY_BYTES_MAX:
            return self._read(body, context)
        # To read one of 14 MB takes 60 ms, in which nobody else would be served.
        await _held(request).take_turn()
        return await asyncio.to_thread(self._read, body, context)

    def _read(self, body: bytes | bytearray, context: Mapping[str, Any]) -> Body | RefusedBody:
        document = parse_json(body)
        refusal: Callable[[], Exception]
        try:
            return self.model.model_validate(document, context=context)
        except ValidationError as error:
            found: Iterable[Mapping[str, Any]] = error.errors(include_url=False, include_input=False)
            if not isinstance(self.model, type):
                found = self.model.explained(found, document)
            refusal = partial(InvalidRequest, field_errors(found))
        except UnknownModel as error:
            refusal = partial(UnknownModel, error.fitting, error.sold_as)
        if self.hands_on_refused:
            return RefusedBody(document, refusal)
        raise refusal()

    @property
    def models(self) -> Sequence[type[BaseModel]]:
        """Of the document: one, or those of which a body is one."""
        return [self.model] if isinstance(self.model, type) else self.model.models

    @property
    def request_body(self) -> dict[str, Any]:
        examples = {name: {"summary": name.replace("_", " "), "value": value} for name, value in self.examples.items()}
        references = [{"$ref": SCHEMA_REFERENCE.format(model=model.__name__)} for model in self.models]
        schema = references[0] if len(references) == 1 else {"oneOf": references}
        content = {"schema": schema, "examples": examples}
        return {"required": not self.may_be_left_out, "content": {"application/json": content}}


@dataclass(frozen=True, eq=False)
class RawBody:
    """Reads a body of any kind, for a signature over its bytes. Raises RefusedRequest."""

    size_bytes_max: int
    before_large: Check | None = None

    async def __call__(self, request: Request) -> bytes:
        return bytes(await read_body(request, self.size_bytes_max, self.before_large))


def parse_json(body: bytes | bytearray) -> Any:
    """Stricter than json.loads: UTF-8 only, no key twice, no document that is costly to read.

    Raises InvalidJson.
    """
    _refuse_costly(body)
    try:
        return _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        raise InvalidJson from None


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "")
    if media_type != "application/json" and not _JSON_MEDIA_TYPE.fullmatch(media_type):
        raise UnsupportedMediaType
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedContentEncoding


async def read_body(request: Request, size_bytes_max: int, before_large: Check | None = None) -> bytes | bytearray:
    """The whole body. `before_large` is asked before a byte of one is read that is, or may become, a large one.

    Raises RequestBodyTooLarge, RequestTimeout, TooManyLargeBodies, NoRoomForBody, and what `before_large` raises.
    """
    size_bytes = declared_bytes(request)
    if size_bytes is not None and size_bytes > size_bytes_max:
        _refuse_size(size_bytes_max)
    if size_bytes is None or size_bytes > SMALL_BODY_BYTES_MAX:
        if before_large is not None:
            await before_large(request)
        if size_bytes is not None:
            await _held(request).expect(size_bytes)
    try:
        async with asyncio.timeout(PROGRESS_SECONDS) as limit:
            return await _receive(request, size_bytes_max, limit)
    except TimeoutError:
        raise RequestTimeout from None


async def _receive(request: Request, size_bytes_max: int, limit: asyncio.Timeout) -> bytes | bytearray:
    body = bytearray()
    window_bytes, is_last = 0, False
    now = asyncio.get_running_loop().time
    began_at = now()
    while not is_last:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        is_last = not message.get("more_body", False)
        size_bytes = len(body) + len(chunk)
        if size_bytes > size_bytes_max:
            _refuse_size(size_bytes_max)
        if is_last and not body and size_bytes <= SMALL_BODY_BYTES_MAX:
            # Almost every body is there as a whole when it is read.
            return chunk
        _held(request).grow_to(size_bytes)
        body += chunk
        window_bytes += len(chunk)
        if window_bytes >= (PROGRESS_BYTES if size_bytes <= SMALL_BODY_BYTES_MAX else LARGE_PROGRESS_BYTES):
            window_bytes = 0
            due_at = began_at + PACE_AFTER_SECONDS + size_bytes / PACE_BYTES_PER_SECOND
            limit.reschedule(min(now() + PROGRESS_SECONDS, due_at))
    return body


def declared_bytes(request: Request) -> int | None:
    """How long the body is; None: only its end tells."""
    declared = request.headers.get("content-length")
    if declared is None:
        return None if "transfer-encoding" in request.headers else 0
    # Python refuses to read thousands of digits. The server reads a number of its own and goes by that.
    return int(declared[:20]) if declared.isascii() and declared.isdecimal() else 0


def _held(request: Request) -> HeldBody:
    """What this request has in memory. An account is one caller wherever it calls from. Anybody else is an address,
    for each route apart: behind a proxy all of them have the same, and a stranger must not take a payment's place.
    """
    known = request.scope.get(CALLER)
    client = request.scope.get("client")
    caller = known.account.id if known is not None else (request.scope["route"].path, client and client[0])
    return hold_body(request.scope["state"], state_of(request.scope).body_room, caller)


def _refuse_size(size_bytes_max: int) -> NoReturn:
    raise RequestBodyTooLarge(f"The body must have at most {size_bytes_max} bytes.")


def _refuse_costly(body: bytes | bytearray) -> None:
    """16 MiB of brackets cost seconds and hundreds of megabytes to parse; counting them costs milliseconds."""
    if len(body) > SEPARATORS_MAX and sum(map(body.count, (b",", b"[", b"{"))) > SEPARATORS_MAX:
        raise InvalidJson("The JSON document has too many parts.")


def _unique_keys(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidJson("A JSON object has the same key twice.")
    return fields


def _integer(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:
        # Python refuses to read thousands of digits. Every validator refuses infinity in their place.
        return math.inf


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_int=_integer)
