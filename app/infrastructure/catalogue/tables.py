"""The form of the files: which keys a table has and of which type their values are."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, LiteralString

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

from app.domain.kinds import GenerationKind
from app.domain.parameters import ParameterType
from app.domain.pricing import PRICE_TOKENS_MAX, Unit

VALUE_LENGTH_MAX = 100


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _fraction(value: object) -> Fraction:
    try:
        factor = Fraction(value) if isinstance(value, str) else None
    except (ValueError, ZeroDivisionError):
        factor = None
    if factor is None or not Fraction(1, 10**6) <= factor <= 10**6:
        raise PydanticCustomError("form", 'must be an exact fraction above 0 as text, such as "2/3"')
    return factor


def _usd(value: object) -> Fraction:
    try:
        usd = Decimal(value) if isinstance(value, str) else None
    except ArithmeticError:
        usd = None
    if usd is None or not usd.is_finite() or not 0 < usd <= 10**6:
        raise PydanticCustomError("form", 'must be an exact number above 0 as text, such as "0.003"')
    return Fraction(usd)


def _day(value: object) -> object:
    if type(value) is not date:
        raise PydanticCustomError("form", "must be a day, such as 2026-10-10, without quotes")
    return value


def _enumerated(value: Sequence[Any]) -> Sequence[Any]:
    if len({(type(each), each) for each in value}) < len(value):
        raise PydanticCustomError("form", "has the same value twice")
    return value


def _ratio(value: object) -> object:
    if type(value) not in (int, float) or not 1 <= value <= 1000:  # type: ignore[operator]
        raise PydanticCustomError(
            "form", "must be a number from 1 to 1000: how often the shorter side is in the longer"
        )
    return value


def _scalar(value: object) -> object:
    if type(value) not in (bool, int, str):
        raise PydanticCustomError("form", "must be a text, a whole number, true or false")
    if isinstance(value, str) and len(value) > VALUE_LENGTH_MAX:
        raise PydanticCustomError("form", "must have at most 100 characters")
    return value


def _written(pattern: str, message: LiteralString) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise PydanticCustomError("form", message)
        return value

    return AfterValidator(check)


def _number(value: object) -> object:
    if type(value) not in (int, float) or not abs(value) < 2**63:  # type: ignore[arg-type]
        raise PydanticCustomError("form", "must be a number that 64 bits can hold")
    return value


def _json(value: object) -> object:
    """TOML knows days and not-a-numbers, and fal takes JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise PydanticCustomError("form", "must be a text, a number, true, false, a list or a table of these") from None
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("form", "must not be blank")
    return value


Text = Annotated[StrictStr, AfterValidator(_not_blank)]
Scalar = Annotated[Any, AfterValidator(_scalar)]
Values = Annotated[Sequence[Scalar], Field(min_length=1), AfterValidator(_enumerated)]
Factor = Annotated[Fraction, BeforeValidator(_fraction)]
Usd = Annotated[Fraction, BeforeValidator(_usd)]
Day = Annotated[date, BeforeValidator(_day)]
Number = Annotated[Any, AfterValidator(_number)]
Natural = Annotated[StrictInt, Field(ge=0, le=10**9)]
Positive = Annotated[StrictInt, Field(ge=1, le=10**9)]
Json = Annotated[Any, AfterValidator(_json)]
Ratio = Annotated[Any, AfterValidator(_ratio)]
ContentTypes = Annotated[Sequence[StrictStr], Field(min_length=1), AfterValidator(_enumerated)]
Pixels = Annotated[StrictInt, Field(ge=1, le=2**20)]


class WordsTable(Table):
    en: Text
    ru: Text

    def words(self) -> Mapping[str, str]:
        return {"en": self.en, "ru": self.ru}


class FalTable(Table):
    name: Text | None = None
    text: Annotated[StrictStr, _written(r"[^{}]*\{\}[^{}]*", "must have {} in it, in place of the value")] | None = None
    values: Mapping[str, Json] | None = None
    list: StrictBool = False


