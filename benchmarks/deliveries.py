"""Deliveries: from fal's end to the customer's endpoint, while some endpoints hang and some fail; and a backlog.

100 accounts have an endpoint each for `generation.completed`, of which ten never answer and ten answer 500. Their jobs
are accepted by the API and submitted to the simulator before anything is measured, and there they run for hours. Then
the ends arrive at a pace, as fal's webhooks: POSTs that were signed beforehand, from a process that does nothing else.
A delivery is timed from when its webhook was due to be sent until all of the POST has arrived at an endpoint that
answers, in another process on the same machine; so that the service being late with fal's webhook counts as well.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.figures import Bar, Figures, percentiles
from benchmarks.flight import spread_looks
from benchmarks.load import Load, LoadError, http_request, measure, measure_dated
from benchmarks.measuring import Options, Run
from benchmarks.processor import Used
from benchmarks.receiver import Receiver, receiving
from benchmarks.rows import accept_requests
from benchmarks.seed import ACCOUNT_ID_SQL, User
from benchmarks.stage import Stage
from simulator.signing import SigningKey
from tests.builders import connect
from tests.service_process import ServiceProcess, free_port

NAMES = ("deliveries",)
ROUNDS_MAX = 3
ENDPOINTS = 100
HANGING, FAILING = 10, 10
PACE_PER_SECOND = 200
SECONDS, SECONDS_QUICK = 25, 3
# Nobody is told then: what the ends take by themselves.
ALONE_SECONDS, ALONE_SECONDS_QUICK = 12, 2
# Connections are opened and statements planned in the first of them.
WARM_UP_SECONDS = 1
ACCEPTS_PER_SECOND = 20
HELD_SECONDS = 7200
FILL_SECONDS_MAX = 120
LATE_SECONDS_MAX = 5
DRAIN_SECONDS_MAX = 60
DELIVERIES = f"deliveries at {PACE_PER_SECOND}/s"
ALONE = f"ends at {PACE_PER_SECOND}/s, nobody is told"
ACCEPTS = f"accept at {ACCEPTS_PER_SECOND}/s, deliveries"
ACCEPTS_ALONE = f"accept at {ACCEPTS_PER_SECOND}/s, ends alone"
BACKLOG = "deliveries of a backlog"

BARS = (Bar("from fal's end to the customer's endpoint: p95 ms", DELIVERIES, None, "<=", 150, "p95_ms"),)

_FRESH = """
TRUNCATE deliveries;
UPDATE webhook_endpoints SET failures = 0, failing_since = NULL, backs_off_until = NULL, next_due_at = 'infinity'
"""
_ENDPOINT = f"UPDATE webhook_endpoints SET url = $2 WHERE account_id = {ACCOUNT_ID_SQL.format(number='$1::int')}"
_UNFINISHED = """
SELECT job.id::text, job.attempt_token::text AS token, job.fal_request_id AS request_id, endpoint.id IS NOT NULL AS told
  FROM jobs AS job LEFT JOIN webhook_endpoints AS endpoint ON endpoint.account_id = job.account_id
 WHERE NOT job.is_final AND job.fal_request_id IS NOT NULL ORDER BY job.created_at
"""
# Of each job one event, so that none waits for another.
_BACKLOG = """
WITH added AS (
    INSERT INTO deliveries (endpoint_id, event_seq, job_id, due_at)
    SELECT endpoint.id, event.seq, event.job_id, now()
      FROM webhook_endpoints AS endpoint CROSS JOIN LATERAL (
        SELECT * FROM events WHERE events.account_id = endpoint.account_id AND events.type = 'generation.completed'
         ORDER BY seq DESC LIMIT $1) AS event
    RETURNING 1
), due AS (
    UPDATE webhook_endpoints SET next_due_at = now()
)
SELECT count(*) FROM added
"""


def estimate_seconds(options: Options) -> float:
    return 30 + min(ROUNDS_MAX, options.rounds) * (SECONDS + ALONE_SECONDS + 45) / (4 if options.is_quick else 1)


@dataclass(frozen=True, slots=True)
class _Job:
    id: str
    request: str
    """Fal's webhook of its end."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What the rows run on."""

    service: ServiceProcess
    dsn: str
    receiver: Receiver
    key: SigningKey
    users: Sequence[User]
    seconds: float
    alone_seconds: float

    async def answer_as_customers_do(self) -> None:
        await self._set_paths(["hang"] * HANGING + ["fail"] * FAILING + ["hook"] * (ENDPOINTS - HANGING - FAILING))

    async def answer_all(self) -> None:
        await self._set_paths(["hook"] * ENDPOINTS)

    async def _set_paths(self, paths: Sequence[str]) -> None:
        url = f"http://127.0.0.1:{self.receiver.port}"
        async with connect(self.dsn) as connection:
            await connection.execute(_FRESH)
            numbered = [(number, f"{url}/{path}/{number}") for number, path in enumerate(paths, 1)]
            await connection.executemany(_ENDPOINT, numbered)
        await self.receiver.report()


