"""The signature of a quote: whose secret, for what purpose, and that nothing is read before it holds."""

import hashlib
import hmac
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from itsdangerous import URLSafeSerializer

from app.domain.errors import PriceExceedsMaximum, QuoteNotValid
from app.domain.kinds import GenerationKind
from app.domain.pricing import PriceRule, Unit
from app.domain.quotes import Quote, check_maximum
from app.domain.terms import ResultShape
from app.infrastructure.catalogue.reading import read_catalogue
from app.infrastructure.quotes import QUOTE_LENGTH_MAX, SignedQuotes

OLD, NEW, OTHER = "old-secret", "new-secret", "another-secret"
OWNER = UUID("7d5f6a0e-0000-4000-8000-000000000000")
NOW = datetime(2026, 11, 29, tzinfo=UTC)
CATALOGUE = read_catalogue()
WAN = CATALOGUE.default_of(GenerationKind.TEXT_TO_VIDEO)
FILM = WAN.completed({"prompt": "A fox", "resolution": "720p"})
QUOTE = Quote.of(OWNER, WAN, FILM, NOW)


def test_is_good_while_a_secret_is_exchanged() -> None:
    before, during, after = SignedQuotes([OLD]), SignedQuotes([NEW, OLD]), SignedQuotes([NEW])

    assert during.quote_of(before.text_of(QUOTE)).as_json() == QUOTE.as_json()
    assert after.quote_of(during.text_of(QUOTE)).as_json() == QUOTE.as_json()
    with pytest.raises(QuoteNotValid):
        after.quote_of(before.text_of(QUOTE))


def test_another_secret_is_none() -> None:
    with pytest.raises(QuoteNotValid):
        SignedQuotes([NEW, OLD]).quote_of(SignedQuotes([OTHER]).text_of(QUOTE))


@pytest.mark.parametrize("purpose", ["links", "quote 2, terms 1", "quote 1, terms 2", "", "itsdangerous"])
@pytest.mark.parametrize("said", [{"signer_kwargs": {"key_derivation": "hmac", "digest_method": hashlib.sha256}}, {}])
def test_what_was_signed_for_another_purpose_is_no_quote(purpose: str, said: dict[str, Any]) -> None:
    text = URLSafeSerializer(NEW, salt=purpose, **said).dumps(QUOTE.as_json())

    with pytest.raises(QuoteNotValid):
        SignedQuotes([NEW]).quote_of(str(text))


def test_nothing_is_read_before_the_signature_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("was read")

    quotes = SignedQuotes([NEW])
    own, foreign = quotes.text_of(QUOTE), SignedQuotes([OTHER]).text_of(QUOTE)
    monkeypatch.setattr(URLSafeSerializer, "load_payload", read)

    with pytest.raises(QuoteNotValid):
        quotes.quote_of(foreign)
    with pytest.raises(AssertionError, match="was read"):
        quotes.quote_of(own)


def test_what_is_too_long_is_not_even_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    quotes = SignedQuotes([NEW])
    text = str(quotes._texts.dumps(secrets.token_urlsafe(2 * QUOTE_LENGTH_MAX)))
    monkeypatch.setattr(hmac, "new", None)

    with pytest.raises(QuoteNotValid):
        quotes.quote_of(text)


def test_what_a_price_follows_from_is_what_its_lines_name() -> None:
    assert set(WAN.quoted_names) == {"duration", "resolution"}
    assert WAN.quoted_names == [name for name in WAN.parameters if name in WAN.quoted_names]


@pytest.mark.parametrize(
    ("unit", "names"),
    [
        (Unit.RUN, []),
        (Unit.IMAGE, ["num_images"]),
        (Unit.MEGAPIXEL, ["num_images", "image_size"]),
        (Unit.SECOND, ["num_images"]),
    ],
)
def test_what_a_line_counts_is_bound(unit: Unit, names: list[str]) -> None:
    painter = next(it for it in CATALOGUE if {"num_images", "image_size"} <= it.parameters.keys())

    model = replace(painter, prices=[PriceRule(line="x", unit=unit, tokens=1)])

    assert sorted(model.quoted_names) == sorted(names)


def test_a_parameter_that_was_left_out_must_stay_so() -> None:
    model = replace(WAN, prices=[*WAN.prices, _priced_by("seed", 7)])
    quote = Quote.of(OWNER, model, FILM, NOW)

    assert quote.priced["seed"] is None
    assert quote.terms_for(OWNER, model, FILM, NOW).cost_tokens == WAN.tokens(FILM)
    with pytest.raises(QuoteNotValid, match="other values of seed"):
        quote.terms_for(OWNER, model, {**FILM, "seed": 7}, NOW)


def test_true_is_no_one() -> None:
    model = replace(WAN, prices=[*WAN.prices, _priced_by("seed", 1)])
    quote = Quote.of(OWNER, model, {**FILM, "seed": 1}, NOW)

    with pytest.raises(QuoteNotValid):
        quote.terms_for(OWNER, model, {**FILM, "seed": True}, NOW)


