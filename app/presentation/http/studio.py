"""The page for people at `/`, the files that it loads, and a key for whoever tries the service in development."""

import hashlib
import json
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Scope

from app.presentation.http.documents import StoredDocument
from app.presentation.http.errors import RefusedRequest
from app.presentation.http.state import state_of

DIRECTORY = Path(__file__).resolve().parent.parent / "studio"
# Nothing inline, nothing from elsewhere, no text that becomes markup or a program.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src {media}; media-src {media}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_PAGE_HEADERS = {"Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin"}
# Another release has another path.
_CACHING = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# Whoever hands on what others ask for is on this machine, and they need not be.
_OF_A_PROXY = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class NotForYou(RefusedRequest):
    status = 403
    code = "loopback_only"
    default_detail = "Only a page of this service, opened on the machine that it runs on, may ask for this."


def add_studio(api: FastAPI, *, has_newcomers: bool) -> None:
    """The lifespan sets `state.welcome` where `has_newcomers`: only in development."""
    digest, files = _files()
    routes = [
        _route("/", _page(digest, has_newcomers=has_newcomers)),
        _route(f"/studio/{digest}/{{name:path}}", _asset(files)),
    ]
    if has_newcomers:
        routes.append(Route("/studio/newcomers", _welcome, methods=["POST"], include_in_schema=False))
    api.router.routes += routes


def is_of_this_machine(scope: Scope) -> bool:
    """Whether the connection and the name that it was made by are of loopback, and no proxy is in between.

    The name counts as well: a page from elsewhere whose own name leads here would have another one.
    """
    headers = Request(scope).headers
    client = scope.get("client")
    if client is None or any(name in headers for name in _OF_A_PROXY):
        return False
    try:
        address = ip_address(client[0])
        host = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback and host in _LOOPBACK_NAMES


async def _welcome(request: Request) -> Response:
    """Makes a user with a key and a balance. A page from elsewhere may send this, but not with our Origin."""
    own = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    if not is_of_this_machine(request.scope) or request.headers.get("origin") != own:
        raise NotForYou
    welcome: Callable[[], Awaitable[str]] = state_of(request.scope).welcome
    content = json.dumps({"api_key": await welcome()})
    return Response(content, status_code=201, media_type="application/json", headers={"Cache-Control": "no-store"})


def _page(digest: str, *, has_newcomers: bool) -> Callable[[Request], Response]:
    @lru_cache(4)
    def page(base: str, newcomers: str) -> StoredDocument:
        text = (DIRECTORY / "index.html").read_text(encoding="utf-8")
        for name, value in (("{assets}", f"{base}studio/{digest}"), ("{newcomers}", newcomers)):
            text = text.replace(name, value)
        return StoredDocument.of(text.encode(), "text/html")

    def answer(request: Request) -> Response:
        newcomers = "yes" if has_newcomers and is_of_this_machine(request.scope) else "no"
        root_path = request.scope.get("root_path", "")
        # Relative where nobody told us the path in front: a proxy that cuts it off needs not be known.
        stored = page(f"{root_path}/" if root_path else "", newcomers)
        policy = _policy(state_of(request.scope).media_origin)
        return stored.answer(request, {**_PAGE_HEADERS, "Content-Security-Policy": policy})

    return answer


def _policy(media_origin: str | None) -> str:
    """Pictures and films come from here, and from where a link of ours sends whoever follows it."""
    return _POLICY.format(media="'self'" if media_origin is None else f"'self' {media_origin}")


def _asset(files: Mapping[str, StoredDocument]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        stored = files.get(request.path_params["name"])
        if stored is None:
            raise HTTPException(404)
        return stored.answer(request, _CACHING)

    return answer


@lru_cache(1)
def _files() -> tuple[str, Mapping[str, StoredDocument]]:
    """All of them, and what names them all: one path for them, so that a module finds those beside it."""
    files, digest = {}, hashlib.sha256()
    for path in sorted(path for path in DIRECTORY.rglob("*") if path.is_file()):
        name, content = str(PurePosixPath(path.relative_to(DIRECTORY))), path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
        files[name] = StoredDocument.of(content, _media_type(path))
    return digest.hexdigest()[:16], files


def _media_type(path: Path) -> str:
    # What the tables of the machine say of JavaScript differs.
    known = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
    return known.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _route(path: str, answer: Callable[[Request], Response]) -> Route:
    async def endpoint(request: Request) -> Response:
        return answer(request)

    return Route(path, endpoint, methods=["GET"], include_in_schema=False)
