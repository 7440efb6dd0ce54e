"""The endpoints of fal that are told in `endpoints/*.toml`: their inputs, results and prices, in fal's own terms."""

import tomllib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from simulator.answers import Refused, model_error, model_errors
from simulator.arguments import Input, Value, arguments_class

DIRECTORY = Path(__file__).parent / "endpoints"


class Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Unit(Row):
    """What fal counts for the bill, and the one price for it that the platform API names."""

    name: str
    usd: Fraction


class PriceLine(Row):
    per: Literal["image", "megapixel", "second", "run", "input_image", "input_image_and_image", "input_megapixel"]
    usd: Fraction
    after: int = 0
    """So many units are not counted: of each image for megapixels."""

    when: Mapping[str, tuple[Value, ...]] = {}
    factors: Mapping[str, Mapping[str, Fraction]] = {}
    pixels_max: int | None = None
    pixels_above: int = 0
    """The line counts images above this number of pixels only, and those up to `pixels_max`."""


class Refusal(Row):
    """A combination that fal refuses: all of `given` and `when` hold, and one of `must` does not."""

    given: tuple[str, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = {}
    must: Mapping[str, tuple[Value, ...]] = {}

    def field_at_fault(self, arguments: BaseModel) -> str | None:
        if any(not getattr(arguments, name) for name in self.given):
            return None
        if any(getattr(arguments, name) not in values for name, values in self.when.items()):
            return None
        if not self.must:
            return self.given[-1]
        return next((name for name, values in self.must.items() if getattr(arguments, name) not in values), None)


class ListedEndpoint(Row):
    endpoint_id: str
    title: str
    category: Literal["text-to-image", "image-to-image", "text-to-video", "image-to-video"]
    output: Literal["images", "video"]
    sizes: Literal["told", "null", "absent"]
    """Whether the result has width and height of its files, has them as null, or does not have these fields."""

    fields: tuple[str, ...]
    """What the result has beside the files."""

    unit: Unit
    price: tuple[PriceLine, ...]
    inputs: Mapping[str, Input]
    refused: tuple[Refusal, ...] = ()
    seconds: int | None = None
    """The length of every film, where no parameter asks for one."""

    images_per_generation: str | None = None
    """The parameter up to whose value each of `num_images` generations may return images."""

    images_total_max: int | None = None
    """Inputs and outputs together."""

    @cached_property
    def arguments(self) -> type[BaseModel]:
        return arguments_class(self.endpoint_id, self.inputs)

    @property
    def makes_video(self) -> bool:
        return self.output == "video"

    def validated(self, given: object) -> BaseModel:
        """Raises: ValidationError; Refused for what each value alone allows and all of them together do not."""
        arguments = self.arguments.model_validate(given)
        for refusal in self.refused:
            name = refusal.field_at_fault(arguments)
            if name is not None:
                raise _refused(name, getattr(arguments, name), "This combination of parameters is not supported")
        total = len(self.input_urls(arguments)) + self.images_asked(arguments)
        if self.images_total_max is not None and total > self.images_total_max:
            message = f"Input and output images together must be at most {self.images_total_max}"
            raise _refused("num_images", getattr(arguments, "num_images", 1), message)
        return arguments

    def images_asked(self, arguments: BaseModel) -> int:
        """The most that it may return."""
        count = int(getattr(arguments, "num_images", None) or 1)
        each = self.images_per_generation
        return count * int(getattr(arguments, each) or 1) if each else count

    def input_urls(self, arguments: BaseModel) -> Sequence[tuple[tuple[str | int, ...], str]]:
        """Where in the body a picture is named, and its URL."""
        found: list[tuple[tuple[str | int, ...], str]] = []
        for name, spec in self.inputs.items():
            value = getattr(arguments, name)
            if spec.media != "image" or not value:
                continue
            if isinstance(value, str):
                found.append(((name,), value))
            else:
                found += [((name, index), url) for index, url in enumerate(value)]
        return found


def check_pictures(
    endpoint: ListedEndpoint, urls: Sequence[tuple[tuple[str | int, ...], str]], sizes: Sequence[tuple[int, int]]
) -> None:
    """Raises: Refused with the 422 for a picture that is too small or too long for the model."""
    for (loc, url), (width, height) in zip(urls, sizes, strict=True):
        spec = endpoint.inputs[str(loc[0])]
        if spec.ratio_max is not None and max(width, height) > spec.ratio_max * min(width, height):
            raise _refused(str(loc[0]), url, f"The aspect ratio must be 1:{spec.ratio_max} to {spec.ratio_max}:1")
        if spec.side_min is not None and min(width, height) < spec.side_min:
            ctx = {"min_height": spec.side_min, "min_width": spec.side_min}
            raise Refused(model_error("image_too_small", loc=("body", *loc), ctx=ctx, value=url))


def _refused(name: str, value: object, message: str) -> Refused:
    detail: dict[str, Any] = {
        "loc": ["body", name],
        "msg": message,
        "type": "value_error",
        "url": "https://docs.fal.ai/errors/#value_error",
        "input": value.model_dump() if isinstance(value, BaseModel) else value,
    }
    return Refused(model_errors([detail]))


def read_endpoints(directory: Path = DIRECTORY) -> dict[str, ListedEndpoint]:
    return {
        endpoint_id: ListedEndpoint(endpoint_id=endpoint_id, **table)
        for path in sorted(directory.glob("*.toml"))
        for endpoint_id, table in tomllib.loads(path.read_text(encoding="utf-8")).items()
    }


LISTED = read_endpoints()
