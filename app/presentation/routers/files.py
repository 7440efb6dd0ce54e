from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from app.domain.errors import CommitUnknown, InsufficientBalance
from app.domain.file_errors import (
    FileNotFound,
    FileNotTaken,
    FilesFull,
    FilesNotKept,
    FilesUnavailable,
    TooManyUploads,
)
from app.domain.limits import TooManyWrites
from app.domain.media_errors import MediaDeleted
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import declared_bytes
from app.presentation.http.errors import (
    InvalidMultipart,
    InvalidRequest,
    RequestBodyTooLarge,
    RequestTimeout,
    UnsupportedContentEncoding,
)
from app.presentation.http.field_errors import field_error
from app.presentation.http.keyed_routes import CurrentAccount, KeyedRoute
from app.presentation.http.openapi import DATABASE_ERRORS, KEY_ERRORS, READ_ERRORS, answer, problems
from app.presentation.http.output_links import links_in
from app.presentation.http.parameters import FileIdInPath
from app.presentation.http.state import UseCases, state_of
from app.presentation.http.uploads import REQUEST_BODY, receive_file
from app.presentation.schemas.fields import PageSize, parse_uuid
from app.presentation.schemas.files import FileList, FileView

router = APIRouter(prefix="/files", tags=["Files"], route_class=KeyedRoute)

_ID = "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61"
_FILE = {
    "file_id": _ID,
    "content_type": "image/jpeg",
    "size_bytes": 2_413_002,
    "width": 3024,
    "height": 4032,
    "duration_seconds": None,
    "sha256": "c0535e4be2b79ffd93291305436bf889314e4a3faec05ecffcbb7df31ad9e51a",
    "created_at": "2026-11-30T10:15:30.123456Z",
    "expires_at": "2026-12-30T10:15:30.123456Z",
    "url": f"http://127.0.0.1:8000/media/{_ID}/file.jpg?expires=1798625730&signature=Zm9v",
}
_LOCATION = {"Location": {"description": "Where to ask for the file.", "schema": {"type": "string"}}}


@router.post(
    "",
    operation_id="upload_file",
    summary="Upload a file",
    status_code=201,
    response_model=FileView,
    response_description="The file is kept",
    openapi_extra={"requestBody": REQUEST_BODY},
    responses={
        201: answer(_FILE, headers=_LOCATION),
        **problems(
            *KEY_ERRORS,
            InsufficientBalance,
            FileNotTaken,
            FilesFull,
            FilesNotKept,
            TooManyUploads,
            TooManyWrites,
            FilesUnavailable,
            InvalidMultipart,
            RequestTimeout,
            RequestBodyTooLarge,
            UnsupportedContentEncoding,
            *DATABASE_ERRORS,
            CommitUnknown,
        ),
    },
)
async def upload_file(request: Request, account: CurrentAccount, use_cases: UseCases) -> Response:
    """For generations, which take it as `file:<file_id>`: the file itself as the body, or the one file of a form.

    Pictures (PNG, JPEG, WebP, GIF, AVIF, HEIC), films (MP4, MOV, WebM) and sounds (MP3, WAV) are taken, by content and
    whatever their names say, up to 100 MB. What is kept is upright and without what tells where, when and with what it
    was made; HEIC and AVIF become JPEG or PNG, and of a GIF the first frame is kept. No model takes a film yet.

    Nothing is charged, but the balance must be at least one token: with less the answer is 402.
    """
    files = use_cases.files
    place = state_of(request.scope).uploads.take(account.id)
    if place is None:
        raise TooManyUploads
    with place:
        await files.admit(account.id, declared_bytes(request) or 1)
        async with files.keep.spool.new() as received:
            await receive_file(request, received)
            file = await files.keep(account.id, received)
    headers = {"Location": f"{request.scope.get('root_path', '')}/files/{file.id}"}
    return json_answer(request, FileView.of(file, links_in(request).to_file), headers)


@router.get(
    "",
    operation_id="list_files",
    summary="List your files",
    response_description="The newest files first",
    responses={
        200: answer({"items": [_FILE], "next_cursor": None, "used_bytes": 2_413_002, "bytes_max": 1_073_741_824}),
        **problems(*READ_ERRORS, InvalidRequest, *DATABASE_ERRORS),
    },
)
async def list_files(
    request: Request,
    account: CurrentAccount,
    use_cases: UseCases,
    limit: Annotated[PageSize, Query(description="How many files.")] = 20,
    cursor: Annotated[
        str | None,
        Query(
            description="`next_cursor` of the page before; left out, the newest files.",
            json_schema_extra={"format": "uuid"},
        ),
    ] = None,
) -> FileList:
    """What is kept for you, also of `data:` URIs, and how much of your room it takes."""
    before = None if cursor is None else _file_id_of(cursor)
    page = await use_cases.files.list(account.id, limit=limit + 1, before=before)
    files = page.files[:limit]
    link_to = links_in(request).to_file
    return FileList(
        items=[FileView.of(file, link_to) for file in files],
        next_cursor=str(files[-1].id) if len(page.files) > limit else None,
        used_bytes=page.used_bytes,
        bytes_max=use_cases.files.keep.bytes_max,
    )


@router.get(
    "/{file_id}",
    operation_id="get_file",
    summary="Look at a file",
    response_description="The file",
    responses={200: answer(_FILE), **problems(*READ_ERRORS, FileNotFound, MediaDeleted, *DATABASE_ERRORS)},
)
async def get_file(request: Request, account: CurrentAccount, file_id: FileIdInPath, use_cases: UseCases) -> FileView:
    """What is kept of it, and until when. Somebody else's file is answered like an unknown one."""
    return FileView.of(await use_cases.files.get(account.id, file_id), links_in(request).to_file)


@router.delete(
    "/{file_id}",
    operation_id="delete_file",
    summary="Delete a file",
    status_code=204,
    response_description="The file is deleted",
    responses=problems(*KEY_ERRORS, FileNotFound, *DATABASE_ERRORS, CommitUnknown),
)
async def delete_file(account: CurrentAccount, file_id: FileIdInPath, use_cases: UseCases) -> Response:
    """No link leads to it from now on, and its bytes are erased within moments. Repeated, it changes nothing.

    A generation that was accepted with it and that fal has not fetched it for fails, and costs nothing. Where fal had
    been given a copy, that one ends by itself within 7 days.
    """
    await use_cases.files.delete(account.id, file_id)
    return Response(status_code=204)


def _file_id_of(cursor: str) -> UUID:
    found = parse_uuid(cursor)
    if found is None:
        raise InvalidRequest([field_error("invalid_cursor", "cursor")])
    return found
