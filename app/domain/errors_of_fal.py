"""Every error that fal knows, with the code and the sentence that a job ends with.

The one table: settlement, the OpenAPI document and docs/job-errors.md read it.
"""

from collections.abc import Collection, Mapping

from app.domain.job_errors import (
    CANCELED,
    FILES,
    FILMS,
    NO_MEDIA,
    OWN_ERRORS,
    PICTURES,
    SOUNDS,
    TRY_AGAIN,
    JobError,
)

POLICY = "content_policy_violation"
TIMEOUT = "provider_timeout"
FAULT = "provider_error"


def _timeout(reason: str) -> JobError:
    return JobError(TIMEOUT, reason, TRY_AGAIN)


def _fault(reason: str) -> JobError:
    return JobError(FAULT, reason, TRY_AGAIN)


def _about(about: Collection[str], code: str, reason: str, advice: str, *limits: str) -> JobError:
    return JobError(code, reason, advice, limits, about)


def _value(code: str, reason: str, advice: str, *limits: str) -> JobError:
    return JobError(code, reason, advice, limits)


TIMED_OUT_AT_PROVIDER = _timeout("fal did not finish this generation within its own time limit.")
FAULT_OF_PROVIDER = _fault("fal could not run this generation: something went wrong at fal.")
INVALID_INPUT = _value(
    "invalid_input", "fal did not accept the input{place}.", "Change it, or leave out what is not required."
)
UNKNOWN_MODEL = JobError(FAULT, "fal does not offer this model.", "Choose another one, or tell the operator.")
POLICY_VIOLATION = JobError(
    POLICY, "fal's content policy does not allow this input or its result.", "Change the prompt or the pictures."
)
MODEL_UNAVAILABLE = JobError("model_unavailable", UNKNOWN_MODEL.reason, UNKNOWN_MODEL.advice)
INPUT_TOO_LARGE = JobError(
    "input_too_large", "The input is larger than fal takes.", "Send smaller files, or their URLs."
)
PROVIDER_REFUSED = JobError("provider_refused", "fal refused this request.", "Tell the operator if it happens again.")

_TOO_SMALL = "A value{place} is too small."
_TOO_LARGE = "A value{place} is too large."
_NOT_OF_TYPE = _value("wrong_type", "A value{place} is not of the kind that fal wants.", "Send it as documented.")
_MISSING = _value("parameter_missing", "fal wants a parameter that is missing{place}.", "Send it, too.")
_TOO_SHORT = _value(
    "too_short",
    "A text or list{place} is too short.",
    "Make it longer.",
    "fal wants at least {min_length} characters or items.",
)
_TOO_LONG = _value(
    "too_long", "A text or list{place} is too long.", "Make it shorter.", "fal takes at most {max_length} of them."
)
_NOT_ONE_OF = _value(
    "not_one_of", "A value{place} is not one of those that fal takes.", "Choose another one.", "fal takes: {expected}."
)
_UNKNOWN = _value("unknown_parameter", "fal does not know a parameter{place}.", "Leave it out.")
_LIMIT = "The limit is {limit_value}."
_UNSUITABLE = _value("unsuitable_value", "A value{place} does not suit this model.", "Send another one.")

