from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedMedia:
    """Of the file that is kept, which is another one than the one that was sent."""

    content_type: str
    size_bytes: int
    width: int | None
    """As it is shown, upright. None: it is a sound."""
    height: int | None
    duration_seconds: float | None
    """None: it is a picture."""
    sha256: str
    """Hexadecimal."""


class UnreadableMedia(Exception):
    """`reason` is one sentence for whoever sent the file: what is wrong, and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DecoderBusy(Exception):
    """Too many files wait already, of this owner or of all, or none can be looked at right now: ask again."""


class DecoderUnavailable(Exception):
    """No file can be looked at safely on this system. `reason` is one sentence for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MediaDecoder(Protocol):
    async def examine(self, source: Path, cleaned: Path, *, owner: Hashable) -> ExaminedMedia:
        """Write to `cleaned` what is kept of `source`: upright, and without what says who made it, where and with what.

        `owner` is who sent it, the account say. Where it raises, there is no `cleaned`.

        Raises UnreadableMedia, DecoderBusy, DecoderUnavailable.
        """
        ...
