"""Files that are kept as inputs of jobs: uploads, what came as a data: URI, and outputs that are used again."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeAlias
from uuid import UUID

from app.domain.media_types import SUFFIXES
from app.domain.outputs import DeletedBecause, OutputId

FILE_BYTES_MAX = 100 * 1024 * 1024
STORE_PREFIX = "files"

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
# As the published pattern of a field has them, too.
FILE_PATTERN = rf"file:{_UUID}"
OUTPUT_PATTERN = rf"output:{_UUID}/(?:0|[1-9][0-9]{{0,3}})"
_FILE = re.compile(FILE_PATTERN)
_OUTPUT = re.compile(OUTPUT_PATTERN)


class FileOrigin(StrEnum):
    UPLOAD = "upload"
    DATA = "data"
    """A data: URI of one job, and gone a day after it."""
    OUTPUT = "output"
    """An output of the same account, which stays where outputs are kept."""


@dataclass(frozen=True, slots=True)
class FileId:
    """Names a file in links and in the store."""

    id: UUID

    def __str__(self) -> str:
        return str(self.id)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for anything but the one spelling that `str` has."""
        try:
            found = cls(UUID(text))
        except ValueError:
            return None
        return found if str(found) == text else None

    @property
    def store_key(self) -> str:
        tail = self.id.hex[-4:]
        return f"{STORE_PREFIX}/{tail[:2]}/{tail[2:]}/{self}"

    @classmethod
    def of_store_key(cls, key: str) -> Self | None:
        """None for what is not the key of a file."""
        found = cls.parse(key.rpartition("/")[2])
        return found if found is not None and found.store_key == key else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    id: UUID
    account_id: UUID
    origin: FileOrigin
    content_type: str
    size_bytes: int
    width: int | None
    height: int | None
    duration_seconds: float | None
    sha256: str
    job_id: UUID | None = None
    """Of a data: URI, the job that it came with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """`content_type` and what follows is None of an output where nobody knows it."""

    id: UUID
    account_id: UUID
    origin: FileOrigin | str
    created_at: datetime
    expires_at: datetime
    content_type: str | None
    size_bytes: int | None
    width: int | None
    height: int | None
    duration_seconds: float | None
    sha256: str | None
    is_stored: bool
    deleted_at: datetime | None = None
    deleted_because: DeletedBecause | str | None = None

    @property
    def name(self) -> str:
        """Ours: nothing that a customer chose becomes the name of a file."""
        return f"file{SUFFIXES.get(self.content_type or '', '')}"

    @property
    def as_input(self) -> Mapping[str, Any]:
        """What the row of a job has in place of the file."""
        return {
            "file_id": str(self.id),
            "content_type": self.content_type,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class DataUri:
    """In base64, as a field has put it right."""

    text: str

    @property
    def content_type(self) -> str:
        return self.text[len("data:") : self.text.index(";")]


KeptReference: TypeAlias = UUID | OutputId
MediaReference: TypeAlias = KeptReference | DataUri


def reference_in(value: str) -> MediaReference | None:
    """What a media field of a request refers to that is ours to keep. None: a URL, which only fal opens."""
    if value.startswith("data:"):
        return DataUri(value)
    if _FILE.fullmatch(value):
        return UUID(value.removeprefix("file:"))
    if _OUTPUT.fullmatch(value):
        job_id, _, number = value.removeprefix("output:").partition("/")
        return OutputId(UUID(job_id), int(number))
    return None


def text_of(reference: KeptReference) -> str:
    """As a request names it: `reference_in` reads it."""
    if isinstance(reference, UUID):
        return f"file:{reference}"
    return f"output:{reference.job_id}/{reference.number}"


def is_reference(text: str) -> bool:
    """Whether it names a file or an output, in the one way in which that is written."""
    return bool(_FILE.fullmatch(text) or _OUTPUT.fullmatch(text))


def with_urls(parameters: Mapping[str, Any], urls: Mapping[str, str]) -> Mapping[str, Any]:
    """A job's parameters as they are sent: in place of each kept file, where fal finds it."""
    return {name: _sent(value, urls) for name, value in parameters.items()}


def without_files(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those parameters in which no kept file stands."""
    return {name: value for name, value in parameters.items() if not _names_file(value)}


def _names_file(value: Any) -> bool:
    return (
        any(map(_names_file, value)) if isinstance(value, list) else isinstance(value, Mapping) and "file_id" in value
    )


def _sent(value: Any, urls: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_sent(each, urls) for each in value]
    if _names_file(value):
        return urls.get(value["file_id"], value)
    return value
