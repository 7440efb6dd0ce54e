"""Makes the pydantic class of an endpoint's input from its table, as strict and as lax as fal's own classes are."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

Value = str | int | float | bool


class SizeLimits(BaseModel):
    """What a size in pixels must keep to, beyond fal's common 1 to 14142 a side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side_min: int = 1
    side_max: int = 14142
    pixels_min: int = 1
    pixels_max: int = 14142**2
    ratio_max: float = 14142
    multiple_of: int = 1

    def check(self, size: Any) -> Any:
        if isinstance(size, ImageSize) and not self._holds(size.width, size.height):
            raise PydanticCustomError("value_error", "The size is outside of the limits of this model")
        return size

    def _holds(self, width: int, height: int) -> bool:
        return (
            all(self.side_min <= side <= self.side_max and side % self.multiple_of == 0 for side in (width, height))
            and self.pixels_min <= width * height <= self.pixels_max
            and max(width, height) <= self.ratio_max * min(width, height)
        )


class ImageSize(BaseModel):
    width: Annotated[int, Field(ge=1, le=14142)] = 512
    height: Annotated[int, Field(ge=1, le=14142)] = 512


class Input(BaseModel):
    """One parameter, in fal's spelling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["string", "integer", "number", "boolean", "strings", "size", "object", "objects"]
    required: bool = False
    default: Any = None
    nullable: bool = False
    values: tuple[Value, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    length_min: int | None = None
    length_max: int | None = None
    count_min: int | None = None
    count_max: int | None = None
    media: Literal["image", "audio"] | None = None
    kept: Literal["first", "last"] | None = None
    """More than `count_max` are no error: fal takes the first or the last ones and ignores the rest."""

    side_min: int | None = None
    ratio_max: float | None = None
    """Of the picture behind the URL: each side in pixels, and how much longer one may be than the other."""

    limits: SizeLimits = SizeLimits()

    def field(self) -> tuple[Any, Any]:
        """Annotation and default for `create_model`."""
        annotation: Any = Annotated[self._annotation(), AfterValidator(self._keep)]
        if self.required:
            return annotation, ...
        if self.default is None or self.nullable:
            annotation = annotation | None
        return annotation, Field(default=self.default, validate_default=self.default is not None)

    def _annotation(self) -> Any:
        # Without this a type checker takes the subscription for an annotation.
        enumeration: Any = Literal
        if self.type == "size":
            size: Any = enumeration[self.values] | ImageSize
            return Annotated[size, AfterValidator(self.limits.check)]
        if self.values:
            return enumeration[self.values]
        if self.type == "strings":
            count_max = None if self.kept else self.count_max
            return Annotated[list[str], Field(min_length=self.count_min, max_length=count_max)]
        if self.type in ("integer", "number"):
            number: Any = int if self.type == "integer" else float
            return Annotated[number, Field(ge=self.minimum, le=self.maximum)]
        if self.type == "string":
            return Annotated[str, Field(min_length=self.length_min, max_length=self.length_max)]
        others: Mapping[str, Any] = {
            "boolean": bool,
            "object": dict[str, Any],
            "objects": list[dict[str, Any]],
        }
        return others[self.type]

    def _keep(self, value: Any) -> Any:
        if self.kept is None or self.count_max is None:
            return value
        return value[: self.count_max] if self.kept == "first" else value[-self.count_max :]


def arguments_class(endpoint_id: str, inputs: Mapping[str, Input]) -> type[BaseModel]:
    """Fields that it does not know are ignored, as at fal."""
    words = re.split(r"[^A-Za-z0-9]+", endpoint_id.partition("/")[2])
    name = "".join(word.capitalize() for word in words) + "Input"
    fields: dict[str, Any] = {field: spec.field() for field, spec in inputs.items()}
    return create_model(name, **fields)
