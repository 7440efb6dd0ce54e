"""What a user pays for less than was asked for, over HTTP, with the simulator as fal."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.end_to_end.test_api import FINAL, TEXT_TO_IMAGE, Service, User, running_service

pytestmark = pytest.mark.timeout(300)

COMPLETED = ("COMPLETED", None)
TEXT_TO_VIDEO = "/generations/videos/text-to-video"


@pytest.fixture(scope="module")
def service(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(postgres_dsn, template_database, tmp_path_factory.mktemp("billing")) as running:
        yield running


def entries(user: User) -> list[tuple[str, int, int, str | None]]:
    """Of GET /ledger, newest first."""
    page = user.send("GET", "/ledger").raise_for_status().json()
    assert page["next_cursor"] is None
    return [(each["kind"], each["amount"], each["balance_after"], each["job_id"]) for each in page["items"]]


@pytest.mark.parametrize(
    ("path", "words", "body", "end", "cost", "refunded"),
    [
        (TEXT_TO_IMAGE, "", {"num_images": 4}, COMPLETED, 20, 0),
        (TEXT_TO_IMAGE, "[partial:3]", {"num_images": 4}, COMPLETED, 20, 5),
        (TEXT_TO_IMAGE, "[nsfw:2]", {"num_images": 4}, COMPLETED, 20, 5),
        (TEXT_TO_IMAGE, "[partial:2] [nsfw:1]", {"num_images": 4}, COMPLETED, 20, 15),
        (TEXT_TO_IMAGE, "[nsfw]", {"num_images": 4}, ("FAILED", "no_output"), 20, 20),
        (TEXT_TO_IMAGE, "[partial:0]", {"num_images": 4}, ("FAILED", "no_media_generated"), 20, 20),
        (TEXT_TO_VIDEO, "[nsfw]", {"duration": 5}, ("FAILED", "no_output"), 30, 30),
    ],
)
def test_what_was_not_delivered_is_refunded(  # noqa: PLR0917 - a table
    service: Service, path: str, words: str, body: dict[str, Any], end: tuple[str, str | None], cost: int, refunded: int
) -> None:
    user = service.register(100)

    job = user.until(user.start(f"a lighthouse {words}", path, **body), FINAL)

    charged, job_id = cost - refunded, job["job_id"]
    assert (job["status"], job["error_code"], job["cost_tokens"]) == (*end, cost), job
    assert (job["result"] is not None) is (end == COMPLETED)
    outcome = "not_charged" if not charged else "partially_charged" if refunded else "charged"
    (line,) = job["price"]
    assert line["tokens"] == cost
    assert {**job["billing"], "reason": ""} == {
        "charged_tokens": charged,
        "refunded_tokens": refunded,
        "outcome": outcome,
        "reason": "",
        "lines": [{"line": line["line"], "charged_tokens": charged, "refunded_tokens": refunded}],
    }
    assert user.balance() == 100 - charged
    refund = [("REFUND", refunded, 100 - charged, job_id)] if refunded else []
    assert entries(user) == [*refund, ("DEBIT", cost, 100 - cost, job_id), ("CREDIT", 100, 100, None)]


def test_a_job_has_no_bill_before_its_end(service: Service) -> None:
    user = service.register(100)
    job_id = user.start("a lighthouse [stuck]")

    job = user.until(job_id, {"IN_QUEUE"})

    assert job["billing"] is None
    assert user.cancel(job_id).json()["billing"]["outcome"] == "not_charged"


def test_a_request_that_is_sent_again_with_its_key_is_answered_with_its_job(service: Service) -> None:
    user, key = service.register(100), str(uuid4())
    headers = {"X-API-Key": user.key, "Idempotency-Key": key}
    body = {"prompt": f"a lighthouse {key}"}

    first = service.http.post(TEXT_TO_IMAGE, json=body, headers=headers)
    job = user.until(first.json()["job_id"], FINAL)
    again = service.http.post(TEXT_TO_IMAGE, json=body, headers=headers)

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert (again.json()["job_id"], again.json()["status"]) == (job["job_id"], "COMPLETED")
    assert user.balance() == 95
    assert service.submits(f"a lighthouse {key}") == 1
