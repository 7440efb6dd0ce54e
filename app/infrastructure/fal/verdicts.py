"""Decides what an answer other than success means for a job.

Only fal itself can end a job, in its own words: JSON with an `error_type`, a list of details, or a detail together
with a header of fal. The same codes from the ingress in front of fal say nothing about the job, whatever they carry: a
page, or the JSON of a proxy, may come with the id that fal gave the request.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.application.ports.provider import InProgress, Rejected, Stopped, SubmitRefused
from app.domain.catalogue import GenerationKind
from app.infrastructure.fal import json_values
from app.infrastructure.fal.wire import Answer

# These are about the key, the account or the proxy: the operator can put them right while the jobs wait.
OPERATOR_STATUSES = frozenset({401, 402, 403, 407})
# By RFC 9110, 8470 and 6585 these ask for another try.
_TRY_AGAIN_STATUSES = frozenset({408, 425, 429})
# fal writes each of its own with an `error_type`, or with a list of details.
_STATUSES_OF_PROXIES = frozenset({502, 503, 504})
# What fal says without a header, as far as that was seen.
_WORDS_OF_FAL = re.compile(
    r'Application ".*" not found|Path .* not found|Request cancelled by the client\.|Request is still in progress'
)

_TIMEOUT_TYPES = frozenset({"request_timeout", "startup_timeout", "generation_timeout"})
# fal has reported these with different codes, 400 and 422 among them; none of them is the input's fault.
_FAULT_TYPES = frozenset({"internal_server_error", "downstream_service_error", "downstream_service_unavailable"})
_TYPE_PATTERN = re.compile(r"[a-z0-9_.]{1,64}", re.ASCII)

_PARAMETERS = frozenset(
    {
        "prompt",
        "negative_prompt",
        "num_images",
        "image_size",
        "seed",
        "enable_prompt_expansion",
        "enable_safety_checker",
        "image_url",
        "image_urls",
        "audio_url",
        "duration",
        "resolution",
        "aspect_ratio",
    }
)

_POLICY = Rejected("content_policy_violation", "fal's content policy does not allow this input or its result.")
_TIMED_OUT = Rejected("provider_timeout", "fal did not finish this generation within its own time limit.")
_FAULT = Rejected("provider_error", "fal could not run this generation.")
_UNKNOWN_MODEL = Rejected("provider_error", "fal does not offer this model.")
_NO_MEDIA = Rejected("invalid_input", "fal generated nothing for this input.")


@dataclass(frozen=True, slots=True)
class Failure:
    """The parts of a failing answer that a decision may rest on.

    `detail` is compared and never shown: fal's words can quote the prompt.
    """

    status: int
    has_header_of_fal: bool
    has_words_of_fal: bool
    """The body is fal's own."""
    detail: str
    error_type: str
    types: Sequence[str]
    parameter: str | None

    @classmethod
    def of(cls, answer: Answer, document: Mapping[str, Any]) -> "Failure":
        detail = document.get("detail")
        items = _items_of(detail)
        return cls(
            status=answer.status,
            has_header_of_fal=_has_header_of_fal(answer),
            has_words_of_fal=_has_words_of_fal(answer, document),
            detail=detail if isinstance(detail, str) else "",
            error_type=error_type_of(document) or _word(answer.headers.get("x-fal-error-type")),
            types=_types_of(items),
            parameter=_parameter_of(items),
        )


def verdict(failure: Failure, status_error_type: str = "") -> InProgress | Stopped | Rejected | None:
    """Read what the result URL answers after COMPLETED. None if the answer says nothing about the job.

    `status_error_type` is what the status said of the failure; it counts if the result is gone.
    """
    if failure.status in OPERATOR_STATUSES | _TRY_AGAIN_STATUSES:
        return None
    if failure.status == 400 and "in progress" in failure.detail.lower():
        return InProgress()
    if failure.status < 400 or not failure.has_words_of_fal:
        return None
    if failure.status == 499 or failure.error_type == "client_cancelled":
        return Stopped()
    if failure.status == 404:
        return _verdict_on_missing(failure, status_error_type)
    return rejection(failure)


