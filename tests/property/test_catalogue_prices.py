"""Of every model of the service: any request that it takes has a price within what is shown, and gives back no more."""

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.domain.models import COUNT, SECONDS, Model
from app.domain.parameter_values import problem_of
from app.domain.parameters import Parameter, ParameterType
from app.domain.pricing import price
from app.infrastructure.catalogue.reading import read_catalogue

MODELS = read_catalogue().models


def values_of(parameter: Parameter) -> st.SearchStrategy[Any]:
    if parameter.choices is not None:
        return st.sampled_from(list(parameter.choices))
    match parameter.type:
        case ParameterType.SIZE:
            sides = st.integers(parameter.size_limits.side_min, parameter.size_limits.side_max)  # type: ignore[union-attr]
            sizes = st.builds(lambda width, height: {"width": width, "height": height}, sides, sides)
            return (sizes | st.sampled_from(list(parameter.presets))).filter(
                lambda it: problem_of(parameter, it) is None
            )
        case ParameterType.INTEGER:
            return st.integers(int(parameter.minimum or 0), int(parameter.maximum or 0))
        case ParameterType.NUMBER:
            return st.floats(parameter.minimum, parameter.maximum)
        case ParameterType.IMAGES:
            return st.just(["https://example.com/1.jpg"] * parameter.count_min)
        case _:
            return st.just("https://example.com/1.jpg")


@st.composite
def requests(draw: st.DrawFn) -> tuple[Model, dict[str, Any]]:
    model = draw(st.sampled_from(MODELS))
    given = {
        name: draw(values_of(parameter))
        for name, parameter in model.parameters.items()
        if parameter.is_required or draw(st.booleans())
    }
    assume(model.violated(model.completed(given)) is None)
    return model, given


@settings(deadline=None, max_examples=400)
@given(requests())
def test_a_request_costs_what_is_shown_and_its_lines_add_up(request: tuple[Model, dict[str, Any]]) -> None:
    model, given_parameters = request
    parameters = model.completed(given_parameters)
    lines = model.price_lines(parameters)

    assert list(lines) == list(price(model.prices, parameters, model.quantities(parameters)))
    assert all(type(line.tokens) is int and line.tokens > 0 for line in lines)
    assert model.from_tokens <= sum(line.tokens for line in lines) == model.tokens(parameters) <= model.to_tokens


@settings(deadline=None, max_examples=400)
@given(requests(), st.data())
def test_more_of_it_never_costs_less(request: tuple[Model, dict[str, Any]], data: st.DataObject) -> None:
    model, given_parameters = request
    name = data.draw(st.sampled_from([COUNT, SECONDS]))
    parameter = model.parameters.get(name)
    assume(parameter is not None)
    assert parameter is not None
    low, high = sorted([data.draw(values_of(parameter)), data.draw(values_of(parameter))])

    costs = [model.tokens(model.completed({**given_parameters, name: value})) for value in (low, high)]
    assert costs == sorted(costs)


@settings(deadline=None, max_examples=400)
@given(requests(), st.data())
def test_what_goes_back_is_never_below_nothing_and_never_above_the_charge(
    request: tuple[Model, dict[str, Any]], data: st.DataObject
) -> None:
    model, given_parameters = request
    terms = model.terms(model.completed(given_parameters))
    files = [
        {"url": "https://example.com/o.png", "width": data.draw(st.integers(-5, 9000)), "height": 700}
        for _ in range(data.draw(st.integers(0, 8)))
    ]
    result = {"images": files, "video": files[0] if files else None, "has_nsfw_concepts": data.draw(_FLAGS)}

    back = terms.refund_for(result)
    charged = {line.line: line.tokens for line in terms.lines}
    assert back is None or all(0 < tokens <= charged[line] for line, tokens in back.items())


_FLAGS = st.none() | st.booleans() | st.lists(st.booleans(), max_size=8)
