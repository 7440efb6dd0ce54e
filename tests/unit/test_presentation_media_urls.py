import base64
import contextlib
import time
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.presentation.schemas.media_urls import MEDIA_BYTES_MAX, ImageUrl, ValidationContext, audio_url
from tests.unit.refused_urls import REFUSED_URLS

IMAGE: TypeAdapter[str] = TypeAdapter(ImageUrl)
AUDIO: TypeAdapter[str] = TypeAdapter(audio_url((3, 30)))
PNG = b"\x89PNG\r\n\x1a\n"
DEVELOPMENT: ValidationContext = {"allow_private_media_urls": True}
PRODUCTION: ValidationContext = {"allow_private_media_urls": False}


def data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def refusal_of(adapter: TypeAdapter[str], value: str, context: Any = PRODUCTION) -> str:
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python(value, strict=True, context=context)
    return refused.value.errors()[0]["type"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/fox.png",
        "http://example.com",
        "HTTPS://EXAMPLE.COM/FOX.PNG",
        "https://example.com:443/fox.png?size=1&x=[a]",
        "http://example.com:80",
        "https://my_bucket.s3.eu-central-1.amazonaws.com/a%20fox.png",
        "https://xn--fchse-kva.example/fox.png",
        "https://v3b.fal.media/files/b/0a1b2c3d/fox.png",
        "https://example.com/path/@user:8080/",
        "https://local.example.com/",
        "https://example.com/" + "a" * 2028,
    ],
)
def test_takes_a_public_url_as_it_is(url: str) -> None:
    assert IMAGE.validate_python(url, strict=True, context=PRODUCTION) == url


@pytest.mark.parametrize("url", [*REFUSED_URLS, "https://example.com:8080/"])
@pytest.mark.parametrize("context", [PRODUCTION, DEVELOPMENT], ids=["production", "development"])
def test_refuses_any_other_url(url: str, context: ValidationContext) -> None:
    assert refusal_of(IMAGE, url, context) == "url_not_allowed"


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        ("https://example.com/фото.png", "https://example.com/%D1%84%D0%BE%D1%82%D0%BE.png"),
        ("https://example.com/a fox.png", "https://example.com/a%20fox.png"),
        ("https://example.com/a%20fox é.png?q=é", "https://example.com/a%20fox%20%C3%A9.png?q=%C3%A9"),
        ("https://example\u3002com/", "https://example.com/"),
        ("https://пример.рф/фото.png", "https://xn--e1afmkfd.xn--p1ai/%D1%84%D0%BE%D1%82%D0%BE.png"),
        ("https://Пример.РФ/", "https://xn--e1afmkfd.xn--p1ai/"),
        ("https://bu\u0308cher.example/", "https://xn--bcher-kva.example/"),
        ("https://my_bucket.фото.example/x", "https://my_bucket.xn--n1aalg.example/x"),
        ("  https://example.com/fox.png\n", "https://example.com/fox.png"),
        ("https://example.com/写真.jpg", "https://example.com/%E5%86%99%E7%9C%9F.jpg"),
        ("https://8.8.8.8.example.com/", "https://8.8.8.8.example.com/"),
        ("https://ec2-54-1-2-3.compute-1.amazonaws.com/", "https://ec2-54-1-2-3.compute-1.amazonaws.com/"),
        ("https://svc.example.com/lan.local/", "https://svc.example.com/lan.local/"),
    ],
)
def test_writes_a_url_in_ascii(given: str, handed_on: str) -> None:
    assert IMAGE.validate_python(given, strict=True, context=PRODUCTION) == handed_on


def reason_of(adapter: TypeAdapter[str], value: str) -> str:
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python(value, strict=True, context=PRODUCTION)
    (error,) = refused.value.errors()
    return str(error["ctx"]["reason"])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            "fox.png",
            (
                "This must be a URL that begins with https:// or http://, a data: URI, "
                "file:<file_id> or output:<job_id>/0."
            ),
        ),
        ("http://127.0.0.1.nip.io/", "Names under nip.io can lead to any address"),
        ("http://x.svc/", "Names that end with .svc are not public"),
        ("http://printer.lan/", "Names that end with .lan are not public"),
        ("http://192.168.0.1.example.com/", "holds an address that is not public"),
        ("http://10.0.0.1/", "must name a host, and not an IP address."),
        ("http://[::1]/", "must name a host, and not an IP address."),
        ("http://example/", "must be a full public name"),
        ("http://example.com./", "must not end with a dot"),
        ("https://example.com:8080/", "port 80 or 443"),
        ("https://user:password@example.com/", "user name or password"),
        ("https://example.com/#a", "must not have a fragment"),
        ("https://example.com/\\x", "backslash"),
        ("https://example.com/\nx", "control character"),
        ("https://\uff11\uff12\uff17.example.com/", "characters that no name of a host can have"),
        ("https://example.com/" + "é" * 400, "at most 2048 characters, percent-encoded"),
    ],
)
def test_says_what_is_wrong_with_a_url(url: str, reason: str) -> None:
    assert reason in reason_of(IMAGE, url)


