"""What a generation takes along: kept files, earlier outputs and data: URIs, and what is refused before any debit."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from PIL import Image

from tests.contract.upload_service import (
    IMAGE_TO_VIDEO,
    IMAGES,
    UploadService,
    User,
    data_uri,
    opened,
    picture,
    running_upload_service,
)
from tests.media_samples import films, four_corners, samples, saved
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.timeout(240)

KLING = "fal-ai/kling-video/v2.5-turbo/pro/image-to-video"
PARAMETERS = "SELECT parameters::text FROM jobs WHERE id = $1::uuid"


@pytest.fixture(scope="module")
def service(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UploadService]:
    with running_upload_service(postgres_dsn, template_database, tmp_path_factory.mktemp("inputs")) as running:
        yield running


@pytest.fixture(scope="module")
def storeless(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UploadService]:
    directory = tmp_path_factory.mktemp("storeless")
    with running_upload_service(postgres_dsn, template_database, directory, MEDIA_URL="none") as running:
        yield running


def row_of(service: UploadService, job_id: str) -> tuple[list[object], str]:
    """The pictures in the row of a job, and the whole of its parameters."""
    text = service.value(PARAMETERS, job_id)
    return json.loads(text)["image_urls"], text


def as_in_row(file: dict[str, object]) -> dict[str, object]:
    return {name: file[name] for name in ("file_id", "content_type", "sha256", "size_bytes")}


def test_an_upload_goes_into_a_generation_that_completes(service: UploadService) -> None:
    user = service.user()
    file = user.keep(picture("JPEG"))

    answer = user.start([f"file:{file['file_id']}", f" file:{file['file_id'].upper()} "])

    assert answer.status_code == 202, answer.text
    job = user.ended(answer.json()["job_id"])
    assert (job["status"], job["error_code"]) == ("COMPLETED", None)
    assert row_of(service, job["job_id"])[0] == [as_in_row(file)] * 2


def test_an_output_of_an_earlier_job_goes_into_another_one(service: UploadService) -> None:
    user = service.user()
    first = user.ended(user.ask("POST", IMAGES, json={"prompt": "a fox"}).json()["job_id"])
    assert first["status"] == "COMPLETED"

    answer = user.start([f"output:{first['job_id']}/0"])

    assert answer.status_code == 202, answer.text
    assert user.ended(answer.json()["job_id"])["status"] == "COMPLETED"
    assert user.ask("GET", "/files").json()["items"] == []
    for reference in (f"output:{first['job_id']}/1", f"output:{uuid4()}/0"):
        refused = user.start([reference])
        assert (refused.status_code, refused.json()["code"]) == (422, "input_not_taken")
    stranger = service.user()
    assert stranger.start([f"output:{first['job_id']}/0"]).json()["code"] == "input_not_taken"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "AVIF", "HEIF"])
def test_a_data_uri_is_kept_as_a_file_and_not_in_the_row(service: UploadService, form: str) -> None:
    user, content = service.user(), picture(form)

    # What it is said to be is no matter.
    answer = user.start([data_uri(content, "image/jpg")])

    assert answer.status_code == 202, answer.text
    job = user.ended(answer.json()["job_id"])
    assert job["status"] == "COMPLETED", job
    (file,) = user.ask("GET", "/files").json()["items"]
    (kept,), text = row_of(service, job["job_id"])
    assert kept == as_in_row(file)
    assert len(text) < 1000
    assert "base64" not in text
    served = service.http.get(file["url"]).content
    assert hashlib.sha256(served).hexdigest() == file["sha256"]
    assert opened(served).size == (512, 512)
    assert user.used_bytes() == file["size_bytes"] == len(served)


@pytest.mark.parametrize(
    "given",
    ["data:image/jpg;base64,{jpeg}", "https://example.com/фото.png"],
    ids=["a type that does not exist", "a URL in Cyrillic"],
)
def test_pictures_are_taken_as_people_have_them(service: UploadService, given: str) -> None:
    """Row F23 of the field reports."""
    jpeg = data_uri(picture("JPEG")).partition(",")[2]

    assert service.user().start([given.format(jpeg=jpeg)]).status_code == 202


def test_a_picture_of_megabytes_is_some_hundred_bytes_in_the_row(service: UploadService) -> None:
    """Row F28 of the field reports."""
    user, side = service.user(), 1100
    noise = Image.frombytes("RGB", (side, side), random.Random(1).randbytes(3 * side * side))
    content = saved(noise, "PNG")
    assert len(content) > 3_600_000

    job = user.ended(user.start([data_uri(content)]).raise_for_status().json()["job_id"])

    assert job["status"] == "COMPLETED"
    assert service.value("SELECT pg_column_size(j.*) FROM jobs j WHERE id = $1::uuid", job["job_id"]) < 2000
    assert user.used_bytes() > 3_000_000


@pytest.mark.parametrize("reference", ["file:123", "FILE:{0}", "file:{0}/0", "file:///etc/passwd", "output:{0}"])
def test_a_reference_that_is_none_is_told_how_it_is_written(service: UploadService, reference: str) -> None:
    answer = service.user().start([reference.format(uuid4())])

    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (422, "/image_urls/0")
    assert error["detail"].startswith("A file is written as file:<file_id>")


def of_nobody(service: UploadService, user: User) -> str:
    return f"file:{uuid4()}"


def of_somebody_else(service: UploadService, user: User) -> str:
    return f"file:{service.user().keep(picture())['file_id']}"


def deleted(service: UploadService, user: User) -> str:
    file_id = user.keep(picture())["file_id"]
    user.ask("DELETE", f"/files/{file_id}").raise_for_status()
    return f"file:{file_id}"


def too_small(service: UploadService, user: User) -> str:
    return f"file:{user.keep(picture(side=299))['file_id']}"


def too_small_uri(service: UploadService, user: User) -> str:
    return data_uri(picture(side=299))


def too_long(service: UploadService, user: User) -> str:
    return f"file:{user.keep(saved(four_corners(1000, 398), 'PNG'))['file_id']}"


def a_film(service: UploadService, user: User) -> str:
    return f"file:{user.keep(films()['mp4'])['file_id']}"


def a_sound(service: UploadService, user: User) -> str:
    return f"file:{user.keep(samples()['mp3'])['file_id']}"


def corrupt(service: UploadService, user: User) -> str:
    return data_uri(picture()[:200])


@pytest.mark.parametrize("as_list", [False, True], ids=["one picture", "the second of a list"])
@pytest.mark.parametrize(
    ("reference_of", "told"),
    [
        (of_nobody, "You have no file with this id. POST /files gives one."),
        (of_somebody_else, "You have no file with this id. POST /files gives one."),
        (deleted, "deleted"),
        (too_small, "The picture has 299 x 299 pixels: each side must have at least "),
        (too_small_uri, "The picture has 299 x 299 pixels: each side must have at least "),
        (a_film, "The file is MP4: send "),
        (a_sound, "The file is MP3: send "),
        (corrupt, "damaged"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_a_model_does_not_take_is_refused_before_it_costs_anything(
    service: UploadService, reference_of: Callable[[UploadService, User], str], told: str, as_list: bool
) -> None:
    user = service.user()
    reference = reference_of(service, user)
    before = user.has()
    if as_list:
        answer = user.start([data_uri(picture()), reference])
        pointer = "/image_urls/1"
    else:
        body = {"model": KLING, "prompt": "a fox", "image_url": reference, "duration": 5}
        answer = user.ask("POST", IMAGE_TO_VIDEO, json=body)
        pointer = "/image_url"

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "input_not_taken"), problem
    assert told in problem["detail"]
    assert problem["errors"] == [{"pointer": pointer, "detail": problem["detail"], "code": "input_not_taken"}]
    assert user.has() == before


def test_a_picture_that_is_too_long_for_a_model_is_refused(service: UploadService) -> None:
    user = service.user()
    body = {"model": KLING, "prompt": "a fox", "image_url": too_long(service, user), "duration": 5}

    answer = user.ask("POST", IMAGE_TO_VIDEO, json=body)

    assert answer.json()["code"] == "input_not_taken"
    assert "2.5 times" in answer.json()["detail"]


def test_a_repeat_with_a_data_uri_makes_no_second_file(service: UploadService) -> None:
    user = service.user()
    first = user.start([data_uri(picture())], "once")
    before = user.has()

    again = user.start([data_uri(picture())], "once")
    other = user.start([data_uri(picture("JPEG"))], "once")

    assert (first.status_code, again.status_code) == (202, 202), again.text
    assert again.json()["job_id"] == first.json()["job_id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert user.has() == before
    assert len(user.ask("GET", "/files").json()["items"]) == 1


def test_a_repeat_is_answered_also_when_its_file_is_deleted(service: UploadService) -> None:
    user = service.user()
    reference = f"file:{user.keep(picture())['file_id']}"
    first = user.start([reference], "once")
    user.ended(first.json()["job_id"])
    user.ask("DELETE", f"/files/{reference.removeprefix('file:')}").raise_for_status()

    again, anew = user.start([reference], "once"), user.start([reference], "twice")

    assert (again.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
    assert (anew.status_code, anew.json()["code"]) == (422, "input_not_taken")


def test_who_cannot_pay_leaves_no_file(service: UploadService) -> None:
    user = service.user(tokens=1)
    before = user.has()

    answer = user.start([data_uri(picture())])

    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_balance")
    assert user.has() == before == (1, 0)
    assert service.left() == []


def test_a_key_that_may_not_spend_so_much_leaves_no_file(service: UploadService) -> None:
    user = service.user()
    content = {"name": "a budget", "scopes": ["generate", "read"], "budget": {"tokens": 1, "per": "ever"}}
    bound = User(service.http, user.ask("POST", "/keys", json=content).raise_for_status().json()["api_key"])

    answer = bound.start([data_uri(picture()), data_uri(picture("JPEG"))])

    assert (answer.status_code, answer.json()["code"]) == (402, "budget_exceeded")
    assert user.has() == (1000, 0)


def test_of_repeats_at_once_one_has_a_file(service: UploadService) -> None:
    user = service.user()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: user.start([data_uri(picture())], "at once"), range(6)))

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["job_id"] for answer in answers if answer.status_code == 202}) == 1
    assert len(user.ask("GET", "/files").json()["items"]) == 1
    assert user.used_bytes() == user.ask("GET", "/files").json()["items"][0]["size_bytes"]


def test_where_nothing_is_kept_a_data_uri_stays_in_the_row(storeless: UploadService) -> None:
    user, uri = storeless.user(), data_uri(picture())

    answer = user.start([uri])

    assert answer.status_code == 202, answer.text
    assert user.ended(answer.json()["job_id"])["status"] == "COMPLETED"
    assert row_of(storeless, answer.json()["job_id"])[0] == [uri]
    refused = user.send(picture())
    assert (refused.status_code, refused.json()["code"]) == (409, "files_not_kept")
    assert user.ask("GET", "/files").json()["items"] == []


@pytest.mark.parametrize(("form", "name"), [("HEIF", "HEIC"), ("AVIF", "AVIF")])
def test_where_nothing_is_kept_what_fal_does_not_take_is_refused_with_a_sentence(
    storeless: UploadService, form: str, name: str
) -> None:
    user = storeless.user()
    before = user.has()

    answer = user.start([data_uri(picture(form), f"image/{name.lower()}")])

    assert (answer.status_code, answer.json()["code"]) == (422, "input_not_taken"), answer.text
    assert answer.json()["detail"].startswith(f"The file is {name}: send ")
    assert user.has() == before


def test_where_nothing_is_kept_an_output_goes_into_another_generation(storeless: UploadService) -> None:
    user = storeless.user()
    first = user.ended(user.ask("POST", IMAGES, json={"prompt": "a fox"}).json()["job_id"])

    answer = user.start([f"output:{first['job_id']}/0"])

    assert answer.status_code == 202, answer.text
    assert user.ended(answer.json()["job_id"])["status"] == "COMPLETED"


def test_a_quote_holds_for_a_kept_file(service: UploadService) -> None:
    user = service.user()
    reference = f"file:{user.keep(picture())['file_id']}"
    asked = {"type": "IMAGE_TO_IMAGE", "prompt": "a fox", "image_urls": [reference]}
    quote = user.ask("POST", "/quotes", json=asked).raise_for_status().json()

    answer = user.start([reference], quote=quote["quote"])

    assert (answer.status_code, answer.json().get("cost_tokens")) == (202, quote["cost_tokens"]), answer.text


def test_a_file_that_is_deleted_before_fal_has_it_ends_its_job_and_costs_nothing(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("deleted")
    with running_upload_service(postgres_dsn, template_database, directory, RUNNER="external") as accepting:
        user = accepting.user()
        file = user.keep(picture())
        job_id = user.start([f"file:{file['file_id']}"]).raise_for_status().json()["job_id"]
        assert user.balance() < 1000
        user.ask("DELETE", f"/files/{file['file_id']}").raise_for_status()

        with ServiceProcess(directory / "worker.log", accepting.settings, "worker"):
            job = user.ended(job_id)

        assert (job["status"], job["error_code"]) == ("FAILED", "input_deleted")
        assert user.has() == (1000, 0)
        assert not [path for path in (directory / "media" / "files").rglob("*") if path.is_file()]


def test_while_the_store_is_away_nothing_is_kept_and_nothing_is_paid(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("away")
    (directory / "media").mkdir()
    in_the_way = directory / "media" / "files"
    in_the_way.write_text("")
    with running_upload_service(postgres_dsn, template_database, directory, RUNNER="external") as service:
        user = service.user()
        for answer in (user.send(picture()), user.start([data_uri(picture())])):
            assert (answer.status_code, answer.json()["code"]) == (503, "files_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        assert user.has() == (1000, 0)
        assert service.left() == []
        in_the_way.unlink()
        user.keep(picture())


def test_what_is_refused_with_a_data_uri_counts_as_a_write(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Row A2 of the field reports: whoever is refused writes no more than whoever is accepted."""
    limits = {"RUNNER": "external", "JOBS_UNFINISHED_MAX": "1", "WRITES_PER_MINUTE": "5"}
    directory = tmp_path_factory.mktemp("limits")
    with running_upload_service(postgres_dsn, template_database, directory, **limits) as service:
        user = service.user()
        user.start([data_uri(picture())]).raise_for_status()
        used_bytes = user.used_bytes()

        # A minute may end between two of them.
        codes = [user.start([data_uri(picture())]).json()["code"] for _ in range(25)]

        assert set(codes) == {"too_many_jobs", "too_many_writes"}
        assert codes.count("too_many_jobs") <= 9
        assert service.value("SELECT count(*) FROM files") == 1 + codes.count("too_many_jobs")
        assert user.used_bytes() == used_bytes