async def run_deliveries(stage: Stage, run: Run) -> None:
    is_quick = run.options.is_quick
    key, port = SigningKey(), str(free_port())
    with stage.simulator(run_seconds_image=HELD_SECONDS) as simulator_url:
        async with receiving({"keys": [key.jwk]}) as receiver, stage.database() as dsn:
            settings = {
                "PORT": port,
                "RUNNER": "embedded",
                "PUBLIC_URL": f"http://127.0.0.1:{port}",
                "FAL_JWKS_URL": f"http://127.0.0.1:{receiver.port}/jwks",
            }
            with stage.service(dsn, simulator_url, **settings) as service:
                seconds = (SECONDS_QUICK, ALONE_SECONDS_QUICK) if is_quick else (SECONDS, ALONE_SECONDS)
                place = _Place(service, dsn, receiver, key, stage.users, *seconds)
                await _add_endpoints(place)
                await _measure(place, run)


async def _measure(place: _Place, run: Run) -> None:
    beside: dict[str, Figures] = {}

    async def alone() -> Figures:
        figures, beside[ACCEPTS_ALONE] = await _ends_alone(place)
        return figures

    async def told() -> Figures:
        figures, beside[ACCEPTS] = await _deliveries(place)
        return figures

    async def accepts(name: str) -> Figures:
        return beside.pop(name)

    await run.in_turn(
        "deliveries",
        {
            ALONE: alone,
            ACCEPTS_ALONE: lambda: accepts(ACCEPTS_ALONE),
            DELIVERIES: told,
            ACCEPTS: lambda: accepts(ACCEPTS),
            BACKLOG: lambda: _backlog(place),
        },
        rounds=min(ROUNDS_MAX, run.options.rounds),
    )


async def _add_endpoints(place: _Place) -> None:
    async with httpx.AsyncClient(base_url=place.service.url, trust_env=False) as http:
        for user in place.users[:ENDPOINTS]:
            asked = {"url": f"http://127.0.0.1:{place.receiver.port}/hook/0", "types": ["generation.completed"]}
            (await http.post("/webhook-endpoints", json=asked, headers=user.headers)).raise_for_status()


async def _ends_alone(place: _Place) -> tuple[Figures, Figures]:
    count = round(PACE_PER_SECOND * place.alone_seconds)
    jobs = await _jobs_at_fal(place, place.users[ENDPOINTS:], count)
    used = await Used.open(place.service.process.pid, place.dsn)
    ends, accepts = await asyncio.gather(measure(_ends(place, jobs)), _accepts(place, place.alone_seconds))
    return {**used.shares(), **_of_ends(ends)}, accepts


async def _deliveries(place: _Place) -> tuple[Figures, Figures]:
    await place.answer_as_customers_do()
    jobs = await _jobs_at_fal(place, place.users[:ENDPOINTS], round(PACE_PER_SECOND * place.seconds))
    used = await Used.open(place.service.process.pid, place.dsn)
    (ends, due_at), accepts = await asyncio.gather(measure_dated(_ends(place, jobs)), _accepts(place, place.seconds))
    shares = used.shares()
    waiting = await Used.open(place.service.process.pid, place.dsn)
    await asyncio.sleep(LATE_SECONDS_MAX)
    idle = {f"{name}_afterwards": value for name, value in waiting.shares().items()}
    arrived = await place.receiver.report()
    sent = dict(zip((job.id for job in jobs), due_at, strict=True))
    counted_from = min(due_at) + WARM_UP_SECONDS
    lags = [(at - sent[job]) * 1000 for job, at in arrived.first_at.items() if sent[job] >= counted_from]
    expected = len(jobs) * (ENDPOINTS - HANGING - FAILING) // ENDPOINTS
    if len(arrived.first_at) < expected:
        raise LoadError(f"{len(arrived.first_at)} of {expected} were delivered within {LATE_SECONDS_MAX} s")
    return {
        "count": len(lags),
        **percentiles(lags),
        **shares,
        **idle,
        **_of_ends(ends),
        "posts_to_those_that_hang": arrived.count.get("hang", 0),
        "posts_to_those_that_fail": arrived.count.get("fail", 0),
    }, accepts


