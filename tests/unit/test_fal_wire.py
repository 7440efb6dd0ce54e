import json
from datetime import UTC, datetime
from typing import Any

import pytest

from app.application.ports.provider import InProgress, InQueue, Observation, Rejected, Succeeded
from app.domain.job_errors import RESULT_INVALID
from app.domain.kinds import GenerationKind
from app.domain.terms import ResultShape
from app.infrastructure.fal import wire
from app.infrastructure.fal.json_values import NotJson
from tests.builders import BUILT_IN, IMAGES_SHAPE, VIDEO_SHAPE

IMAGE, VIDEO = IMAGES_SHAPE, VIDEO_SHAPE
IMAGES = {"images": [{"url": "https://v3b.fal.media/files/b/0a1b2c3d/out.png", "width": 512}], "seeds": [7]}
CLIP = {"video": {"url": "https://v3b.fal.media/files/b/0a1b2c3d/out.mp4", "duration": 5.0}, "seed": 7}


@pytest.mark.parametrize(
    "parameters",
    [
        {"prompt": "a", "duration": "5"},
        {"duration": 10, "seed": 10},
        {"image_size": {"width": 512, "height": 768}},
        {"prompt": "\u00e9\N{GRINNING FACE}\ud800", "flag": True},
    ],
)
def test_gives_fal_the_parameters_as_the_job_has_them(parameters: dict[str, Any]) -> None:
    before = dict(parameters)
    assert json.loads(wire.arguments(parameters)) == before
    assert parameters == before


@pytest.mark.parametrize("duration", [5, 10])
@pytest.mark.parametrize("kind", [kind for kind in GenerationKind if kind.is_video])
def test_fal_is_sent_a_duration_as_text_and_everything_else_as_it_was_given(
    kind: GenerationKind, duration: int
) -> None:
    model = BUILT_IN.default_of(kind)
    given = {"prompt": "a", "seed": duration, "resolution": "480p", "duration": duration}

    assert json.loads(wire.arguments(model.fal_input(model.completed(given)))) == given | {"duration": str(duration)}


@pytest.mark.parametrize("request_id", ["019e1951-c778-7120-8f00-000000000000", "r", "A_1.b-2", "r" * 200])
def test_takes_a_request_id(request_id: str) -> None:
    assert wire.request_id_in({"request_id": request_id}) == request_id


@pytest.mark.parametrize("request_id", ["", ".", "..", "a/b", "a?b", "a b", "a\n", "\u00e9", "r" * 201, 5, None, ["r"]])
def test_takes_nothing_else_for_a_request_id(request_id: object) -> None:
    assert wire.request_id_in({"request_id": request_id}) is None


@pytest.mark.parametrize(
    ("document", "progress"),
    [
        ({"status": "IN_QUEUE", "queue_position": 3}, InQueue(3)),
        ({"status": "IN_QUEUE", "queue_position": 0}, InQueue(0)),
        ({"status": "IN_QUEUE"}, InQueue(None)),
        ({"status": "IN_QUEUE", "queue_position": -1}, InQueue(None)),
        ({"status": "IN_QUEUE", "queue_position": True}, InQueue(None)),
        ({"status": "IN_QUEUE", "queue_position": "3"}, InQueue(None)),
        ({"status": "IN_QUEUE", "queue_position": 10**12}, InQueue(None)),
        ({"status": "IN_PROGRESS", "logs": []}, InProgress()),
    ],
)
def test_reads_the_progress(document: dict[str, Any], progress: Observation) -> None:
    assert wire.progress_in(document) == progress


@pytest.mark.parametrize("word", ["FAILED", "CANCELLED", "completed", "COMPLETED ", "", None, 1, ["COMPLETED"]])
def test_knows_three_status_words(word: object) -> None:
    assert wire.progress_in({"status": word}) is None


@pytest.mark.parametrize(
    ("shape", "result"),
    [
        (IMAGE, IMAGES),
        (IMAGE, {"images": [{"url": "data:image/png;base64,AAAA"}]}),
        (VIDEO, CLIP),
        (VIDEO, {"video": {"url": "HTTP://127.0.0.1:9/out.mp4"}, "unknown": [None]}),
    ],
)
def test_returns_the_result_as_it_is(shape: ResultShape, result: dict[str, Any]) -> None:
    assert wire.result_in(json.dumps(result).encode(), shape) == Succeeded(result)


@pytest.mark.parametrize(
    ("shape", "result"),
    [
        (IMAGE, {}),
        (IMAGE, []),
        (IMAGE, None),
        (IMAGE, CLIP),
        (IMAGE, {"images": {"url": "https://x.example/a.png"}}),
        (IMAGE, {"images": ["https://x.example/a.png"]}),
        (IMAGE, {"images": [{"url": None}]}),
        (IMAGE, {"images": [{"url": "https://x.example/a.png"}, {"url": ""}]}),
        (IMAGE, {"images": [{"url": "javascript:alert(1)"}]}),
        (IMAGE, {"images": [{"url": "https:///a.png"}]}),
        (IMAGE, {"images": [{"url": "https://x.example/a b"}]}),
        (IMAGE, {"images": [{"url": "https://x.example/a\x00"}]}),
        (VIDEO, IMAGES),
        (VIDEO, {"video": []}),
        (VIDEO, {"video": {"url": 5}}),
        (VIDEO, {"video": {"URL": "https://x.example/a.mp4"}}),
    ],
)
def test_rejects_a_result_of_another_form(shape: ResultShape, result: Any) -> None:
    rejected = wire.result_in(json.dumps(result).encode(), shape)
    assert rejected == Rejected(RESULT_INVALID.code, RESULT_INVALID.sentence())


def test_a_result_without_any_image_is_said_to_be_that() -> None:
    rejected = wire.result_in(b'{"images": [], "seed": 7}', IMAGE)

    assert rejected == Rejected(
        "no_media_generated", "The model made nothing of this input. Change the prompt or the pictures."
    )


@pytest.mark.parametrize("body", [None, b'{"images":' + b"[" * 100_000])
def test_rejects_a_result_that_is_too_much(body: bytes | None) -> None:
    rejected = wire.result_in(body, IMAGE)
    assert isinstance(rejected, Rejected)
    assert rejected.code == "result_invalid"


def test_does_not_judge_what_may_have_been_cut_short() -> None:
    with pytest.raises(NotJson):
        wire.result_in(b'{"images": [{"url"', IMAGE)


NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("300", 300.0),
        ("301", 300.0),
        ("999999999", 300.0),
        ("Sun, 01 Nov 2026 12:00:09 GMT", 9.0),
        ("Sun, 01 Nov 2026 13:00:00 GMT", 300.0),
        ("Sun, 01 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 01 Nov 2026 12:00:09 -0000", 9.0),
        ("", None),
        ("-1", None),
        ("1e9", None),
        ("nan", None),
        ("soon", None),
        ("9" * 5000, None),
        ("Sun, 99 Nov 2026 12:00:00 GMT", None),
        ("Sun, 01 Nov 99999999999999999999 12:00:00 GMT", None),
    ],
)
def test_reads_when_to_come_back(value: str, seconds: float | None) -> None:
    assert wire.pause_seconds({"retry-after": value}, NOW) == seconds


def test_reads_no_time_where_none_is_named() -> None:
    assert wire.pause_seconds({}) is None
