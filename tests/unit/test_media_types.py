import pytest

from app.domain.media_types import INLINE_CONTENT_TYPES, MEDIA_TYPES, SNIFFED_BYTES, MediaKind, sniff

BEGINNINGS = [
    (b"\x89PNG\r\n\x1a\n" + bytes(20), "image/png"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
    (b"GIF87a\x01\x00", "image/gif"),
    (b"GIF89a\x01\x00", "image/gif"),
    (b"RIFF\x10\x00\x00\x00WEBPVP8L", "image/webp"),
    (b"RIFF\x10\x00\x00\x00WAVEfmt ", "audio/wav"),
    (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf", "image/avif"),
    (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf", "image/avif"),
    (b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heicmiaf", "image/heic"),
    (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "image/heic"),
    (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41", "video/mp4"),
    (b"\x00\x00\x00\x14ftypmp42\x00\x00\x00\x00mp42", "video/mp4"),
    (b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  ", "video/quicktime"),
    (
        b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm",
        "video/webm",
    ),
    (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x01\x00\x00\x00\x00\x00\x00\x04webm", "video/webm"),
    (b"ID3\x04\x00\x00\x00\x00\x00\x00", "audio/mpeg"),
    (b"\xff\xfb\x90\x00", "audio/mpeg"),
    (b"\xff\xf3\x40\xc4", "audio/mpeg"),
]
STRANGE = [
    b"",
    b"\x00",
    b"\xff",
    b"\xff\xd8",
    b"ID3",
    b"\xff\xf1\x50\x80",
    b"\xff\xeb\x90\x00",
    b"\xff\xfb\xf0\x00",
    b"\xff\xfb\x9c\x00",
    b"RIFF\x10\x00\x00\x00AVI LIST",
    b"RIFX\x00\x00\x00\x10WAVE",
    b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska",
    b"\x1a\x45\xdf\xa3\x93webm",
    b"\x00\x00\x00\x1cftypM4A \x00\x00\x00\x00M4A mp42isom",
    b"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00mif1",
    # The brand stands behind the box.
    b"\x00\x00\x00\x10ftypmif1\x00\x00\x00\x00heic",
    b"#EXTM3U\n",
    b"ffconcat version 1.0\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"<!DOCTYPE html>",
    b"%PDF-1.7",
    b"PK\x03\x04",
    b" \x89PNG\r\n\x1a\n",
]


@pytest.mark.parametrize(("first", "content_type"), BEGINNINGS)
def test_a_file_is_what_its_first_bytes_say(first: bytes, content_type: str) -> None:
    found = sniff(first)

    assert found is not None
    assert found.content_type == content_type


@pytest.mark.parametrize("first", STRANGE)
def test_whatever_begins_otherwise_is_nothing(first: bytes) -> None:
    assert sniff(first) is None


def test_no_more_is_looked_at_than_is_said() -> None:
    assert sniff(b"\x1a\x45\xdf\xa3" + bytes(SNIFFED_BYTES) + b"\x42\x82\x84webm") is None


def test_what_may_be_shown_inline_is_written_down() -> None:
    assert {
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/gif",
        "image/avif",
        "video/mp4",
        "video/webm",
        "audio/mpeg",
        "audio/wav",
    } == INLINE_CONTENT_TYPES


def test_kinds_and_suffixes_follow_from_the_type() -> None:
    kinds = {each.content_type.split("/")[0]: each.kind for each in MEDIA_TYPES}

    assert kinds == {"image": MediaKind.PICTURE, "video": MediaKind.FILM, "audio": MediaKind.SOUND}
    assert len({each.suffix for each in MEDIA_TYPES}) == len(MEDIA_TYPES)