@pytest.mark.parametrize("seed", [None, 7], ids=["left out", "quoted"])
def test_a_parameter_that_has_a_price_since_is_free_as_it_was_quoted(seed: int | None) -> None:
    asked_for = FILM if seed is None else {**FILM, "seed": seed}
    quote = Quote.of_json(Quote.of(OWNER, WAN, asked_for, NOW).as_json())
    model = replace(WAN, prices=[*WAN.prices, _priced_by("seed", 7)])

    assert quote.terms_for(OWNER, model, asked_for, NOW).cost_tokens == quote.cost_tokens
    assert quote.terms_for(OWNER, model, FILM, NOW).cost_tokens == quote.cost_tokens
    with pytest.raises(QuoteNotValid, match="other values of seed"):
        quote.terms_for(OWNER, model, {**FILM, "seed": 8}, NOW)


def test_no_value_that_came_later_is_had_for_the_price_of_then() -> None:
    """A film in 4k could not be asked for as the quote was made, and had no price."""
    painter = next(it for it in CATALOGUE if {"num_images", "aspect_ratio"} <= it.parameters.keys())
    drawn = painter.completed({"num_images": 1})
    quote = Quote.of(OWNER, painter, drawn, NOW)
    ratio = painter.parameters["aspect_ratio"]
    later = replace(
        painter,
        parameters={**painter.parameters, "aspect_ratio": replace(ratio, values=(*ratio.values, "100:1"))},
        prices=[*painter.prices, _priced_by("aspect_ratio", "100:1")],
    )

    assert quote.terms_for(OWNER, later, drawn, NOW).cost_tokens == quote.cost_tokens
    with pytest.raises(QuoteNotValid, match="other values of aspect_ratio"):
        quote.terms_for(OWNER, later, {**drawn, "aspect_ratio": "100:1"}, NOW)


def test_a_parameter_that_came_later_is_left_out_under_the_quote() -> None:
    film = {name: value for name, value in FILM.items() if name != "resolution"}
    former = replace(
        WAN,
        parameters={name: it for name, it in WAN.parameters.items() if name != "resolution"},
        prices=[replace(rule, factors={}) for rule in WAN.prices],
    )
    quote = Quote.of(OWNER, former, film, NOW)
    assumed = WAN.parameters["resolution"].filled_in

    assert quote.terms_for(OWNER, WAN, {**film, "resolution": assumed}, NOW).cost_tokens == quote.cost_tokens
    for resolution in set(WAN.parameters["resolution"].values) - {assumed}:
        with pytest.raises(QuoteNotValid, match="other values of resolution"):
            quote.terms_for(OWNER, WAN, {**film, "resolution": resolution}, NOW)


def test_a_quote_of_the_release_before_binds_what_it_names() -> None:
    stored = {name: value for name, value in QUOTE.as_json().items() if name != "unpriced"}
    quote = Quote.of_json(stored)
    model = replace(WAN, prices=[*WAN.prices, _priced_by("seed", 7)])

    assert quote.terms_for(OWNER, WAN, {**FILM, "seed": 7}, NOW).cost_tokens == QUOTE.cost_tokens
    assert quote.terms_for(OWNER, model, FILM, NOW).cost_tokens == QUOTE.cost_tokens
    with pytest.raises(QuoteNotValid, match="other values of seed"):
        quote.terms_for(OWNER, model, {**FILM, "seed": 7}, NOW)


def test_the_result_is_read_as_the_catalogue_says_now() -> None:
    model = replace(WAN, shape=ResultShape(outputs="films"))

    assert QUOTE.terms_for(OWNER, model, FILM, NOW) == replace(QUOTE.terms, shape=model.shape)


def test_a_refund_counts_what_the_quote_counted() -> None:
    """Also where the prices of today count something else."""
    model = next(it for it in CATALOGUE if any(rule.unit is Unit.MEGAPIXEL for rule in it.prices))
    parameters = model.completed({"num_images": 2})
    quote = Quote.of(OWNER, model, parameters, NOW)
    by_image = replace(model, prices=[PriceRule(line="images", unit=Unit.IMAGE, tokens=1)], costs=[])

    terms = quote.terms_for(OWNER, by_image, parameters, NOW)

    assert terms.refund_for({"images": [{"url": "a"}, {"url": "b"}]}) == {}


def test_the_maximum_is_what_may_be_paid() -> None:
    check_maximum(5, None)
    check_maximum(5, 5)
    with pytest.raises(PriceExceedsMaximum, match="This costs 5 tokens") as refused:
        check_maximum(5, 4)
    assert refused.value.figures == {"cost_tokens": 5}


def _priced_by(name: str, value: int | str) -> PriceRule:
    return PriceRule(line=name, unit=Unit.RUN, tokens=3, when={name: frozenset({value})}, is_optional=True)
