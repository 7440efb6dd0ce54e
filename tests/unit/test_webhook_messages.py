"""An event as it is delivered: what `GET /events` says of it, and no more than receivers take."""

import json
from typing import Any
from uuid import uuid4

import pytest

from app.domain.events import Event, EventType
from app.domain.jobs import Job, JobStatus
from app.presentation.schemas.events import MESSAGE_BYTES_MAX, EventView, message_of
from tests.builders import terms_of
from tests.media import link_to
from tests.unit.presentation_stand_ins import NOW, a_job


def event_of(job: Job | None = None, *, type: str = EventType.GENERATION_COMPLETED, **facts: Any) -> Event:  # noqa: A002
    return Event(seq=1795515341654321, type=type, account_id=uuid4(), created_at=NOW, facts=facts, job=job)


def completed(result: dict[str, Any]) -> Job:
    return a_job(status=JobStatus.COMPLETED, result=result, terms=terms_of(5))


def pictures(number: int, url: str = "https://v3b.fal.media/files/b/0a1b2c3d/fox.png") -> dict[str, Any]:
    return {"images": [{"url": url, "width": 1024, "height": 1024}] * number}


def test_says_what_the_log_says_and_when_it_happened() -> None:
    event = event_of(completed(pictures(4)))

    message = json.loads(message_of(event, None, link_to=link_to))

    assert message.pop("timestamp") == message["created_at"] == "2026-11-23T10:15:30.123456Z"
    assert message.pop("is_shortened") is False
    assert message == json.loads(EventView.of(event, link_to).model_dump_json())
    assert message["id"] == "evt_1795515341654321"


def test_only_the_operator_is_told_whose_event_it_is() -> None:
    event, user = event_of(completed(pictures(1))), uuid4()

    assert "external_user_id" not in json.loads(message_of(event, None, link_to=link_to))
    assert json.loads(message_of(event, user, link_to=link_to))["external_user_id"] == str(user)


@pytest.mark.parametrize("letter", ["a", "ж", "\U0001f98a"])
def test_a_message_that_would_be_too_large_has_the_job_without_its_result(letter: str) -> None:
    fits, does_not = event_of(completed({"seed": ""})), event_of(completed({"seed": letter * MESSAGE_BYTES_MAX}))

    whole, short = message_of(fits, None, link_to=link_to), message_of(does_not, None, link_to=link_to)

    assert json.loads(whole)["is_shortened"] is False
    assert len(short) < MESSAGE_BYTES_MAX
    message = json.loads(short)
    assert (message["is_shortened"], message["data"]["result"]) == (True, None)
    assert message["data"]["status"] == "COMPLETED"
    assert message["data"].keys() == json.loads(whole)["data"].keys()


def test_is_shortened_from_the_first_byte_that_is_too_much() -> None:
    room = MESSAGE_BYTES_MAX - len(message_of(event_of(completed({"seed": ""})), None, link_to=link_to))

    sizes = {}
    for more in (0, 1):
        body = message_of(event_of(completed({"seed": "a" * (room + more)})), None, link_to=link_to)
        sizes[json.loads(body)["is_shortened"]] = len(body)

    assert sizes[False] == MESSAGE_BYTES_MAX
    assert sizes[True] < MESSAGE_BYTES_MAX


def test_a_test_names_its_endpoint() -> None:
    endpoint_id = str(uuid4())

    message = json.loads(
        message_of(event_of(type=EventType.WEBHOOK_TEST, endpoint_id=endpoint_id), None, link_to=link_to)
    )

    assert (message["type"], message["data"]) == ("webhook.test", {"endpoint_id": endpoint_id})


def test_what_a_newer_release_tells_of_is_delivered_as_it_is() -> None:
    message = json.loads(message_of(event_of(type="account.painted", color="blue", coats=2), None, link_to=link_to))

    assert (message["type"], message["data"]) == ("account.painted", {"color": "blue", "coats": 2})