LOOPBACK_URLS = [
    "http://127.0.0.1:8001/fox.png",
    "http://localhost:8001/fox.png",
    "http://[::1]:8001/x",
    "http://127.0.0.1",
]


@pytest.mark.parametrize("url", LOOPBACK_URLS)
def test_takes_a_loopback_url_in_development_only(url: str) -> None:
    assert IMAGE.validate_python(url, strict=True, context=DEVELOPMENT) == url
    assert refusal_of(IMAGE, url, PRODUCTION) == "url_not_allowed"
    assert refusal_of(IMAGE, url, None) == "url_not_allowed"


@pytest.mark.parametrize(
    ("adapter", "media_type", "content"),
    [
        (IMAGE, "image/png", PNG),
        (IMAGE, "image/jpeg", b"\xff\xd8\xff\xe0"),
        (IMAGE, "image/webp", b"RIFF\x0a\x00\x00\x00WEBPVP8 "),
        (AUDIO, "audio/mpeg", b"ID3\x04"),
        (AUDIO, "audio/mp3", b"\xff\xfb\x90\x00"),
        (AUDIO, "audio/wav", b"RIFF\x0a\x00\x00\x00WAVEfmt "),
        (AUDIO, "audio/x-wav", b"RIFF\x0a\x00\x00\x00WAVEfmt "),
    ],
)
def test_takes_media_whose_first_bytes_are_what_it_says(
    adapter: TypeAdapter[str], media_type: str, content: bytes
) -> None:
    uri = data_uri(media_type, content)

    assert adapter.validate_python(uri, strict=True, context=PRODUCTION) == uri


CANONICAL = data_uri("image/png", PNG + b"\xfb\xff\xfe" * 20)
PAYLOAD = CANONICAL.partition(",")[2]
JPEG_URI = data_uri("image/jpeg", b"\xff\xd8\xff\xe0")


@pytest.mark.parametrize(
    "given",
    [
        CANONICAL,
        CANONICAL.replace("image/png", "IMAGE/PNG"),
        CANONICAL.replace("data:", "DATA:"),
        CANONICAL.replace("data:image/png;base64", "Data:Image/Png;BASE64"),
        CANONICAL.replace(";base64", ";charset=utf-8;base64"),
        CANONICAL.replace(";base64", ';name="a fox.png";base64'),
        CANONICAL.replace(";base64", "; base64"),
        CANONICAL.replace("image/png", ""),
        CANONICAL.replace("image/png", "application/octet-stream"),
        CANONICAL.replace("image/png", "image/jpg"),
        CANONICAL.replace("image/png", "image/gif"),
        CANONICAL.replace("+", "-").replace("/", "_").replace("image_png", "image/png"),
        CANONICAL.rstrip("="),
        f"  {CANONICAL}\n",
        f"data:image/png;base64,\n{PAYLOAD}",
        f"data:image/png;base64, {PAYLOAD}",
        "data:image/png;base64," + "\r\n".join(PAYLOAD[start : start + 76] for start in range(0, len(PAYLOAD), 76)),
        "data:image/png;base64," + PAYLOAD.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
        "data:image/png," + "".join(f"%{byte:02X}" for byte in base64.b64decode(PAYLOAD)),
        PAYLOAD,
    ],
)
def test_puts_a_data_uri_right(given: str) -> None:
    assert IMAGE.validate_python(given, strict=True, context=PRODUCTION) == CANONICAL


@pytest.mark.parametrize("declared", ["image/jpg", "image/pjpeg", "IMAGE/JPEG", "image/png", "", "text/plain"])
def test_the_bytes_decide_the_type(declared: str) -> None:
    given = JPEG_URI.replace("image/jpeg", declared)

    assert IMAGE.validate_python(given, strict=True, context=PRODUCTION) == JPEG_URI


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:", "The data: URI has no comma"),
        ("data:image/png;base64", "The data: URI has no comma"),
        ("data:image/png" + ";a=b" * 300 + ";base64,AAAA", "The data: URI has no comma"),
        ("data:,", "The data: URI is empty."),
        ("data:image/png;base64,", "The data: URI is empty."),
        ("data:image/png;base64,====", "The data: URI is empty."),
        ("data:image/png," + PNG.hex(), "These bytes are no format that is known here."),
        (CANONICAL + "!", "not base64, or not all of it."),
        (CANONICAL.replace(PAYLOAD, PAYLOAD[:29]), "not base64, or not all of it."),
        (CANONICAL + "\ud800", "characters that no URI can have"),
        (
            data_uri("image/svg+xml", b"<svg xmlns='x'/>"),
            "These bytes are SVG. This must be one of: PNG, JPEG, WebP, GIF, AVIF, HEIC.",
        ),
        (data_uri("image/png", b"<?xml version='1.0'?>\n<svg>"), "These bytes are SVG."),
        (data_uri("image/tiff", b"II*\0"), "These bytes are TIFF."),
        (data_uri("application/pdf", b"%PDF-1.7"), "These bytes are PDF."),
        (data_uri("video/mp4", b"\0\0\0\x20ftypisom"), "These bytes are MP4."),
        (data_uri("audio/mpeg", b"ID3\x04"), "These bytes are MP3."),
        (data_uri("text/html", b"<!DOCTYPE html>"), "These bytes are HTML."),
        (data_uri("image/png", b"RIFF\x0a\0\0\0WAVEfmt "), "These bytes are WAV."),
    ],
)
def test_says_what_is_wrong_with_a_data_uri(uri: str, reason: str) -> None:
    assert refusal_of(IMAGE, uri) == "data_uri_not_allowed"
    assert reason in reason_of(IMAGE, uri)


