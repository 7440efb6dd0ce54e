"""A service that may die, its database and its fal, seen from outside: what users send, and what is written."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from app.application.execution import follow, hand_over, pacing, pauses, provider_events, submit
from app.infrastructure.background import lanes
from app.infrastructure.postgres import database as database_module
from tests.builders import COST_TOKENS, connect
from tests.fault.service import FaultyProcess, Launch
from tests.service_process import free_port

TEXT_TO_IMAGE = "/generations/images/text-to-image"
BALANCE_TOKENS = 100
UNTIL_SECONDS = 120
CONSTANTS: Mapping[str, float] = {
    f"{submit.__name__}.SUBMIT_LEASE_SECONDS": 1,
    f"{hand_over.__name__}.SECONDS_MIN": 1,
    f"{follow.__name__}.UNKNOWN_LOOK_SECONDS": 0.3,
    f"{follow.__name__}.CANCEL_GRACE_SECONDS": 2,
    f"{pacing.__name__}.BACKSTOP_SECONDS_MIN": 1,
    # A single job that waits is a crowd.
    f"{pacing.__name__}.CROWD_STEPS_MIN": 0,
    # Longer than what follows a refusal takes, so that it meets the pause.
    f"{pauses.__name__}.NEWCOMER_SECONDS_MIN": 10,
    f"{provider_events.__name__}.BACKSTOP_SECONDS_MIN": 1,
    f"{lanes.__name__}.HEARTBEAT_TIMEOUT_SECONDS": 2,
    # A busy machine may take longer to connect than production waits, and nothing here is about that.
    f"{database_module.__name__}.CONNECT_TIMEOUT_SECONDS": 30,
}

# What is written of a job, as one line.
DISK = """
SELECT concat_ws(
    ' ', status,
    CASE WHEN submit_unknown_at IS NOT NULL THEN 'unknown' END,
    CASE WHEN cancel_requested_at IS NOT NULL THEN 'wished' END,
    CASE WHEN overdue_noticed_at IS NOT NULL THEN 'overdue' END,
    CASE WHEN cancel_sent_at IS NOT NULL THEN 'told' END,
    CASE WHEN late_result IS NOT NULL THEN 'late' END,
    (SELECT 'refunded' FROM ledger_entries AS entry WHERE entry.job_id = job.id AND entry.kind = 'REFUND')
)
FROM jobs AS job JOIN accounts AS account ON account.id = job.account_id WHERE account.external_user_id = $1
"""
# Whatever the last scenario left unfinished, above all a job that nothing in the queue looks after.
UNFINISHED = "SELECT id::text || ' ' || status FROM jobs WHERE NOT is_final"


class World:
    def __init__(self, directory: Path, database: str, simulator: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.database = database
        self.log = directory / "service.log"
        self.log.touch()
        self.environment = {
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "PORT": str(port),
            "DATABASE_URL": database,
            "DATA_DIR": str(directory),
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "FAL_REST_URL": simulator,
            "PUBLIC_URL": self.url,
        }
        self.kills = 0
        # No connection outlives its request: the process at its other end may be gone.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False, limits=limits)
        self.fal = httpx.Client(base_url=simulator, timeout=20, trust_env=False)
        self._process: FaultyProcess | None = None

    @property
    def process(self) -> FaultyProcess:
        assert self._process is not None
        return self._process

    def run(self) -> None:
        """Start the service where none runs."""
        if self._process is None:
            self._process = self.launch("serve")
            self._process.wait_until_ready(self.url)

    def launch(self, *arguments: str, armed: Sequence[str] = (), **settings: str) -> FaultyProcess:
        return FaultyProcess(Launch(self.log, self.environment | settings, arguments, armed, CONSTANTS))

    def use(self, *, armed: Sequence[str] = (), **settings: str) -> None:
        """Another process takes the place of the service, and its port."""
        self.stop()
        self._process = self.launch("serve", armed=armed, **settings)

    def die(self) -> None:
        self.process.die()
        self._process = None
        self.kills += 1

    def kill(self) -> None:
        """From outside, at whatever it does."""
        self.stop()
        self.kills += 1

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        self.stop()
        self.http.close()
        self.fal.close()

    def send(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        """None: the service died before it answered."""
        try:
            return self.http.request(method, path, **request)
        except httpx.TransportError:
            return None

    def sql(self, query: str, *arguments: object) -> list[Any]:
        """The first column."""

        async def run() -> list[Any]:
            async with connect(self.database) as connection:
                return [row[0] for row in await connection.fetch(query, *arguments)]

        return asyncio.run(run())

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + UNTIL_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)


@contextmanager
def open_world(directory: Path, database: str, simulator: str) -> Iterator[World]:
    world = World(directory, database, simulator)
    try:
        yield world
    finally:
        world.close()


class Story:
    """One user with one job, who repeats what was not answered."""

    def __init__(self, world: World, words: str = "", asked_for: Mapping[str, Any] | None = None) -> None:
        """`asked_for`: what the request says beside the prompt."""
        world.run()
        self._path = TEXT_TO_IMAGE
        self._asked_for = asked_for or {}
        self.world = world
        self.user_id = str(uuid4())
        self.prompt = f"{uuid4()} {words}"
        self._idempotency_key = str(uuid4())
        self.top_up()
        answer = world.send("POST", "/auth", json={"external_user_id": self.user_id})
        assert answer is not None
        self.headers = {"X-API-Key": answer.raise_for_status().json()["api_key"]}
        self.answers: list[httpx.Response] = []

    def top_up(self, event_id: str | None = None, amount: int = BALANCE_TOKENS) -> httpx.Response | None:
        headers = {"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": event_id or self.user_id}
        body = {"external_user_id": self.user_id, "amount": amount}
        return self.world.send("POST", "/webhook/topup", json=body, headers=headers)

    def ask_for(self, path: str, **asked_for: Any) -> None:
        """Something else than a picture from a text."""
        self._path, self._asked_for = path, asked_for

    def start(self) -> None:
        answer = self.world.send(
            "POST",
            self._path,
            json={"prompt": self.prompt, **self._asked_for},
            headers=self.headers | {"Idempotency-Key": self._idempotency_key},
        )
        if answer is not None:
            assert answer.status_code == 202, answer.text
            self.answers.append(answer)

    def start_and_reach(self, *statuses: str) -> None:
        self.start()
        self.until(*statuses)

    def cancel(self) -> httpx.Response | None:
        return self.world.send("POST", f"/generations/{self.job_id}/cancel", headers=self.headers)

    @property
    def job_id(self) -> str:
        (answer,) = self.answers[:1]
        return str(answer.json()["job_id"])

    def disk(self) -> str | None:
        lines = self.world.sql(DISK, self.user_id)
        assert len(lines) <= 1, "one request made two jobs"
        return lines[0] if lines else None

    def column(self, name: str) -> Any:
        return self.world.sql(
            f"SELECT {name} FROM jobs WHERE account_id = (SELECT id FROM accounts WHERE external_user_id = $1)",
            self.user_id,
        )[0]

    def until(self, *disks: str) -> None:
        self.world.until(lambda: self.disk() in disks, f"{disks}, but {self.disk()}")

    def let_the_time_limit_pass(self) -> None:
        self.world.sql(
            "UPDATE jobs SET deadline_at = clock_timestamp() - interval '1 second'"
            " WHERE account_id = (SELECT id FROM accounts WHERE external_user_id = $1)",
            self.user_id,
        )

    def balance(self) -> int:
        answer = self.world.http.get("/balance", headers=self.headers).raise_for_status()
        return int(answer.json()["balance_tokens"])

    def requests(self) -> list[dict[str, Any]]:
        """What fal accepted for this job."""
        newest = self.world.fal.get("/_sim/requests", params={"limit": 50}).json()["requests"]
        return [request for request in newest if request["input"]["prompt"] == self.prompt]

    def assert_right(self, end: str, *, posts: int) -> None:
        self.until(end)
        # The client that got no answer asks once more, and must be led to the same job.
        self.start()
        job = self.world.http.get(f"/generations/{self.job_id}", headers=self.headers).raise_for_status().json()
        assert {answer.json()["job_id"] for answer in self.answers} == {job["job_id"]}
        assert self.answers[-1].headers["Idempotent-Replayed"] == "true"
        assert (job["status"], job["result"] is not None) == (end.partition(" ")[0], end.startswith("COMPLETED"))
        assert self.balance() == BALANCE_TOKENS - (COST_TOKENS if job["status"] == "COMPLETED" else 0)
        assert len(self.requests()) == posts
        self.assert_nothing_is_left()

    def assert_nothing_is_left(self) -> None:
        assert self.world.sql("SELECT invariant || ' ' || subject FROM ledger_violations") == []
        assert self.world.sql(UNFINISHED) == []
