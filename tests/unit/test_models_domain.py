"""What a parameter takes, and what fal is sent for it."""

from typing import Any

import pytest

from app.domain.models import Constraint
from app.domain.parameter_values import problem_of
from app.domain.parameters import FalField, Parameter, ParameterType, SizeLimits

WORDS = {"en": "x", "ru": "x"}


def parameter(kind: ParameterType, **said: Any) -> Parameter:
    fal = FalField(name="x")
    return Parameter(name="x", type=kind, group="input", label=WORDS, description=WORDS, fal=fal, **said)


SIZE = parameter(
    ParameterType.SIZE,
    presets={"square": (512, 512)},
    size_limits=SizeLimits(side_min=384, side_max=1440, pixels_min=768 * 768, pixels_max=1440 * 1440, ratio_max=4),
)
IMAGES = parameter(ParameterType.IMAGES, count_max=2)
TEXT = parameter(ParameterType.TEXT, length_min=1, length_max=3)
LENGTH = parameter(ParameterType.INTEGER, values=(5, 10))
SCALE = parameter(ParameterType.NUMBER, minimum=0, maximum=1)


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (SIZE, "square"),
        (SIZE, {"width": 1440, "height": 1440}),
        (IMAGES, ["a", "b"]),
        (TEXT, "abc"),
        (LENGTH, 10),
        (SCALE, 0.5),
        (SCALE, 1),
        (parameter(ParameterType.BOOLEAN), False),
        (parameter(ParameterType.CHOICE, values=("a",)), "a"),
        (parameter(ParameterType.IMAGE), "https://example.com/a.png"),
    ],
)
def test_takes_what_it_may_be(of: Parameter, value: object) -> None:
    assert problem_of(of, value) is None


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (SIZE, "round"),
        (SIZE, {"width": 512, "height": 512}),
        (SIZE, {"width": 1441, "height": 1000}),
        (SIZE, {"width": 1440.0, "height": 1440}),
        (SIZE, {"width": 1440}),
        (SIZE, 5),
        (parameter(ParameterType.SIZE, presets={"square": (1, 1)}), {"width": 1, "height": 1}),
        (IMAGES, []),
        (IMAGES, ["a", "b", "c"]),
        (IMAGES, [1]),
        (TEXT, ""),
        (TEXT, "abcd"),
        (TEXT, None),
        (LENGTH, 5.0),
        (LENGTH, 7),
        (LENGTH, True),
        (SCALE, float("nan")),
        (SCALE, float("inf")),
        (SCALE, -0.1),
        (SCALE, "1"),
        (parameter(ParameterType.BOOLEAN), 1),
        (parameter(ParameterType.CHOICE, values=("a",)), "b"),
        (parameter(ParameterType.CHOICE, values=("a",)), ["a"]),
        (parameter(ParameterType.IMAGE), ""),
    ],
)
def test_says_what_is_wrong_with_everything_else(of: Parameter, value: object) -> None:
    assert problem_of(of, value)


@pytest.mark.parametrize(
    ("fal", "value", "sent"),
    [
        (FalField(name="x"), 5, 5),
        (FalField(name="x", text="{}"), 5, "5"),
        (FalField(name="x", text="{}s"), 8, "8s"),
        (FalField(name="x", values={True: "on", False: 0}), False, 0),
        (FalField(name="x", values={"2K": {"width": 2048}}), "2K", {"width": 2048}),
        (FalField(name="x", values={"2K": 1}), {"width": 7}, {"width": 7}),
        (FalField(name="x", is_list=True), "https://example.com", ["https://example.com"]),
    ],
)
def test_fal_is_sent_its_own_spelling(fal: FalField, value: object, sent: object) -> None:
    answer = fal.of(value)

    assert answer == sent
    assert type(answer) is type(sent)


@pytest.mark.parametrize(
    ("parameters", "is_violated"),
    [
        ({"duration": 8}, False),
        ({"duration": 8, "sound": True}, False),
        ({"duration": 8, "sound": True, "size": "4k", "last": None}, False),
        ({"duration": 6, "sound": True, "size": "4k"}, True),
        ({"sound": True, "size": "4k"}, True),
        ({"duration": 8, "sound": True, "size": "4k", "last": "https://example.com"}, True),
        ({"duration": 6, "sound": 1, "size": "4k"}, False),
        ({"duration": 6, "sound": True, "size": {"width": 1}}, False),
    ],
)
def test_a_combination_that_fails_is_known(parameters: dict[str, object], is_violated: bool) -> None:
    constraint = Constraint(
        when={"sound": frozenset({True}), "size": frozenset({"4k"})},
        require={"duration": frozenset({8})},
        forbid=frozenset({"last"}),
        message=WORDS,
    )

    assert constraint.is_violated_by(parameters) is is_violated
