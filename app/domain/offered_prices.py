"""What fal names as the price of a model, and how it differs from the one that we count on."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from app.domain.margins import worst_margin
from app.domain.models import CostRule, Model
from app.domain.pricing import Unit

_UNITS = {
    "image": Unit.IMAGE,
    "megapixel": Unit.MEGAPIXEL,
    "processed megapixel": Unit.MEGAPIXEL,
    "second": Unit.SECOND,
    "video": Unit.RUN,
    "run": Unit.RUN,
    "request": Unit.RUN,
    "generation": Unit.RUN,
}
# What a unit of the key comes in portions of, where the first ones are paid together.
_WHOLES = {Unit.MEGAPIXEL: Unit.IMAGE, Unit.SECOND: Unit.RUN}


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedPrice:
    """The one price that fal names of an endpoint."""

    usd: Fraction
    unit: str
    """In fal's own word."""


def price_differences(
    model: Model, price: OfferedPrice | None, token_usd: Fraction | None
) -> Iterator[tuple[str, bool]]:
    """Each difference, and whether it is to our loss."""
    known = None if price is None else _known_usd(model, price.unit)
    scale = Fraction(1)
    if price is None:
        yield "fal does not tell its price: look at its page", False
    elif known is None:
        yield f"fal names {usd_text(price.usd)} for a unit by which we do not count: look at its page", False
    elif price.usd > known:
        scale = price.usd / known
        yield f"fal's price has risen from {usd_text(known)} to {usd_text(price.usd)}: correct cost_usd", True
    elif price.usd < known and _is_one_price(model, known):
        yield f"fal's price has fallen from {usd_text(known)} to {usd_text(price.usd)}", False
    worst = worst_margin(model)
    if token_usd is not None and worst.break_even_usd * scale > token_usd:
        cost, worth = usd_text(worst.cost_usd * scale), usd_text(worst.break_even_usd * scale)
        yield f"sold below cost: {worst.tokens} tokens for {cost}; a token must be worth {worth}", True


def usd_text(usd: Fraction) -> str:
    return f"{float(usd):.6f}".rstrip("0").rstrip(".") + " USD"


def _known_usd(model: Model, unit: str) -> Fraction | None:
    """What we expect fal to name for this unit, the dearest where there are several. None: nothing."""
    listed = model.listed_price
    if listed is not None:
        return listed.usd if _word(listed.unit) == _word(unit) else None
    ours = _UNITS.get(_word(unit))
    prices = [_dearest(cost) for cost in model.costs if cost.rule.unit is ours]
    if not prices:
        return None
    # The first so many are paid with the whole: "0.03 an image, and 0.015 for each megapixel after the first".
    covered = max(cost.rule.after for cost in model.costs if cost.rule.unit is ours)
    if covered and ours is not None:
        prices += [_dearest(cost) / covered for cost in model.costs if cost.rule.unit is _WHOLES.get(ours)]
    return max(prices)


def _is_one_price(model: Model, known: Fraction) -> bool:
    """Of several prices fal names any one, so that a lower one says nothing."""
    return model.listed_price is not None or all(
        cost.usd == known and not cost.rule.factors and not cost.rule.after for cost in model.costs
    )


def _dearest(cost: CostRule) -> Fraction:
    usd = cost.usd
    for factors in cost.rule.factors.values():
        usd *= max(Fraction(1), *factors.values())
    return usd


def _word(unit: str) -> str:
    return unit.strip().lower().removesuffix("s")
