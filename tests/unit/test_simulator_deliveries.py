"""How the simulator delivers webhooks, without a network: due times, attempts, and what outlives a restart."""

import asyncio
import base64
import hashlib
import itertools
import json
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from simulator.config import SimulatorConfig
from simulator.requests import Attempt, QueueRequest
from simulator.simulation import Simulation

URL = "http://receiver.test/hook"
AT_ONCE = {"queue_seconds": 0, "run_seconds_image": 0, "run_seconds_video": 0, "webhook_retry_seconds": 0.01}
WAIT_SECONDS_MAX = 30


class Receiver:
    """Answers with the given status codes, the last one for ever."""

    def __init__(self, *status_codes: int, seconds: float = 0) -> None:
        self.received: list[httpx.Request] = []
        self.at_once_max = 0
        self._at_once = 0
        self._status_codes = itertools.chain(status_codes, itertools.repeat(status_codes[-1] if status_codes else 200))
        self._seconds = seconds

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.received.append(request)
        self._at_once += 1
        self.at_once_max = max(self.at_once_max, self._at_once)
        await asyncio.sleep(self._seconds)
        self._at_once -= 1
        return httpx.Response(next(self._status_codes))


@asynccontextmanager
async def simulation_in(
    directory: Path,
    receiver: Callable[[httpx.Request], Coroutine[None, None, httpx.Response]],
    clock: Callable[[], float] = time.time,
    **config: Any,
) -> AsyncIterator[Simulation]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(receiver)) as client:

        async def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
            return (await client.post(url, content=body, headers=headers)).status_code

        settings = SimulatorConfig(**AT_ONCE | config)
        simulation = Simulation(settings, directory, client, post, clock=clock, is_kept=True)
        try:
            yield simulation
        finally:
            await simulation.close()


async def submit(simulation: Simulation, prompt: str = "a boat") -> QueueRequest:
    return await simulation.submit(
        endpoint_id="fal-ai/wan-25-preview/text-to-image",
        app_id="fal-ai/wan-25-preview",
        arguments={"prompt": prompt},
        base_url="http://127.0.0.1:9000",
        attempt=Attempt(URL, {}),
        key_id="id",
    )


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def test_waits_for_the_end_of_each_run_in_the_order_of_the_ends(tmp_path: Path) -> None:
    receiver = Receiver()
    async with simulation_in(tmp_path, receiver) as simulation:
        # Nothing ends before all are there, however long a busy machine takes for that.
        simulation.move_clock(0, is_held=True)
        requests = [await submit(simulation, f"[slow:{seconds}]") for seconds in ("60", "0.1", "0.05")]
        simulation.move_clock(0, is_held=False)
        await until(lambda: len(receiver.received) == 2)

        ids = [request.headers["x-fal-webhook-request-id"] for request in receiver.received]
        assert ids == [requests[2].request_id, requests[1].request_id]
        # Nothing but the timer waits for the third.
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_delivers_at_once_when_a_cancel_ends_the_run(tmp_path: Path) -> None:
    receiver = Receiver()
    async with simulation_in(tmp_path, receiver) as simulation:
        for prompt in ("[slow:60]", "[stuck]"):
            await simulation.cancel(await submit(simulation, prompt))
        await until(lambda: len(receiver.received) == 2)


async def test_delivers_at_most_so_many_at_once(tmp_path: Path) -> None:
    receiver = Receiver(seconds=0.005)
    async with simulation_in(tmp_path, receiver, webhooks_at_once=3) as simulation:
        for _ in range(20):
            await submit(simulation)
        await until(lambda: len(receiver.received) == 20)

    assert receiver.at_once_max == 3


async def test_signs_each_attempt_anew(tmp_path: Path) -> None:
    receiver = Receiver(500, 500, 200)
    async with simulation_in(tmp_path, receiver, lambda: time.time() + 400 * len(receiver.received)) as simulation:
        await submit(simulation)
        await until(lambda: len(receiver.received) == 3)

    timestamps = [int(request.headers["x-fal-webhook-timestamp"]) for request in receiver.received]
    assert [later - earlier >= 400 for earlier, later in itertools.pairwise(timestamps)] == [True, True]
    assert len({request.headers["x-fal-webhook-signature"] for request in receiver.received}) == 3


async def test_waits_longer_before_each_attempt(tmp_path: Path) -> None:
    receiver = Receiver(500)
    async with simulation_in(tmp_path, receiver, webhook_retry_seconds=0.02, webhook_attempts_max=4) as simulation:
        request = await submit(simulation)
        await until(lambda: request.is_webhook_settled)
        sent_at = [post.sent_at for post in simulation.webhooks.newest()][::-1]

    waits = [later - earlier for earlier, later in itertools.pairwise(sent_at)]
    assert len(waits) == 3
    for wait, seconds_min in zip(waits, (0.02, 0.04, 0.08), strict=True):
        assert wait >= seconds_min


async def test_delivers_after_a_restart_what_nobody_has_received(tmp_path: Path) -> None:
    before, after = Receiver(200, 500), Receiver()
    async with simulation_in(tmp_path, before, webhook_retry_seconds=60) as simulation:
        received = await submit(simulation)
        await until(lambda: received.is_webhook_settled)
        unreceived = await submit(simulation)
        await until(lambda: len(before.received) == 2)
        running = await submit(simulation, "[slow:0.1]")
        stuck = await submit(simulation, "[stuck]")

    async with simulation_in(tmp_path, after) as simulation:
        found = simulation.requests.find(stuck.request_id)
        assert found is not None
        await simulation.cancel(found)
        await until(lambda: len(after.received) == 3)

    ids = {request.headers["x-fal-webhook-request-id"] for request in after.received}
    assert ids == {unreceived.request_id, running.request_id, stuck.request_id}


