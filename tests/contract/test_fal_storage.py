"""Uploads to fal's storage: where the key, the token and the bytes go, and what else than a URL may come of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from app.application.ports.provider import ProviderUnavailable
from app.infrastructure.egress import Egress, Proxy
from app.infrastructure.fal.exchange import HttpLimits
from app.infrastructure.fal.storage import FalStorage
from tests.certificates import self_signed, serving_tls
from tests.contract.fal_calls import KEY, PATIENT, PLAIN, SHORT_EXCHANGES, limits_for
from tests.fal_stub import Behaviour, FalStub, drip, drop, endless, hang, raw, reply, reset, running_stub

TOKEN_TARGET = "/storage/auth/token?storage_type=fal-cdn-v3"
WEEK_SECONDS = 7 * 24 * 60 * 60


async def pieces(content: bytes, size_bytes: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size_bytes):
        yield content[start : start + size_bytes]


async def upload(storage: FalStorage, content: bytes = b"a picture", **changes: Any) -> str:
    arguments = {
        "name": "fox.png",
        "content_type": "image/png",
        "size_bytes": len(content),
        "chunks": pieces(content),
        "lifetime_seconds": WEEK_SECONDS,
    }
    return await storage.upload(**{**arguments, **changes})


def token(stub: FalStub, **changes: Any) -> Behaviour:
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    document = {"token": "t-1", "token_type": "Bearer", "base_url": stub.url, "expires_at": expires_at.isoformat()}
    return reply(200, {**document, **changes})


def stored(stub: FalStub) -> Behaviour:
    return reply(200, {"access_url": f"{stub.url}/files/b/0a1b2c3d/fox.png"})


def storage_of(stub: FalStub, limits: HttpLimits) -> AbstractAsyncContextManager[FalStorage]:
    return FalStorage.open(rest_url=stub.url, key=KEY, ssl_context=PLAIN, limits=limits)


@pytest.fixture
async def storage(stub: FalStub) -> AsyncIterator[FalStorage]:
    async with storage_of(stub, PATIENT) as storage:
        yield storage


async def test_a_file_of_many_pieces_is_at_the_url_as_it_was(fal_simulator: str) -> None:
    content = bytes(range(256)) * 40_000
    async with (
        FalStorage.open(rest_url=fal_simulator, key=KEY, ssl_context=PLAIN) as storage,
        aiohttp.ClientSession() as http,
    ):
        url = await upload(storage, content, name="../my föx.png")
        empty = await upload(storage, b"")
        async with http.get(url) as answer:
            assert answer.headers["content-type"] == "image/png"
            assert await answer.read() == content
        async with http.get(empty) as answer:
            assert await answer.read() == b""
        async with http.get(f"{fal_simulator}/_sim/uploads") as answer:
            uploads = (await answer.json())["uploads"]
        async with http.get(f"{fal_simulator}/_sim/calls") as answer:
            calls = await answer.json()

    assert url.startswith(f"{fal_simulator}/files/b/")
    assert url.endswith("/_my_f_x.png")
    expires_at = datetime.fromisoformat(uploads[-1]["expires_at"]).timestamp()
    assert abs(expires_at - time.time() - WEEK_SECONDS) < 60
    assert calls["upload_token"] == {"count": 1, "by_key_id": {"key-id": 1}}
    assert calls["upload"] == {"count": 2, "by_key_id": {"": 2}}


async def test_sends_these_headers_and_no_others(stub: FalStub, storage: FalStorage) -> None:
    stub.then(token(stub), stored(stub))

    assert await upload(storage) == f"{stub.url}/files/b/0a1b2c3d/fox.png"

    asked, posted = stub.seen
    assert stub.calls == [("POST", TOKEN_TARGET), ("POST", "/files/upload")]
    always = {
        "host": stub.url.removeprefix("http://"),
        "connection": "keep-alive",
        "user-agent": "tollgate",
        "accept": "application/json",
        "accept-encoding": "identity",
    }
    key = {"authorization": f"Key {KEY}", "content-type": "application/json", "content-length": "2"}
    assert (asked.headers, asked.body) == ({**always, **key}, b"{}")
    preference = '{"expiration_duration_seconds": 604800}'
    assert posted.body == b"a picture"
    assert posted.headers == {
        **always,
        "authorization": "Bearer t-1",
        "content-type": "image/png",
        "content-length": "9",
        "x-fal-file-name": "fox.png",
        "x-fal-object-lifecycle": preference,
        "x-fal-object-lifecycle-preference": preference,
    }


@dataclass
class Crossroads:
    """A proxy that leads each name to a server of its own."""

    ports: dict[str, int]
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        inside, outside = await asyncio.open_connection("127.0.0.1", self.ports[head.split()[1].partition(":")[0]])
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(self._copy(reader, outside), self._copy(inside, writer))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
        except ConnectionError:
            pass
        finally:
            sink.close()


async def test_the_key_stays_with_the_api_and_the_token_with_the_media_host(tmp_path: Path) -> None:
    hosts = ["rest.fal.ai", "v3.fal.media"]
    certificates = [self_signed(tmp_path / f"{host}.pem", host) for host in hosts]
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(b"".join(certificate.read_bytes() for certificate in certificates))
    async with running_stub(serving_tls(certificates[0])) as api, running_stub(serving_tls(certificates[1])) as media:
        proxy = Crossroads(
            {host: int(stub.url.rpartition(":")[2]) for host, stub in zip(hosts, (api, media), strict=True)}
        )
        api.then(token(api, base_url="https://v3.fal.media"))
        media.then(*[reply(200, {"access_url": "https://v3b.fal.media/files/b/0a1b2c3d/fox.png"})] * 2)
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            way = Proxy(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            egress = Egress(https_proxy=way, certificates_file=trusted)
            async with FalStorage.open(rest_url="https://rest.fal.ai", key=KEY, egress=egress) as storage:
                urls = [await upload(storage) for _ in range(2)]
            # The farewells of TLS are still on their way through what were the tunnels.
            await asyncio.sleep(0.05)

    assert urls == ["https://v3b.fal.media/files/b/0a1b2c3d/fox.png"] * 2
    assert [head.split(" HTTP")[0] for head in proxy.heads] == ["CONNECT rest.fal.ai:443", "CONNECT v3.fal.media:443"]
    assert [seen.headers["authorization"] for seen in api.seen] == [f"Key {KEY}"]
    assert [seen.headers["authorization"] for seen in media.seen] == ["Bearer t-1"] * 2
    assert "key-secret" not in "".join([*proxy.heads, *(str(seen) for seen in media.seen)])
    assert "t-1" not in "".join([*proxy.heads, *(str(seen) for seen in api.seen)])


HOSTILE = [
    "https://evil.example",
    "https://fal.media",
    "https://v3.fal.media.evil.example",
    "https://evilfal.media",
    "https://v3.fal.media@evil.example",
    "https://v3.fal.media:443@evil.example/",
    "https://v3.fal.media:8443",
    "https://v3.fal.media\\@evil.example",
    "https://v3.fal.media#@evil.example",
    "https://v3.fal.media?x=",
    "https://v3.fal.med\N{CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I}a",
    "http://v3.fal.media",
    "//v3.fal.media",
    "https://169.254.169.254",
    "http://127.0.0.1:1",
    "http://localhost:{port}",
    "http://127.0.0.1:{port}@evil.example",
    "http://127.0.0.1:{port}0",
    "http://127.0.0.1:{port}.evil.example",
    " https://v3.fal.media",
    "https://v3.fal.media/\r\nX: y",
    "",
    None,
    7,
    ["https://v3.fal.media"],
]


@pytest.mark.parametrize("base_url", HOSTILE)
async def test_the_token_goes_to_no_other_host(stub: FalStub, storage: FalStorage, base_url: object) -> None:
    if isinstance(base_url, str):
        base_url = base_url.replace("{port}", stub.url.rpartition(":")[2])
    stub.then(token(stub, base_url=base_url))

    with capture_logs() as logs, pytest.raises(ProviderUnavailable, match="not one of its media"):
        await upload(storage)

    assert len(stub.seen) == 1
    assert logs[0]["event"] == "fal_upload_url_refused"
    assert "t-1" not in str(logs)


@pytest.mark.parametrize(
    "access_url", [*HOSTILE, "https://v3.fal.media", "https://v3.fal.media/a b", "https://v3.fal.media/" + "a" * 2048]
)
async def test_takes_no_url_of_another_host_for_the_file(
    stub: FalStub, storage: FalStorage, access_url: object
) -> None:
    stub.then(token(stub), reply(200, {"access_url": access_url}))

    with pytest.raises(ProviderUnavailable, match="its answer cannot be used"):
        await upload(storage)


async def test_a_real_fal_is_never_on_this_machine() -> None:
    async with FalStorage.open(rest_url="https://rest.fal.ai", key=KEY) as storage:
        assert storage._urls.upload("http://127.0.0.1:9000") is None
        assert storage._urls.upload("https://127.0.0.1") is None
        assert storage._urls.upload("https://rest.fal.ai") is None
        assert storage._urls.upload("https://v3.fal.media/") == "https://v3.fal.media/files/upload"
        assert storage._urls.upload("https://a.v4.fal.media/base") == "https://a.v4.fal.media/base/files/upload"


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (reply(401, {"detail": "No user found"}), "fal answered 401 without a token"),
        (reply(403, {"detail": "locked"}), "fal answered 403 without a token"),
        (reply(500), "fal answered 500 without a token"),
        (reply(302, b"", {"Location": "https://v3.fal.media/"}), "fal answered 302 without a token"),
        (reply(200, b"<html>"), "not one of its media"),
        (reply(200, []), "not one of its media"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "the connection to fal broke"),
        (drop, "the connection to fal broke"),
        (reset, "the connection to fal broke"),
        (hang, "fal stopped answering"),
        (drip, r"no answer from fal within 1 s"),
        (endless, "not one of its media"),
    ],
)
async def test_without_a_token_nothing_is_uploaded(stub: FalStub, behaviour: Behaviour, said: str) -> None:
    stub.then(behaviour)

    async with storage_of(stub, limits_for(behaviour)) as storage:
        with pytest.raises(ProviderUnavailable, match=said):
            await upload(storage)

        assert len(stub.seen) == 1
        stub.then(token(stub), stored(stub))
        assert await upload(storage)


@pytest.mark.parametrize(
    "changes",
    [
        {"token": None},
        {"token": ""},
        {"token": "a b"},
        {"token": "a\r\nX: y"},
        {"token": "é"},
        {"token": 7},
        {"token_type": None},
        {"token_type": "Bearer x"},
        {"token_type": "Bearer\n"},
    ],
)
async def test_a_token_that_is_none_is_refused(stub: FalStub, storage: FalStorage, changes: dict[str, Any]) -> None:
    stub.then(token(stub, **changes))

    with pytest.raises(ProviderUnavailable, match="token for an upload"):
        await upload(storage)

    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (reply(500), "answered 500"),
        (reply(503, b"<html>"), "answered 503"),
        (reply(413), "answered 413"),
        (reply(302, b"", {"Location": "https://evil.example/"}), "answered 302"),
        (reply(307, b"", {"Location": "https://evil.example/"}), "answered 307"),
        (reply(200, b"<html>"), "cannot be used"),
        (reply(200, {}), "cannot be used"),
        (reply(204), "cannot be used"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "the connection to fal broke"),
        (drop, "the connection to fal broke"),
        (reset, "the connection to fal broke"),
        (hang, "fal stopped answering"),
        (drip, r"no answer from fal within 1\b"),
        (endless, "cannot be used"),
    ],
)
async def test_whatever_else_comes_of_an_upload_is_no_url_and_it_is_sent_once(
    stub: FalStub, behaviour: Behaviour, said: str
) -> None:
    stub.then(token(stub), behaviour)

    async with storage_of(stub, limits_for(behaviour)) as storage:
        with pytest.raises(ProviderUnavailable, match=said):
            await upload(storage)

    assert stub.calls == [("POST", TOKEN_TARGET), ("POST", "/files/upload")]


async def test_asks_for_one_token_however_many_want_it_and_for_another_when_it_expires(stub: FalStub) -> None:
    now = 1_800_000_000.0
    expires_at = datetime.fromtimestamp(now + 3600, UTC).isoformat()
    answers = {TOKEN_TARGET: token(stub, expires_at=expires_at), "/files/upload": stored(stub)}

    async def by_target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.02)
        return await answers[stub.seen[-1].target](reader, writer)

    stub.otherwise = by_target
    async with FalStorage.open(rest_url=stub.url, key=KEY, ssl_context=PLAIN, clock=lambda: now) as storage:
        stub.then(answers[TOKEN_TARGET], *[answers["/files/upload"]] * 5)
        await asyncio.gather(*(upload(storage) for _ in range(5)))
        assert [target for _, target in stub.calls].count(TOKEN_TARGET) == 1

        now += 3600 - 61
        stub.then(answers["/files/upload"])
        await upload(storage)
        assert [target for _, target in stub.calls].count(TOKEN_TARGET) == 1

        now += 2
        stub.then(token(stub, token="t-2", expires_at=datetime.fromtimestamp(now + 3600, UTC).isoformat()))
        stub.then(*[answers["/files/upload"]] * 3)
        await upload(storage)
        await asyncio.gather(*(upload(storage) for _ in range(2)))

    assert [target for _, target in stub.calls].count(TOKEN_TARGET) == 2
    assert [seen.headers["authorization"] for seen in stub.seen[-3:]] == ["Bearer t-2"] * 3


@pytest.mark.parametrize("expires_at", [None, "", "soon", 7, "2126-11-01T12:00:00"])
async def test_a_token_of_unknown_age_serves_once(stub: FalStub, storage: FalStorage, expires_at: object) -> None:
    stub.then(*[token(stub, expires_at=expires_at), stored(stub)] * 2)

    for _ in range(2):
        await upload(storage)

    assert [target for _, target in stub.calls] == [TOKEN_TARGET, "/files/upload"] * 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_was_called_back_is_not_used_again(stub: FalStub, storage: FalStorage, status: int) -> None:
    stub.then(token(stub), reply(status), token(stub, token="t-2"), stored(stub))

    with pytest.raises(ProviderUnavailable, match=f"answered {status}"):
        await upload(storage)
    await upload(storage)

    assert [seen.headers["authorization"] for seen in stub.seen] == [
        f"Key {KEY}",
        "Bearer t-1",
        f"Key {KEY}",
        "Bearer t-2",
    ]


async def test_takes_from_the_source_only_what_fal_takes(stub: FalStub, storage: FalStorage) -> None:
    piece = b"x" * 65536
    given = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(1600):
            given += len(piece)
            yield piece

    async def take_a_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.Event().wait()
        return False

    stub.then(token(stub))
    await storage._valid_token()
    stub.reads_bodies = False
    stub.then(take_a_little)
    waiting = asyncio.create_task(upload(storage, chunks=source(), size_bytes=1600 * len(piece)))
    before = -1
    while given != before:
        before = given
        await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    # What has left is in the buffers of the system for the two sockets, some megabytes.
    assert 0 < given < 20_000_000


async def test_an_upload_that_fal_does_not_take_ends(stub: FalStub) -> None:
    async def source() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1024
            await asyncio.sleep(0.05)

    stub.then(token(stub), hang)

    async with storage_of(stub, SHORT_EXCHANGES) as storage:
        with pytest.raises(ProviderUnavailable, match=r"no answer from fal within 1\.3"):
            await upload(storage, chunks=source(), size_bytes=80_000)


@pytest.mark.parametrize("given", [b"", b"12345678", b"1234567890", b"123456789" * 100_000])
@pytest.mark.parametrize("piece_bytes", [1, 3, 9, 65536])
async def test_a_file_of_another_length_than_announced_never_arrives(
    stub: FalStub, storage: FalStorage, given: bytes, piece_bytes: int
) -> None:
    stub.then(token(stub), stored(stub))

    with pytest.raises(ValueError, match="not 9 bytes long"):
        await upload(storage, chunks=pieces(given, piece_bytes), size_bytes=9)

    await asyncio.sleep(0.02)
    assert [target for _, target in stub.calls] == [TOKEN_TARGET]


async def test_what_the_source_raises_is_told_and_nothing_whole_arrives(stub: FalStub, storage: FalStorage) -> None:
    class Broken(Exception):
        pass

    async def source() -> AsyncIterator[bytes]:
        yield b"123"
        yield b"456"
        raise Broken

    stub.then(token(stub), stored(stub), stored(stub))

    with pytest.raises(Broken):
        await upload(storage, chunks=source(), size_bytes=6)
    await asyncio.sleep(0.02)
    assert [target for _, target in stub.calls] == [TOKEN_TARGET]

    assert await upload(storage)


async def slowly(size_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(size_bytes):
        yield b"x"
        await asyncio.sleep(0.02)


@pytest.fixture
async def hasty(stub: FalStub, storage: FalStorage) -> FalStub:
    """A media host that answers as soon as it has the head of a request."""
    stub.then(token(stub))
    await storage._valid_token()
    stub.reads_bodies = False
    return stub


async def test_an_answer_before_the_file_is_no_url(hasty: FalStub, storage: FalStorage) -> None:
    answer = b'{"access_url": "%s/files/b/0a1b2c3d/fox.png"}' % hasty.url.encode()
    hasty.then(raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)))

    with pytest.raises(ProviderUnavailable, match="before it had the file"):
        await upload(storage, chunks=slowly(1000), size_bytes=1000)


async def test_a_refusal_before_the_file_ends_the_upload(hasty: FalStub, storage: FalStorage) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()
        return False

    hasty.then(refuse)

    with pytest.raises(ProviderUnavailable, match="answered 413"):
        await upload(storage, chunks=slowly(1000), size_bytes=1000)


@pytest.mark.parametrize(
    ("rest_url", "key"),
    [
        ("rest.fal.ai", KEY),
        ("https://rest.fal.ai/?a=b", KEY),
        ("https://u:p@rest.fal.ai", KEY),
        ("https://rest.fal.ai", "key"),
    ],
)
async def test_does_not_open_with_what_cannot_be_used(rest_url: str, key: str) -> None:
    with pytest.raises(ValueError, match="must"):
        async with FalStorage.open(rest_url=rest_url, key=key):
            pass
