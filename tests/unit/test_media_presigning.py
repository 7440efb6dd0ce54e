"""Our signature of a URL of S3 is the one that obstore makes."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import obstore
import pytest
from obstore.store import S3Store

from app.infrastructure.media_store.presigning import Presigner

ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def signed(key: str, **config: str) -> str:
    given: Any = {"access_key_id": ID, "secret_access_key": SECRET, "region": "eu-west-3", **config}
    store = S3Store("bucket", config=given)
    return obstore.sign(store, "GET", key, timedelta(seconds=90))


@pytest.mark.parametrize("key", ["outputs/ab/cd/0a1b.77", "a b/ü&c=d+e~f"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"token": "a+session/token=="},
        {"endpoint": "https://s3.example.com:9000"},
        {"virtual_hosted_style_request": "true"},
    ],
)
def test_without_further_parameters_the_signature_is_obstores(key: str, config: dict[str, str]) -> None:
    url = signed(key, **config)

    again = Presigner(ID, SECRET).with_parameters(url, {})

    assert again is not None
    assert parse_qs(urlsplit(again).query) == parse_qs(urlsplit(url).query)
    assert urlsplit(again)._replace(query="") == urlsplit(url)._replace(query="")


def test_parameters_are_part_of_what_is_signed() -> None:
    url = signed("key")

    one, other = (
        Presigner(ID, SECRET).with_parameters(url, {"response-content-type": kind}) for kind in ("a/b", "a/c")
    )

    assert one is not None
    assert other is not None
    assert "response-content-type=a%2Fb&X-Amz-Signature=" in one
    assert one[-64:] != other[-64:]


def test_what_other_credentials_have_signed_is_left_alone() -> None:
    assert Presigner("AKIDOTHER", SECRET).with_parameters(signed("key"), {}) is None
