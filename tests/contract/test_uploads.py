"""POST, GET and DELETE /files at a running service."""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from PIL import ImageOps

from tests.contract.upload_service import UploadService, data_uri, opened, picture, running_upload_service
from tests.media_samples import PLACE, SERIAL_NUMBER, corner_order, four_corners, phone_exif, samples, saved

pytestmark = pytest.mark.timeout(180)

FIELDS = [
    "file_id",
    "content_type",
    "size_bytes",
    "width",
    "height",
    "duration_seconds",
    "sha256",
    "created_at",
    "expires_at",
    "url",
]


@pytest.fixture(scope="module")
def service(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UploadService]:
    with running_upload_service(postgres_dsn, template_database, tmp_path_factory.mktemp("uploads")) as running:
        yield running


def test_a_body_and_a_form_give_the_same_file(service: UploadService) -> None:
    user, content = service.user(), picture("JPEG")

    raw = user.send(content)
    forms = [
        user.ask("POST", "/files", files={name: (file_name, content, "text/plain")}, data={"purpose": "an input"})
        for name, file_name in (("file", "../../etc/passwd"), ("picture", "фото.png"))
    ]

    assert [answer.status_code for answer in (raw, *forms)] == [201, 201, 201]
    file = raw.json()
    assert [*file] == FIELDS
    assert raw.headers["Location"] == f"/files/{file['file_id']}"
    for other in forms:
        for name in ("content_type", "size_bytes", "width", "height", "sha256", "duration_seconds"):
            assert other.json()[name] == file[name]
    kept = service.http.get(file["url"])
    assert (kept.status_code, kept.headers["Content-Type"]) == (200, "image/jpeg")
    assert kept.headers["Content-Disposition"] == 'inline; filename="file.jpg"'
    assert (len(kept.content), hashlib.sha256(kept.content).hexdigest()) == (file["size_bytes"], file["sha256"])
    assert service.left() == []


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "application/json",
        "text/html; charset=utf-8",
        "image/heic",
        "multipart/mixed; boundary=b",
        "",
        "nonsense",
        None,
    ],
)
def test_the_bytes_decide_whatever_type_they_are_said_to_have(service: UploadService, content_type: str | None) -> None:
    told = {} if content_type is None else {"Content_Type": content_type}

    answer = service.user().send(picture(), **told)

    assert (answer.status_code, answer.json()["content_type"]) == (201, "image/png")


@pytest.mark.parametrize(
    ("suffix", "content_type"),
    [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("webp", "image/webp"),
        ("gif", "image/png"),
        ("avif", "image/jpeg"),
        ("heic", "image/jpeg"),
        ("mp4", "video/mp4"),
        ("mov", "video/mp4"),
        ("webm", "video/webm"),
        ("mp3", "audio/mpeg"),
        ("wav", "audio/wav"),
    ],
)
def test_each_type_becomes_one_that_pages_show(service: UploadService, suffix: str, content_type: str) -> None:
    file = service.user().keep(samples()[suffix])

    served = service.http.get(file["url"])
    assert file["content_type"] == served.headers["Content-Type"] == content_type
    assert served.headers["Content-Disposition"].startswith("inline")
    assert file["sha256"] == hashlib.sha256(served.content).hexdigest()
    assert (file["width"] is None) == (content_type.startswith("audio"))
    assert (file["duration_seconds"] is None) == content_type.startswith("image")


def test_what_is_kept_is_upright_and_tells_nothing_of_where_it_was_made(service: UploadService) -> None:
    content = saved(four_corners(), "JPEG", exif=phone_exif(6))
    assert SERIAL_NUMBER.encode() in content

    file = service.user().keep(content)

    kept = service.http.get(file["url"]).content
    assert (file["width"], file["height"]) == (48, 64)
    assert corner_order(opened(kept)) == corner_order(ImageOps.exif_transpose(opened(content)))
    assert not opened(kept).getexif()
    assert not [each for each in (SERIAL_NUMBER, PLACE, "Owner Name", "Phone") if each.encode() in kept]


