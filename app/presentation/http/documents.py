"""The OpenAPI document and what its pages load: rendered once, compressed once, and not sent to whoever has it."""

import asyncio
import gzip
import hashlib
import json
import mimetypes
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from app.presentation.http.byte_ranges import is_known

SLICE_BYTES = 64 * 1024
# Ask whether it is still the same: a release changes it.
_CACHING = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


@dataclass(frozen=True, slots=True)
class StoredDocument:
    content: bytes
    compressed: bytes
    media_type: str
    digest: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Self:
        """Takes some 50 ms for a large one."""
        return cls(content, gzip.compress(content, mtime=0), media_type, hashlib.sha256(content).hexdigest()[:32])

    def answer(self, request: Request, others: Mapping[str, str] | None = None) -> Response:
        """`others` are headers beside ours, or in their place."""
        is_compressed = takes_gzip(request.headers.get("accept-encoding", ""))
        etag = f'"{self.digest}{"-gzip" if is_compressed else ""}"'
        headers = {**_CACHING, **(others or {}), "ETag": etag}
        if is_known(request.headers, etag):
            return Response(status_code=304, headers=headers)
        if is_compressed:
            headers["Content-Encoding"] = "gzip"
        content = self.compressed if is_compressed else self.content
        if len(content) <= SLICE_BYTES:
            return Response(content, headers=headers, media_type=self.media_type)
        headers["Content-Length"] = str(len(content))
        return StreamingResponse(_slices(content), headers=headers, media_type=self.media_type)


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    """Whoever does not read holds no more of it in memory than this."""
    for start in range(0, len(content), SLICE_BYTES):
        yield content[start : start + SLICE_BYTES]


def takes_gzip(accepted: str) -> bool:
    weights: dict[str, bool] = {}
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        weights[coding.strip()] = parameters.replace(" ", "").rstrip("0.") != "q="
    return weights.get("gzip", weights.get("*", False))


class _OpenApi:
    """Rendered again once a route was added: FastAPI then has another document."""

    def __init__(self, api: FastAPI) -> None:
        self._api = api
        self._rendering = asyncio.Lock()
        self._source: Any = None
        self._root_path = ""
        self._stored: StoredDocument | None = None

    async def __call__(self, request: Request) -> Response:
        root_path = request.scope.get("root_path", "")
        async with self._rendering:
            is_current = self._stored is not None and self._root_path == root_path
            if not is_current or self._api.openapi() is not self._source:
                # In a thread: to describe all routes takes a fifth of a second.
                self._source, self._stored = await asyncio.to_thread(self._render, root_path)
                self._root_path = root_path
        assert self._stored is not None
        return self._stored.answer(request)

    def _render(self, root_path: str) -> tuple[Any, StoredDocument]:
        document = self._api.openapi()
        # Not into the document itself, which belongs to FastAPI.
        servers = {"servers": [{"url": root_path}]} if root_path else {}
        content = json.dumps({**document, **servers}, ensure_ascii=False, separators=(",", ":")).encode()
        return document, StoredDocument.of(content, "application/json")


class _Assets:
    def __init__(self, directory: Path) -> None:
        self._paths = {path.name: path for path in directory.iterdir() if path.is_file()}
        self._stored: dict[str, StoredDocument] = {}

    async def __call__(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._paths.get(name)
        if path is None:
            raise HTTPException(404)
        if name not in self._stored:
            self._stored[name] = await asyncio.to_thread(_read, path)
        return self._stored[name].answer(request)


def _read(path: Path) -> StoredDocument:
    return StoredDocument.of(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "application/octet-stream")


def store_documents(api: FastAPI) -> None:
    """Replace the routes with which FastAPI renders the document, and reads the files, for every request anew."""
    for place, route in enumerate(api.router.routes):
        if isinstance(route, Mount) and isinstance(route.app, StaticFiles):
            assert route.app.directory is not None
            api.router.routes[place] = _route(f"{route.path}/{{name}}", _Assets(Path(route.app.directory)))
        elif isinstance(route, Route) and route.path == api.openapi_url:
            api.router.routes[place] = _route(route.path, _OpenApi(api))


def _route(path: str, answer: Callable[[Request], Any]) -> Route:
    async def endpoint(request: Request) -> Response:
        response: Response = await answer(request)
        return response

    return Route(path, endpoint, methods=["GET"], include_in_schema=False)