async def _backlog(place: _Place) -> Figures:
    await place.answer_all()
    used = await Used.open(place.service.process.pid, place.dsn)
    async with connect(place.dsn) as connection:
        began_at = time.time()
        count = await connection.fetchval(_BACKLOG, round(PACE_PER_SECOND * place.seconds / ENDPOINTS))
        async with asyncio.timeout(DRAIN_SECONDS_MAX):
            while await connection.fetchval("SELECT EXISTS (SELECT FROM deliveries WHERE state = 'pending')"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    each = used.each(count)
    arrived = await place.receiver.report()
    if len(arrived.first_at) != count or sum(arrived.count.values()) != count:
        raise LoadError(f"{len(arrived.first_at)} of {count} were delivered, by {arrived.count} POSTs")
    return {"per_second": count / (max(arrived.first_at.values()) - began_at), "count": count, **each}


def _of_ends(figures: Figures) -> Figures:
    """What fal waits for its answer."""
    return {f"ends_{name}": figures[name] for name in ("p50_ms", "p95_ms", "p99_ms")}


def _accepts(place: _Place, seconds: float) -> Any:
    requests = accept_requests(place.users[ENDPOINTS:])
    return measure(Load(place.service.port, 8, requests, 202, seconds, per_second=ACCEPTS_PER_SECOND))


def _ends(place: _Place, jobs: Sequence[_Job]) -> Load:
    """Each is sent, at most so many seconds late. Many connections: none waits for the answer of another."""
    seconds = len(jobs) / PACE_PER_SECOND + LATE_SECONDS_MAX
    requests = [job.request for job in jobs]
    return Load(place.service.port, 100, requests, 200, seconds, is_once=True, per_second=PACE_PER_SECOND)


async def _jobs_at_fal(place: _Place, users: Sequence[User], count: int) -> list[_Job]:
    """As many jobs of these users that fal has and does not end by itself; each user's in turn."""
    requests = list(itertools.islice(itertools.cycle(accept_requests(users)), count))
    await measure(Load(place.service.port, 32, requests, 202, FILL_SECONDS_MAX, is_once=True))
    is_told = users[0] is place.users[0]
    deadline = time.monotonic() + FILL_SECONDS_MAX
    async with connect(place.dsn) as connection:
        while True:
            rows = [row for row in await connection.fetch(_UNFINISHED) if row["told"] == is_told]
            if len(rows) >= count:
                break
            if time.monotonic() > deadline:
                raise LoadError(f"only {len(rows)} of {count} jobs were at fal after {FILL_SECONDS_MAX} s")
            await asyncio.sleep(0.5)
    await spread_looks(place.dsn)
    return [_Job(row["id"], _end(place.key, row["token"], row["request_id"])) for row in rows[-count:]]


def _end(key: SigningKey, token: str, request_id: str) -> str:
    """As the simulator says it, signed now: a signature is good for five minutes."""
    image = {"url": f"https://v3b.fal.media/files/b/0a1b2c3d/{request_id}.png", "content_type": "image/png"}
    payload = {"images": [{**image, "width": 1024, "height": 1024}], "seeds": [42], "actual_prompt": None}
    fields = {"request_id": request_id, "gateway_request_id": request_id, "status": "OK", "payload": payload}
    timestamp = str(int(time.time()))
    headers = {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": "user",
        "X-Fal-Webhook-Timestamp": timestamp,
        "X-Fal-Webhook-Signature": key.signature(request_id, "user", timestamp, json.dumps(fields).encode()),
    }
    return http_request("POST", f"/webhooks/fal/{token}", headers, fields)