class ParameterTable(Table):
    """What the vocabulary says of a parameter, with what a model says instead laid over it."""

    type: ParameterType
    group: Literal["input", "output", "more"]
    label: WordsTable
    description: WordsTable
    required: StrictBool = False
    default: Any = None
    assumed: Any = None
    values: Values | None = None
    minimum: Number | None = None
    maximum: Number | None = None
    length_min: Natural | None = None
    length_max: Positive | None = None
    count_min: Positive | None = None
    count_max: Positive | None = None
    content_types: ContentTypes | None = None
    size_mb_max: Positive | None = None
    seconds_min: Positive | None = None
    seconds_max: Positive | None = None
    presets: Mapping[str, tuple[Pixels, Pixels]] | None = None
    side_min: Pixels | None = None
    side_max: Pixels | None = None
    pixels_min: Positive | None = None
    pixels_max: Positive | None = None
    ratio_max: Ratio | None = None
    fal: FalTable = FalTable()


class _LineTable(Table):
    line: Annotated[
        StrictStr,
        _written(r"[a-z][a-z0-9_]{0,39}", "must be at most 40 of a-z, 0-9 and _, and begin with a letter"),
    ]
    per: Unit
    after: Natural = 0
    when: Mapping[str, Values] = {}
    factors: Mapping[str, Mapping[str, Factor]] = {}
    group: Text | None = None
    is_optional: StrictBool = False


class PriceTable(_LineTable):
    tokens: Annotated[StrictInt, Field(ge=1, le=PRICE_TOKENS_MAX)]
    override: Text | None = None


class CostTable(_LineTable):
    usd: Usd
    upper_bound: StrictBool = False


class ListedPriceTable(Table):
    usd: Usd
    unit: Text


class ConstraintTable(Table):
    when: Annotated[Mapping[str, Values], Field(min_length=1)]
    require: Mapping[str, Values] = {}
    forbid: Sequence[StrictStr] = ()
    message: WordsTable


class ResultTable(Table):
    outputs: Literal["images", "video"]
    flags: Text | None = None


class SecondsTable(Table):
    from_seconds: Positive = Field(alias="from")
    to_seconds: Positive = Field(alias="to")


class ModelTable(Table):
    id: Annotated[
        StrictStr,
        Field(max_length=200),
        _written(
            r"[a-z0-9][A-Za-z0-9._-]*(/(?!requests(/|$))[A-Za-z0-9_-][A-Za-z0-9._-]*)+",
            "must be an id of fal, such as fal-ai/flux/schnell",
        ),
    ]
    type: GenerationKind
    title: Text
    description: WordsTable
    is_default: StrictBool = False
    checked: Day
    sources: Annotated[Sequence[Text], Field(min_length=1)]
    typical_seconds: SecondsTable
    time_limit: Literal["image", "video"]
    example: Mapping[str, Json]
    result: ResultTable
    safety_switch: Text | None = None
    result_sizes: Literal["told", "may be told", "untold"] = "untold"
    parameters: Annotated[Mapping[str, Any], Field(min_length=1)]
    """Each is read as a ParameterTable once the vocabulary lies under it."""
    fixed: Mapping[str, Json] = {}
    constraints: Sequence[ConstraintTable] = ()
    price: Annotated[Sequence[PriceTable], Field(min_length=1)]
    cost_usd: Annotated[Sequence[CostTable], Field(min_length=1)]
    listed_price: ListedPriceTable | None = None
    outputs_per_image_max: Annotated[StrictInt, Field(ge=1, le=100)] = 1


class FamilyTable(Table):
    """A file; the models are looked at one by one."""

    family: Text = ""
    model: Sequence[Mapping[str, Any]] = ()
    prices: Mapping[str, Mapping[str, Any]] = {}
    """By the id of a model: other `price` or `cost_usd` lines for it."""
    remove: Sequence[Text] = ()
