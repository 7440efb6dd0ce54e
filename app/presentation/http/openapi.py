"""What the OpenAPI document says beyond what the code of the routes says by itself."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from app.domain.errors import DatabaseUnavailable, DomainError, InvalidApiKey, Overloaded
from app.domain.key_errors import ScopeMissing
from app.domain.limits import TooManyFailedAuthentications, TooManyReads
from app.presentation.http.api_keys import AUTHORIZATION_DOCUMENT, AUTHORIZATION_SCHEME
from app.presentation.http.bodies import SCHEMA_REFERENCE, JsonBody
from app.presentation.http.errors import (
    PROBLEM_MEDIA_TYPE,
    InvalidJson,
    InvalidRequest,
    NoRoomForBody,
    RefusedRequest,
    RequestBodyTooLarge,
    RequestTimeout,
    TooManyLargeBodies,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
    status_of,
    title_of,
)
from app.presentation.http.field_errors import field_error
from app.presentation.http.routing import calls_of
from app.presentation.schemas.problems import InvalidRequestProblem, Problem

DESCRIPTION = """
Make images and videos with the models of [fal.ai](https://fal.ai), paid from a balance of tokens.

## The tour

1. `POST /auth` gives a user an API key. Keep it: it is shown once. `POST /keys` makes further ones that may do less.
2. The payment provider calls `POST /webhook/topup` when the user has paid; the balance grows. It calls
   `POST /webhook/reversal` when a payment was refunded or disputed; the balance shrinks, also to below zero.
3. `GET /models` says what can be made, with which parameters and at which price. It needs no key.
4. `POST /quotes` says what one generation costs, and promises that price for ten minutes. It takes nothing.
5. `POST /generations/...` takes the cost from the balance and answers 202 with a job.
6. `GET /generations/{job_id}` says where the job stands. Ask about every second for images, every five for videos.
7. `POST /generations/{job_id}/cancel` stops a job. What was not made is not charged.

Steps 3 and 4 may be left out: a generation without `model` is made by the default of its type, and one without `quote`
costs what it costs at that moment.

On this page, press **Authorize**, paste the key into *ApiKey*, and try the routes. Elsewhere, send it as `X-API-Key`,
`Authorization: Bearer <key>` or `Authorization: Key <key>`, whichever your client knows. Two different keys at once are
refused.

## Status of a job

| status | meaning |
|---|---|
| `QUEUED` | accepted and paid, not known to be at fal yet |
| `SUBMITTED` | fal has it |
| `IN_QUEUE` | it waits at fal |
| `IN_PROGRESS` | fal works on it |
| `CANCELING` | you asked to stop it, fal has not confirmed yet |
| `COMPLETED` | the result is there; final |
| `FAILED` | there is no result, and the tokens are back; final |
| `CANCELED` | it was stopped, and the tokens are back; final |

A job never has both a result and a refund.

## Models

`model` is the id of the model at fal, the same everywhere. Each model takes its own parameters, and no others:
`parameters` in `GET /models/{model}` is a JSON Schema of them, and `example` a body that works as it is. The same name
means the same at every model: `duration` is whole seconds, `image_url` the first picture, `generate_audio` the sound.
What you leave out is filled in with the default that the schema names. While a model `is_paused`, nothing is
submitted to it, because fal refuses it or cannot be reached: new jobs wait, or get 503.

## Prices

The operator of this service sets them: `GET /models` has them by line, with the cheapest and the dearest generation of
each model, and `POST /quotes` has the price of one generation. A line counts images, megapixels, seconds or runs,
and its tokens are `unit_tokens` times `factor` times `quantity`, rounded up once. The cost is their sum. It is in the
answer that accepts a job, with its lines in `price`, also as `X-Cost-Tokens` beside `X-Balance-Tokens`, what is left.

- A `quote` from `POST /quotes` makes the generation cost exactly what was promised, until `valid_until`. It holds for
  one account, one model and the parameters that its price follows from; prompt and pictures may change.
- `max_cost_tokens` refuses what would cost more.
- A repeat with the same `Idempotency-Key` costs nothing more, whatever `quote` and `max_cost_tokens` say by then, and
  whether or not its model is still sold.
- What was paid for and not delivered is refunded, line by line: an image that is missing or that fal's safety checker
  blanked, and size that an image does not have, where it was priced by size and fal tells it. `billing` of a final job
  has what was charged and refunded of each line.

## Keys

The key of `POST /auth` may do everything. It makes others with `POST /keys`, one for each program or person, so that
each may do, spend and last as little as it needs, and can end alone:

| scope | what it is for |
|---|---|
| `generate` | start and cancel generations |
| `read` | look at generations, balance and ledger, ask for quotes |
| `manage` | keys, and the account itself |

Starting and cancelling answer with the job that they concern, and starting with the balance, whether or not the key has
`read`.

A `budget` is so many tokens each `day` or `month` of UTC, or `ever`. It is checked with the debit: never exceeded by a
token, however many requests come at once, and 402 `budget_exceeded` has `budget_tokens`, `spent_tokens` and
`renews_at`. What is refunded comes back to the budget while its period lasts. Only a key with every scope, no budget
and no expiry makes, changes, rotates and deletes keys, and never itself; any key sees itself at `GET /keys/current`,
and ends itself with `DELETE`. A secret is shown once. Another one comes with `POST /keys/{key_id}/rotate`, which lets
the old one work for an overlap.

## Errors

Every error is `application/problem+json` (RFC 9457), with a `code` that does not change, a `detail` for people,
and the `request_id` that every answer also carries in `X-Request-Id`. A 422 lists in `errors` what to mend:
`unknown_model` at `/model` names the models that fit, and `combination_not_allowed` stands at the parameter to change
first. Where numbers help, they are there as fields: 402 `insufficient_balance` has `required_tokens`, `balance_tokens`
and `missing_tokens`, 409 `price_exceeds_maximum` has `cost_tokens`. Neither takes anything, nor does 409
`quote_not_valid`: ask for a new quote, or leave it out.
Besides what each route documents: 400 `invalid_http` and `invalid_host` for what is no request of HTTP/1.1,
404 `not_found` for an unknown path, 405 `method_not_allowed`, 408 `request_timeout` for what comes too slowly,
431 `request_headers_too_large` above 32 KiB of headers, 500 `internal_error`, which is our fault, and
503 `too_many_connections`. Whatever answers to GET answers to HEAD, with the same headers.
A body that was not there as a whole when it was refused ends the connection.
On 429 nothing was done: `Retry-After` says when to ask again, and `RateLimit-Policy` which limit of yours was reached.
On 503 nothing was done: wait as `Retry-After` says and ask again. Only where its code is `outcome_unknown` that is not
known: ask again with the same `Idempotency-Key` or event id, and it is done once.

Bodies are read strictly: an unknown field is refused, and `true` and `"5"` are no numbers.
"""

TAGS: list[dict[str, Any]] = [
    {"name": "Accounts", "description": "The first API key, and balances."},
    {"name": "Keys", "description": "The keys of an account: what each may do and spend, until when."},
    {"name": "Top-up", "description": "Called by the payment provider, not by users."},
    {"name": "Generations", "description": "Start images and videos, follow them, stop them."},
    {"name": "Models", "description": "What is sold, with parameters and prices; what one generation would cost."},
    {"name": "Provider", "description": "Called by fal, not by users."},
    {"name": "System", "description": "For load balancers and monitoring."},
]

# Of each route that asks for a key.
KEY_ERRORS = (InvalidApiKey, ScopeMissing, TooManyFailedAuthentications)
# Of those that read.
READ_ERRORS = (*KEY_ERRORS, TooManyReads)

DATABASE_ERRORS = (DatabaseUnavailable, Overloaded)

# What may happen while a body of any kind is read.
READING_ERRORS = (RequestTimeout, RequestBodyTooLarge, TooManyLargeBodies, NoRoomForBody)

BODY_ERRORS = (
    InvalidJson,
    *READING_ERRORS,
    UnsupportedMediaType,
    UnsupportedContentEncoding,
    InvalidRequest,
)

_REQUEST_ID = "9f1c2d7e5b0a4c3f8e6d1a2b3c4d5e6f"
_REQUEST_ID_HEADER = {
    "description": "The caller's, if it sent one of 1 to 128 letters, digits, dots, hyphens or underscores; else ours.",
    "schema": {"type": "string"},
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds until asking again may help.", "schema": {"type": "integer"}}}
_LIMIT_HEADERS = {
    "RateLimit-Policy": {"description": 'The limit, such as `"writes";q=600;w=60`.', "schema": {"type": "string"}},
    "RateLimit": {"description": 'What is left, and for how long: `"writes";r=0;t=60`.', "schema": {"type": "string"}},
}
_HEADERS_BY_STATUS = {"429": _RETRY_AFTER | _LIMIT_HEADERS, "503": _RETRY_AFTER}

Errors = type[DomainError] | type[RefusedRequest]


def problems(*errors: Errors) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route: one entry per status, one example per code."""
    by_status = groupby(sorted(errors, key=_status), key=_status)
    return {status: _problem_response(status, list(group)) for status, group in by_status}


def answer(example: object, description: str = "", **more: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}, **more}


