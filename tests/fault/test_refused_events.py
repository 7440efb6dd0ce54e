"""Each event of fal that is refused says why, once, to the operator alone; and nobody can fill the log with them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.builders import until
from tests.fault.fal_scripts import the_wrong_event_is_refused
from tests.fault.fal_world import WEBHOOK_USER_ID, World, open_world
from tests.simulator_server import running_simulator


@pytest.fixture
def fal_url() -> Iterator[str]:
    with running_simulator(run_seconds_image=0) as url:
        yield url


@pytest.fixture
async def world(fal_url: str, database: str) -> AsyncIterator[World]:
    async with open_world(fal_url, database, with_webhooks=True) as world:
        await world.start_over(100)
        yield world


def refusals(logs: list[EventDict]) -> list[EventDict]:
    return [entry for entry in logs if entry["event"] == "provider_event_refused"]


async def refused_at(http: httpx.AsyncClient, token: str) -> httpx.Response:
    """What is wrong is the token, or else that there are no headers of fal."""
    headers = {
        "X-Fal-Webhook-Request-Id": str(uuid4()),
        "X-Fal-Webhook-User-Id": WEBHOOK_USER_ID,
        "X-Fal-Webhook-Timestamp": str(int(time.time())),
        "X-Fal-Webhook-Signature": "00" * 64,
    }
    return await http.post(f"/webhooks/fal/{token}", content=b"{}", headers=headers if token == "nonsense" else {})


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("[webhook:stale]", "stale"),
        ("[webhook:foreign-user]", "foreign_user"),
        ("[webhook:forged]", "bad_signature"),
        ("[webhook:unknown-key]", "bad_signature"),
        ("[webhook:not-json]", "malformed_body"),
        ("[webhook:truncated]", "malformed_body"),
        ("[webhook:wrong-request] [webhook:delay:0.3]", "unexpected_request"),
    ],
)
async def test_a_refused_event_is_one_warning_with_its_reason(world: World, words: str, reason: str) -> None:
    # fal's next delivery comes later than the test takes.
    await world.configure(webhook_retry_seconds=60)
    with capture_logs() as logs:
        job_id = await world.accept(words)
        await world.submit(job_id)
        answered = await world.until_event(job_id) if "wrong-request" not in words else None
        await until(lambda: _any(refusals(logs)))

    (refused,) = refusals(logs)
    assert answered in (401, None)
    assert (refused["log_level"], refused["reason"], refused["count"]) == ("warning", reason, 1)
    if reason == "stale":
        # It was signed ten minutes ago, and is older by as long as a busy machine takes to look at it.
        assert -660 < refused["skew_seconds"] < -595
    if reason == "unexpected_request":
        assert refused["job_id"] == str(job_id)
    known = {"event", "log_level", "reason", "count", "skew_seconds", "job_id", "request_id"}
    assert refused.keys() <= known, "nothing that the sender chose"
    assert await world.drive(job_id) == "COMPLETED"


async def _any(found: list[EventDict]) -> bool:
    return bool(found)


async def test_an_event_for_nothing_of_ours_says_so(world: World) -> None:
    job_id = await world.accept("")
    await world.submit(job_id)
    await world.until_final(job_id)
    with capture_logs() as logs:
        await the_wrong_event_is_refused(world, [job_id])

    assert [entry["reason"] for entry in refusals(logs)] == ["unknown_token"]


@pytest.mark.parametrize(
    ("token", "reason"), [("nonsense", "unknown_token"), ("9f853707-280c-4226-a565-6f8644b20dd6", "malformed_headers")]
)
async def test_a_flood_is_a_line_a_second_with_a_count(world: World, token: str, reason: str) -> None:
    async with httpx.AsyncClient(base_url=world.url, trust_env=False, timeout=60) as http:
        began = time.monotonic()
        with capture_logs() as logs:
            answers = await asyncio.gather(*(refused_at(http, token) for _ in range(60)))
            first = refusals(logs)

            async def are_all_counted() -> bool:
                return sum(int(entry["count"]) for entry in refusals(logs)) == len(answers)

            await until(are_all_counted)
        seconds = time.monotonic() - began

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["code"] for answer in answers} == {"invalid_provider_event"}
    assert first[0]["count"] == 1
    assert len(refusals(logs)) <= 2 + seconds
    assert {entry["reason"] for entry in refusals(logs)} == {reason}


async def test_one_reason_does_not_hide_another(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.url, trust_env=False, timeout=60) as http:
        with capture_logs() as logs:
            for token in ("nonsense", str(uuid4())) * 5:
                await refused_at(http, token)

    assert [entry["reason"] for entry in refusals(logs)][:2] == ["unknown_token", "malformed_headers"]
