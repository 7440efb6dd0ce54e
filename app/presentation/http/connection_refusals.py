"""What is refused before there is a request for the application: answered in the same form, and logged once."""

from collections.abc import Iterable
from typing import Any

import structlog
from starlette.types import Message
from uuid_utils import uuid4

from app.presentation.http.errors import RefusedRequest, problem
from app.presentation.http.marks import Header, mark, request_id_in
from app.presentation.http.statuses import title_of

log = structlog.get_logger(__name__)


class ConnectionRefusals:
    """One line for each kind of refusal and turn of `write`: who floods us does not flood the log."""

    def __init__(self) -> None:
        self._first_by_code: dict[str, dict[str, Any]] = {}

    def note(self, code: str, reason: str, **details: Any) -> None:
        line = self._first_by_code.setdefault(code, {"reason": reason, "count": 0, **details})
        line["count"] += 1

    def write(self) -> None:
        for code, line in self._first_by_code.items():
            log.warning("connection_refused", code=code, **line)
        self._first_by_code.clear()


def refusal(error: RefusedRequest, headers: Iterable[Header]) -> tuple[str, bytes]:
    """The request id, and the whole answer as it goes over the wire. Whoever sends it closes the connection."""
    request_id = request_id_in(headers) or uuid4().hex
    scope = {"state": {"request_id": request_id}}
    response = problem(scope, error.status, error.code, error.detail, headers=error.headers)
    start: Message = {"headers": response.raw_headers}
    mark(start, request_id, is_last=True)
    lines = [f"HTTP/1.1 {error.status} {title_of(error.status)}".encode()]
    lines += [b"%s: %s" % header for header in start["headers"]]
    return request_id, b"\r\n".join([*lines, b"", bytes(response.body)])
