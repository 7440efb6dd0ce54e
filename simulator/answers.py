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


@dataclass(frozen=True, slots=True)
class ModelError:
    """`places`: the parameters that it can be about; the first that a request has is named."""

    status_code: int
    message: str
    places: Sequence[str] = ("prompt",)
    ctx: Mapping[str, Any] | None = None


_PICTURES = ("image_urls", "image_url", "prompt")
_SOUNDS = ("audio_url", "prompt")
_FILMS = ("video_url", "prompt")
_FILES = ("image_urls", "image_url", "audio_url", "prompt")
_NUMBERS = ("num_images", "seed", "prompt")
_LISTS = ("image_urls", "prompt")
_EXTENSIONS = {"supported_extensions": [".jpg", ".png"]}

MODEL_ERRORS: Mapping[str, ModelError] = {
    "content_policy_violation": ModelError(
        422, "The content could not be processed because it was flagged by a content checker."
    ),
    "no_media_generated": ModelError(422, "The model did not generate any media."),
    "internal_server_error": ModelError(500, "Internal server error"),
    "generation_timeout": ModelError(504, "The generation timed out."),
    "downstream_service_error": ModelError(500, "A downstream service returned an error."),
    "downstream_service_unavailable": ModelError(500, "A downstream service is unavailable."),
    "image_too_small": ModelError(422, "Image too small", _PICTURES, {"min_height": 512, "min_width": 512}),
    "image_too_large": ModelError(422, "Image too large", _PICTURES, {"max_height": 4096, "max_width": 4096}),
    "image_load_error": ModelError(422, "Failed to load the image.", _PICTURES),
    "unsupported_image_format": ModelError(
        422, "Unsupported image format", _PICTURES, {"supported_formats": [".jpg", ".png", ".webp"]}
    ),
    "face_detection_error": ModelError(422, "Could not detect face in the image", _PICTURES),
    "file_download_error": ModelError(422, "Failed to download the file.", _FILES),
    "file_too_large": ModelError(422, "The file is too large.", _FILES, {"max_size": 10485760}),
    "invalid_archive": ModelError(422, "Could not read the archive.", ctx={"supported_extensions": [".zip"]}),
    "archive_file_count_below_minimum": ModelError(
        422, "Too few files in the archive.", ctx={"min_count": 10, "provided_count": 8, **_EXTENSIONS}
    ),
    "archive_file_count_exceeds_maximum": ModelError(
        422, "Too many files in the archive.", ctx={"max_count": 100, "provided_count": 150, **_EXTENSIONS}
    ),
    "greater_than": ModelError(422, "Input should be greater than 0", _NUMBERS, {"gt": 0}),
    "greater_than_equal": ModelError(422, "Input should be greater than or equal to 1", _NUMBERS, {"ge": 1}),
    "less_than": ModelError(422, "Input should be less than 5", _NUMBERS, {"lt": 5}),
    "less_than_equal": ModelError(422, "Input should be less than or equal to 4", _NUMBERS, {"le": 4}),
    "multiple_of": ModelError(422, "Input should be a multiple of 8", _NUMBERS, {"multiple_of": 8}),
    "sequence_too_short": ModelError(422, "Sequence should have at least 1 items", _LISTS, {"min_length": 1}),
    "sequence_too_long": ModelError(422, "Sequence should have at most 2 items", _LISTS, {"max_length": 2}),
    "one_of": ModelError(
        422, "Input should be '480p' or '720p'", ("resolution", "prompt"), {"expected": ["480p", "720p"]}
    ),
    "audio_duration_too_long": ModelError(
        422, "Audio duration is too long.", _SOUNDS, {"max_duration": 30, "provided_duration": 42.5}
    ),
    "audio_duration_too_short": ModelError(
        422, "Audio duration is too short.", _SOUNDS, {"min_duration": 3, "provided_duration": 1.5}
    ),
    "unsupported_audio_format": ModelError(
        422, "Unsupported audio format", _SOUNDS, {"supported_formats": [".mp3", ".wav"]}
    ),
    "video_duration_too_long": ModelError(
        422, "Video duration is too long.", _FILMS, {"max_duration": 60, "provided_duration": 120}
    ),
    "video_duration_too_short": ModelError(
        422, "Video duration is too short.", _FILMS, {"min_duration": 3, "provided_duration": 1}
    ),
    "unsupported_video_format": ModelError(
        422, "Unsupported video format", _FILMS, {"supported_formats": [".mp4", ".mov"]}
    ),
    "feature_not_supported": ModelError(422, "Feature not supported"),
    "missing": ModelError(422, "Field required"),
    "string_type": ModelError(422, "Input should be a valid string"),
    "value_error": ModelError(422, "Value error, the input is not valid"),
    "value_error.missing": ModelError(422, "field required"),
}


def model_error(
    error_type: str,
    *,
    loc: Sequence[str | int] = ("body", "prompt"),
    ctx: Mapping[str, Any] | None = None,
    value: object = None,
) -> Answer:
    error = MODEL_ERRORS[error_type]
    detail: dict[str, Any] = {"loc": list(loc), "msg": error.message, "type": error_type}
    if ctx is not None:
        detail["ctx"] = ctx
    detail["url"] = f"https://docs.fal.ai/errors/#{error_type}"
    detail["input"] = value
    return model_errors([detail], error.status_code)


def model_error_about(error_type: str, arguments: object) -> Answer:
    """The error as it would be about one of these arguments."""
    error = MODEL_ERRORS[error_type]
    given = arguments if isinstance(arguments, dict) else {}
    place = next((name for name in error.places if name in given), error.places[0])
    value = given.get(place)
    loc: list[str | int] = ["body", place]
    if isinstance(value, list) and value and error.places != _LISTS:
        loc, value = [*loc, 0], value[0]
    return model_error(error_type, loc=loc, ctx=error.ctx, value=value)


def failure(error_type: str, arguments: object) -> Answer:
    """Whatever fal calls so."""
    if error_type in INFRASTRUCTURE_ERRORS:
        return infrastructure_error(error_type)
    return model_error_about(error_type, arguments)


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
        ("media", 404): FILE_NOT_FOUND,
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
