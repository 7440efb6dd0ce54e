"""Bodies, read strictly and by a dependency of the endpoint.

FastAPI reads and parses a body that an endpoint declares before it runs the first dependency. Here a caller without a
secret gets 401 before a byte of the body is read or judged, the limit gives our own answer also for a chunked body
(Starlette's middleware answers in plain text), and validation gets a context.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.presentation.http.errors import (
    InvalidJson,
    InvalidRequest,
    RequestBodyTooLarge,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
)
from app.presentation.http.field_errors import field_errors
from app.presentation.http.state import state_of

SMALL_BODY_BYTES_MAX = 64 * 1024
# This leaves room for two pictures of 5 MiB as data URIs in base64, and for the other fields.
LARGE_BODY_BYTES_MAX = 16 * 1024 * 1024
# Our largest body has some twenty fields; its texts may hold some two thousand commas.
SEPARATORS_MAX = 5_000

SCHEMA_REFERENCE = "#/components/schemas/{model}"

Body = TypeVar("Body", bound=BaseModel)

_JSON_MEDIA_TYPE = re.compile(r'application/json[ \t]*(;[ \t]*(charset="?utf-8"?[ \t]*)?)?', re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class JsonBody(Generic[Body]):
    """Reads and documents a JSON body. Raises RefusedRequest."""

    model: type[Body]
    examples: Mapping[str, object]
    size_bytes_max: int = SMALL_BODY_BYTES_MAX

    async def __call__(self, request: Request) -> Body:
        _check_media_type(request)
        document = parse_json(await read_body(request, self.size_bytes_max))
        try:
            return self.model.model_validate(document, context=state_of(request.scope).validation_context)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            raise InvalidRequest(field_errors(found)) from None

    @property
    def request_body(self) -> dict[str, Any]:
        examples = {name: {"summary": name.replace("_", " "), "value": value} for name, value in self.examples.items()}
        content = {"schema": {"$ref": SCHEMA_REFERENCE.format(model=self.model.__name__)}, "examples": examples}
        return {"required": True, "content": {"application/json": content}}


@dataclass(frozen=True, eq=False)
class RawBody:
    """Reads a body of any kind, for a signature over its bytes. Raises RequestBodyTooLarge."""

    size_bytes_max: int

    async def __call__(self, request: Request) -> bytes:
        return await read_body(request, self.size_bytes_max)


def parse_json(body: bytes) -> Any:
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


async def read_body(request: Request, size_bytes_max: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and float(declared) > size_bytes_max:
        _refuse_size(size_bytes_max)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > size_bytes_max:
            _refuse_size(size_bytes_max)
    return bytes(body)


def _refuse_size(size_bytes_max: int) -> NoReturn:
    raise RequestBodyTooLarge(f"The body must have at most {size_bytes_max} bytes.")


def _refuse_costly(body: bytes) -> None:
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