def complete(document: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Add what the routes refer to by name, and what is the same for all of them."""
    documented = [context for context in iter_route_contexts(routes) if _is_documented(context)]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(_schemas([*_request_models(documented), Problem, InvalidRequestProblem]))
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            _complete_responses(operation["responses"])
    for context in documented:
        for method in context.methods or ():
            operation = document["paths"][context.path_format][method.lower()]
            _restore_examples(operation["responses"], context.responses)
    # Routes stand in the order in which requests are matched, which is not the one to read them in.
    document["paths"] = dict(sorted(document["paths"].items(), key=_reading_order))
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["components"]["headers"] = {"X-Request-Id": _REQUEST_ID_HEADER, **_RETRY_AFTER, **_LIMIT_HEADERS}
    document["components"].setdefault("securitySchemes", {})[AUTHORIZATION_SCHEME] = AUTHORIZATION_DOCUMENT


def require_safety_checker(document: Mapping[str, Any]) -> None:
    """Say that the operator keeps the safety checker on."""
    for schema in document["components"]["schemas"].values():
        field = schema.get("properties", {}).get("enable_safety_checker")
        if field is not None:
            field["anyOf"] = [{"type": "boolean", "const": True}, {"type": "null"}]
            field["description"] = "The operator keeps it on: false is refused."


def _is_documented(context: RouteContext) -> bool:
    return isinstance(context.original_route, APIRoute) and bool(context.include_in_schema)


def _request_models(contexts: Iterable[RouteContext]) -> Iterator[type[BaseModel]]:
    """FastAPI does not see the bodies that our own dependencies read."""
    for context in contexts:
        for call in calls_of(context.dependant):
            if isinstance(call, JsonBody):
                yield from call.models


def _reading_order(path: tuple[str, Mapping[str, Any]]) -> tuple[int, bool, str]:
    """Paths come in the order of TAGS, unknown tags last, and those about one thing after those about many."""
    name, operations = path
    tags = next(iter(operations.values())).get("tags", [])
    known = [tag["name"] for tag in TAGS]
    place = known.index(tags[0]) if tags and tags[0] in known else len(known)
    return place, "{" in name, name


def _status(error: Errors) -> int:
    return error.status if issubclass(error, RefusedRequest) else status_of(error)


def _problem_response(status: int, errors: list[Errors]) -> dict[str, Any]:
    model = InvalidRequestProblem if InvalidRequest in errors else Problem
    examples = {error.code: {"value": _problem_example(status, error)} for error in errors}
    return {
        "description": f"{title_of(status)}: {', '.join(f'`{code}`' for code in examples)}",
        "content": {
            PROBLEM_MEDIA_TYPE: {
                "schema": {"$ref": SCHEMA_REFERENCE.format(model=model.__name__)},
                "examples": examples,
            }
        },
    }


def _problem_example(status: int, error: Errors) -> dict[str, Any]:
    example = {
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": error.default_detail,
        "code": error.code,
        "request_id": _REQUEST_ID,
        **({} if issubclass(error, RefusedRequest) else error.example_figures),
    }
    return example | {"errors": [field_error("missing", "name_of_the_field")]} if error is InvalidRequest else example


def _schemas(models: Iterable[type[BaseModel]]) -> Mapping[str, Any]:
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template=SCHEMA_REFERENCE)
    definitions: Mapping[str, Any] = schema["$defs"]
    return definitions


def _restore_examples(documented: Mapping[str, Any], responses: Mapping[int | str, Mapping[str, Any]]) -> None:
    """FastAPI drops every null from the document, also from the examples."""
    # FastAPI writes "4xx" in capitals, but not "default".
    by_status = {status.upper(): response for status, response in documented.items()}
    for status, response in responses.items():
        for media_type, content in response.get("content", {}).items():
            examples = {name: content[name] for name in ("example", "examples") if name in content}
            by_status[str(status).upper()]["content"][media_type] |= examples


def _complete_responses(responses: dict[str, Any]) -> None:
    if _is_fastapis(responses.get("422", {})):
        responses.update({str(status): response for status, response in problems(InvalidRequest).items()})
    for status, response in responses.items():
        names = ["X-Request-Id"]
        if PROBLEM_MEDIA_TYPE in response.get("content", {}):
            names += _HEADERS_BY_STATUS.get(status, {})
        response.setdefault("headers", {}).update({name: {"$ref": f"#/components/headers/{name}"} for name in names})


def _is_fastapis(response: Mapping[str, Any]) -> bool:
    """FastAPI documents its own 422 for every route with a parameter that does not document one itself."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema == {"$ref": SCHEMA_REFERENCE.format(model="HTTPValidationError")})
