"""Reads without trust what fal's queue says over HTTP: wrong types are absent, unknown words are no answer."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.application.ports.provider import InProgress, InQueue, Rejected, Succeeded
from app.application.retry_after import retry_after_seconds
from app.domain.job_errors import NO_MEDIA, RESULT_INVALID, RESULT_TOO_DEEP, RESULT_TOO_LARGE
from app.domain.terms import ResultShape
from app.infrastructure.fal import json_values

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
QUEUE_POSITION_MAX = 10**9
RETRY_AFTER_SECONDS_MAX = 300.0

_MEDIA_URL = re.compile(r"(https?://[^\s/\\\x00-\x20]|data:)[^\s\x00-\x20]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What fal answered; `body` is None if fal sent more than we take.

    Header names compare without case, or are lower case; of a header sent twice `get` returns the first.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None

    def document(self) -> Mapping[str, Any]:
        """Return the JSON object of the body, or an empty one if the body is anything else."""
        try:
            document = json_values.parse(self.body or b"")
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


class Completed:
    """The request ended, well or not: only its result tells how."""


def arguments(parameters: Mapping[str, Any]) -> bytes:
    return json.dumps(parameters, allow_nan=False, separators=(",", ":")).encode("ascii")


def digest(parameters: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(arguments(parameters)).digest()


def request_id_in(document: Mapping[str, Any]) -> str | None:
    request_id = document.get("request_id")
    is_usable = isinstance(request_id, str) and REQUEST_ID_PATTERN.fullmatch(request_id)
    return request_id if is_usable else None


def progress_in(document: Mapping[str, Any]) -> InQueue | InProgress | Completed | None:
    """Read fal's three status words. None if it said something else."""
    match document.get("status"):
        case "IN_QUEUE":
            position = document.get("queue_position")
            is_usable = type(position) is int and 0 <= position <= QUEUE_POSITION_MAX
            return InQueue(position if is_usable else None)
        case "IN_PROGRESS":
            return InProgress()
        case "COMPLETED":
            return Completed()
        case _:
            return None


def result_in(body: bytes | None, shape: ResultShape) -> Succeeded | Rejected:
    """Read the result, and make it storable. Raises NotJson: the answer may have been cut short on its way."""
    if body is None:
        return Rejected(RESULT_TOO_LARGE.code, RESULT_TOO_LARGE.sentence())
    try:
        document = json_values.parse(body)
    except json_values.TooDeep:
        return Rejected(RESULT_TOO_DEEP.code, RESULT_TOO_DEEP.sentence())
    return result_of(document, shape)


def result_of(document: object, shape: ResultShape) -> Succeeded | Rejected:
    if isinstance(document, dict) and shape.is_list and document.get(shape.outputs) == []:
        return Rejected(NO_MEDIA.code, NO_MEDIA.sentence())
    if not isinstance(document, dict) or not _has_media(document, shape):
        return Rejected(RESULT_INVALID.code, RESULT_INVALID.sentence())
    return Succeeded(json_values.storable(document))


def pause_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What Retry-After asks for, and at most RETRY_AFTER_SECONDS_MAX."""
    asked_seconds = retry_after_seconds(headers, now or datetime.now(UTC))
    return None if asked_seconds is None else min(asked_seconds, RETRY_AFTER_SECONDS_MAX)


def _has_media(document: Mapping[str, Any], shape: ResultShape) -> bool:
    """Whether there are outputs, and each of them is a file: a list of them or one alone, as the model has it."""
    found = document.get(shape.outputs)
    if isinstance(found, list) is not shape.is_list:
        return False
    outputs = shape.outputs_in(document)
    return bool(outputs) and all(map(_is_media, outputs))


def _is_media(file: object) -> bool:
    """Look at `url` alone: nothing else is sure to be in fal's file objects."""
    url = file.get("url") if isinstance(file, dict) else None
    return isinstance(url, str) and bool(_MEDIA_URL.fullmatch(url))
