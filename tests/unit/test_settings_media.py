"""Where media are kept, and whose files are fetched."""

from pathlib import Path

import pytest

from app.infrastructure.media_store.urls import folder_of
from app.infrastructure.settings import load_settings
from tests.unit.settings_environment import PASSWORD, refusal, set_all

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_media_are_below_the_data_of_development_unless_it_is_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", "/srv/data of #1 100%")

    url = load_settings().store_url

    assert url is not None
    assert folder_of(url) == Path("/srv/data of #1 100%/media")


def test_there_may_be_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIA_URL", "none")

    assert load_settings().store_url is None


@pytest.mark.parametrize(
    "url",
    [
        "file:///srv/media",
        "file:///srv/with%20blank",
        "s3://bucket",
        "s3://my.bucket-1/",
        "s3://bucket/some/pre_fix",
        "gs://bucket/prefix",
        "az://container/prefix",
    ],
)
def test_takes_folders_and_buckets(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MEDIA_URL", url)

    assert load_settings().store_url == url


@pytest.mark.parametrize(
    "url",
    [
        "/srv/media",
        "media",
        "file://media",
        "file://host/srv/media",
        "file:///srv/../etc",
        "file:///srv/%2e%2e/etc",
        "file:///srv?mode=1",
        "file:///srv#1",
        "s3:bucket",
        "s3://",
        "s3://bucket/../other",
        "s3://bucket//prefix",
        "s3://bucket?region=eu",
        "https://bucket.s3.amazonaws.com",
        "memory:///",
        "NONE",
        "s3://[bucket",
        f"s3://key:{PASSWORD}@bucket",
        f"file://user:{PASSWORD}@/srv",
        f"s3://{PASSWORD}@bucket/prefix",
    ],
)
def test_refuses_what_is_no_store_and_does_not_repeat_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    message = refusal(monkeypatch, {"MEDIA_URL": url})

    assert message.startswith("MEDIA_URL: must ")
    assert PASSWORD not in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEDIA_DAYS", "0"),
        ("MEDIA_DAYS", "3651"),
        ("MEDIA_DAYS", "1.5"),
        ("MEDIA_REDIRECT", "sometimes"),
        ("FAL_MEDIA_HOSTS", "*"),
        ("FAL_MEDIA_HOSTS", "*.com.*"),
        ("FAL_MEDIA_HOSTS", "*fal.media"),
        ("FAL_MEDIA_HOSTS", "fal"),
        ("FAL_MEDIA_HOSTS", ","),
        ("FAL_MEDIA_HOSTS", "https://fal.media"),
        ("FAL_MEDIA_HOSTS", "fal.media:443"),
        ("FAL_MEDIA_HOSTS", "fal.media/files"),
        ("FAL_MEDIA_HOSTS", "127.0.0.1"),
        ("FAL_MEDIA_HOSTS", "fal.media fal.ai"),
    ],
)
def test_refuses_what_cannot_be_meant(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert refusal(monkeypatch, {name: value}).startswith(f"{name}: ")


def test_hosts_are_names_with_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"FAL_MEDIA_HOSTS": " FAL.media , *.cdn.example.com,"})

    loaded = load_settings()

    assert loaded.fal_media_hosts == ("fal.media", "*.cdn.example.com")


@pytest.mark.parametrize(("value", "is_on"), [("true", True), ("on", True), ("false", False), ("off", False)])
def test_whether_downloads_go_to_the_bucket_can_be_set(
    monkeypatch: pytest.MonkeyPatch, value: str, *, is_on: bool
) -> None:
    monkeypatch.setenv("MEDIA_REDIRECT", value)

    assert load_settings().media_redirect is is_on
