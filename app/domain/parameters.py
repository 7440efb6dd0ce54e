"""What a model takes: one parameter, how it is asked for, and how fal spells it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.domain.media_limits import MediaLimits

# In two languages, by its code.
Words = Mapping[str, str]


class ParameterType(StrEnum):
    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    SIZE = "size"
    IMAGE = "image"
    AUDIO = "audio"
    IMAGES = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeLimits:
    """What a model takes as width and height in pixels."""

    side_min: int
    side_max: int
    pixels_min: int = 1
    pixels_max: int | None = None
    ratio_max: int | None = None
    """Of the longer side to the shorter one."""

    @property
    def sentence(self) -> str:
        told = [f"Each side must have {self.side_min} to {self.side_max} pixels"]
        if self.pixels_max is not None:
            told.append(f"width times height must be {self.pixels_min} to {self.pixels_max}")
        if self.ratio_max is not None:
            told.append(f"the longer side may be at most {self.ratio_max} times the shorter one")
        return f"{', and '.join(told)}."

    def allows(self, width: int, height: int) -> bool:
        return (
            self.side_min <= min(width, height)
            and max(width, height) <= self.side_max
            and self.pixels_min <= width * height <= (self.pixels_max or width * height)
            and max(width, height) <= min(width, height) * (self.ratio_max or max(width, height))
        )

    @property
    def largest_pixels(self) -> int:
        return min(self.side_max**2, self.pixels_max or self.side_max**2)

    @property
    def smallest_pixels(self) -> int:
        return max(self.side_min**2, self.pixels_min)


@dataclass(frozen=True, slots=True, kw_only=True)
class FalField:
    """How fal spells a parameter: its name there, and what is sent for a value."""

    name: str
    text: str | None = None
    """The value goes in place of {}, and fal is sent a text."""
    values: Mapping[Hashable, Any] = field(default_factory=dict)
    is_list: bool = False
    """fal wants a list of one."""

    def of(self, value: Any) -> Any:
        if self.values and isinstance(value, Hashable):
            value = self.values.get(value, value)
        if self.text is not None:
            value = self.text.replace("{}", str(value))
        return [value] if self.is_list else value

    def given_for(self, sent: Any) -> Any:
        """The value that is sent as `sent`. One that stands in a text comes as a text."""
        if self.is_list and isinstance(sent, list) and len(sent) == 1:
            (sent,) = sent
        for ours, theirs in self.values.items():
            told = theirs if self.text is None else self.text.replace("{}", str(theirs))
            # False is no 0: Python would not tell them apart.
            if told == sent and type(told) is type(sent):
                return ours
        if self.text is None or not isinstance(sent, str):
            return sent
        before, _, after = self.text.partition("{}")
        return sent.removeprefix(before).removesuffix(after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    name: str
    type: ParameterType
    group: str
    """Of a form: input, output or more."""
    label: Words
    description: Words
    fal: FalField
    is_required: bool = False
    default: Any = None
    """Ours: filled in where it is left out, for the price and for fal."""
    assumed: Any = None
    """fal's own: filled in for the price and sent, so that no change at fal changes what is charged."""
    values: Sequence[Hashable] = ()
    minimum: int | float | None = None
    maximum: int | float | None = None
    length_min: int = 0
    length_max: int | None = None
    count_min: int = 1
    count_max: int | None = None
    media: MediaLimits | None = None
    """Of a picture, of each of several, or of a sound; None: it is none of these."""
    presets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Width and height; of a preset whose size the model chooses, the largest."""
    size_limits: SizeLimits | None = None
    """None: the model takes presets alone."""

    @property
    def filled_in(self) -> Any:
        """The value where it is left out; None if there is none."""
        return self.assumed if self.default is None else self.default

    @property
    def is_always_there(self) -> bool:
        return self.is_required or self.filled_in is not None

    @property
    def choices(self) -> Sequence[Hashable] | None:
        """All values, where they are few enough to go through; else None."""
        if self.type is ParameterType.BOOLEAN:
            return (False, True)
        if self.type is ParameterType.SIZE:
            return tuple(self.presets) if self.size_limits is None else None
        return tuple(self.values) or None

    def given_for(self, sent: Any) -> Any:
        """The value that fal is sent as `sent`."""
        value = self.fal.given_for(sent)
        is_digits = isinstance(value, str) and value.isascii() and value.isdigit()
        return int(value) if self.type is ParameterType.INTEGER and is_digits else value
