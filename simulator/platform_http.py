"""What the routes of fal's platform API share: its own form of errors, keys, lists in a query, pages by cursor."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar

import uuid_utils
from starlette.requests import Request

from simulator.answers import Answer, Refused
from simulator.http import authorized_key_id, simulation_of

Item = TypeVar("Item")

IDS_MAX = 50

_ERROR_TYPES = {400: "validation_error", 401: "authorization_error", 403: "authorization_error", 404: "not_found"}


def refusal(status_code: int, message: str) -> Refused:
    error = {
        "type": _ERROR_TYPES[status_code],
        "message": message,
        "docs_url": "https://docs.fal.ai/platform-apis",
        "request_id": str(uuid_utils.uuid7()),
    }
    return Refused(Answer(status_code, {"error": error}))


def authorize(request: Request, operation: str, *, is_admins: bool) -> None:
    """Raises Refused, in the form of the platform's own errors."""
    try:
        key_id = authorized_key_id(request, operation, "platform")
    except Refused as refused:
        raise refusal(401, str(refused.answer.body["detail"])) from None
    if is_admins and key_id not in simulation_of(request).config.admin_key_ids:
        raise refusal(403, "This operation needs an ADMIN API key")


def one_of(request: Request, name: str, words: Sequence[str]) -> str | None:
    value = request.query_params.get(name)
    if value is not None and value not in words:
        raise refusal(400, f"{name} must be one of {', '.join(words)}")
    return value


def values_of(request: Request, name: str) -> list[str]:
    """Repeated, or separated by commas."""
    return [word for value in request.query_params.getlist(name) for word in value.split(",") if word]


def ids_of(request: Request, name: str) -> list[str]:
    ids = values_of(request, name)
    if len(ids) > IDS_MAX:
        raise refusal(400, f"at most {IDS_MAX} of {name}")
    return ids


def page_of(
    request: Request, items: Sequence[Item], *, limit_default: int, limit_max: int
) -> tuple[Sequence[Item], dict[str, Any]]:
    """The items of the page, and what the answer says of the next one. fal's cursor is its number in base64."""
    given = request.query_params.get("limit", str(limit_default))
    if not given.isdecimal() or not 1 <= int(given) <= limit_max:
        raise refusal(400, f"limit must be 1 to {limit_max}")
    limit, number = int(given), _page_number(request)
    has_more = len(items) > number * limit
    next_cursor = base64.b64encode(str(number + 1).encode()).decode() if has_more else None
    return items[(number - 1) * limit : number * limit], {"next_cursor": next_cursor, "has_more": has_more}


def _page_number(request: Request) -> int:
    cursor = request.query_params.get("cursor")
    if not cursor:
        return 1
    try:
        number = int(base64.b64decode(cursor, validate=True))
    except (binascii.Error, ValueError):
        number = 0
    if number < 1:
        raise refusal(400, "cursor is not one of ours")
    return number
