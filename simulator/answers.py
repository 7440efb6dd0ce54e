"""What fal answers when something is wrong; the one place with fal's wording."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

BILLABLE_UNITS_HEADER = "x-fal-billable-units"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status code, body (JSON, or HTML where it is text) and headers.

    `is_marked`: it carries the id of the request, although it is not of fal.
    """

    status_code: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    is_marked: bool = False


class Refused(Exception):
    """Carries the answer that ends the handling of a call."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


# Refusals of the gateway.

UNKNOWN_KEY = Answer(401, {"detail": "No user found for Key ID and Secret"})
MALFORMED_KEY = Answer(401, {"detail": "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'."})
LOCKED = Answer(
    403,
    {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."},
)
UNKNOWN_REQUEST = Answer(404, {"status": "NOT_FOUND"})
FILE_NOT_FOUND = Answer(404, {"detail": "File not found"})
STILL_IN_PROGRESS = Answer(400, {"detail": "Request is still in progress"})
CANCELLATION_REQUESTED = Answer(202, {"status": "CANCELLATION_REQUESTED"})
ALREADY_COMPLETED = Answer(400, {"status": "ALREADY_COMPLETED"})
METHOD_NOT_ALLOWED = Answer(405, {"detail": "Method Not Allowed"})
# fal documents the code but not the body of a 429.
TOO_MANY_REQUESTS = Answer(
    429,
    {"detail": "Too many requests", "error_type": "concurrent_requests_limit"},
    {"x-fal-needs-retry": "1"},
)


def missing_key(app_id: str) -> Answer:
    return Answer(
        401,
        {"detail": f'Cannot access application "{app_id}". Authentication is required to access this application.'},
    )


def unknown_application(alias: str) -> Answer:
    return Answer(404, {"detail": f'Application "{alias}" not found'})


def unknown_path(path: str) -> Answer:
    return Answer(404, {"detail": f"Path /{path} not found"}, {BILLABLE_UNITS_HEADER: "0"})


def ingress_page(status_code: int) -> Answer:
    """The page of the proxy in front of fal: HTML that names nginx, no header of fal."""
    reason = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
    title = f"{status_code} {reason.get(status_code, 'Error')}"
    return Answer(
        status_code,
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
    )


def ingress_words(status_code: int) -> Answer:
    """What Envoy says."""
    words = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
    return Answer(status_code, words, {"content-type": "text/plain"})


def ingress_json(status_code: int) -> Answer:
    """The JSON of a proxy: not fal's, though it has a `detail`, too. As text, so that it gets no header of fal."""
    return Answer(status_code, '{"detail": "upstream timeout"}', {"content-type": "application/json"})


def ingress_silence(status_code: int) -> Answer:
    return Answer(status_code, "")


# Failures of the infrastructure: a flat body with a header.

INFRASTRUCTURE_ERRORS = {
    "request_timeout": (504, "Request timed out"),
    "startup_timeout": (504, "Runner did not start in time"),
    "runner_scheduling_failure": (503, "No runner could be scheduled for the request"),
    "runner_connection_timeout": (503, "Connection to the runner timed out"),
    "runner_connection_refused": (503, "The runner refused the connection"),
    "runner_connection_error": (503, "Connection to the runner failed"),
    "runner_disconnected": (503, "The runner disconnected"),
    "runner_incomplete_response": (502, "Runner returned an incomplete response"),
    "runner_server_error": (500, "Runner failed to process the request"),
    "internal_error": (500, "Internal Server Error"),
    "client_cancelled": (499, "Request cancelled by the client."),
    "client_disconnected": (499, "The client disconnected."),
    "bad_request": (400, "The request is not valid"),
}


# A 504 that the caller's own limit for the start has caused.
MISSED_START_HEADERS = {"x-fal-request-timeout-type": "user"}


