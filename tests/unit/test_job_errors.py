"""Why a job has no result: every error type of fal has a code and a sentence of ours, and nothing of fal's in it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.application.ports.provider import InProgress, Rejected, Stopped
from app.domain.errors_of_fal import ALL_ERRORS, CODES, ERRORS, ERRORS_OF_FAL
from app.domain.job_errors import JobError
from app.infrastructure.fal.verdicts import Failure, verdict
from app.infrastructure.fal.wire import Answer
from simulator import answers

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a secret prompt"
ARGUMENTS = {
    "prompt": PROMPT,
    "image_urls": ["https://example.com/secret.png"],
    "audio_url": "https://example.com/secret.mp3",
    "video_url": "https://example.com/secret.mp4",
    "num_images": 4,
    "resolution": "1080p",
}
MODEL_ERRORS = {
    "content_policy_violation": ("content_policy_violation", "fal's content policy does not allow"),
    "no_media_generated": ("no_media_generated", "made nothing of this input. Change the prompt"),
    "internal_server_error": ("provider_error", "Your input is not the reason. Try again"),
    "generation_timeout": ("provider_timeout", "Your input is not the reason. Try again"),
    "downstream_service_error": ("provider_error", "Your input is not the reason. Try again"),
    "downstream_service_unavailable": ("provider_error", "Your input is not the reason. Try again"),
    "image_too_small": (
        "image_too_small",
        "in image_urls/0 is too small. It must be at least 512 pixels wide. It must be at least 512 pixels high.",
    ),
    "image_too_large": ("image_too_large", "in image_urls/0 is too large. It may be at most 4096 pixels wide."),
    "image_load_error": ("image_unreadable", "could not open a picture in image_urls/0. Check that it opens"),
    "unsupported_image_format": ("image_format_unsupported", "It takes: .jpg, .png, .webp. Convert it."),
    "face_detection_error": ("face_not_found", "No face was found in a picture in image_urls/0."),
    "file_download_error": ("file_unreachable", "could not download a file in image_urls/0. If you sent a URL"),
    "file_too_large": ("file_too_large", "in image_urls/0 is too large. It may have at most 10485760 bytes (10 MiB)."),
    "invalid_archive": ("archive_unreadable", "It takes: .zip."),
    "archive_file_count_below_minimum": (
        "archive_too_few_files",
        "It needs at least 10. It has 8. Counted are: .jpg, .png. Add some.",
    ),
    "archive_file_count_exceeds_maximum": ("archive_too_many_files", "It may have at most 100. It has 150."),
    "greater_than": ("value_too_small", "A value in num_images is too small. It must be more than 0."),
    "greater_than_equal": ("value_too_small", "A value in num_images is too small. It must be at least 1."),
    "less_than": ("value_too_large", "A value in num_images is too large. It must be less than 5."),
    "less_than_equal": ("value_too_large", "A value in num_images is too large. It may be at most 4."),
    "multiple_of": ("not_a_multiple", "A number in num_images is not a multiple"),
    "sequence_too_short": ("too_short", "in image_urls is too short. fal wants at least 1 characters or items."),
    "sequence_too_long": ("too_long", "in image_urls is too long. fal takes at most 2 of them."),
    "one_of": ("not_one_of", "in resolution is not one of those that fal takes. fal takes: 480p, 720p."),
    "audio_duration_too_long": (
        "audio_too_long",
        "A sound in audio_url is too long. It may take at most 30 seconds. It takes 42.5 seconds.",
    ),
    "audio_duration_too_short": ("audio_too_short", "It must take at least 3 seconds. It takes 1.5 seconds."),
    "unsupported_audio_format": ("audio_format_unsupported", "in audio_url has a format"),
    "video_duration_too_long": ("video_too_long", "It may take at most 60 seconds. It takes 120 seconds."),
    "video_duration_too_short": ("video_too_short", "It must take at least 3 seconds. It takes 1 seconds."),
    "unsupported_video_format": ("video_format_unsupported", "It takes: .mp4, .mov. Convert it."),
    "feature_not_supported": ("feature_not_supported", "This model cannot do what was asked for in prompt."),
    "missing": ("parameter_missing", "fal wants a parameter that is missing in prompt."),
    "string_type": ("wrong_type", "A value in prompt is not of the kind"),
    "value_error": ("unsuitable_value", "A value in prompt does not suit this model."),
    "value_error.missing": ("parameter_missing", "fal wants a parameter that is missing in prompt."),
}


def seen(status: int, body: Any, headers: Any = None) -> InProgress | Stopped | Rejected | None:
    answer = Answer(status, headers or {}, json.dumps(body).encode())
    return verdict(Failure.of(answer, answer.document()))


def rejected(error_type: str, loc: list[Any] | None = None, **ctx: Any) -> Rejected:
    item = {"loc": loc or ["body", "prompt"], "msg": "fal's words", "type": error_type, "ctx": ctx, "input": PROMPT}
    found = seen(422, {"detail": [item]})
    assert isinstance(found, Rejected)
    assert "fal's words" not in found.reason
    assert "secret" not in found.reason
    return found


def simulated(error_type: str) -> InProgress | Stopped | Rejected | None:
    answer = answers.failure(error_type, ARGUMENTS)
    return seen(answer.status_code, answer.body, answer.headers)


@pytest.mark.parametrize("error_type", answers.MODEL_ERRORS)
def test_an_error_of_a_model_says_what_to_change(error_type: str) -> None:
    code, part = MODEL_ERRORS[error_type]

    found = simulated(error_type)

    assert isinstance(found, Rejected)
    assert found.code == code
    assert part in found.reason
    assert "secret" not in found.reason
    assert answers.MODEL_ERRORS[error_type].message not in found.reason


@pytest.mark.parametrize("error_type", answers.INFRASTRUCTURE_ERRORS)
def test_an_error_of_a_request_says_that_the_input_is_not_the_reason(error_type: str) -> None:
    found = simulated(error_type)

    if error_type.startswith("client_"):
        assert isinstance(found, Stopped)
    else:
        assert isinstance(found, Rejected)
        is_timeout = error_type in ("request_timeout", "startup_timeout")
        assert found.code == ("provider_timeout" if is_timeout else "provider_error")
        assert "Your input is not the reason." in found.reason


def test_every_type_of_fal_is_in_the_table_and_in_the_simulator() -> None:
    assert set(MODEL_ERRORS) == set(answers.MODEL_ERRORS)
    assert set(ERRORS_OF_FAL) <= set(answers.MODEL_ERRORS) | set(answers.INFRASTRUCTURE_ERRORS)
    assert set(answers.MODEL_ERRORS) | set(answers.INFRASTRUCTURE_ERRORS) <= set(ERRORS)


@pytest.mark.parametrize("code", CODES)
def test_codes_are_words(code: str) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)


@pytest.mark.parametrize(
    "value",
    [
        "fal's own sentence about a limit",
        True,
        None,
        float("nan"),
        float("inf"),
        10**13,
        -(10**13),
        {"a": 512},
        "512 <script>",
        [],
        ["a sentence of fal"],
        ["x" * 33],
        ["png"] * 31,
        [["png"]],
        [None],
        ["png", "\u0000"],
        ["'; DROP"],
    ],
)
def test_a_limit_that_is_no_plain_number_or_word_is_left_out(value: Any) -> None:
    of_size = rejected("image_too_small", min_width=value, min_height=64)
    of_words = rejected("one_of", expected=value)

    assert of_size.reason == "A picture is too small. It must be at least 64 pixels high. Send a larger one."
    assert of_words.reason == "A value in prompt is not one of those that fal takes. Choose another one."


@pytest.mark.parametrize(
    ("loc", "place"),
    [
        (["body", "image_urls", 1], " in image_urls/1"),
        (["body", "image_url"], " in image_url"),
        (["body", "prompt"], ""),
        (["body", "image_urls", 100], " in image_urls"),
        (["body", "image_urls", True], " in image_urls"),
        (["body", "image_urls", "a secret"], " in image_urls"),
        (["body", "<script>"], ""),
        (["body"], ""),
        ("image_url", ""),
        (None, ""),
        ([["image_url"]], ""),
    ],
)
def test_names_the_parameter_in_our_words_or_none(loc: Any, place: str) -> None:
    item = {"loc": loc, "msg": "x", "type": "image_load_error"}

    found = seen(422, {"detail": [item]})

    assert isinstance(found, Rejected)
    assert found.reason.startswith(f"fal could not open a picture{place}. ")


def test_names_a_side_of_the_size_also_behind_the_name_of_a_class() -> None:
    found = rejected("less_than_equal", ["body", "image_size", "ImageSize", "width"], le=1440)

    assert found.reason == "A value in image_size/width is too large. It may be at most 1440. Send a smaller one."


def test_reads_what_pydantic_expects_in_its_own_form() -> None:
    assert "fal takes: 5, 10. " in rejected("literal_error", expected="'5' or '10'").reason
    assert "fal takes: 5, 10. " in rejected("one_of", expected=[5, 10]).reason
    assert "The limit is 800." in rejected("value_error.any_str.max_length", limit_value=800).reason


def test_says_each_of_several_things_up_to_three_with_the_code_of_the_first() -> None:
    items = [
        {"loc": ["body", name], "type": kind, "ctx": {"le": 4}}
        for name, kind in (
            ("mask", "brand_new"),
            ("num_images", "less_than_equal"),
            ("num_images", "less_than_equal"),
            ("seed", "missing"),
            ("prompt", "string_type"),
            ("duration", "one_of"),
        )
    ]

    found = seen(422, {"detail": items})

    assert isinstance(found, Rejected)
    assert found.code == "value_too_large"
    assert found.reason.count(" in ") == 3


def test_a_fault_of_fal_goes_before_what_it_says_of_the_input() -> None:
    items = [{"loc": ["body", "prompt"], "type": kind} for kind in ("missing", "downstream_service_error")]

    found = seen(422, {"detail": items})

    assert isinstance(found, Rejected)
    assert found.code == "provider_error"


def shown(error: JobError) -> str:
    return error.sentence(None, dict.fromkeys(error.limit_names, "…"))


def test_the_document_lists_every_code_and_sentence_with_its_types() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", (ROOT / "docs/job-errors.md").read_text(), re.MULTILINE)

    listed = {(code, sentence, tuple(re.findall(r"`([^`]+)`", types))) for code, sentence, types in rows}

    types_of = {error: tuple(word for word, one in ERRORS.items() if one == error) for error in ALL_ERRORS}
    assert listed == {(error.code, shown(error), types_of[error]) for error in ALL_ERRORS}
