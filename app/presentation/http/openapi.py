"""What the OpenAPI document says beyond what the code of the routes says by itself."""

import json
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
from app.presentation.http.description import TAGS
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
)
from app.presentation.http.field_errors import field_error
from app.presentation.http.routing import calls_of
from app.presentation.http.statuses import status_of, title_of
from app.presentation.schemas.problems import InvalidRequestProblem, Problem

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


# Of each message, as a reader of server-sent events has it.
_MESSAGE = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}


def event_stream(description: str, example: object) -> dict[str, Any]:
    """`example` is the data of a message."""
    text = f"id: 1795515341654321\nevent: generation.completed\ndata: {json.dumps(example)}\n\n"
    return {
        "description": description,
        "content": {"text/event-stream": {"schema": _MESSAGE, "example": text}},
    }


def complete(document: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Add what the routes refer to by name, and what is the same for all of them."""
    documented = [context for context in iter_route_contexts(routes) if _is_documented(context)]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schemas_of([*_request_models(documented), Problem, InvalidRequestProblem]))
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


def schemas_of(models: Iterable[type[BaseModel]]) -> Mapping[str, Any]:
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
