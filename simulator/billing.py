"""What fal bills for a run of a listed endpoint: its price lines, counted in the one unit that fal names."""

from collections.abc import Sequence
from fractions import Fraction

from pydantic import BaseModel

from simulator.listed import ListedEndpoint, PriceLine

MEGAPIXEL = 1_048_576
Size = tuple[int, int]


def billable_units(
    endpoint: ListedEndpoint,
    arguments: BaseModel,
    *,
    images: Sequence[Size] = (),
    inputs: Sequence[Size] = (),
    seconds: int = 0,
) -> str:
    """The header's text. fal's own text for it is a decimal number."""
    usd = sum(
        (
            line.usd * _factor(line, arguments) * _quantity(line, images, inputs, seconds)
            for line in endpoint.price
            if all(getattr(arguments, name) in values for name, values in line.when.items())
        ),
        Fraction(0),
    )
    return f"{float(round(usd / endpoint.unit.usd, 8)):.8f}".rstrip("0").rstrip(".")


def _factor(line: PriceLine, arguments: BaseModel) -> Fraction:
    product = Fraction(1)
    for name, factors in line.factors.items():
        product *= factors.get(str(getattr(arguments, name)), Fraction(1))
    return product


def _quantity(line: PriceLine, images: Sequence[Size], inputs: Sequence[Size], seconds: int) -> int:
    counted = [
        (width, height)
        for width, height in images
        if line.pixels_above < width * height and (line.pixels_max is None or width * height <= line.pixels_max)
    ]
    further_inputs = max(0, len(inputs) - line.after)
    quantities = {
        "run": 1,
        "second": max(0, seconds - line.after),
        "image": len(counted),
        "megapixel": sum(max(0, megapixels(size) - line.after) for size in counted),
        "input_megapixel": sum(megapixels(size) for size in inputs),
        "input_image": further_inputs,
        "input_image_and_image": further_inputs * len(counted),
    }
    return quantities[line.per]


def megapixels(size: Size) -> int:
    """Rounded up."""
    return -(-size[0] * size[1] // MEGAPIXEL)