# By fal's error type, and in fal's order: https://docs.fal.ai/errors, both its request errors and its model errors, and
# then what pydantic, of either major version, says in apps that do not translate it.
ERRORS_OF_FAL: Mapping[str, JobError] = {
    "request_timeout": _timeout("fal did not finish this generation within its own time limit."),
    "startup_timeout": _timeout("fal could not start a machine for this generation in time."),
    "runner_scheduling_failure": _fault("fal found no machine for this generation."),
    "runner_connection_timeout": _fault("fal could not reach the machine of this generation in time."),
    "runner_connection_refused": _fault("The machine of this generation did not answer fal."),
    "runner_connection_error": _fault("fal could not reach the machine of this generation."),
    "runner_disconnected": _fault("fal lost the machine that worked on this generation."),
    "runner_incomplete_response": _fault("fal got only a part of the result."),
    "runner_server_error": _fault("The model failed at fal while it worked on this generation."),
    "client_disconnected": CANCELED,
    "client_cancelled": CANCELED,
    "bad_request": JobError(
        FAULT, "fal could not read the request of this service.", "Your input is not the reason. Tell the operator."
    ),
    "internal_error": FAULT_OF_PROVIDER,
    "internal_server_error": _fault("The model failed at fal while it worked on this generation."),
    "generation_timeout": _timeout("The model took longer than fal lets it."),
    "downstream_service_error": _fault("A service that fal uses for this model failed."),
    "downstream_service_unavailable": _fault("A service that fal uses for this model is not available right now."),
    POLICY: POLICY_VIOLATION,
    "no_media_generated": NO_MEDIA,
    "image_too_small": _about(
        PICTURES,
        "image_too_small",
        "A picture{place} is too small.",
        "Send a larger one.",
        "It must be at least {min_width} pixels wide.",
        "It must be at least {min_height} pixels high.",
    ),
    "image_too_large": _about(
        PICTURES,
        "image_too_large",
        "A picture{place} is too large.",
        "Send a smaller one.",
        "It may be at most {max_width} pixels wide.",
        "It may be at most {max_height} pixels high.",
    ),
    "image_load_error": _about(
        PICTURES,
        "image_unreadable",
        "fal could not open a picture{place}.",
        "Check that it opens elsewhere, and send it as PNG, JPEG or WebP.",
    ),
    "unsupported_image_format": _about(
        PICTURES,
        "image_format_unsupported",
        "A picture{place} has a format that this model does not take.",
        "Convert it.",
        "It takes: {supported_formats}.",
    ),
    "face_detection_error": _about(
        PICTURES,
        "face_not_found",
        "No face was found in a picture{place}.",
        "Send one in which a face can be seen well.",
    ),
    "file_download_error": _about(
        FILES,
        "file_unreachable",
        "fal could not download a file{place}.",
        "If you sent a URL, it must open for anybody without signing in. "
        "If you sent the file itself, start the job again.",
    ),
    "file_too_large": _about(
        FILES,
        "file_too_large",
        "A file{place} is too large.",
        "Send a smaller one.",
        "It may have at most {max_size}.",
    ),
    "invalid_archive": JobError(
        "archive_unreadable",
        "fal could not open an archive.",
        "Pack it again.",
        ("It takes: {supported_extensions}.",),
    ),
    "archive_file_count_below_minimum": JobError(
        "archive_too_few_files",
        "An archive has too few files.",
        "Add some.",
        ("It needs at least {min_count}.", "It has {provided_count}.", "Counted are: {supported_extensions}."),
    ),
    "archive_file_count_exceeds_maximum": JobError(
        "archive_too_many_files",
        "An archive has too many files.",
        "Remove some.",
        ("It may have at most {max_count}.", "It has {provided_count}.", "Counted are: {supported_extensions}."),
    ),
    "greater_than": _value("value_too_small", _TOO_SMALL, "Send a larger one.", "It must be more than {gt}."),
    "greater_than_equal": _value("value_too_small", _TOO_SMALL, "Send a larger one.", "It must be at least {ge}."),
    "less_than": _value("value_too_large", _TOO_LARGE, "Send a smaller one.", "It must be less than {lt}."),
    "less_than_equal": _value("value_too_large", _TOO_LARGE, "Send a smaller one.", "It may be at most {le}."),
    "multiple_of": _value(
        "not_a_multiple",
        "A number{place} is not a multiple of what this model wants.",
        "Send another one.",
        "It must be a multiple of {multiple_of}.",
    ),
    "sequence_too_short": _TOO_SHORT,
    "sequence_too_long": _TOO_LONG,
    "one_of": _NOT_ONE_OF,
    "audio_duration_too_long": _about(
        SOUNDS,
        "audio_too_long",
        "A sound{place} is too long.",
        "Send a shorter one.",
        "It may take at most {max_duration} seconds.",
        "It takes {provided_duration} seconds.",
    ),
    "audio_duration_too_short": _about(
        SOUNDS,
        "audio_too_short",
        "A sound{place} is too short.",
        "Send a longer one.",
        "It must take at least {min_duration} seconds.",
        "It takes {provided_duration} seconds.",
    ),
    "unsupported_audio_format": _about(
        SOUNDS,
        "audio_format_unsupported",
        "A sound{place} has a format that this model does not take.",
        "Convert it.",
        "It takes: {supported_formats}.",
    ),
    "video_duration_too_long": _about(
        FILMS,
        "video_too_long",
        "A film{place} is too long.",
        "Send a shorter one.",
        "It may take at most {max_duration} seconds.",
        "It takes {provided_duration} seconds.",
    ),
    "video_duration_too_short": _about(
        FILMS,
        "video_too_short",
        "A film{place} is too short.",
        "Send a longer one.",
        "It must take at least {min_duration} seconds.",
        "It takes {provided_duration} seconds.",
    ),
    "unsupported_video_format": _about(
        FILMS,
        "video_format_unsupported",
        "A film{place} has a format that this model does not take.",
        "Convert it.",
        "It takes: {supported_formats}.",
    ),
    "feature_not_supported": _value(
        "feature_not_supported",
        "This model cannot do what was asked for{place}.",
        "Leave it out, or combine it with other parameters.",
    ),
}

