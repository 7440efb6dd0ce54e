"""Prices as data: lines that add up, grow with what is asked for, and give back what did not come."""

from fractions import Fraction
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.pricing import (
    PriceLine,
    PriceRule,
    Quantities,
    Unit,
    delivered,
    megapixels_of,
    price,
    refunded,
    total_tokens,
)

RESOLUTIONS = ("480p", "720p", "1080p")
factors = st.dictionaries(
    st.sampled_from(RESOLUTIONS), st.fractions(min_value=Fraction(1, 8), max_value=8, max_denominator=12)
)
rules = st.lists(
    st.builds(
        PriceRule,
        line=st.text("abc", min_size=1),
        unit=st.sampled_from(Unit),
        tokens=st.integers(1, 10_000),
        after=st.integers(0, 3),
        when=st.dictionaries(st.just("sound"), st.frozensets(st.booleans(), min_size=1)),
        factors=st.dictionaries(st.just("resolution"), factors),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda rule: rule.line,
)
parameters = st.fixed_dictionaries({"sound": st.booleans(), "resolution": st.sampled_from(RESOLUTIONS)})
quantities = st.builds(
    Quantities, megapixels=st.lists(st.integers(1, 16), min_size=1, max_size=6), seconds=st.integers(0, 30)
)


@given(rules, parameters, quantities)
@settings(max_examples=500)
def test_lines_are_whole_positive_and_rounded_up_once(
    rules: list[PriceRule], parameters: dict[str, object], quantities: Quantities
) -> None:
    lines = price(rules, parameters, quantities)

    assert total_tokens(lines) == sum(ceil(line.unit_tokens * line.factor * line.quantity) for line in lines)
    assert all(type(line.tokens) is int and line.tokens > 0 for line in lines)
    assert [PriceLine.of_json(line.as_json()) for line in lines] == lines


@given(rules, parameters, quantities, st.integers(1, 16))
@settings(max_examples=500)
def test_more_is_never_cheaper(
    rules: list[PriceRule], parameters: dict[str, object], quantities: Quantities, size: int
) -> None:
    cost = total_tokens(price(rules, parameters, quantities))
    more = Quantities(megapixels=[*quantities.megapixels, size], seconds=quantities.seconds)
    longer = Quantities(megapixels=quantities.megapixels, seconds=quantities.seconds + 1)

    assert total_tokens(price(rules, parameters, more)) >= cost
    assert total_tokens(price(rules, parameters, longer)) >= cost


@given(rules, parameters, quantities, st.data())
@settings(max_examples=500)
def test_what_came_is_charged_and_the_rest_goes_back(
    rules: list[PriceRule], parameters: dict[str, object], quantities: Quantities, data: st.DataObject
) -> None:
    lines = price(rules, parameters, quantities)
    # More, fewer or larger ones than were charged, as a lying fal would have it.
    came = Quantities(
        megapixels=data.draw(st.lists(st.integers(0, 20), max_size=8)), seconds=data.draw(st.integers(0, 40))
    )
    back = refunded(lines, came)

    assert total_tokens(delivered(lines, came)) + sum(back.values()) == total_tokens(lines)
    assert all(0 < tokens <= line.tokens for line in lines for name, tokens in back.items() if name == line.line)
    assert refunded(lines, quantities) == {}
    if not came.megapixels:
        assert total_tokens(delivered(lines, came)) == 0


def test_a_size_is_rounded_up_to_whole_megapixels() -> None:
    sizes = [(512, 512), (1024, 1024), (1025, 1024), (1920, 1080), (2048, 2048)]

    assert [megapixels_of(width, height) for width, height in sizes] == [1, 1, 2, 2, 4]


def test_a_third_of_a_price_is_rounded_up_to_a_token() -> None:
    third = PriceRule(
        line="film",
        unit=Unit.RUN,
        tokens=55,
        when={"duration": frozenset({10})},
        factors={"resolution": {"480p": Fraction(1, 3), "720p": Fraction(2, 3)}},
    )
    one = Quantities(megapixels=[0], seconds=10)

    costs = [total_tokens(price([third], {"duration": 10, "resolution": size}, one)) for size in RESOLUTIONS]

    assert costs == [19, 37, 55]
    assert price([third], {"duration": 5, "resolution": "720p"}, one) == []
