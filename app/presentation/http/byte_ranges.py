"""Which part of a file a request asks for (RFC 9110, section 14)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.presentation.http.errors import RefusedRequest

_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})[ \t]*-[ \t]*(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


class RangeNotSatisfiable(RefusedRequest):
    status = 416
    code = "range_not_satisfiable"
    default_detail = "The file has nothing of the Range that was asked for. Content-Range has its length."

    def __init__(self, content_range: str) -> None:
        super().__init__()
        self.headers = {"Content-Range": content_range}  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class ByteRange:
    """From `start` to before `end`."""

    start: int
    end: int

    def content_range(self, size_bytes: int) -> str:
        return f"bytes {self.start}-{self.end - 1}/{size_bytes}"


def requested_range(headers: Mapping[str, str], size_bytes: int, etag: str | None) -> ByteRange | None:
    """None: the whole file. So are several ranges answered, which nobody needs of media, and what is no range at all.

    Raises RangeNotSatisfiable.
    """
    text = one_range(headers, etag)
    if text is None:
        return None
    found = _ONE_RANGE.fullmatch(text)
    assert found is not None
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else size_bytes, size_bytes)
    else:
        start, end = max(0, size_bytes - int(last)), size_bytes
    if start >= end:
        raise RangeNotSatisfiable(f"bytes */{size_bytes}")
    return ByteRange(start, end)


def one_range(headers: Mapping[str, str], etag: str | None) -> str | None:
    """The header, if it asks for a single range of the file as the caller knows it."""
    text, condition = headers.get("range"), headers.get("if-range")
    if text is None or (condition is not None and (etag is None or condition.strip() != etag)):
        return None
    found = _ONE_RANGE.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    # A range that ends before it begins is none.
    return None if first and last and int(last) < int(first) else text.strip()


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the caller has the file already (RFC 9110, section 13.1.2)."""
    known = headers.get("if-none-match")
    if known is None:
        return False
    return known.strip() == "*" or etag in [each.strip().removeprefix("W/") for each in known.split(",")]