def test_files_are_listed_from_the_newest_on_in_pages(service: UploadService) -> None:
    user = service.user()
    assert user.ask("GET", "/files").json() == {
        "items": [],
        "next_cursor": None,
        "used_bytes": 0,
        "bytes_max": 1024**3,
    }
    kept = [user.keep(picture()) for _ in range(5)]

    pages: list[list[str]] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        asked = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        page = user.ask("GET", "/files", params=asked).json()
        pages.append([file["file_id"] for file in page["items"]])
        assert page["used_bytes"] == sum(file["size_bytes"] for file in kept)
        cursor = page["next_cursor"]
        if len(pages) == 1:
            # Neither a new file nor one that goes moves what is on the pages that follow.
            kept.append(user.keep(picture()))

    newest_first = [file["file_id"] for file in reversed(kept[:5])]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [file_id for page in pages for file_id in page] == newest_first
    assert user.ask("GET", f"/files/{newest_first[0]}").json() == kept[4]
    assert user.ask("GET", "/files", params={"cursor": str(uuid4())}).json()["items"] == []


def test_a_deleted_file_is_gone_with_its_link_and_its_room(service: UploadService) -> None:
    user = service.user()
    file, other = user.keep(picture()), user.keep(picture("JPEG"))
    path = f"/files/{file['file_id']}"

    deleted = [user.ask("DELETE", path) for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in deleted] == [(204, b"")] * 2
    gone, link = user.ask("GET", path), service.http.get(file["url"])
    assert (gone.status_code, gone.json()["code"]) == (410, "media_deleted")
    assert (link.status_code, link.json()["code"]) == (410, "media_deleted")
    when = re.fullmatch(
        r"The file was deleted at (\S+), as its owner asked. It cannot be had again.", gone.json()["detail"]
    )
    assert when
    assert abs(datetime.now(UTC) - datetime.fromisoformat(when[1])) < timedelta(minutes=1)
    assert link.json()["detail"] == gone.json()["detail"]
    assert [each["file_id"] for each in user.ask("GET", "/files").json()["items"]] == [other["file_id"]]
    assert user.used_bytes() == other["size_bytes"]


def test_nobody_sees_or_deletes_what_somebody_else_keeps(service: UploadService) -> None:
    owner, stranger = service.user(), service.user()
    file = owner.keep(picture())
    path = f"/files/{file['file_id']}"

    for method in ("GET", "DELETE"):
        answer, unknown = stranger.ask(method, path), stranger.ask(method, f"/files/{uuid4()}")
        assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
        assert answer.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert stranger.ask("GET", "/files", params={"cursor": file["file_id"]}).json()["items"] == []
    assert owner.ask("GET", path).json() == file


def test_files_fill_their_room_to_the_byte_and_no_further(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory, service: UploadService
) -> None:
    size_bytes = service.user().keep(picture())["size_bytes"]
    directory, bytes_max = tmp_path_factory.mktemp("full"), str(2 * size_bytes)
    with running_upload_service(
        postgres_dsn, template_database, directory, FILES_BYTES_MAX=bytes_max, RUNNER="external"
    ) as small:
        user, other = small.user(), small.user()
        first, _ = user.keep(picture()), user.keep(picture())
        refused = user.send(picture())
        assert (refused.status_code, refused.json()["code"]) == (409, "files_full")
        figures = {name: refused.json()[name] for name in ("used_bytes", "bytes_max", "size_bytes")}
        # Nothing was read yet, so that the size is that of what was to come.
        assert figures == {"used_bytes": 2 * size_bytes, "bytes_max": 2 * size_bytes, "size_bytes": len(picture())}
        assert user.used_bytes() == 2 * size_bytes
        other.keep(picture())
        user.ask("DELETE", f"/files/{first['file_id']}").raise_for_status()
        user.keep(picture())
        smaller = user.send(samples()["gif"])
        assert smaller.status_code == 409
        before = user.has()
        with_data = user.start([data_uri(picture())])
        assert (with_data.status_code, with_data.json()["code"]) == (409, "files_full")
        assert user.has() == before == (1000, 2 * size_bytes)
        assert small.left() == []
