"""Single prices that the operator sets without a file: TOKEN_PRICES_JSON."""

from collections.abc import Mapping
from dataclasses import replace

from app.domain.catalogue import Catalogue
from app.domain.errors import InvalidPrices
from app.domain.models import Model


def with_prices(catalogue: Catalogue, tokens_by_name: Mapping[str, int]) -> Catalogue:
    """Raises InvalidPrices for an unknown name."""
    known = [name for model in catalogue for name in model.price_names.values()]
    for name in tokens_by_name:
        if name not in known:
            raise InvalidPrices(
                f"unknown price {name!r}; the prices are {', '.join(known) or 'none in this catalogue'}"
            )
    return Catalogue([_with_prices(model, tokens_by_name) for model in catalogue], catalogue.types)


def _with_prices(model: Model, tokens_by_name: Mapping[str, int]) -> Model:
    if not any(name in tokens_by_name for name in model.price_names.values()):
        return model
    tokens = {line: tokens_by_name.get(name) for line, name in model.price_names.items()}
    return replace(model, prices=[replace(rule, tokens=tokens.get(rule.line) or rule.tokens) for rule in model.prices])
