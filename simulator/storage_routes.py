"""fal's storage: the upload flows of the Python and the JavaScript client, and the files behind all URLs."""

import asyncio
import hashlib
import json
import math
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from simulator import answers
from simulator.answers import Answer, Refused
from simulator.faults import MEDIA
from simulator.http import authorized_key_id, base_url_of, respond, respond_with_faulty_file, simulation_of
from simulator.lifetimes import lifetime_seconds
from simulator.simulation import prompt_of
from simulator.storage import Part, PendingUpload, join_parts, new_key

TOKEN_LIFETIME = timedelta(hours=1)
DEFAULT_CONTENT_TYPE = "application/octet-stream"
FILE_HEADERS = {"access-control-allow-origin": "*", "x-content-type-options": "nosniff"}


async def issue_token(request: Request) -> Response:
    authorized_key_id(request, "upload_token")
    return JSONResponse(
        {
            "token": simulation_of(request).storage.token,
            "token_type": "Bearer",
            "base_url": base_url_of(request),
            "expires_at": (datetime.now(UTC) + TOKEN_LIFETIME).isoformat(),
        }
    )


async def upload(request: Request) -> Response:
    """Python, the whole file in one POST."""
    _require_token(request)
    storage = simulation_of(request).storage
    key = new_key(request.headers.get("x-fal-file-name"))
    path = storage.new_path()
    await _receive(request, path)
    storage.add(key, path, _content_type(request), _expires_at(request))
    return JSONResponse({"access_url": _file_url(request, key)})


async def start_multipart(request: Request) -> Response:
    """Python, in parts."""
    _require_token(request)
    upload_id = secrets.token_hex(16)
    name = request.headers.get("x-fal-file-name")
    pending = PendingUpload(new_key(name), _content_type(request), _expires_at(request))
    simulation_of(request).storage.announce(pending, upload_id)
    return JSONResponse({"access_url": _file_url(request, pending.key), "uploadId": upload_id})


async def initiate(request: Request) -> Response:
    """JavaScript, and Python's fallback: the file follows in a PUT."""
    authorized_key_id(request, "upload_initiate")
    pending = await _announce(request, None)
    url = _file_url(request, pending.key)
    return JSONResponse({"upload_url": url, "file_url": url})


async def initiate_multipart(request: Request) -> Response:
    """JavaScript, in parts."""
    authorized_key_id(request, "upload_initiate")
    upload_id = secrets.token_hex(16)
    pending = await _announce(request, upload_id)
    url = _file_url(request, pending.key)
    return JSONResponse({"upload_url": f"{url}/multipart/{upload_id}", "file_url": url})


async def put_file(request: Request) -> Response:
    simulation_of(request).calls["upload_put", ""] += 1
    storage = simulation_of(request).storage
    key = _key(request)
    _expected(request, key)
    path = storage.new_path()
    await _receive(request, path)
    _expected(request, key)
    storage.finish(key, path)
    return Response()


async def put_part(request: Request) -> Response:
    simulation_of(request).calls["upload_part", ""] += 1
    pending = _expected(request, request.path_params["upload_id"])
    path = simulation_of(request).storage.new_path()
    etag = await _receive(request, path)
    number = request.path_params["number"]
    pending.parts[number] = Part(path, etag)
    # The Python client reads the header, the JavaScript client the body.
    return JSONResponse({"partNumber": number, "etag": etag}, headers={"etag": etag})


async def complete_multipart(request: Request) -> Response:
    upload_id = request.path_params["upload_id"]
    pending = _expected(request, upload_id)
    listed = {part["partNumber"]: part["etag"] for part in (await _json(request)).get("parts", [])}
    if not listed or listed != {number: part.etag for number, part in pending.parts.items()}:
        raise Refused(Answer(400, {"detail": "The parts do not match those that were uploaded"}))
    storage = simulation_of(request).storage
    path = storage.new_path()
    # The Python client lists the parts in the order of their completion.
    await asyncio.to_thread(join_parts, [pending.parts[number] for number in sorted(listed)], path)
    storage.finish(upload_id, path)
    return JSONResponse({"access_url": _file_url(request, pending.key)})


async def serve_file(request: Request) -> Response:
    simulation = simulation_of(request)
    simulation.calls["file", ""] += 1
    key = _key(request)
    uploaded = simulation.storage.find(key, simulation.now())
    if uploaded is not None:
        return FileResponse(uploaded.path, headers=FILE_HEADERS, media_type=uploaded.content_type)
    found, file = await simulation.media_file(key.rpartition("/")[2])
    call = simulation.faulty_call(MEDIA, prompt_of(found.input), found)
    if call.refusal is not None:
        return respond(call.refusal, found.request_id)
    if call.faults:
        content = await asyncio.to_thread(file.path.read_bytes)
        whole = Response(call.file(content), headers=FILE_HEADERS, media_type=file.content_type)
        return await respond_with_faulty_file(request, call, whole, found.request_id)
    return FileResponse(file.path, headers=FILE_HEADERS, media_type=file.content_type)


async def _announce(request: Request, upload_id: str | None) -> PendingUpload:
    body = await _json(request)
    content_type = body.get("content_type") or DEFAULT_CONTENT_TYPE
    pending = PendingUpload(new_key(body.get("file_name")), content_type, _expires_at(request))
    return simulation_of(request).storage.announce(pending, upload_id)


def _expected(request: Request, upload_id: str) -> PendingUpload:
    pending = simulation_of(request).storage.pending(upload_id)
    if pending is None:
        raise Refused(answers.FILE_NOT_FOUND)
    return pending


def _require_token(request: Request) -> None:
    simulation = simulation_of(request)
    simulation.calls["upload", ""] += 1
    if request.headers.get("authorization") != f"Bearer {simulation.storage.token}":
        raise Refused(answers.UNKNOWN_KEY)


async def _receive(request: Request, path: Path) -> str:
    """Write the body to disk and return its ETag."""
    digest = hashlib.md5(usedforsecurity=False)
    async with await anyio.open_file(path, "wb") as file:
        async for chunk in request.stream():
            digest.update(chunk)
            await file.write(chunk)
    return f'"{digest.hexdigest()}"'


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(Answer(400, {"detail": "The body is no JSON object"}))
    return body


def _expires_at(request: Request) -> float:
    seconds = lifetime_seconds(request.headers)
    return math.inf if seconds is None else simulation_of(request).now() + seconds


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", DEFAULT_CONTENT_TYPE)


def _key(request: Request) -> str:
    return f"{request.path_params['folder']}/{request.path_params['name']}"


def _file_url(request: Request, key: str) -> str:
    return f"{base_url_of(request)}/files/b/{key}"


_FILE = "/b/{folder}/{name}"
_PARTS = _FILE + "/multipart/{upload_id}"

routes = [
    Mount(
        "/storage",
        routes=[
            Route("/auth/token", issue_token, methods=["POST"]),
            Route("/upload/initiate", initiate, methods=["POST"]),
            Route("/upload/initiate-multipart", initiate_multipart, methods=["POST"]),
        ],
    ),
    Mount(
        "/files",
        routes=[
            Route("/upload", upload, methods=["POST"]),
            Route("/upload/multipart", start_multipart, methods=["POST"]),
            Route(_FILE, serve_file, methods=["GET"]),
            Route(_FILE, put_file, methods=["PUT"]),
            Route(_PARTS + "/{number:int}", put_part, methods=["PUT"]),
            Route(_PARTS + "/complete", complete_multipart, methods=["POST"]),
        ],
    ),
]
