"""The shapes of errors, for the OpenAPI document. The answers themselves are made in app.presentation.http.errors."""

from typing import Literal

from pydantic import BaseModel, Field


class Problem(BaseModel):
    type: Literal["about:blank"]
    title: str = Field(description="The name of the status.")
    status: int
    detail: str = Field(description="One sentence for a person. It may change.")
    code: str = Field(description="What went wrong, for a program. It does not change.")
    request_id: str = Field(description="The same as in X-Request-Id: quote it when you ask for help.")
    required_tokens: int | None = Field(default=None, description="With `insufficient_balance` alone, as the next two.")
    balance_tokens: int | None = None
    missing_tokens: int | None = None
    is_at_least: bool | None = Field(
        default=None,
        description="True where a large body was not read, and so not priced: `required_tokens` is what the cheapest "
        "generation of the type costs.",
    )
    cost_tokens: int | None = Field(default=None, description="With `price_exceeds_maximum` alone.")


class ProblemField(BaseModel):
    pointer: str = Field(
        description="JSON pointer into the body, such as `/image_size/width`, or `/` and the name of a query parameter "
        "or header. Empty: the whole body, or a field with an odd name."
    )
    detail: str
    code: str


class InvalidRequestProblem(Problem):
    errors: list[ProblemField] = Field(description="The first 20.")
