"""What callers say who look at jobs: which ones, and how much of each."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from app.domain.jobs import PublicStatus
from app.domain.kinds import GenerationKind
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.field_errors import ERRORS_MAX, field_error

_INPUT = "input"
# The only thing there is to include.
_EXPECTED = {"expected": f"'{_INPUT}'"}


@dataclass(frozen=True, slots=True)
class IncludeInQuery:
    """Whether the answer has the input of a job. It is no parameter of FastAPI, whose search for one costs more than
    the look at a job.
    """

    async def __call__(self, request: Request) -> bool:
        """Raises InvalidRequest."""
        if not request.scope["query_string"]:
            return False
        given = request.query_params.getlist("include")
        unknown = [place for place, word in enumerate(given) if word != _INPUT]
        if unknown:
            errors = [field_error("not_among", "include", place, context=_EXPECTED) for place in unknown[:ERRORS_MAX]]
            raise InvalidRequest(errors)
        return bool(given)

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": "include",
            "in": "query",
            "required": False,
            "description": "What else to tell of a job: `input`, the parameters that it was started with.",
            "schema": {"type": "array", "items": {"type": "string", "enum": [_INPUT]}},
        }


WithInput = Annotated[bool, Depends(IncludeInQuery())]
Statuses = Annotated[
    list[PublicStatus] | None,
    Query(alias="status", max_length=len(PublicStatus), description="Only jobs in one of these; left out, in any."),
]
Kinds = Annotated[
    list[GenerationKind] | None,
    Query(alias="type", max_length=len(GenerationKind), description="Only jobs of these types; left out, of all."),
]
ModelOfJobs = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=200,
        # A model that is sold no more has jobs as well.
        pattern="^[!-~]+$",
        description="Only jobs of this model, by its id, such as `fal-ai/flux/schnell`; also of one that is no longer "
        "sold.",
    ),
]
