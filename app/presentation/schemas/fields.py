"""The strictness that all request bodies share, and the field types that more than one of them uses."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, get_args
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DIGITS = re.compile(r"-?[0-9]{1,1000}", re.ASCII)


class RequestModel(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def parse_uuid(text: object) -> UUID | None:
    """The canonical text form only: Python would also read braces, `urn:uuid:` and no hyphens at all."""
    return UUID(text) if isinstance(text, str) and _CANONICAL_UUID.fullmatch(text) else None


def _uuid(value: object) -> UUID:
    uuid = parse_uuid(value)
    if uuid is None:
        raise PydanticCustomError("not_a_uuid", "not a UUID")
    return uuid


def _whole_number(text: object) -> int:
    if not isinstance(text, str) or not _DIGITS.fullmatch(text):
        raise PydanticCustomError("not_an_integer", "not an integer")
    return int(text)


def _moment(text: object) -> datetime:
    """RFC 3339: Python would also read a day alone, and moments of no zone."""
    try:
        if not isinstance(text, str) or not _MOMENT.fullmatch(text):
            raise ValueError
        # In UTC, which the first and the last hours of the calendar cannot always be.
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("not_a_moment", "not a moment") from None


def _storable(text: str) -> str:
    """PostgreSQL cannot store a NUL. Half a surrogate pair, the other such thing, pydantic refuses itself."""
    if "\0" in text:
        raise PydanticCustomError("invalid_text", "NUL")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "blank")
    return text


CanonicalUuid = Annotated[UUID, BeforeValidator(_uuid)]
# Query parameters are texts, and pydantic would also take "5.0", "1_000" and " 5 " for integers.
# The limits belong inside: the document would not know them around the validator.
WHOLE_NUMBER = BeforeValidator(_whole_number)
PageSize = Annotated[int, Field(ge=1, le=100), WHOLE_NUMBER]
PageOffset = Annotated[int, Field(ge=0, le=100_000), WHOLE_NUMBER]
Moment = Annotated[datetime, BeforeValidator(_moment)]
STORABLE = AfterValidator(_storable)
NOT_BLANK = AfterValidator(_not_blank)


class OrNewer:
    """For `SomeEnumeration | str` in answers: a word that a newer release wrote is shown as it is, and the document
    lists the words of this one.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda word, _: word,
            handler.generate_schema(get_args(source)[0]),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )
