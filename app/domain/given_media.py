"""Pictures and sounds that a job was given as data: URIs, and the mark that is left of each: type, digest and size.

The SQL function `without_media` puts the same marks into the rows of ended jobs.
"""

import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

# What is longer, and begins as a data: URI, is none of the texts that people write.
TEXT_LENGTH_MAX = 4096

_CONTENT_TYPE_LENGTH_MAX = 100
_HEAD_LENGTH_MAX = 1024
_STORED_HEAD = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,")
_ANY_HEAD = re.compile(r"data:([^,;]*)(?:;[^,;]*)*;\s*base64,", re.ASCII | re.IGNORECASE)
_BLANKS = b" \t\r\n"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_FIELDS_OF_A_MARK = {"content_type", "sha256", "size_bytes"}


@dataclass(frozen=True, slots=True)
class Media:
    """What a data: URI stands for, known by what is kept of it."""

    content_type: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, content_type: str, content: bytes) -> Self:
        return cls(content_type[:_CONTENT_TYPE_LENGTH_MAX], hashlib.sha256(content).hexdigest(), len(content))

    @classmethod
    def of_uri(cls, text: str) -> Self | None:
        """However it is spelled. None: the text is no data: URI, or its base64 is not whole."""
        head = _ANY_HEAD.match(text[:_HEAD_LENGTH_MAX])
        content = None if head is None else _decoded_in_any_spelling(text[head.end() :])
        return None if head is None or content is None else cls.of(head[1].strip().lower(), content)

    @classmethod
    def of_mark(cls, value: Mapping[str, Any]) -> Self | None:
        """None: the value is no mark. With more fields than a mark has it is something else."""
        return cls(**value) if value.keys() == _FIELDS_OF_A_MARK else None


def without_media(value: Any) -> Any:
    """The value with a mark in place of each large data: URI. What has its marks already does not change."""
    if isinstance(value, Mapping):
        return {name: without_media(field) for name, field in value.items()}
    if isinstance(value, list):
        return [without_media(item) for item in value]
    head = _STORED_HEAD.match(value) if isinstance(value, str) and len(value) > TEXT_LENGTH_MAX else None
    if head is None:
        return value
    encoded = value[head.end() :]
    content = _decoded(encoded)
    media = Media.of(head[1], encoded.encode() if content is None else content)
    # In the order of jsonb, so that a row gives the same bytes before and after.
    return {"sha256": media.sha256, "size_bytes": media.size_bytes, "content_type": media.content_type}


def _decoded(encoded: str) -> bytes | None:
    """Of base64 that is whole, with line breaks or without: what PostgreSQL takes."""
    content = _whole(encoded)
    return _whole(encoded.encode("ascii", "replace").translate(None, _BLANKS)) if content is None else content


def _decoded_in_any_spelling(encoded: str) -> bytes | None:
    """Also without padding, and in the form for URLs."""
    content = _whole(encoded)
    if content is not None:
        return content
    plain = encoded.encode("ascii", "replace").translate(_URL_SAFE, _BLANKS).rstrip(b"=")
    return _whole(plain + b"=" * (-len(plain) % 4))


def _whole(encoded: str | bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        return None
