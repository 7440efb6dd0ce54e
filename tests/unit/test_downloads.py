"""Answers that are files: what they may be shown as, and what their callers cost."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from starlette.requests import Request

from app.application.execution.places import Places
from app.application.media import Linked, Medium, OpenMedia
from app.application.ports.files import FileRecords
from app.application.ports.media import MediaLinks, OutputReader, ProviderAnswer, ProviderMedia
from app.application.ports.media_store import ObjectMissing
from app.domain.media_types import UNKNOWN_TYPE
from app.domain.outputs import KeptOutput, Output, OutputId
from app.presentation.http import downloads
from app.presentation.http.downloads import Download, passed_download, stored_download
from app.presentation.http.state import IS_HEAD

PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
HTML = b"<!doctype html><script>alert(1)</script>" * 3
OWNER = uuid4()


async def in_pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@dataclass
class Fal:
    """Says the same of everything, and hands it over in pieces."""

    content: bytes
    piece: int = 500

    @asynccontextmanager
    async def pass_through(self, output: Output, byte_range: str | None) -> AsyncIterator[ProviderAnswer]:
        assert (output.provider_url, byte_range) == ("https://fal.media/a", None)
        headers = {"Content-Type": "image/png", "Content-Length": str(len(self.content))}
        yield ProviderAnswer(200, headers, in_pieces(self.content, self.piece))


def output_of(content_type: str) -> Output:
    return Output(
        id=OutputId(uuid4(), 0),
        kept=KeptOutput(number=0, expires_at=datetime.now(UTC) + timedelta(days=1)),
        told={"url": "https://fal.media/a", "content_type": content_type},
        is_blanked=False,
        is_picture=True,
    )


@dataclass
class Caller:
    """Takes what is sent, until he takes nothing more."""

    takes_max: int = 10**6
    sent: list[Mapping[str, Any]] = field(default_factory=list)
    is_gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> dict[str, Any]:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if len(self.sent) > self.takes_max:
            await asyncio.Event().wait()
        self.sent.append(message)
        await asyncio.sleep(0)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def headers(self) -> Mapping[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}


async def answer_to(caller: Caller, fal: Fal, places: Places, content_type: str = "image/png") -> None:
    place, request = places.take(OWNER), Request({"type": "http", "headers": []})
    assert place is not None
    async with AsyncExitStack() as held:
        held.enter_context(place)
        answer = await passed_download(request, cast(OpenMedia, fal), Medium.of_output(output_of(content_type)), held)
    await answer({"type": "http"}, caller.receive, caller.send)


def are_free(places: Places) -> bool:
    return not places._held


@pytest.mark.parametrize("piece", [1, 3, 500, 10**6])
async def test_what_fal_has_is_shown_as_what_it_is(piece: int) -> None:
    """However small the pieces are in which it comes."""
    for content, said, shown in ((PNG, "text/html", "image/png"), (HTML, "image/png", UNKNOWN_TYPE)):
        caller, places = Caller(), Places(3)
        await answer_to(caller, Fal(content, piece), places, said)
        assert (caller.body, caller.headers["content-type"]) == (content, shown)
        assert caller.headers["content-length"] == str(len(content))
        assert are_free(places)


async def test_what_may_not_be_shown_is_downloaded() -> None:
    caller = Caller()

    await answer_to(caller, Fal(HTML), Places(3))

    assert caller.headers["content-disposition"].startswith("attachment; filename=")
    assert caller.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert caller.headers["cache-control"] == "no-store"


async def test_a_caller_who_takes_nothing_gives_his_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "TAKE_SECONDS_MAX", 0.05)
    caller, places = Caller(takes_max=2), Places(3)

    await answer_to(caller, Fal(PNG * 100), places)

    assert are_free(places)
    assert 0 < len(caller.body) < len(PNG * 100)


async def test_a_caller_who_goes_gives_his_place_back() -> None:
    caller, places = Caller(), Places(3)
    caller.is_gone.set()

    await answer_to(caller, Fal(PNG * 100), places)

    assert are_free(places)
    assert len(caller.body) < len(PNG * 100)


async def test_a_caller_has_his_time_for_a_piece_however_large_the_chunks_are() -> None:
    """Who takes a little at a time is not taken for one who takes nothing."""
    caller = Caller()
    download = Download(200, {}, in_pieces(bytes(3 * 1024 * 1024 + 1), 1024 * 1024), AsyncExitStack())

    await download({"type": "http"}, caller.receive, caller.send)

    assert len(caller.body) == 3 * 1024 * 1024 + 1
    assert max(len(message.get("body", b"")) for message in caller.sent) == downloads.TAKE_BYTES_MAX
    assert "content-length" not in caller.headers


@dataclass
class Holed:
    """A store that has lost the end of what it had."""

    async def read(self, output: Output, start: int, end: int) -> AsyncIterator[bytes]:
        yield PNG[:100]
        raise ObjectMissing("It ends at 100.")

    async def store_url(self, output: Output, disposition: str, content_type: str) -> None:
        pass


@dataclass
class Bucket:
    """Serves what it has itself."""

    disposition: str = "inline"

    async def store_url(self, output: Output, disposition: str, content_type: str) -> str:
        assert (disposition.partition(";")[0], content_type) == (self.disposition, "image/png")
        return f"https://bucket/{output.id}"

    def read(self, output: Output, start: int, end: int) -> AsyncIterator[bytes]:
        assert (output.name, start) == ("image-1.png", 0)
        return in_pieces(bytes(end), end)


def stored_output(size_bytes: int) -> Output:
    output = output_of("image/png")
    kept = replace(output.kept, is_stored=True, size_bytes=size_bytes, content_type="image/png", sha256="0" * 64)
    return replace(output, kept=kept)


def linked(output: Output) -> Linked:
    return Linked(OWNER, Medium.of_output(output), output.kept.expires_at)


async def test_only_who_wants_the_file_is_sent_to_the_bucket() -> None:
    """What the bucket signed is good for a GET alone."""
    output = stored_output(1000)
    media = cast(OpenMedia, Bucket())
    get, head = ({"type": "http", "headers": [], **more} for more in ({}, {IS_HEAD: True}))

    whole = await stored_download(Request(get), media, linked(output), AsyncExitStack())
    only_head = await stored_download(Request(head), media, linked(output), AsyncExitStack())

    assert (whole.status_code, whole.headers["location"]) == (302, f"https://bucket/{output.id}")
    assert (only_head.status_code, only_head.headers["content-length"]) == (200, "1000")
    assert "location" not in only_head.headers


async def test_a_picture_is_saved_where_that_is_asked_for() -> None:
    """A browser shows what another origin answers inline, whatever the page asked it for."""
    request, output = Request({"type": "http", "headers": []}), stored_output(1000)
    bucket, fal = cast(OpenMedia, Bucket("attachment")), cast(OpenMedia, Fal(PNG))

    sent_there = await stored_download(request, bucket, linked(output), AsyncExitStack(), is_saved=True)
    passed = await passed_download(request, fal, linked(output).medium, AsyncExitStack(), is_saved=True)

    assert sent_there.headers["location"] == f"https://bucket/{output.id}"
    assert passed.headers["content-disposition"] == 'attachment; filename="image-1.png"'
    assert passed.headers["content-type"] == "image/png"


async def test_what_ends_too_early_in_the_store_is_cut_short() -> None:
    caller, held, request = Caller(), AsyncExitStack(), Request({"type": "http", "headers": []})

    answer = await stored_download(request, cast(OpenMedia, Holed()), linked(stored_output(len(PNG))), held)
    await answer({"type": "http"}, caller.receive, caller.send)

    assert caller.body == PNG[:100]
    assert caller.sent[-1]["more_body"]


async def test_what_was_stored_before_there_was_no_store_counts_as_missing() -> None:
    """So that it is passed through for as long as fal has it."""
    media = OpenMedia(
        cast(MediaLinks, None), cast(OutputReader, None), cast(FileRecords, None), cast(ProviderMedia, None), store=None
    )
    request = Request({"type": "http", "headers": []})

    with pytest.raises(ObjectMissing):
        await stored_download(request, media, linked(stored_output(len(PNG))), AsyncExitStack())
