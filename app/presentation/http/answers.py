from collections.abc import Mapping

from fastapi import Response
from pydantic import BaseModel


def json_answer(view: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """What a route answers. FastAPI would validate what we have just built once more, a fifth of a request's time."""
    return Response(view.model_dump_json(), status_code=status, headers=headers, media_type="application/json")
