"""Whatever a model of the service is asked for: what was promised is charged, and no more than that ever goes back.

- PRICED_SETS: how many requests are made up (1,000,000 for a long run);
- PRICED_SEED: other ones, a whole number; a failure says which request it was.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import cycle, islice
from math import ceil
from random import Random
from typing import Any
from uuid import UUID

import pytest

from app.domain.errors import PriceExceedsMaximum
from app.domain.models import COUNT, SECONDS, SIZE, Model
from app.domain.parameter_values import problem_of
from app.domain.pricing import MEGAPIXEL_PIXELS, Unit, price
from app.domain.quotes import Quote, check_maximum
from app.domain.terms import Terms
from tests.property.parameter_sets import CATALOGUE, ParameterSet, parameter_set, value_of
from tests.torture_report import report

SETS = int(os.environ.get("PRICED_SETS", "20000"))
SEED = int(os.environ.get("PRICED_SEED", "1"))
ACCOUNT = UUID(int=1)
NOW = datetime(2026, 11, 29, tzinfo=UTC)
OUTPUTS_TOO_MANY = 3

Claim = Callable[[Random, ParameterSet, Terms], bool]


def the_model_takes_it(_numbers: Random, asked: ParameterSet, _terms: Terms) -> bool:
    parameters = asked.model.parameters
    assert {name: problem_of(parameters[name], value) for name, value in asked.given.items()} == dict.fromkeys(
        asked.given
    )
    return True


def what_is_quoted_is_charged(_numbers: Random, asked: ParameterSet, terms: Terms) -> bool:
    quote = Quote.of(ACCOUNT, asked.model, asked.completed, NOW)
    kept = Quote.of_json(json.loads(json.dumps(quote.as_json())))

    charged = kept.terms_for(ACCOUNT, asked.model, asked.completed, NOW)
    assert quote.terms == terms == replace(charged, lines=tuple(charged.lines))
    assert quote.cost_tokens == terms.cost_tokens == charged.cost_tokens
    return True


def no_more_is_charged_than_the_caller_allows(numbers: Random, _asked: ParameterSet, terms: Terms) -> bool:
    cost, distance = terms.cost_tokens, numbers.randint(0, 3)
    check_maximum(cost, numbers.choice((cost, cost + distance, None)))
    with pytest.raises(PriceExceedsMaximum):
        check_maximum(cost, cost - 1 - distance)
    return True


def the_lines_add_up(_numbers: Random, asked: ParameterSet, terms: Terms) -> bool:
    model, lines = asked.model, terms.lines
    tokens = [line.tokens for line in lines]

    assert list(lines) == list(price(model.prices, asked.completed, model.quantities(asked.completed)))
    assert all(type(each) is int and each > 0 for each in tokens)
    assert sum(tokens) == terms.cost_tokens == reckoned(model, asked.completed)
    assert model.from_tokens <= terms.cost_tokens <= model.to_tokens
    return True


def reckoned(model: Model, completed: Mapping[str, Any]) -> int:
    """The price past the code that sells: from the rules as they are written."""
    count, seconds = completed.get(COUNT, 1), completed.get(SECONDS, 0)
    total = 0
    for rule in model.prices:
        if any(completed.get(name) not in values for name, values in rule.when.items()):
            continue
        factor = Fraction(1)
        for name, factors in rule.factors.items():
            factor *= factors.get(completed.get(name), Fraction(1))
        each = seconds
        if rule.unit is Unit.MEGAPIXEL:
            size = completed[SIZE]
            width, height = model.parameters[SIZE].presets[size] if isinstance(size, str) else size.values()
            each = ceil(Fraction(width * height, MEGAPIXEL_PIXELS))
        units = {Unit.RUN: 1, Unit.IMAGE: max(0, count - rule.after)}.get(rule.unit, count * max(0, each - rule.after))
        total += ceil(rule.tokens * factor * units)
    return total


def more_is_never_cheaper(numbers: Random, asked: ParameterSet, _terms: Terms) -> bool:
    model = asked.model
    names = [name for name in (COUNT, SECONDS) if name in model.parameters]
    for name in names:
        values = [value_of(numbers, model.parameters[name]), asked.completed.get(name, 1)]
        each = [{**asked.completed, name: value} for value in sorted(values)]
        if all(model.violated(parameters) is None for parameters in each):
            costs = [model.tokens(parameters) for parameters in each]
            assert costs == sorted(costs), name
    return bool(names)


def no_more_goes_back_than_was_charged(numbers: Random, asked: ParameterSet, terms: Terms) -> bool:
    """Of fewer, more, blanked, larger, smaller outputs; and of a part of them no less than of all."""
    charged = {line.line: line.tokens for line in terms.lines}
    outputs = [
        {"url": "https://example.com/1.png", "width": side_of(numbers), "height": side_of(numbers)}
        for _ in range(numbers.randint(0, terms.outputs_max + OUTPUTS_TOO_MANY))
    ]
    paid_for = outputs[: terms.outputs_max]
    part = [output for output in paid_for if numbers.random() < 0.7]
    blanked = [numbers.random() < 0.3 for _ in outputs]

    of_all = refund_for(terms, outputs)
    backs = (of_all, refund_for(terms, part), refund_for(terms, outputs, blanked))
    assert all(0 < tokens <= charged[line] for back in backs for line, tokens in back.items())
    assert refund_for(terms, paid_for) == of_all
    assert all(backs[1].get(line, 0) >= tokens for line, tokens in of_all.items())
    assert refund_for(terms, [{"url": "https://example.com/1.png"}] * terms.outputs_max) == {}
    return True


def refund_for(terms: Terms, outputs: Sequence[Mapping[str, Any]], flags: Sequence[bool] = ()) -> Mapping[str, int]:
    shape = terms.shape
    found: Any = list(outputs) if shape.is_list else next(iter(outputs), None)
    told = {} if shape.flags is None else {shape.flags: list(flags)}
    back = terms.refund_for({shape.outputs: found, **told})
    return {line.line: line.tokens for line in terms.lines} if back is None else back


def side_of(numbers: Random) -> Any:
    return numbers.choice((None, -1, 0, 512, 1024, 1025, 2048, 9000, "1024", numbers.randint(1, 5000)))


CLAIMS: Mapping[str, Claim] = {
    "values_taken": the_model_takes_it,
    "quotes_charged_as_promised": what_is_quoted_is_charged,
    "maxima_kept": no_more_is_charged_than_the_caller_allows,
    "sums_of_lines": the_lines_add_up,
    "comparisons_with_more": more_is_never_cheaper,
    "refunds_within_the_charge": no_more_goes_back_than_was_charged,
}


@pytest.mark.timeout(max(300, SETS // 500))
def test_every_price_keeps_what_is_promised() -> None:
    began = time.monotonic()
    held: Counter[str] = Counter()
    numbers = Random(SEED)
    try:
        for model in islice(cycle(CATALOGUE.models), SETS):
            asked = parameter_set(numbers, model)
            for name, claim in CLAIMS.items():
                try:
                    held[name] += claim(numbers, asked, model.terms(asked.completed))
                except BaseException as error:
                    error.add_note(f"{name}: {model.id} with {dict(asked.given)}")
                    raise
    finally:
        seconds = round(time.monotonic() - began, 1)
        report("prices", {**held, "seconds": seconds, "seed": SEED})
    assert all(held[name] for name in CLAIMS), held