def infrastructure_error(error_type: str, headers: Mapping[str, str] | None = None) -> Answer:
    status_code, detail = INFRASTRUCTURE_ERRORS[error_type]
    body = {"detail": detail, "error_type": error_type}
    return Answer(status_code, body, {"x-fal-error-type": error_type, **(headers or {})})


# Failures of the model: a list of details.

MODEL_ERRORS = {
    "content_policy_violation": (
        422,
        "The content could not be processed because it was flagged by a content checker.",
    ),
    "no_media_generated": (422, "The model did not generate any media."),
    "internal_server_error": (500, "Internal server error"),
    "generation_timeout": (504, "The generation timed out."),
    "downstream_service_error": (500, "A downstream service returned an error."),
    "downstream_service_unavailable": (500, "A downstream service is unavailable."),
    "file_download_error": (422, "Failed to download the file."),
    "file_too_large": (422, "The file is too large."),
    "image_load_error": (422, "Failed to load the image."),
    "image_too_large": (422, "The image is too large."),
}


def model_error(
    error_type: str,
    *,
    loc: Sequence[str | int] = ("body", "prompt"),
    ctx: Mapping[str, Any] | None = None,
    value: object = None,
) -> Answer:
    status_code, message = MODEL_ERRORS[error_type]
    detail: dict[str, Any] = {"loc": list(loc), "msg": message, "type": error_type}
    if ctx is not None:
        detail["ctx"] = ctx
    detail["url"] = f"https://docs.fal.ai/errors/#{error_type}"
    detail["input"] = value
    return model_errors([detail], status_code)


def model_errors(details: list[dict[str, Any]], status_code: int = 422) -> Answer:
    # fal does not bill 5xx and puts no units on them; a 422 says 0 unless the app used its hardware.
    headers = {BILLABLE_UNITS_HEADER: "0"} if status_code < 500 else {}
    return Answer(status_code, {"detail": details}, headers)


# The codes that the ingress before fal answers with a page of its own, where nothing else is asked for.
_INGRESS_CODES = frozenset({502, 503, 504})
_INGRESS_FORMS = {"page-": ingress_page, "text-": ingress_words, "json-": ingress_json, "empty-": ingress_silence}
_ERROR_TYPES_BY_CODE = {
    400: "bad_request",
    499: "client_cancelled",
    500: "internal_error",
    502: "runner_incomplete_response",
    503: "runner_scheduling_failure",
    504: "request_timeout",
}


def refusal(operation: str, status_code: int, form: str = "") -> Answer:
    """What `[OPERATION:CODE]` asks for; `form` is `fal-` for fal's own JSON, or one of `_INGRESS_FORMS`."""
    if not form and status_code in _INGRESS_CODES:
        return ingress_page(status_code)
    if form.removeprefix("marked-") in _INGRESS_FORMS:
        answer = _INGRESS_FORMS[form.removeprefix("marked-")](status_code)
        return replace(answer, is_marked=form.startswith("marked-"))
    if form == "fal-":
        return _marked(status_code)
    usual: dict[tuple[str, int], Answer] = {
        ("submit", 422): model_error("content_policy_violation"),
        ("result", 422): model_error("content_policy_violation"),
        ("result", 400): STILL_IN_PROGRESS,
        ("status", 404): UNKNOWN_REQUEST,
        ("result", 404): UNKNOWN_REQUEST,
        ("cancel", 404): UNKNOWN_REQUEST,
        ("cancel", 400): ALREADY_COMPLETED,
    }
    known = {401: UNKNOWN_KEY, 403: LOCKED, 429: TOO_MANY_REQUESTS}
    return usual.get((operation, status_code)) or known.get(status_code) or _marked(status_code)


def _marked(status_code: int) -> Answer:
    error_type = _ERROR_TYPES_BY_CODE.get(status_code)
    if error_type is not None:
        return infrastructure_error(error_type)
    return Answer(status_code, {"detail": "Refused on request of the prompt"})
