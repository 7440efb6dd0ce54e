"""What `listen` refuses before it asks a server for anything, and how it shows an event."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.cli.listen import body_of, line_of
from app.domain.events import Event, EventType
from app.domain.jobs import JobStatus
from app.presentation.schemas.events import MESSAGE_BYTES_MAX, EventView, message_of
from tests.media import link_to
from tests.unit.presentation_stand_ins import a_job

TARGET = "http://127.0.0.1:3000/hook"
AT = "2026-01-02T03:04:05.678901Z"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("http://93.184.216.34/hook", "--key", "k"), "TARGET must be on this machine"),
        (("http://192.168.0.7:3000/hook", "--key", "k"), "TARGET must be on this machine"),
        (("http://127.0.0.1.example.com/hook", "--key", "k"), "TARGET must be on this machine"),
        (("https://127.0.0.1:3000/hook", "--key", "k"), "TARGET must be a URL that begins with http://"),
        (("127.0.0.1:3000", "--key", "k"), "TARGET must be a URL that begins with http://"),
        (("http://127.0.0.1:port/", "--key", "k"), "TARGET must be a URL that begins with http://"),
        ((TARGET, "--key", "k", "--server", "ftp://example.com"), "--server must be a URL that begins with http"),
        ((TARGET, "--key", "k", "--server", "http://"), "--server must be a URL that begins with http"),
        ((TARGET, "--key", "k", "--secret", "whsec_short"), "the base64 of 24 to 64 bytes"),
        ((TARGET, "--key", "k\nHost: x"), "--key must be an API key"),
        ((TARGET, "--key", " "), "--key must be an API key"),
        ((TARGET,), "TOLLGATE_KEY"),
        ((TARGET, "--key", "k", "--after", "-1"), "--after"),
    ],
)
def test_says_what_is_wrong(arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_KEY", raising=False)

    outcome = CliRunner().invoke(app, ["listen", *arguments])

    assert outcome.exit_code in (1, 2)
    assert words in outcome.output, outcome.output


@pytest.mark.parametrize(
    ("event_type", "data", "line"),
    [
        ("generation.completed", {"job_id": "0199"}, "2026-01-02T03:04:05+00:00  generation.completed   job 0199"),
        ("balance.low", {"balance_tokens": 7}, "2026-01-02T03:04:05+00:00  balance.low            balance 7"),
        ("key.budget_exceeded", {"key_id": "k"}, "2026-01-02T03:04:05+00:00  key.budget_exceeded    key k"),
        ("of.a.newer.release", None, "2026-01-02T03:04:05+00:00  of.a.newer.release     evt_1"),
        ("\x1b[2J", {}, "2026-01-02T03:04:05+00:00  \\x1b[2J                   evt_1"),
    ],
)
def test_an_event_is_one_line(event_type: str, data: object, line: str) -> None:
    assert line_of({"id": "evt_1", "type": event_type, "created_at": AT, "data": data}) == line


def an_event(event_type: EventType, **fields: Any) -> Event:
    return Event(seq=7, type=event_type, account_id=uuid4(), created_at=datetime.now(UTC), **fields)


@pytest.mark.parametrize(
    "event",
    [
        an_event(EventType.BALANCE_LOW, facts={"balance_tokens": 5, "balance_low_tokens": 10}),
        an_event(EventType.GENERATION_COMPLETED, facts={}, job=a_job(status=JobStatus.COMPLETED)),
        an_event(
            EventType.GENERATION_COMPLETED,
            facts={},
            job=a_job(status=JobStatus.COMPLETED, result={"images": [{"url": f"https://a/{'é' * MESSAGE_BYTES_MAX}"}]}),
        ),
    ],
    ids=["balance", "job", "large job"],
)
def test_hands_on_what_the_service_would_deliver(event: Event) -> None:
    as_streamed = json.loads(EventView.of(event, link_to).model_dump_json(by_alias=True))

    message = json.loads(body_of(as_streamed))

    assert message == json.loads(message_of(event, None, link_to=link_to))
    assert message["is_shortened"] == (len(json.dumps(as_streamed)) > MESSAGE_BYTES_MAX)