# What pydantic, of either major version, says in apps that do not translate it.
_WORDS_OF_PYDANTIC: Mapping[JobError, str] = {
    _MISSING: "missing value_error.missing",
    _NOT_OF_TYPE: "string_type int_type float_type bool_type list_type dict_type model_type model_attributes_type "
    "int_parsing int_from_float float_parsing bool_parsing finite_number none_required url_type type_error.str "
    "type_error.integer type_error.float type_error.bool type_error.list type_error.dict type_error.none.not_allowed",
    _TOO_SHORT: "string_too_short too_short",
    _TOO_LONG: "string_too_long too_long",
    _value("too_short", _TOO_SHORT.reason, _TOO_SHORT.advice, _LIMIT): "value_error.any_str.min_length "
    "value_error.list.min_items",
    _value("too_long", _TOO_LONG.reason, _TOO_LONG.advice, _LIMIT): "value_error.any_str.max_length "
    "value_error.list.max_items",
    _value("value_too_small", _TOO_SMALL, "Send a larger one.", _LIMIT): "value_error.number.not_gt "
    "value_error.number.not_ge",
    _value("value_too_large", _TOO_LARGE, "Send a smaller one.", _LIMIT): "value_error.number.not_lt "
    "value_error.number.not_le",
    _NOT_ONE_OF: "literal_error enum value_error.const type_error.enum",
    _UNKNOWN: "extra_forbidden value_error.extra",
    _UNSUITABLE: "value_error assertion_error input_value_error string_pattern_mismatch value_error.str.regex "
    "url_parsing url_scheme url_too_long value_error.url.scheme",
}
ERRORS: Mapping[str, JobError] = {
    **ERRORS_OF_FAL,
    **{word: error for error, words in _WORDS_OF_PYDANTIC.items() for word in words.split()},
}
"""By the type that fal gives to an error."""

ALL_ERRORS: Collection[JobError] = dict.fromkeys(
    [
        *(POLICY_VIOLATION, TIMED_OUT_AT_PROVIDER, FAULT_OF_PROVIDER, INVALID_INPUT),
        *ERRORS.values(),
        *(UNKNOWN_MODEL, MODEL_UNAVAILABLE, INPUT_TOO_LARGE, PROVIDER_REFUSED),
        *OWN_ERRORS,
    ]
)
CODES: Collection[str] = dict.fromkeys(error.code for error in ALL_ERRORS)