async def test_remembers_over_two_restarts_what_was_received(tmp_path: Path) -> None:
    receiver = Receiver()
    async with simulation_in(tmp_path, receiver) as simulation:
        request = await submit(simulation)
        await until(lambda: request.is_webhook_settled)
    async with simulation_in(tmp_path, receiver):
        pass
    async with simulation_in(tmp_path, receiver) as simulation:
        await submit(simulation)
        await until(lambda: len(receiver.received) == 2)


async def test_delivers_nothing_that_ended_more_than_an_hour_ago(tmp_path: Path) -> None:
    now = time.time()
    async with simulation_in(tmp_path, Receiver(500), lambda: now - 3700, webhook_retry_seconds=60) as simulation:
        await submit(simulation)
    receiver = Receiver()
    async with simulation_in(tmp_path, receiver) as simulation:
        new = await submit(simulation)
        await until(lambda: new.is_webhook_settled)

    assert len(receiver.received) == 1


async def test_keeps_its_key_where_only_its_user_can_read_it(tmp_path: Path) -> None:
    async with simulation_in(tmp_path, Receiver()) as simulation:
        key_set = simulation.webhooks.key_set
    async with simulation_in(tmp_path, Receiver()) as simulation:
        assert simulation.webhooks.key_set == key_set

    assert stat.S_IMODE((tmp_path / "webhook-key.pem").stat().st_mode) == 0o600


async def test_forgets_deliveries_on_a_reset(tmp_path: Path) -> None:
    receiver = Receiver(seconds=0.01)
    async with simulation_in(tmp_path, receiver) as simulation:
        await submit(simulation)
        await submit(simulation, "[slow:0.05]")
        await until(lambda: len(receiver.received) >= 1)
        simulation.reset()
        new = await submit(simulation, "[slow:0.1]")
        await until(lambda: new.is_webhook_settled)

        assert [post.request_id for post in simulation.webhooks.newest()] == [new.request_id]


async def test_spoils_the_payload_and_signs_what_it_sends(tmp_path: Path) -> None:
    receiver = Receiver()
    bodies: dict[str, bytes] = {}
    async with simulation_in(tmp_path, receiver) as simulation:
        for word in ("[webhook:nul]", "[webhook:nan]", "[webhook:shape]", "[webhook:truncated]", "[webhook:not-json]"):
            request = await submit(simulation, word)
            await until(lambda request=request: request.is_webhook_settled)  # type: ignore[misc]
            received = receiver.received[-1]
            bodies[word] = received.content
            public_key = Ed25519PublicKey.from_public_bytes(
                base64.urlsafe_b64decode(simulation.webhooks.key_set["keys"][0]["x"] + "==")
            )
            parts = [
                received.headers[f"x-fal-webhook-{name}"]
                for name in ("request-id", "user-id", "timestamp", "signature")
            ]
            digest = hashlib.sha256(received.content).hexdigest()
            public_key.verify(bytes.fromhex(parts[3]), "\n".join((*parts[:3], digest)).encode())

    assert json.loads(bodies["[webhook:nul]"])["payload"]["a\0b"] == "c\0d"
    assert b"NaN" in bodies["[webhook:nan]"]
    assert json.loads(bodies["[webhook:shape]"])["payload"].keys() == {"output"}
    with pytest.raises(ValueError, match=r"delimiter|Unterminated|Expecting"):
        json.loads(bodies["[webhook:truncated]"])
    assert bodies["[webhook:not-json]"].startswith(b"<html>")


async def test_delivers_at_once_what_a_moved_clock_has_made_due(tmp_path: Path) -> None:
    receiver = Receiver()
    async with simulation_in(tmp_path, receiver) as simulation:
        request = await submit(simulation, "[slow:600]")
        simulation.move_clock(599)
        await asyncio.sleep(0.05)
        before = len(receiver.received)
        simulation.move_clock(1.1)
        await until(lambda: request.is_webhook_settled)

    assert (before, len(receiver.received)) == (0, 1)
    # Its receiver has not moved its clock.
    assert abs(int(receiver.received[0].headers["x-fal-webhook-timestamp"]) - time.time()) < 30


async def test_remembers_over_a_restart_who_did_not_start_in_time(tmp_path: Path) -> None:
    async with simulation_in(tmp_path, Receiver(), queue_seconds=60) as simulation:
        late = await simulation.submit(
            endpoint_id="fal-ai/wan-25-preview/text-to-image",
            app_id="fal-ai/wan-25-preview",
            arguments={"prompt": "a boat"},
            base_url="http://127.0.0.1:9000",
            attempt=None,
            key_id="id",
            start_seconds_max=0.1,
        )
    await asyncio.sleep(0.2)
    async with simulation_in(tmp_path, Receiver()) as simulation:
        found = simulation.requests.find(late.request_id)
        assert found is not None
        outcome = await simulation.outcome_of(found)

    assert outcome is not None
    assert outcome.answer.status_code == 504