def rejection(failure: Failure) -> Rejected:
    types = {failure.error_type, *failure.types}
    if "content_policy_violation" in types:
        return _POLICY
    if types & _TIMEOUT_TYPES or failure.status == 504:
        return _TIMED_OUT
    if types & _FAULT_TYPES or failure.status >= 500 or not (failure.status == 422 or failure.types):
        return _FAULT
    if "no_media_generated" in types:
        return _NO_MEDIA
    return _invalid_input(failure)


def refusal(failure: Failure) -> SubmitRefused:
    """Say why fal's gateway turned the submission down for good."""
    if failure.status in (400, 422):
        rejected = _POLICY if "content_policy_violation" in failure.types else _invalid_input(failure)
        return SubmitRefused(rejected.code, rejected.reason)
    if failure.status == 404:
        return SubmitRefused("model_unavailable", _UNKNOWN_MODEL.reason)
    if failure.status == 413:
        return SubmitRefused("input_too_large", "The input is larger than fal takes.")
    return SubmitRefused("provider_refused", "fal refused this request.")


def error_type_of(document: Mapping[str, Any]) -> str:
    return _word(document.get("error_type"))


def _verdict_on_missing(failure: Failure, status_error_type: str) -> Stopped | Rejected | None:
    """Tell fal's 404s apart: an app that lacks the path, or raised 404 itself, gives a `detail`, but fal gives none for
    a request that is unknown or expired.
    """
    if failure.detail.startswith("Path "):
        return _UNKNOWN_MODEL
    if failure.types:
        return rejection(failure)
    if status_error_type == "client_cancelled":
        return Stopped()
    if status_error_type in _TIMEOUT_TYPES:
        return _TIMED_OUT
    return _FAULT if status_error_type else None


def _invalid_input(failure: Failure) -> Rejected:
    if failure.parameter is None:
        return Rejected("invalid_input", "fal did not accept this input.")
    return Rejected("invalid_input", f"fal did not accept the parameter {failure.parameter}.")


def _items_of(detail: object) -> Sequence[Mapping[str, Any]]:
    return [item for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []


def is_result_of_fal(answer: Answer, kind: GenerationKind) -> bool:
    """Whether a result that cannot be used is fal's all the same, and not the JSON of a proxy that says 200."""
    if answer.body is None or _has_header_of_fal(answer):
        return True
    try:
        document = json_values.parse(answer.body)
    except json_values.TooDeep:
        return True
    return isinstance(document, dict) and ("video" if kind.is_video else "images") in document


def _has_header_of_fal(answer: Answer) -> bool:
    return any(name.lower().startswith("x-fal-") for name in answer.headers)


def _has_words_of_fal(answer: Answer, document: Mapping[str, Any]) -> bool:
    detail = document.get("detail")
    if error_type_of(document) or any("type" in item or "msg" in item for item in _items_of(detail)):
        return True
    if isinstance(detail, str) and _WORDS_OF_FAL.fullmatch(detail):
        return True
    if answer.status == 404 and document.get("status") == "NOT_FOUND":
        return True
    is_named = bool(_word(answer.headers.get("x-fal-error-type")))
    is_of_a_proxy = answer.status in _STATUSES_OF_PROXIES and not is_named
    return detail is not None and _has_header_of_fal(answer) and not is_of_a_proxy


def _types_of(items: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    return [word for item in items if (word := _word(item.get("type")))]


def _parameter_of(items: Sequence[Mapping[str, Any]]) -> str | None:
    return next((name for item in items if (name := _parameter(item.get("loc")))), None)


def _word(value: object) -> str:
    return value if isinstance(value, str) and _TYPE_PATTERN.fullmatch(value) else ""


def _parameter(loc: object) -> str | None:
    if not isinstance(loc, list):
        return None
    return next((part for part in loc if isinstance(part, str) and part in _PARAMETERS), None)
