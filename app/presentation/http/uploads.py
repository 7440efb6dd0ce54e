"""Files that are sent: written to the disk as they come, and never whole in memory."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from app.domain.file_errors import FilesUnavailable
from app.domain.files import FILE_BYTES_MAX
from app.presentation.http.bodies import (
    LARGE_PROGRESS_BYTES,
    PACE_AFTER_SECONDS,
    PACE_BYTES_PER_SECOND,
    PROGRESS_SECONDS,
    declared_bytes,
)
from app.presentation.http.errors import (
    InvalidMultipart,
    RequestBodyTooLarge,
    RequestTimeout,
    UnsupportedContentEncoding,
)

UPLOADS_MAX = 128
"""At once in a process, two thirds of them of one account at most. Each has its file on the disk."""
FIELD = "file"
# What is around the file in a form.
FORM_BYTES_MAX = 64 * 1024
PARTS_MAX = 16
CONTENT_TYPE_LENGTH_MAX = 1024
_WRITTEN_BYTES = 1024 * 1024

# In the document: how a file can be sent.
REQUEST_BODY: Mapping[str, Any] = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {FIELD: {"type": "string", "format": "binary"}},
                "required": [FIELD],
            }
        },
    },
}


async def receive_file(request: Request, path: Path) -> None:
    """Write what is sent to `path`: the body, or the one file of a form.

    Raises RequestBodyTooLarge, RequestTimeout, InvalidMultipart, UnsupportedContentEncoding.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedContentEncoding
    boundary = _boundary_of(request)
    body_bytes_max = FILE_BYTES_MAX + (0 if boundary is None else FORM_BYTES_MAX)
    if (declared_bytes(request) or 0) > body_bytes_max:
        _refuse_size()
    with await asyncio.to_thread(path.open, "wb") as file:
        written = _Written(file)
        form = None if boundary is None else _Form(boundary, written.add)
        try:
            async with asyncio.timeout(PROGRESS_SECONDS) as limit:
                await _receive(request, limit, body_bytes_max, written, form)
        except TimeoutError:
            raise RequestTimeout from None
        if form is not None:
            form.end()
        await written.flush()


class _Written:
    """Collects what belongs to the file, and writes it in pieces that are worth a thread."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pending = bytearray()
        self._size_bytes = 0

    def add(self, data: bytes) -> None:
        """Raises RequestBodyTooLarge."""
        self._size_bytes += len(data)
        if self._size_bytes > FILE_BYTES_MAX:
            _refuse_size()
        self._pending += data

    async def flush(self, above_bytes: int = 0) -> None:
        if len(self._pending) > above_bytes:
            pending, self._pending = self._pending, bytearray()
            try:
                await asyncio.to_thread(self._file.write, pending)
            except OSError as error:
                # The disk is full.
                raise FilesUnavailable from error


class _Form:
    """The parts of multipart/form-data (RFC 7578): one of them is the file, and the others are passed over."""

    def __init__(self, boundary: bytes, take: Callable[[bytes], None]) -> None:
        """Raises InvalidMultipart."""
        self._take = take
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._parts = 0
        self._is_file = self._has_file = self._is_whole = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
                    "on_header_field": lambda data, start, end: self._headers[-1][0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._headers[-1][1].extend(data[start:end]),
                    "on_headers_finished": self._decide,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidMultipart from error

    def write(self, chunk: bytes) -> None:
        """Raises InvalidMultipart, RequestBodyTooLarge."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidMultipart from error

    def end(self) -> None:
        """Raises InvalidMultipart."""
        if not self._is_whole:
            raise InvalidMultipart("The form ends before its last boundary.")
        if not self._has_file:
            raise InvalidMultipart(f'The form has no file: send it as the part "{FIELD}".')

    def _begin(self) -> None:
        self._headers = []
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise InvalidMultipart(f"The form has more than {PARTS_MAX} parts.")

    def _decide(self) -> None:
        disposition = next((value for name, value in self._headers if name.lower() == b"content-disposition"), b"")
        _, options = parse_options_header(bytes(disposition).decode("latin-1"))
        self._is_file = b"filename" in options or options.get(b"name") == FIELD.encode()
        if self._is_file and self._has_file:
            raise InvalidMultipart("The form has more than one file: send each with a request of its own.")
        self._has_file = self._has_file or self._is_file

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._take(data[start:end])

    def _end(self) -> None:
        self._is_whole = True


async def _receive(
    request: Request, limit: asyncio.Timeout, body_bytes_max: int, written: _Written, form: _Form | None
) -> None:
    size_bytes = window_bytes = 0
    now = asyncio.get_running_loop().time
    began_at = now()
    is_last = False
    while not is_last:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        is_last = not message.get("more_body", False)
        size_bytes += len(chunk)
        if size_bytes > body_bytes_max:
            _refuse_size()
        if form is None:
            written.add(chunk)
        elif chunk:
            form.write(chunk)
        await written.flush(_WRITTEN_BYTES)
        window_bytes += len(chunk)
        if window_bytes >= LARGE_PROGRESS_BYTES:
            window_bytes = 0
            due_at = began_at + PACE_AFTER_SECONDS + size_bytes / PACE_BYTES_PER_SECOND
            limit.reschedule(min(now() + PROGRESS_SECONDS, due_at))


def _boundary_of(request: Request) -> bytes | None:
    """None: the body is the file itself, whatever its type is said to be. Raises InvalidMultipart."""
    header = request.headers.get("content-type", "")
    if len(header) > CONTENT_TYPE_LENGTH_MAX:
        # To take it apart costs the square of its length.
        raise InvalidMultipart("The Content-Type is too long.")
    content_type, options = parse_options_header(header)
    if content_type.lower() != b"multipart/form-data":
        return None
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidMultipart("The Content-Type of the form names no boundary.")
    return boundary


def _refuse_size() -> NoReturn:
    raise RequestBodyTooLarge(f"A file may have at most {FILE_BYTES_MAX} bytes.")
