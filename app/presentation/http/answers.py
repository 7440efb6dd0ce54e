from collections.abc import Mapping

from fastapi import Request, Response
from pydantic import BaseModel


def json_answer(
    request: Request, view: BaseModel, headers: Mapping[str, str] | None = None, *, status: int | None = None
) -> Response:
    """Answers the view, with the status that the route documents where none is given.

    FastAPI would validate the view that we have just built, which takes a fifth of the time of a request.
    """
    return json_bytes(request, view.model_dump_json(by_alias=True), headers, status=status)


def json_bytes(
    request: Request, content: bytes | str, headers: Mapping[str, str] | None = None, *, status: int | None = None
) -> Response:
    status = status or request.scope["route"].status_code or 200
    return Response(content, status_code=status, headers=headers, media_type="application/json")
