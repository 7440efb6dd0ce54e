"""The document and the files of its pages: rendered and compressed once, and not sent to whoever has them."""

import asyncio
import gzip
import re

import pytest
from fastapi import APIRouter
from starlette.types import Message

from app.presentation.http import documents
from app.presentation.http.api import create_api
from app.presentation.http.documents import StoredDocument, takes_gzip
from tests.builders import BUILT_IN
from tests.unit.presentation_routers import api_of, client_of
from tests.unit.presentation_stand_ins import World

PATHS = ["/openapi.json", "/static-offline-docs/swagger-ui.css", "/static-offline-docs/favicon.png"]


@pytest.mark.parametrize("path", PATHS)
async def test_is_not_sent_again_to_whoever_has_it(path: str) -> None:
    client = World().client()
    first = await client.get(path)

    for known in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = await client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["x-request-id"]
    changed = await client.get(path, headers={"If-None-Match": '"x"'})

    assert changed.status_code == 200
    assert "no-store" not in first.headers["cache-control"]


@pytest.mark.parametrize("path", PATHS)
async def test_is_compressed_for_those_who_take_that(path: str) -> None:
    client = World().client()

    plain = await client.get(path, headers={"Accept-Encoding": "identity"})
    packed = await client.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})

    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert plain.headers["etag"] != packed.headers["etag"]
    assert plain.headers["content-type"] == packed.headers["content-type"]


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("deflate, GZIP ; q=0.8", True),
        ("*", True),
        ("*;q=0.1, gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("", False),
        ("identity", False),
        ("x-gzip-like", False),
    ],
)
def test_reads_what_a_caller_takes(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


async def test_renders_once_and_anew_where_a_route_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []
    make = StoredDocument.of

    def count(content: bytes, media_type: str) -> StoredDocument:
        rendered.append(len(content))
        return make(content, media_type)

    # The first one of a process renders the files of the studio as well.
    api = api_of(World())
    monkeypatch.setattr(documents.StoredDocument, "of", count)
    client = client_of(api)
    first = [await client.get("/openapi.json") for _ in range(5)]
    assert len(rendered) == 1
    router = APIRouter()
    router.get("/new")(lambda: None)
    api.include_router(router)

    second = await client.get("/openapi.json", headers={"If-None-Match": first[0].headers["etag"]})

    assert second.status_code == 200
    assert "/new" in second.json()["paths"]
    assert "/new" not in first[0].json()["paths"]
    assert len(rendered) == 2


@pytest.mark.parametrize("name", ["nothing.js", "%2e%2e", "%2e%2e%2f__init__.py", "%00", "swagger-ui.css/x"])
async def test_serves_no_other_file(name: str) -> None:
    assert (await World().client().get(f"/static-offline-docs/{name}")).status_code == 404


async def test_a_head_has_the_headers_of_the_get() -> None:
    world = World()
    _, key = await world.a_user(tokens=5)
    client = world.client()
    for path in ("/healthz", "/readyz", "/docs", "/redoc", *PATHS, "/balance", "/nothing", "/auth", "/generations/x"):
        for headers in ({}, key):
            got, head = [await client.request(method, path, headers=headers) for method in ("GET", "HEAD")]
            own = ("x-request-id",)
            assert head.status_code == got.status_code, path
            assert {k: v for k, v in head.headers.items() if k not in own} == {
                k: v for k, v in got.headers.items() if k not in own
            }
    assert (await client.head("/auth")).headers["allow"] == "POST"


def test_compresses_the_same_way_each_time() -> None:
    first, second = StoredDocument.of(b"x" * 1000, "text/plain"), StoredDocument.of(b"x" * 1000, "text/plain")

    assert first == second
    assert gzip.decompress(first.compressed) == b"x" * 1000
    assert re.fullmatch("[0-9a-f]{32}", first.digest)


async def test_a_large_document_goes_out_in_slices() -> None:
    """So that whoever does not read holds little of it in memory."""
    api, sent = create_api(BUILT_IN, version="1"), list[int]()

    async def send(message: Message) -> None:
        sent.append(len(message.get("body", b"")))

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/openapi.json", "query_string": b"", "headers": []}
    await api({**scope, "headers": [(b"host", b"a")]}, receive, send)

    assert sum(sent) > documents.SLICE_BYTES
    assert max(sent) <= documents.SLICE_BYTES
