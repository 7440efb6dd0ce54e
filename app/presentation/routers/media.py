from fastapi import APIRouter, Request, Response

from app.domain.media_errors import (
    LinkExpired,
    LinkNotValid,
    MediaDeleted,
    MediaNotFound,
    MediaUnavailable,
    TooManyDownloads,
)
from app.presentation.http.byte_ranges import RangeNotSatisfiable
from app.presentation.http.downloads import download
from app.presentation.http.media_parameters import MEDIA_NAME, Expires, MediaId, Saved, Signature
from app.presentation.http.openapi import DATABASE_ERRORS, problems
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases

router = APIRouter(prefix="/media", tags=["Media"], route_class=DirectRoute)

_FILE = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/{media}/{name}",
    operation_id="get_media",
    summary="Download a file",
    response_class=Response,
    dependencies=[MEDIA_NAME],
    responses={
        200: {"description": "The file", "content": {"application/octet-stream": _FILE}},
        206: {"description": "The part of it that `Range` asks for", "content": {"application/octet-stream": _FILE}},
        302: {"description": "The store has it at `Location`, for a minute"},
        304: {"description": "You have it: `If-None-Match` names its ETag"},
        **problems(
            LinkNotValid,
            MediaNotFound,
            LinkExpired,
            MediaDeleted,
            RangeNotSatisfiable,
            TooManyDownloads,
            MediaUnavailable,
            *DATABASE_ERRORS,
        ),
    },
)
async def get_media(
    request: Request, media: MediaId, expires: Expires, signature: Signature, *, saved: Saved, use_cases: UseCases
) -> Response:
    """What a link leads to. The link is all that is needed, so hand it to nobody who should not see the file.

    Pictures, films and sounds are shown by browsers, without `download`; everything else is downloaded.
    """
    open_media = use_cases.media.open
    linked = await open_media.find(media, expires, signature)
    return await download(request, open_media, linked, is_saved=bool(saved))
