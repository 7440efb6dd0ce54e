"""What a job was asked for, read back from what fal is sent: for every model, whatever its spelling."""

import json
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest

from app.domain.files import KeptReference, reference_in
from app.domain.given_parameters import given_parameters
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.domain.outputs import OutputId
from app.domain.parameters import FalField, Parameter, ParameterType
from tests.builders import BUILT_IN
from tests.property.parameter_sets import CATALOGUE, parameter_set

FILE_ID = UUID("019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61")
OTHER_ID = UUID("019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d62")
EDIT = BUILT_IN.default_of(GenerationKind.IMAGE_TO_IMAGE)
ANIMATE = BUILT_IN.default_of(GenerationKind.IMAGE_TO_VIDEO)
DATA_URI = "data:image/png;base64,AAAA"
SETS = 20


def mark(file_id: UUID | None = None) -> dict[str, object]:
    named = {} if file_id is None else {"file_id": str(file_id)}
    return {**named, "content_type": "image/png", "sha256": "ab" * 32, "size_bytes": 7}


@pytest.mark.parametrize("model", CATALOGUE.models, ids=lambda model: model.id)
def test_what_was_asked_for_comes_back_with_what_was_filled_in(model: Model) -> None:
    numbers = Random(model.id)
    for _ in range(SETS):
        completed = parameter_set(numbers, model).completed
        # As the row has it.
        sent = json.loads(json.dumps(model.fal_input(completed, is_checked=model.safety_switch is not None)))

        given = given_parameters(model, sent, {})

        assert given == completed
        assert [type(value) for value in given.values()] == [type(completed[name]) for name in given]


def test_kept_files_are_named_as_a_request_names_them() -> None:
    references: dict[str, KeptReference] = {str(FILE_ID): FILE_ID, str(OTHER_ID): OutputId(FILE_ID, 3)}
    urls = [mark(FILE_ID), "https://example.com/a.png", mark(OTHER_ID)]

    given = given_parameters(EDIT, {"prompt": "a fox", "image_urls": urls}, references)

    assert given["image_urls"] == [f"file:{FILE_ID}", "https://example.com/a.png", f"output:{FILE_ID}/3"]
    assert [reference_in(each) for each in given["image_urls"]] == [FILE_ID, None, OutputId(FILE_ID, 3)]


def test_null_stands_for_what_is_gone_and_for_bytes() -> None:
    urls = [mark(FILE_ID), mark(), DATA_URI, DATA_URI.upper()]

    assert given_parameters(EDIT, {"image_urls": urls}, {}) == {"image_urls": [None] * 4}
    assert given_parameters(ANIMATE, {"image_url": DATA_URI}, {}) == {"image_url": None}
    assert given_parameters(ANIMATE, {"image_url": mark(FILE_ID)}, {}) == {"image_url": None}


def test_a_text_may_look_like_a_picture() -> None:
    assert given_parameters(EDIT, {"prompt": DATA_URI}, {}) == {"prompt": DATA_URI}
    # If it was long, only its digest is left, which nobody is shown.
    assert given_parameters(EDIT, {"prompt": mark()}, {}) == {"prompt": None}


def test_what_the_operator_sends_along_is_not_told() -> None:
    model = replace(EDIT, fixed={"loras": ["https://private.example.com"], "negative_prompt": "ours"})
    sent = {"prompt": "a fox", **model.fixed, "sync_mode": True, "seed": None}

    assert given_parameters(model, sent, {}) == {"prompt": "a fox"}


def test_of_a_model_that_is_sold_no_more_the_prompt_is_told() -> None:
    assert given_parameters(None, {"prompt": "a fox", "loras": ["https://private.example.com"]}, {}) == {
        "prompt": "a fox"
    }
    assert given_parameters(None, {"prompt": mark()}, {}) == {}


@pytest.mark.parametrize(
    ("fal", "type_", "sent", "given"),
    [
        (FalField(name="x", text="{}s"), ParameterType.INTEGER, "8s", 8),
        (FalField(name="x", text="{}"), ParameterType.INTEGER, "10", 10),
        (FalField(name="x", text="{}p"), ParameterType.CHOICE, "720p", "720"),
        (FalField(name="x", values={"fast": "FAST"}), ParameterType.CHOICE, "FAST", "fast"),
        (FalField(name="x", values={"fast": "FAST"}), ParameterType.CHOICE, "slow", "slow"),
        (FalField(name="x", values={"on": 1, "yes": True}), ParameterType.CHOICE, True, "yes"),
        (FalField(name="x", values={1: "one"}, text="{}!"), ParameterType.INTEGER, "one!", 1),
        (FalField(name="x", is_list=True), ParameterType.IMAGE, ["a"], "a"),
        # Of an older release of the catalogue, which spelled it in another way.
        (FalField(name="x", text="{}s"), ParameterType.INTEGER, 8, 8),
        (FalField(name="x", is_list=True), ParameterType.IMAGE, "a", "a"),
    ],
)
def test_a_spelling_is_undone(fal: FalField, type_: ParameterType, sent: object, given: object) -> None:
    parameter = Parameter(name="x", type=type_, group="input", label={}, description={}, fal=fal)

    assert parameter.given_for(sent) == given
    assert type(parameter.given_for(sent)) is type(given)
