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
from app.domain.errors_of_fal import (
    ERRORS,
    FAULT,
    FAULT_OF_PROVIDER,
    INPUT_TOO_LARGE,
    MODEL_UNAVAILABLE,
    POLICY,
    POLICY_VIOLATION,
    PROVIDER_REFUSED,
    TIMED_OUT_AT_PROVIDER,
    TIMEOUT,
    UNKNOWN_MODEL,
)
from app.domain.job_errors import JobError
from app.domain.terms import ResultShape
from app.infrastructure.fal import json_values
from app.infrastructure.fal.details import TYPE_PATTERN, Detail, details_in
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

# More of them would not help anybody to mend the rest.
_SENTENCES_MAX = 3


def _rejected(error: JobError) -> Rejected:
    return Rejected(error.code, error.sentence())


_TIMEOUT_TYPES = frozenset(word for word, error in ERRORS.items() if error.code == TIMEOUT)
_POLICY = _rejected(POLICY_VIOLATION)
_TIMED_OUT = _rejected(TIMED_OUT_AT_PROVIDER)
_FAULT = _rejected(FAULT_OF_PROVIDER)
_UNKNOWN_MODEL = _rejected(UNKNOWN_MODEL)


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
    details: Sequence[Detail]

    @classmethod
    def of(cls, answer: Answer, document: Mapping[str, Any]) -> "Failure":
        detail = document.get("detail")
        details = details_in(detail)
        return cls(
            status=answer.status,
            has_header_of_fal=_has_header_of_fal(answer),
            has_words_of_fal=_has_words_of_fal(answer, document),
            detail=detail if isinstance(detail, str) else "",
            error_type=error_type_of(document) or _word(answer.headers.get("x-fal-error-type")),
            details=details,
        )

    @property
    def types(self) -> Sequence[str]:
        return [one.type for one in self.details if one.type]


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
    known = [ERRORS[word] for word in (failure.error_type, *failure.types) if word in ERRORS]
    # What is not the input's fault comes first, whatever else fal says of it: nobody should change a good input.
    for code in (POLICY, TIMEOUT, FAULT):
        found = next((error for error in known if error.code == code), None)
        if found is not None:
            return _rejected(found)
    if failure.status == 504:
        return _TIMED_OUT
    if failure.status >= 500 or not (failure.status == 422 or failure.types):
        return _FAULT
    return _invalid_input(failure)


def refusal(failure: Failure) -> SubmitRefused:
    """Say why fal's gateway turned the submission down for good."""
    if failure.status in (400, 422):
        rejected = _POLICY if POLICY in failure.types else _invalid_input(failure)
        return SubmitRefused(rejected.code, rejected.reason)
    error = {404: MODEL_UNAVAILABLE, 413: INPUT_TOO_LARGE}.get(failure.status, PROVIDER_REFUSED)
    return SubmitRefused(error.code, error.sentence())


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
    """Say everything that is to be changed; the code is that of the first that fal names."""
    told = [one for one in failure.details if one.type in ERRORS] or failure.details or [Detail("")]
    sentences = dict.fromkeys(one.sentence for one in told)
    return Rejected(told[0].code, " ".join(list(sentences)[:_SENTENCES_MAX]))


def is_result_of_fal(answer: Answer, shape: ResultShape) -> bool:
    """Whether a result that cannot be used is fal's all the same, and not the JSON of a proxy that says 200."""
    if answer.body is None or _has_header_of_fal(answer):
        return True
    try:
        document = json_values.parse(answer.body)
    except json_values.TooDeep:
        return True
    return isinstance(document, dict) and shape.outputs in document


def _has_header_of_fal(answer: Answer) -> bool:
    return any(name.lower().startswith("x-fal-") for name in answer.headers)


def _has_words_of_fal(answer: Answer, document: Mapping[str, Any]) -> bool:
    detail = document.get("detail")
    if error_type_of(document) or _has_entries_of_fal(detail):
        return True
    if isinstance(detail, str) and _WORDS_OF_FAL.fullmatch(detail):
        return True
    if answer.status == 404 and document.get("status") == "NOT_FOUND":
        return True
    is_named = bool(_word(answer.headers.get("x-fal-error-type")))
    is_of_a_proxy = answer.status in _STATUSES_OF_PROXIES and not is_named
    return detail is not None and _has_header_of_fal(answer) and not is_of_a_proxy


def _has_entries_of_fal(detail: object) -> bool:
    entries = detail if isinstance(detail, list) else []
    return any(isinstance(entry, dict) and ("type" in entry or "msg" in entry) for entry in entries)


def _word(value: object) -> str:
    return value if isinstance(value, str) and TYPE_PATTERN.fullmatch(value) else ""
