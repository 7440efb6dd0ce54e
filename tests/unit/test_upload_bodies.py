"""How the bytes of an upload come off the wire: any chunks give the same file, and nothing else comes of slow ones."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.domain.files import FILE_BYTES_MAX
from app.presentation.http import uploads
from app.presentation.http.bodies import LARGE_PROGRESS_BYTES
from app.presentation.http.errors import InvalidMultipart, RequestBodyTooLarge, RequestTimeout
from app.presentation.http.uploads import FORM_BYTES_MAX, PARTS_MAX, receive_file

BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
DELIMITER = f"\r\n--{BOUNDARY}".encode()
# What is nearly a boundary, and is part of the file.
TRICKS = (
    DELIMITER[:-1],
    DELIMITER[:-1] + b"\r\n",
    DELIMITER[1:],
    DELIMITER.upper(),
    b"\r\n--",
    b"\r\r\n--b0undar",
    b"\r\n\r\n--b0undar--",
    b"--" + BOUNDARY.encode() + b"--\r\n",
    b"\r\n-" + BOUNDARY.encode(),
    b"\n--" + BOUNDARY.encode() + b"\r\n",
    b"\r",
    b"\n",
    b"\r\n",
    b"-",
    b"\0",
)

Receive = Callable[[], Awaitable[Message]]


def form_of(content: bytes, *, name: str = "file", before: bytes = b"", after: bytes = b"") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n'.encode()
    part = head + b"Content-Type: image/png\r\n\r\n" + content
    return before + part + after + f"\r\n--{BOUNDARY}--\r\n".encode()


def in_chunks(body: bytes, ends: Sequence[int]) -> list[bytes]:
    return [body[start:end] for start, end in pairwise([0, *ends, len(body)])]


def tricks(chance: random.Random, count: int) -> bytes:
    """Nearly boundaries; where two of them make a whole one, it goes."""
    content = b"".join(chance.choices(TRICKS, k=count))
    while DELIMITER in content:
        content = content.replace(DELIMITER, b"")
    return content


def at_once(chunks: Sequence[bytes]) -> Receive:
    left = [*chunks]

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


async def received(path: Path, receive: Receive, content_type: str | None = FORM, **headers: str) -> bytes:
    told = {"content-type": content_type, **headers} if content_type is not None else headers
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in told.items()]
    await receive_file(Request({"type": "http", "method": "POST", "headers": raw}, receive), path)
    return await asyncio.to_thread(path.read_bytes)


async def test_a_boundary_may_fall_anywhere_between_two_chunks(tmp_path: Path) -> None:
    content = b"".join(TRICKS) + DELIMITER[:-1]
    body = form_of(content)

    for at in range(len(body) + 1):
        assert await received(tmp_path / "file", at_once(in_chunks(body, [at]))) == content, at


@pytest.mark.parametrize("seed", range(8))
async def test_any_chunks_give_the_same_file(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        content = tricks(chance, chance.randrange(30))
        field = b'\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + tricks(chance, 3)
        more = f"--{BOUNDARY}".encode() + field + b"\r\n"
        body = form_of(
            content,
            before=chance.choice([b"", more, b"\r\n", more * 2]),
            after=chance.choice([b"", b"\r\n" + more[:-2]]),
        )
        ends = sorted(chance.choices(range(len(body) + 1), k=chance.choice([1, 5, 50, len(body)])))
        chunks = in_chunks(body, ends)

        assert await received(tmp_path / "file", at_once(chunks)) == content
        assert await received(tmp_path / "file", at_once(chunks), "image/png") == body


@pytest.mark.parametrize("chunk_bytes", [1, 7, 100_000])
async def test_a_form_that_is_cut_anywhere_is_none(tmp_path: Path, chunk_bytes: int) -> None:
    body = form_of(b"\r\n--b0und\r\nabc")

    for length in range(len(body) - len("\r\n")):
        cut = body[:length]
        with pytest.raises(InvalidMultipart):
            await received(tmp_path / "file", at_once(in_chunks(cut, range(0, length, chunk_bytes))))


@pytest.mark.parametrize("noise", range(40))
async def test_noise_is_never_a_fault(tmp_path: Path, noise: int) -> None:
    chance = random.Random(noise)
    body = bytearray(form_of(tricks(chance, 10)))
    for _ in range(chance.randrange(1, 6)):
        body[chance.randrange(len(body))] = chance.randrange(256)

    with suppress(InvalidMultipart):
        await received(tmp_path / "file", at_once(in_chunks(bytes(body), range(0, len(body), 13))))


@pytest.mark.parametrize(
    ("disposition", "is_file"),
    [
        ('form-data; name="file"', True),
        ("form-data; name=file", True),
        ('form-data; name="anything"; filename="a"', True),
        ('form-data; name="anything"; filename=""', True),
        ('FORM-DATA; NAME="file"', True),
        ('form-data; name="anything"', False),
        ('form-data; name="files"', False),
        ("form-data", False),
        ("", False),
        ("\xff\xfe; name=\xe9", False),
    ],
)
async def test_a_part_is_the_file_by_its_name_or_because_it_has_one(
    tmp_path: Path, disposition: str, is_file: bool
) -> None:
    head = f"--{BOUNDARY}\r\ncontent-DISPOSITION: {disposition}\r\n\r\n".encode("latin-1")
    body = head + b"abc" + f"\r\n--{BOUNDARY}--".encode()
    if is_file:
        assert await received(tmp_path / "file", at_once([body])) == b"abc"
    else:
        with pytest.raises(InvalidMultipart, match="has no file"):
            await received(tmp_path / "file", at_once([body]))


@pytest.mark.parametrize(("parts", "is_taken"), [(PARTS_MAX - 1, True), (PARTS_MAX, False)])
async def test_a_form_has_few_parts(tmp_path: Path, parts: int, is_taken: bool) -> None:
    more = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n".encode()
    body = form_of(b"abc", before=more * parts)
    if is_taken:
        assert await received(tmp_path / "file", at_once([body])) == b"abc"
    else:
        with pytest.raises(InvalidMultipart, match=f"more than {PARTS_MAX} parts"):
            await received(tmp_path / "file", at_once([body]))


@pytest.mark.parametrize("boundary", ["x" * 256, '"with blanks : and = signs"', "'()+_,-./:=?"])
async def test_a_boundary_is_what_the_header_says(tmp_path: Path, boundary: str) -> None:
    body = form_of(b"abc").replace(BOUNDARY.encode(), boundary.strip('"').encode())

    assert await received(tmp_path / "file", at_once([body]), f"multipart/form-data; boundary={boundary}") == b"abc"


async def test_a_content_type_that_would_take_long_is_not_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(InvalidMultipart, match="too long"):
        await received(tmp_path / "file", at_once([form_of(b"x")]), FORM + ";" * 30_000)


async def test_what_is_around_the_file_does_not_count_as_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "FILE_BYTES_MAX", 1000)
    full, more = bytes(1000), bytes(1001)

    assert await received(tmp_path / "file", at_once([form_of(full)])) == full
    assert await received(tmp_path / "file", at_once([full]), None) == full
    for body, content_type in (
        (form_of(more), FORM),
        (more, None),
        (form_of(b"a") + bytes(FORM_BYTES_MAX + 1000), FORM),
    ):
        for chunks in ([body], in_chunks(body, range(0, len(body), 100))):
            with pytest.raises(RequestBodyTooLarge):
                await received(tmp_path / "file", at_once(chunks), content_type)


@pytest.mark.parametrize("length", [str(FILE_BYTES_MAX + 1), "9" * 18])
async def test_what_says_that_it_is_too_large_is_not_read(tmp_path: Path, length: str) -> None:
    async def receive() -> Message:
        raise AssertionError("it was read")

    with pytest.raises(RequestBodyTooLarge):
        await received(tmp_path / "file", receive, None, content_length=length)
    assert not (tmp_path / "file").exists()


async def test_who_stops_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PROGRESS_SECONDS", 0.1)

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async with asyncio.timeout(20):
        for content_type in (None, FORM):
            with pytest.raises(RequestTimeout):
                await received(tmp_path / "file", receive, content_type)


@pytest.mark.parametrize("content_type", [None, FORM], ids=["body", "form"])
async def test_who_drips_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_type: str | None
) -> None:
    """Each piece comes in time, and all of them would take an hour."""
    monkeypatch.setattr(uploads, "PROGRESS_SECONDS", 0.3)
    body = form_of(bytes(100_000))
    left = in_chunks(body, range(0, len(body), 100))

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    async with asyncio.timeout(20):
        with pytest.raises(RequestTimeout):
            await received(tmp_path / "file", receive, content_type)


@pytest.mark.alone
async def test_who_is_slow_and_goes_on_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PROGRESS_SECONDS", 0.5)
    monkeypatch.setattr(uploads, "PACE_AFTER_SECONDS", 0.5)
    piece = bytes(LARGE_PROGRESS_BYTES)
    count = 0

    async def receive() -> Message:
        nonlocal count
        await asyncio.sleep(0.2)
        count += 1
        return {"type": "http.request", "body": piece, "more_body": count < 30}

    monkeypatch.setattr(uploads, "PACE_BYTES_PER_SECOND", 10 * len(piece))
    async with asyncio.timeout(8):
        with pytest.raises(RequestTimeout):
            await received(tmp_path / "file", receive, None)
    assert 3 <= count < 10
    count = 20
    monkeypatch.setattr(uploads, "PACE_BYTES_PER_SECOND", len(piece))
    assert len(await received(tmp_path / "file", receive, None)) == 10 * len(piece)


async def test_who_goes_ends_it(tmp_path: Path) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"abc", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    with pytest.raises(ClientDisconnect):
        await received(tmp_path / "file", receive, None)
