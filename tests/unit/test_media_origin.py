"""From which origin a bucket serves what it has, so that the page may show it."""

from pathlib import Path
from typing import cast

import pytest

from app.application.media import OpenMedia
from app.application.ports.files import FileRecords
from app.application.ports.media import MediaLinks, OutputReader, ProviderMedia
from app.application.ports.media_store import MediaStore
from app.infrastructure.media_store.opening import open_store

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-3"}
AWS = "https://s3.eu-west-3.amazonaws.com"


def opening(store: MediaStore | None, *, is_handed_over: bool = True) -> OpenMedia:
    nothing = (cast(MediaLinks, None), cast(OutputReader, None), cast(FileRecords, None), cast(ProviderMedia, None))
    return OpenMedia(*nothing, store, is_handed_over)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize(
    ("others", "origin"),
    [
        ({}, AWS),
        ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, AWS.replace("s3.", "pictures.s3.")),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000"),
        ({"AWS_ENDPOINT_URL": "https://minio.example.com/behind/a/path"}, "https://minio.example.com"),
    ],
)
async def test_it_is_that_of_the_urls_that_it_signs(
    environment: pytest.MonkeyPatch, others: dict[str, str], origin: str
) -> None:
    for name, value in others.items():
        environment.setenv(name, value)

    assert await opening(open_store("s3://pictures/of/all")).store_origin() == origin


async def test_there_is_none_where_nobody_is_sent_there(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bucket, folder = open_store("s3://pictures/of/all"), open_store(tmp_path.as_uri())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(name)
    of_a_role = open_store("s3://pictures/of/all")

    for media in (opening(None), opening(folder), opening(of_a_role), opening(bucket, is_handed_over=False)):
        assert await media.store_origin() is None
