"""What is wrong with a field, in our own words: pydantic's may change with a release, and may quote the input."""

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, TypedDict

ERRORS_MAX = 20


class FieldError(TypedDict):
    pointer: str
    detail: str
    code: str


# The keys are pydantic's error types and those that our own validators raise. The sentence is filled in with the
# context that pydantic gives; for these types it holds our limits, never the input.
_SENTENCES: Mapping[str, tuple[str, str]] = {
    "missing": ("required", "This field is required."),
    "amount_or_withdraws": (
        "required",
        "This field is required, or in its place withdraws: the id of the reversal that does not stand any more.",
    ),
    "extra_forbidden": ("unknown_field", "This field is not known here."),
    "unknown_parameter": (
        "unknown_field",
        "{model} has no parameter of this name. GET /models/{model} says which it has.",
    ),
    "int_type": ("not_an_integer", "This must be a whole number."),
    "int_from_float": ("not_an_integer", "This must be a whole number."),
    "not_an_integer": ("not_an_integer", "This must be a whole number."),
    "greater_than_equal": ("too_small", "This must be at least {ge}."),
    "float_type": ("not_a_number", "This must be a number."),
    "finite_number": ("not_a_number", "This must be a number."),
    "less_than_equal": ("too_large", "This must be at most {le}."),
    "bool_type": ("not_a_boolean", "This must be true or false."),
    "string_type": ("not_a_string", "This must be a string."),
    "string_too_short": ("too_short", "This must have at least {min_length} character{s}."),
    "string_too_long": ("too_long", "This must have at most {max_length} character{s}."),
    "string_unicode": ("invalid_text", "This is not text that can be stored: a NUL, or half a surrogate pair."),
    "string_pattern_mismatch": ("invalid_characters", "This has characters that are not allowed here."),
    "invalid_text": ("invalid_text", "This is not text that can be stored: a NUL, or half a surrogate pair."),
    "blank": ("blank", "This must not be blank."),
    "enum": ("not_allowed", "This must be one of: {expected}."),
    "literal_error": ("not_allowed", "This must be one of: {expected}."),
    "not_among": ("not_allowed", "This must be one of: {expected}."),
    "list_type": ("not_a_list", "This must be a list."),
    "too_short": ("too_few", "This must have at least {min_length} item{s}."),
    "too_long": ("too_many", "This must have at most {max_length} item{s}."),
    "model_type": ("not_an_object", "This must be a JSON object."),
    "not_a_uuid": ("not_a_uuid", "This must be a UUID like 0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b."),
    "not_a_moment": ("not_a_moment", "This must be a moment with its zone, like 2027-01-01T00:00:00Z."),
    "idempotency_key_reused": (
        "idempotency_key_reused",
        "This key names another request already; send a new one for a new request.",
    ),
    "invalid_cursor": ("invalid_cursor", "This must be the next_cursor of an earlier page."),
    "offset_with_filter": (
        "offset_with_filter",
        "Beside status, type or model this must be left out: follow next_cursor.",
    ),
    "invalid_wait": ("invalid_wait", "This must be a whole number of seconds from 1 to 60."),
    "invalid_last_event_id": ("invalid_last_event_id", "This must be the id of a message of this stream."),
    "two_names": (
        "two_names",
        "X-Event-Id and Idempotency-Key name two different payments: send one of them, or the same in both.",
    ),
    "repeated_header": ("repeated_header", "Send this header once."),
    # Here the reason is one of our own sentences.
    "url_not_allowed": ("url_not_allowed", "{reason}"),
    "data_uri_not_allowed": ("data_uri_not_allowed", "{reason}"),
    "image_size_not_allowed": ("image_size_not_allowed", "{reason}"),
    "safety_checker_required": (
        "safety_checker_required",
        "The operator of this service keeps the safety checker on: send true, or leave this out.",
    ),
    "data_uri_too_large": ("data_uri_too_large", "The decoded media must have at most {size_bytes_max} bytes."),
}
_FALLBACK = ("invalid", "This value is not valid.")

# Matches the names that our fields have, but neither the tags of a union nor most of what callers invent.
_FIELD_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def field_error(kind: str, *location: str | int, context: Mapping[str, Any] | None = None) -> FieldError:
    code, sentence = _SENTENCES.get(kind, _FALLBACK)
    figures = {name: _plain(value) for name, value in (context or {}).items()}
    figures["s"] = "" if 1 in (figures.get("min_length"), figures.get("max_length")) else "s"
    return {"pointer": _pointer(location), "detail": sentence.format_map(figures), "code": code}


def field_errors(errors: Iterable[Mapping[str, Any]]) -> list[FieldError]:
    """Translates pydantic's first errors: the caller mends those and asks again."""
    return [field_error(error["type"], *error["loc"], context=error.get("ctx")) for error in islice(errors, ERRORS_MAX)]


def _plain(value: Any) -> Any:
    """Of a number that need not be whole pydantic tells the bounds as 20.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _pointer(location: Iterable[str | int]) -> str:
    """Makes a JSON pointer (RFC 6901) into the body, or / and the name of a header or query parameter."""
    return "".join(f"/{part}" for part in map(str, location) if _FIELD_NAME.fullmatch(part))
