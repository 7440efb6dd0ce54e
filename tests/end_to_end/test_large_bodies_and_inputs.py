"""What a user can do to the disk for nothing: start with large pictures, cancel, again."""

import base64
import io
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from app.domain.orders import LARGE_INPUTS_BYTES_MAX
from tests.end_to_end.test_api import Service, running_service

pytestmark = pytest.mark.timeout(300)

PATH = "/generations/images/image-to-image"
# More for a measurement by hand.
SECONDS = float(os.environ.get("LARGE_INPUTS_SECONDS", "5"))
FILES_BYTES_MAX = 20_000_000
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def keeper(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Keeps pictures as files."""
    directory = tmp_path_factory.mktemp("files")
    with running_service(postgres_dsn, template_database, directory, FILES_BYTES_MAX=str(FILES_BYTES_MAX)) as running:
        yield running


@pytest.fixture(scope="module")
def service(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Has no store, so that pictures stay in the row."""
    directory = tmp_path_factory.mktemp("inputs")
    with running_service(postgres_dsn, template_database, directory, MEDIA_URL="none") as running:
        yield running


def a_picture() -> str:
    content = PNG + os.urandom(5 * 1024 * 1024 - len(PNG))
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def a_photograph() -> str:
    """One of noise, so that its file is as large as can be."""
    written = io.BytesIO()
    Image.frombytes("RGB", (1200, 900), os.urandom(1200 * 900 * 3)).save(written, "PNG")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"


def size_bytes(service: Service) -> int:
    (size,) = service.query("SELECT pg_database_size(current_database())")
    return int(size)


def test_who_starts_and_cancels_jobs_with_pictures_fills_neither_the_database_nor_the_store(keeper: Service) -> None:
    user, before = keeper.register(6), size_bytes(keeper)
    body = {"prompt": "a fox [stuck]", "image_urls": [a_photograph()]}
    answers: Counter[str] = Counter()
    began = time.monotonic()

    while time.monotonic() < began + SECONDS or (answers["files_full"] == 0 and time.monotonic() < began + 120):
        answer = user.send("POST", PATH, json=body)
        answers[answer.json().get("code", "accepted")] += 1
        if answer.status_code == 202:
            user.cancel(answer.json()["job_id"])
    grown = size_bytes(keeper) - before
    kept = user.send("GET", "/files").json()

    assert answers.keys() == {"accepted", "files_full"}
    assert user.balance() == 6
    assert kept["used_bytes"] <= kept["bytes_max"] == FILES_BYTES_MAX
    # A row of a few hundred bytes, where the picture has three megabytes.
    assert grown < answers["accepted"] * 100_000 + 2_000_000
    assert keeper.query("SELECT max(pg_column_size(parameters)) FROM jobs")[0] < 2_000


def test_what_is_no_picture_is_refused_before_it_costs_anything(keeper: Service) -> None:
    user = keeper.register(6)

    answer = user.send("POST", PATH, json={"prompt": "a fox", "image_urls": [a_picture()]})

    assert (answer.status_code, answer.json()["code"]) == (422, "input_not_taken")
    assert answer.json()["errors"][0]["pointer"] == "/image_urls/0"
    assert user.balance() == 6
    assert user.send("GET", "/files").json()["used_bytes"] == 0


@pytest.mark.parametrize("ending", ["cancel", "refuse"])
def test_who_starts_and_cancels_large_jobs_fills_no_disk(service: Service, ending: str) -> None:
    user, before = service.register(6), size_bytes(service)
    body: dict[str, Any] = {"prompt": "a fox [stuck]", "image_urls": [a_picture(), a_picture()]}
    if ending == "refuse":
        body["prompt"] = "a fox [submit:422]"
    answers: Counter[int] = Counter()
    began = time.monotonic()

    # However slow the machine is, until the account is told to wait.
    while time.monotonic() < began + SECONDS or (answers[429] == 0 and time.monotonic() < began + 60):
        answer = user.send("POST", PATH, json=body)
        answers[answer.status_code] += 1
        if answer.status_code == 429:
            assert answer.json()["code"] == "too_many_large_inputs"
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
        elif ending == "cancel":
            user.cancel(answer.json()["job_id"])
        else:
            user.until(answer.json()["job_id"], {"FAILED"})
    grown = size_bytes(service) - before

    assert answers[202] == 5
    assert answers[429] > 0
    assert user.balance() == 6
    assert grown < 1.2 * LARGE_INPUTS_BYTES_MAX
    deadline = time.monotonic() + 60
    while service.query("SELECT count(*) FROM jobs WHERE input_bytes > 0 AND input_forgotten_at IS NULL") != [0]:
        assert time.monotonic() < deadline, service.query("SELECT entrypoint FROM pgqueuer")
        time.sleep(0.1)
    service.query("VACUUM jobs")
    assert size_bytes(service) - before < 1.2 * LARGE_INPUTS_BYTES_MAX
    # What is free is used again.
    assert service.query("SELECT max(pg_column_size(parameters)) FROM jobs")[0] < 2_000


def test_somebody_who_sends_a_few_large_jobs_gets_them(service: Service) -> None:
    user = service.register(60)

    jobs = [
        user.start(f"a fox {number}", PATH, image_urls=[a_picture()]) if number < 4 else user.start("a fox")
        for number in range(6)
    ]

    assert {user.until(job_id, {"COMPLETED", "FAILED"})["error_code"] for job_id in jobs} <= {None, "image_unreadable"}
