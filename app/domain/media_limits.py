"""What a model takes of a picture or a sound, and what is wrong with one that it does not take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.domain.media_types import MEDIA_TYPES

# fal states sizes in these, which are the larger ones of the two that are called so.
MEGABYTE_BYTES = 1024 * 1024
_NAMES = {each.content_type: each.suffix[1:].upper() for each in MEDIA_TYPES} | {
    "image/jpeg": "JPEG",
    "image/webp": "WebP",
    "video/webm": "WebM",
}
_NOUNS = {each.content_type: each.kind.value for each in MEDIA_TYPES}


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What is known of a file. None is not known, and not looked at."""

    content_type: str | None = None
    size_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    duration_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """How one language tells limits."""

    either: str
    at_least: str
    at_most: str
    between: str
    sides: str
    pixels: str
    ratio: str
    seconds: str
    megabytes: str
    bytes_: str
    separators: str
    """Of thousands, and of decimals."""

    def listed(self, names: Sequence[str]) -> str:
        *first, last = names
        return f"{', '.join(first)} {self.either} {last}" if first else last

    def bounds(self, least: int | None, most: int | None) -> str | None:
        if least is not None and most is not None:
            return self.between.format(self.whole(least), self.whole(most))
        if least is not None:
            return self.at_least.format(self.whole(least))
        return None if most is None else self.at_most.format(self.whole(most))

    def size(self, size_bytes: int) -> str:
        if size_bytes < MEGABYTE_BYTES:
            return self.bytes_.format(self.whole(size_bytes))
        return self.megabytes.format(self.decimal(float(f"{size_bytes / MEGABYTE_BYTES:.3g}")))

    def whole(self, number: int) -> str:
        return f"{number:,}".replace(",", self.separators[0])

    def decimal(self, number: float) -> str:
        return f"{number:g}".replace(".", self.separators[1])


_ENGLISH = _Words(
    either="or",
    at_least="at least {}",
    at_most="at most {}",
    between="{} to {}",
    sides="each side {} pixels",
    pixels="width times height {}",
    ratio="the longer side at most {} times the shorter one",
    seconds="{} seconds",
    megabytes="{} MB",
    bytes_="{} bytes",
    separators=",.",
)
_RUSSIAN = _Words(
    either="или",
    at_least="не меньше {}",
    at_most="не больше {}",
    between="от {} до {}",
    sides="каждая сторона {} пикселей",
    pixels="ширина, умноженная на высоту, {}",
    ratio="отношение длинной стороны к короткой не больше {}",
    seconds="{} секунд",
    megabytes="{} МБ",
    bytes_="{} байт",
    separators="\u00a0,",
)
_WORDS = {"en": _ENGLISH, "ru": _RUSSIAN}


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """Each bound is itself taken. None: the model has no such bound, or it is not known."""

    content_types: Sequence[str]
    size_bytes_max: int | None = None
    side_min: int | None = None
    """Of the shorter side, in pixels."""
    side_max: int | None = None
    """Of the longer one."""
    pixels_min: int | None = None
    pixels_max: int | None = None
    ratio_max: float | None = None
    """Of the longer side to the shorter one."""
    seconds: tuple[int, int] | None = None

    def sentence_in(self, language: str) -> str:
        """All that is taken, such as "JPEG or PNG, at most 10 MB, each side at least 300 pixels."."""
        words = _WORDS[language]
        sides, pixels = words.bounds(self.side_min, self.side_max), words.bounds(self.pixels_min, self.pixels_max)
        told = [
            words.listed([_named(content_type) for content_type in self.content_types]),
            self.size_bytes_max is not None and words.at_most.format(words.size(self.size_bytes_max)),
            sides and words.sides.format(sides),
            pixels and words.pixels.format(pixels),
            self.ratio_max is not None and words.ratio.format(words.decimal(self.ratio_max)),
            self.seconds is not None and words.seconds.format(words.bounds(*self.seconds)),
        ]
        return f"{', '.join(part for part in told if part)}."

    def problem_of(self, facts: MediaFacts) -> str | None:
        """What is wrong with such a file and what to do, in one sentence; None if the model takes it."""
        return next((problem for check in _CHECKS if (problem := check(self, facts)) is not None), None)


def _type_problem(limits: MediaLimits, facts: MediaFacts) -> str | None:
    if facts.content_type is None or facts.content_type in limits.content_types:
        return None
    taken = _ENGLISH.listed([_named(each) for each in limits.content_types])
    return f"The file is {_named(facts.content_type)}: send {taken}."


def _size_problem(limits: MediaLimits, facts: MediaFacts) -> str | None:
    size_bytes, size_bytes_max = facts.size_bytes, limits.size_bytes_max
    if size_bytes is None or size_bytes_max is None or size_bytes <= size_bytes_max:
        return None
    told = f"{size_bytes:,} bytes: it may have at most {size_bytes_max:,}, which is {_ENGLISH.size(size_bytes_max)}"
    return f"The {_noun(limits)} has {told}."


def _sides_problem(limits: MediaLimits, facts: MediaFacts) -> str | None:
    if facts.width is None or facts.height is None:
        return None
    shorter, longer = sorted((facts.width, facts.height))
    if limits.side_min is not None and shorter < limits.side_min:
        wanted = f"each side must have at least {limits.side_min}"
    elif limits.side_max is not None and longer > limits.side_max:
        wanted = f"each side may have at most {limits.side_max}"
    elif limits.pixels_min is not None and shorter * longer < limits.pixels_min:
        wanted = f"width times height must be at least {limits.pixels_min:,}"
    elif limits.pixels_max is not None and shorter * longer > limits.pixels_max:
        wanted = f"width times height may be at most {limits.pixels_max:,}"
    elif limits.ratio_max is not None and longer > shorter * Decimal(str(limits.ratio_max)):
        wanted = f"the longer side may be at most {limits.ratio_max:g} times the shorter one"
    else:
        return None
    return f"The {_noun(limits)} has {facts.width} x {facts.height} pixels: {wanted}."


def _duration_problem(limits: MediaLimits, facts: MediaFacts) -> str | None:
    if facts.duration_seconds is None or limits.seconds is None:
        return None
    seconds_min, seconds_max = limits.seconds
    if seconds_min <= facts.duration_seconds <= seconds_max:
        return None
    return f"The {_noun(limits)} takes {facts.duration_seconds:g} seconds: it must take {seconds_min} to {seconds_max}."


_CHECKS: Sequence[Callable[[MediaLimits, MediaFacts], str | None]] = (
    _type_problem,
    _size_problem,
    _sides_problem,
    _duration_problem,
)


def _noun(limits: MediaLimits) -> str:
    return _NOUNS.get(limits.content_types[0], "file")


def _named(content_type: str) -> str:
    return _NAMES.get(content_type, content_type)
