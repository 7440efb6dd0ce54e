"""What a child says of a file is taken only as far as a file can have it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.application.ports.media_decoder import UnreadableMedia
from app.domain.media_types import sniff
from app.infrastructure.decoding.decoder import PIXELS_MAX, ConfinedDecoder, _checked

SAID = {"content_type": "image/png", "width": 4, "height": 3}


def checked(tmp_path: Path, found: dict[str, Any]) -> tuple[int | None, int | None, float | None]:
    file = tmp_path / "cleaned"
    Image.new("RGB", (4, 3)).save(file, "PNG")
    media_type = sniff(file.read_bytes())
    assert media_type is not None
    media = _checked(json.loads(json.dumps(found)), file, media_type)
    return media.width, media.height, media.duration_seconds


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "The file is empty: send PNG, "),
        (b'{"url": "https://example.com/fox.png"}', "This is no file, but a URL or JSON: send the file itself, PNG, "),
        (b" HTTPS://example.com/fox.png", "This is no file, but a URL or JSON: send the file itself, PNG, "),
        (b"data:image/png;base64,iVBORw0KGgo=", "This is no file, but a URL or JSON: send the file itself, PNG, "),
        (b"zanzibar", "The file is of no type that is taken: send PNG, "),
    ],
)
async def test_says_of_what_is_no_medium_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(content)

    async with ConfinedDecoder.open() as decoder:
        with pytest.raises(UnreadableMedia) as refused:
            await decoder.examine(sent, tmp_path / "cleaned", owner=1)

    assert refused.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (4, 3, None)),
        ({"width": None, "height": None, "duration_seconds": 2}, (None, None, 2)),
        ({"width": PIXELS_MAX, "duration_seconds": 0.04}, (PIXELS_MAX, 3, 0.04)),
    ],
)
def test_takes_what_a_file_can_have(tmp_path: Path, changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert checked(tmp_path, SAID | changes) == expected


@pytest.mark.parametrize(
    "changes",
    [
        *({"width": value} for value in (0, -1, True, 1.5, "4", [4], PIXELS_MAX + 1, 10**400)),
        *({"height": value} for value in (0, -1, False, 10**10)),
        *({"duration_seconds": value} for value in (-1, True, "2", float("nan"), float("inf"), 10**400, 1e300)),
    ],
)
def test_what_no_file_has_is_no_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UnreadableMedia):
        checked(tmp_path, SAID | changes)