def wav(seconds: float, *, size: int | None = None, rate: int = 8000) -> bytes:
    samples = b"\0" * int(seconds * rate)
    layout = b"\x01\0\x01\0" + rate.to_bytes(4, "little") * 2 + b"\x01\0\x08\0"
    told = len(samples) if size is None else size
    return (
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0"
        + layout
        + b"LIST\x03\0\0\0abc\0data"
        + told.to_bytes(4, "little")
        + samples
    )


@pytest.mark.parametrize(
    "sound", [wav(3), wav(30), wav(10, size=2**32 - 1), wav(10, size=0), wav(1, rate=0), wav(5)[:40]]
)
def test_takes_a_sound_whose_length_is_right_or_not_known(sound: bytes) -> None:
    uri = data_uri("audio/wav", sound)

    assert AUDIO.validate_python(uri, strict=True) == uri


@pytest.mark.parametrize("sound", [wav(2.9), wav(30.1), wav(31, size=2**32 - 1)])
def test_refuses_a_sound_that_is_too_short_or_too_long(sound: bytes) -> None:
    assert reason_of(AUDIO, data_uri("audio/wav", sound)) == "The sound must take 3 to 30 seconds."


def test_the_length_of_a_sound_is_that_of_its_model() -> None:
    two_seconds, long = data_uri("audio/wav", wav(2)), data_uri("audio/wav", wav(40))
    sound_of_another_model: TypeAdapter[str] = TypeAdapter(audio_url((2, 60)))
    any_sound: TypeAdapter[str] = TypeAdapter(audio_url(None))

    assert reason_of(AUDIO, two_seconds) == "The sound must take 3 to 30 seconds."
    for uri in (two_seconds, long):
        assert sound_of_another_model.validate_python(uri, strict=True) == uri
    assert reason_of(sound_of_another_model, data_uri("audio/wav", wav(61))) == "The sound must take 2 to 60 seconds."
    assert any_sound.validate_python(data_uri("audio/wav", wav(0.1)), strict=True)


def test_refuses_a_picture_where_a_sound_belongs() -> None:
    assert refusal_of(AUDIO, data_uri("image/png", PNG)) == "data_uri_not_allowed"


def test_takes_media_up_to_its_limit() -> None:
    largest = data_uri("image/png", PNG.ljust(MEDIA_BYTES_MAX, b"\0"))

    assert IMAGE.validate_python(largest, strict=True) == largest
    too_large = data_uri("image/png", PNG.ljust(MEDIA_BYTES_MAX + 1, b"\0"))
    for uri in (too_large, too_large.replace("data:", "DATA:"), too_large.replace("=", ""), too_large + "\n" * 100):
        assert refusal_of(IMAGE, uri) == "data_uri_too_large"


HOSTILE = [
    "https://" + "a." * 4_000_000 + "com/",
    "https://" + "é" * 8_000_000,
    "https://example.com/" + "é" * 8_000_000,
    "data:image/png," + "%00" * 5_000_000,
    "data:image/png;base64," + "%2B" * 5_000_000,
    "data:image/png;base64," + "\n" * 16_000_000,
    "data:" + ";" * 16_000_000,
    data_uri("image/png", b"<!-- -->" * 600_000),
    data_uri("image/png", b" " * 5_000_000),
    data_uri("audio/wav", b"RIFF\0\0\0\0WAVE" + b"abcd\0\0\0\0" * 600_000),
    "iVBORw0KGgo" + "!" * 16_000_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("adapter", [IMAGE, AUDIO], ids=["image", "audio"])
def test_takes_no_long_time_to_refuse_what_is_long(adapter: TypeAdapter[str], text: str) -> None:
    began = time.process_time()

    with contextlib.suppress(ValidationError):
        adapter.validate_python(text, strict=True, context=PRODUCTION)

    assert time.process_time() - began < 1
