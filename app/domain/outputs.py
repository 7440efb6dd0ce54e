"""What fal delivered for a job: each output is data of fal's until our copy of it is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from app.domain.media_types import SUFFIXES
from app.domain.terms import ResultShape

STORE_PREFIX = "outputs"


class DeletedBecause(StrEnum):
    EXPIRED = "expired"
    REQUESTED = "requested"
    """Its owner asked for it."""
    LOST = "lost"
    """fal did not have it any more before our copy was made."""


@dataclass(frozen=True, slots=True)
class OutputId:
    """Names an output in links: `<job id>-<place in the result, from 0>`."""

    job_id: UUID
    number: int

    def __str__(self) -> str:
        return f"{self.job_id}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for anything but the one spelling that `str` has."""
        job_id, _, number = text.rpartition("-")
        if not (number.isascii() and number.isdigit() and len(number) <= 4):
            return None
        try:
            found = cls(UUID(job_id), int(number))
        except ValueError:
            return None
        return found if str(found) == text else None

    @property
    def store_key(self) -> str:
        """Where the store has our copy. Job ids begin with the time, so folders go by their end, which is random."""
        tail = self.job_id.hex[-4:]
        return f"{STORE_PREFIX}/{tail[:2]}/{tail[2:]}/{self}"

    @classmethod
    def of_store_key(cls, key: str) -> Self | None:
        """None for what is not the key of an output."""
        found = cls.parse(key.rpartition("/")[2])
        return found if found is not None and found.store_key == key else None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOutput:
    """What is known of our copy. `content_type`, `size_bytes` and `sha256` are of the stored bytes."""

    number: int
    expires_at: datetime
    content_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    is_stored: bool = False
    deleted_at: datetime | None = None
    deleted_because: DeletedBecause | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """`provider_url` is None once it was deleted, and where fal named none."""

    id: OutputId
    kept: KeptOutput
    told: Mapping[str, Any]
    """What fal says of it."""
    is_blanked: bool
    is_picture: bool

    @property
    def provider_url(self) -> str | None:
        return _text(self.told.get("url"))

    @property
    def content_type(self) -> str | None:
        return self.kept.content_type or _text(self.told.get("content_type"))

    @property
    def size_bytes(self) -> int | None:
        return self.kept.size_bytes if self.kept.is_stored else _count(self.told.get("file_size"))

    @property
    def width(self) -> int | None:
        return _count(self.told.get("width"))

    @property
    def height(self) -> int | None:
        return _count(self.told.get("height"))

    @property
    def duration_seconds(self) -> float | None:
        told = self.told.get("duration")
        return float(told) if isinstance(told, int | float) and not isinstance(told, bool) and told > 0 else None

    @property
    def name(self) -> str:
        """Ours: nothing that fal or a customer chose becomes the name of a file."""
        suffix = SUFFIXES.get(self.content_type or "", "")
        return f"{'image' if self.is_picture else 'video'}-{self.id.number + 1}{suffix}"


def outputs_of(
    job_id: UUID, result: Mapping[str, Any], shape: ResultShape, kept: Sequence[KeptOutput]
) -> Sequence[Output]:
    """In the order of the result. Whatever of it nothing is kept of is left out."""
    told, blanked = shape.outputs_in(result), shape.blanked_in(result)
    return [
        Output(
            id=OutputId(job_id, each.number),
            kept=each,
            told=_told(told, each.number),
            is_blanked=each.number in blanked,
            is_picture=shape.is_list,
        )
        for each in sorted(kept, key=lambda each: each.number)
    ]


def _told(told: Sequence[Any], number: int) -> Mapping[str, Any]:
    found = told[number] if number < len(told) else None
    return found if isinstance(found, Mapping) else {"url": found} if isinstance(found, str) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
