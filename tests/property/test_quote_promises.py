"""A quote holds for what it was made for, and for nothing else; no other text is one."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.domain.errors import QuoteNotValid
from app.domain.models import Model
from app.domain.pricing import PriceLine
from app.domain.quotes import Quote
from app.infrastructure.quotes import QUOTE_LENGTH_MAX, SignedQuotes
from tests.property.parameter_sets import CATALOGUE, parameter_set

OWNER, STRANGER = UUID(int=1), UUID(int=2)
NOW = datetime(2026, 11, 29, 2, 30, 0, 250_000, UTC)
SIGNER = SignedQuotes(["the-only-secret"])
FREE = ("prompt", "negative_prompt", "image_url", "image_urls", "last_image_url", "audio_url", "seed")


def requests() -> st.SearchStrategy[tuple[Model, dict[str, Any]]]:
    def made(model: Model, seed: int) -> tuple[Model, dict[str, Any]]:
        return model, dict(parameter_set(Random(seed), model).given)

    return st.builds(made, st.sampled_from(CATALOGUE.models), st.integers(0, 2**32))


def quote_for(model: Model, parameters: Mapping[str, Any]) -> Quote:
    return Quote.of(OWNER, model, model.completed(parameters), NOW)


def dearest_quotes() -> Sequence[str]:
    """Of each model, for the request with the most lines."""
    texts = []
    for model in CATALOGUE:
        combination = max(model.combinations(), key=lambda parameters: len(model.price_lines(parameters)))
        texts.append(SIGNER.text_of(quote_for(model, combination)))
    return texts


TEXTS = dearest_quotes()


def is_refused(text: str, signer: SignedQuotes = SIGNER) -> bool:
    try:
        signer.quote_of(text)
    except QuoteNotValid as refused:
        return refused.detail == QuoteNotValid.default_detail
    return False


@settings(deadline=None, max_examples=300)
@given(requests())
def test_a_quote_comes_back_as_it_was_and_has_its_price(request: tuple[Model, dict[str, Any]]) -> None:
    model, given_parameters = request
    quote = quote_for(model, given_parameters)

    text = SIGNER.text_of(quote)
    back = SIGNER.quote_of(text)

    assert back.as_json() == quote.as_json()
    assert set(text) <= set(string.ascii_letters + string.digits + "-_.")
    parameters = model.completed(given_parameters)
    assert back.terms_for(OWNER, model, parameters, NOW).as_json() == model.terms(parameters).as_json()
    assert back.cost_tokens == model.tokens(parameters)


@settings(deadline=None, max_examples=300)
@given(requests(), st.data())
def test_requests_that_differ_in_price_never_share_a_quote(
    request: tuple[Model, dict[str, Any]], data: st.DataObject
) -> None:
    model, given_parameters = request
    combinations = list(model.combinations())
    parameters = {**model.completed(given_parameters), **data.draw(st.sampled_from(combinations))}
    assume(model.tokens(parameters) != model.tokens(model.completed(given_parameters)))

    with pytest.raises(QuoteNotValid, match="other values of"):
        quote_for(model, given_parameters).terms_for(OWNER, model, parameters, NOW)


@settings(deadline=None, max_examples=200)
@given(requests(), st.text(max_size=20))
def test_prompt_and_media_may_be_left_out_or_change(request: tuple[Model, dict[str, Any]], said: str) -> None:
    model, given_parameters = request
    quote = quote_for(model, {name: value for name, value in given_parameters.items() if name not in FREE})
    changed = {**given_parameters, **{name: said for name in FREE if name in given_parameters}}

    assert quote.terms_for(OWNER, model, model.completed(changed), NOW) == model.terms(model.completed(changed))


@settings(deadline=None, max_examples=200)
@given(requests(), st.integers(100, 1000))
def test_it_keeps_its_price_when_prices_change(request: tuple[Model, dict[str, Any]], more: int) -> None:
    model, given_parameters = request
    parameters = model.completed(given_parameters)
    dearer = replace(model, prices=[replace(rule, tokens=rule.tokens + more) for rule in model.prices])

    terms = quote_for(model, given_parameters).terms_for(OWNER, dearer, parameters, NOW)

    assert terms == model.terms(parameters)
    assert terms.cost_tokens < dearer.tokens(parameters)


@settings(deadline=None, max_examples=200)
@given(requests(), requests())
def test_it_is_for_its_account_model_and_time_alone(
    one: tuple[Model, dict[str, Any]], other: tuple[Model, dict[str, Any]]
) -> None:
    model, given_parameters = one
    parameters = model.completed(given_parameters)
    quote = quote_for(model, given_parameters)

    assert quote.valid_until - timedelta(seconds=601) < NOW <= quote.valid_until - timedelta(seconds=600)
    assert quote.terms_for(OWNER, model, parameters, quote.valid_until).lines
    with pytest.raises(QuoteNotValid, match="was valid until 2026-11-29T02:40:01Z"):
        quote.terms_for(OWNER, model, parameters, quote.valid_until + timedelta(microseconds=1))
    with pytest.raises(QuoteNotValid, match="no quote for this account"):
        quote.terms_for(STRANGER, model, parameters, NOW)
    assume(other[0].id != model.id)
    with pytest.raises(QuoteNotValid, match=f"is for {model.id} as {model.kind}"):
        quote.terms_for(OWNER, other[0], other[0].completed(other[1]), NOW)


def test_every_model_has_room_in_a_quote() -> None:
    assert max(map(len, TEXTS)) <= QUOTE_LENGTH_MAX / 4


def test_what_would_not_fit_is_not_signed() -> None:
    quote = quote_for(CATALOGUE.models[0], {"prompt": "x"})
    unit = quote.terms.lines[0].unit
    lines = tuple(PriceLine(line=f"{n**40}", unit=unit, unit_tokens=1, quantity=1) for n in range(500))

    with pytest.raises(ValueError, match="too many price lines"):
        SIGNER.text_of(replace(quote, terms=replace(quote.terms, lines=lines)))


@given(st.text() | st.binary().map(lambda junk: junk.decode("latin-1")) | st.text("abcAZ09-_.", max_size=200))
@settings(max_examples=1000)
def test_no_other_text_is_a_quote(text: str) -> None:
    assert is_refused(text)


@given(st.sampled_from(TEXTS), st.data())
@settings(max_examples=2000)
def test_no_changed_quote_is_one(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + data.draw(st.sampled_from([0, 1, 2, 500])))))
    put = data.draw(st.text("AQgwBb09-_.=!\n \x00\ud800\u0430", max_size=3) | st.text(max_size=3))
    changed = text[:start] + put + text[end:]
    assume(changed != text)

    assert is_refused(changed)


@pytest.mark.parametrize("cut", range(1, 60))
def test_no_cut_quote_is_one(cut: int) -> None:
    assert is_refused(TEXTS[0][:-cut])
    assert is_refused(TEXTS[0][cut:])


@given(st.sampled_from(TEXTS), st.sampled_from(TEXTS))
def test_no_quote_is_made_of_two(one: str, other: str) -> None:
    assume(one != other)
    body, _, _ = one.rpartition(".")
    _, _, signature = other.rpartition(".")

    assert is_refused(f"{body}.{signature}")
    assert is_refused(one + other)


@pytest.mark.parametrize("size", [QUOTE_LENGTH_MAX, QUOTE_LENGTH_MAX + 1, 10_000_000])
def test_a_huge_text_is_refused_at_once(size: int) -> None:
    assert is_refused("a" * size)
    assert is_refused("a" * (size - 44) + "." + "A" * 43)
