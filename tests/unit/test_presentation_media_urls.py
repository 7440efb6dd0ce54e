import base64
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.presentation.schemas.media_urls import MEDIA_BYTES_MAX, AudioUrl, ImageUrl, ValidationContext

IMAGE: TypeAdapter[str] = TypeAdapter(ImageUrl)
AUDIO: TypeAdapter[str] = TypeAdapter(AudioUrl)
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


REFUSED_URLS = [
    "",
    " ",
    "fox.png",
    "//example.com/",
    "https:example.com",
    "https:///fox.png",
    "file:///etc/passwd",
    "ftp://example.com/fox.png",
    "gopher://example.com/",
    "javascript:alert(1)",
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://1.2.3.4.5/",
    "http://[fe80::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://example.com./",
    "http://127.0.0.1./",
    "http://\uff11\uff12\uff17.0.0.1/",
    "http://%31%32%37.0.0.1/",
    "http://foo.localhost/",
    "http://localhost.localdomain/",
    "http://printer.local/",
    "http://metadata.google.internal/",
    "http://METADATA.GOOGLE.INTERNAL:80/",
    "http://example/",
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com:8080/",
    "https://example.com:/",
    "https://example.com:443@evil.example/",
    "https://example.com/#fragment",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/\\fox.png",
    "https://example.com/a fox.png",
    "https://example.com/\r\nHost: evil",
    "https://exam\tple.com/",
    "https://example.com/\0",
    "https://example.com/\ud800",
    "https://example.com/füchse.png",
    "https://fücse.example/",
    "https://..example.com/",
    "https://example.com/" + "a" * 2029,
]


@pytest.mark.parametrize("url", REFUSED_URLS)
@pytest.mark.parametrize("context", [PRODUCTION, DEVELOPMENT], ids=["production", "development"])
def test_refuses_any_other_url(url: str, context: ValidationContext) -> None:
    assert refusal_of(IMAGE, url, context) == "url_not_allowed"


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


@pytest.mark.parametrize(
    "uri",
    [
        "data:",
        "data:,",
        "data:image/png;base64,",
        "data:image/png," + PNG.hex(),
        "data:image/png;base64,====",
        data_uri("image/png", PNG) + "!",
        data_uri("image/png", PNG).replace("=", ""),
        data_uri("image/png", PNG).replace("=", "=\n"),
        data_uri("image/png", PNG) + "\ud800",
        data_uri("image/png", b"<svg/>"),
        data_uri("image/png", b"\xff\xd8\xff\xe0"),
        data_uri("image/svg+xml", b"<svg/>"),
        data_uri("image/gif", b"GIF89a"),
        data_uri("image/png;charset=utf-8", PNG),
        data_uri("audio/mpeg", b"ID3\x04"),
        data_uri("text/html", b"<script>"),
    ],
)
def test_refuses_any_other_data_uri(uri: str) -> None:
    assert refusal_of(IMAGE, uri) == "data_uri_not_allowed"


def test_refuses_a_picture_where_a_sound_belongs() -> None:
    assert refusal_of(AUDIO, data_uri("image/png", PNG)) == "data_uri_not_allowed"


def test_takes_media_up_to_its_limit() -> None:
    largest = data_uri("image/png", PNG.ljust(MEDIA_BYTES_MAX, b"\0"))

    assert IMAGE.validate_python(largest, strict=True) == largest
    assert refusal_of(IMAGE, data_uri("image/png", PNG.ljust(MEDIA_BYTES_MAX + 1, b"\0"))) == "data_uri_too_large"
