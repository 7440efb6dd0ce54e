"""Where webhooks may go, as far as the text of the URL tells."""

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.presentation.schemas.media_urls import ValidationContext
from app.presentation.schemas.webhook_urls import WebhookUrl, webhook_url_as_taken
from tests.unit.refused_urls import REFUSED_URLS

URL: TypeAdapter[str] = TypeAdapter(WebhookUrl)
DEVELOPMENT: ValidationContext = {"allow_private_media_urls": True}
PRODUCTION: ValidationContext = {"allow_private_media_urls": False}
LOOPBACK = ["http://127.0.0.1:3000/hook", "http://localhost/", "http://[::1]:8080/hook?a=b"]
everywhere = pytest.mark.parametrize("context", [PRODUCTION, DEVELOPMENT, None], ids=["production", "development", "-"])


def refusal_of(value: str, context: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as refused:
        URL.validate_python(value, strict=True, context=context)
    (error,) = refused.value.errors()
    return error["type"], error.get("ctx", {}).get("reason", "")


@everywhere
@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/tollgate?a=[b]",
        "https://example.com:8443/hook",
        "https://example.com:65535/",
        "https://example.com/" + "a" * 2028,
    ],
)
def test_takes_https_at_any_port_as_it_is(url: str, context: Any) -> None:
    assert URL.validate_python(url, strict=True, context=context) == url == webhook_url_as_taken(url)


@everywhere
@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("HTTPS://HOOKS.EXAMPLE.COM", "https://hooks.example.com"),
        ("https://Hooks.example.com:443/Path?Query", "https://hooks.example.com/Path?Query"),
        ("https://example.com:443?x", "https://example.com?x"),
        ("https://example.com:8443", "https://example.com:8443"),
    ],
)
def test_takes_each_spelling_of_a_server_as_one(url: str, taken: str, context: Any) -> None:
    assert URL.validate_python(url, strict=True, context=context) == taken == webhook_url_as_taken(url)


def test_the_document_promises_no_url_that_is_refused() -> None:
    pattern = re.compile(URL.json_schema()["pattern"])

    for port in (1, 80, 8443, 10443, 59999, 64999, 65499, 65529, 65535):
        assert pattern.search(f"https://hooks.example.com:{port}/tollgate?a=[b]")
    for url in ("https://example.com:0/", "https://example.com:65536/", "http://example.com/", *LOOPBACK):
        assert not pattern.search(url)


@everywhere
@pytest.mark.parametrize("url", REFUSED_URLS)
def test_refuses_what_is_refused_of_media(url: str, context: Any) -> None:
    assert refusal_of(url, context)[0] == "url_not_allowed"


@everywhere
@pytest.mark.parametrize("url", [url for url in REFUSED_URLS if url.startswith("http://")])
def test_https_opens_no_way_to_what_is_refused_by_http(url: str, context: Any) -> None:
    assert refusal_of(url.replace("http://", "https://", 1), context)[0] == "url_not_allowed"


@everywhere
@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com/",
        "example.com",
        "wss://example.com/",
        "data:image/png;base64,AA==",
    ],
)
def test_says_that_it_must_be_https_and_nothing_of_pictures(url: str, context: Any) -> None:
    assert refusal_of(url, context) == ("url_not_allowed", "The URL must begin with https://.")


@everywhere
@pytest.mark.parametrize("port", ["0", "65536", "99999", "100000", "8a", "-1", ""])
def test_refuses_ports_that_do_not_exist(port: str, context: Any) -> None:
    assert refusal_of(f"https://example.com:{port}/", context)[0] == "url_not_allowed"


@pytest.mark.parametrize("url", LOOPBACK)
def test_this_machine_is_for_development_alone(url: str) -> None:
    assert URL.validate_python(url, strict=True, context=DEVELOPMENT) == url
    for context in (PRODUCTION, None):
        assert refusal_of(url, context)[0] == "url_not_allowed"


@pytest.mark.parametrize("rest", [":0/", ":65536/", ":99999999999/", ":/h", ":3000/h#f", "/a\\b"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "u:p@127.0.0.1"])
def test_says_what_a_url_of_this_machine_may_have(host: str, rest: str) -> None:
    assert refusal_of(f"http://{host}{rest}", DEVELOPMENT)[1].startswith("A URL of this machine may have")
    assert refusal_of(f"http://{host}{rest}", PRODUCTION)[1] == "The URL must begin with https://."


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (" https://example.com/hook\n", "https://example.com/hook"),
        ("https://пример.example/хук", "https://xn--e1afmkfd.example/%D1%85%D1%83%D0%BA"),
    ],
)
def test_what_people_write_is_put_right_also_in_a_repeat(given: str, taken: str) -> None:
    assert URL.validate_python(given, strict=True, context=PRODUCTION) == taken == webhook_url_as_taken(given)


@pytest.mark.parametrize("url", [*LOOPBACK, "http://example.com/", "https://10.0.0.1/", ""])
def test_whatever_is_not_put_right_stays_as_it_is_in_a_repeat(url: str) -> None:
    assert webhook_url_as_taken(url) == url
