"""What a user can do to the disk for nothing: start with large pictures, cancel, again."""

import base64
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from app.domain.orders import LARGE_INPUTS_BYTES_MAX
from tests.end_to_end.test_api import Service, running_service

pytestmark = pytest.mark.timeout(300)

PATH = "/generations/images/image-to-image"
# More for a measurement by hand.
SECONDS = float(os.environ.get("LARGE_INPUTS_SECONDS", "5"))
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def service(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(postgres_dsn, template_database, tmp_path_factory.mktemp("inputs")) as running:
        yield running


def a_picture() -> str:
    content = PNG + os.urandom(5 * 1024 * 1024 - len(PNG))
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def size_bytes(service: Service) -> int:
    (size,) = service.query("SELECT pg_database_size(current_database())")
    return int(size)


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
    deadline = time.monotonic() + 30
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
