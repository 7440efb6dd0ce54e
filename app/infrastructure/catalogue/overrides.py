"""Single prices that the operator sets without a file: TOKEN_PRICES_JSON."""

from collections.abc import Mapping
from dataclasses import replace

from app.domain.catalogue import Catalogue
from app.domain.errors import InvalidPrices
from app.domain.models import Model
from app.domain.pricing import PRICE_TOKENS_MAX
from app.infrastructure.catalogue.price_checks import told


def with_prices(catalogue: Catalogue, tokens_by_name: Mapping[str, int]) -> Catalogue:
    """Raises InvalidPrices for an unknown name, and for a request that would cost more than can be written down."""
    known = [name for model in catalogue for name in model.price_names.values()]
    for name in tokens_by_name:
        if name not in known:
            raise InvalidPrices(
                f"unknown price {name!r}; the prices are {', '.join(known) or 'none in this catalogue'}"
            )
    return Catalogue([_with_prices(model, tokens_by_name) for model in catalogue], catalogue.types)


def _with_prices(model: Model, tokens_by_name: Mapping[str, int]) -> Model:
    tokens = {
        line: tokens_by_name[name] for line, name in model.price_names.items() if tokens_by_name.get(name) is not None
    }
    if not tokens:
        return model
    changed = replace(model, prices=[replace(rule, tokens=tokens.get(rule.line, rule.tokens)) for rule in model.prices])
    _check_maximum(changed, tokens)
    return changed


def _check_maximum(model: Model, lines: Mapping[str, int]) -> None:
    dearest = max(model.combinations(), key=model.tokens)
    if model.tokens(dearest) <= PRICE_TOKENS_MAX:
        return
    names = [model.price_names[line.line] for line in model.price_lines(dearest) if line.line in lines]
    raise InvalidPrices(
        f"{' and '.join(map(repr, names))}: {told(dearest)} of {model.id} costs more than {PRICE_TOKENS_MAX} tokens: "
        "lower the price"
    )
