"""A user's story over HTTP: a key, a payment, generations of each kind, and everything that can go wrong on the way."""

import asyncio
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit
from uuid import uuid4

import httpx
import pytest

from app.infrastructure.media_links import SignedMediaLinks
from tests.builders import connect, database_copy
from tests.media_samples import pictures
from tests.service_process import ServiceProcess
from tests.simulator_server import running_simulator

pytestmark = pytest.mark.timeout(300)

FINAL = {"COMPLETED", "FAILED", "CANCELED"}
TEXT_TO_IMAGE = "/generations/images/text-to-image"
WEBHOOK = {"X-Webhook-Secret": "development-webhook-secret"}
AUTH_SECRET = "auth-9b1f6c07d2e84a35b6720cf1e95d38a4"
SIGNING_SECRET = "5b1c" * 16
PICTURE = "https://example.com/picture.png"
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Service:
    http: httpx.Client
    fal: httpx.Client
    database: str
    # Where the service looks for PostgreSQL's socket; without the link nobody listens.
    socket_link: Path
    socket: Path

    def register(self, tokens: int = 0, headers: Mapping[str, str] | None = None) -> "User":
        user_id = str(uuid4())
        answer = self.http.post("/auth", json={"external_user_id": user_id}, headers=headers)
        assert answer.status_code == 201, answer.text
        if tokens:
            self.pay(user_id, tokens, event_id=user_id).raise_for_status()
        return User(self, user_id, answer.json()["api_key"])

    def pay(self, user_id: str, tokens: int, event_id: str) -> httpx.Response:
        body = {"external_user_id": user_id, "amount": tokens}
        return self.http.post("/webhook/topup", json=body, headers={**WEBHOOK, "X-Event-Id": event_id})

    def submits(self, prompt: str) -> int:
        requests = self.fal.get("/_sim/requests").raise_for_status().json()["requests"]
        return sum(request["input"]["prompt"] == prompt for request in requests)

    def query(self, statement: str, *arguments: object, database: str | None = None) -> list[Any]:
        """The first column; in the service's database unless told otherwise."""

        async def run() -> list[Any]:
            async with connect(
                urlunsplit(own._replace(path=f"/{database}")) if database else self.database
            ) as connection:
                return [row[0] for row in await connection.fetch(statement, *arguments)]

        own = urlsplit(self.database)
        return asyncio.run(run())

    @property
    def database_name(self) -> str:
        return urlsplit(self.database).path.removeprefix("/")


@dataclass(frozen=True)
class User:
    service: Service
    id: str
    key: str

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.service.http.request(method, path, headers={"X-API-Key": self.key}, **request)

    def balance(self) -> int:
        return int(self.send("GET", "/balance").raise_for_status().json()["balance_tokens"])

    def start(self, prompt: str, path: str = TEXT_TO_IMAGE, **body: Any) -> str:
        answer = self.send("POST", path, json={"prompt": prompt, **body})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.send("GET", f"/generations/{job_id}").raise_for_status().json())

    def until(self, job_id: str, statuses: set[str]) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while (job := self.job(job_id))["status"] not in statuses:
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job

    def cancel(self, job_id: str) -> httpx.Response:
        return self.send("POST", f"/generations/{job_id}/cancel")

    def ledger(self) -> list[str]:
        """Kind and amount of every entry."""
        return self.service.query(
            "SELECT entry.kind || ' ' || entry.amount FROM ledger_entries AS entry"
            " JOIN accounts AS account ON account.id = entry.account_id WHERE account.external_user_id = $1"
            " ORDER BY entry.id",
            self.id,
        )


@contextmanager
def running_service(postgres_dsn: str, template_database: str, directory: Path, **settings: str) -> Iterator[Service]:
    host = parse_qs(urlsplit(postgres_dsn).query)["host"][0]
    with (
        database_copy(postgres_dsn, template_database) as database,
        tempfile.TemporaryDirectory(dir="/tmp") as sockets,
        running_simulator(queue_seconds=0.1, run_seconds_image=0.1, run_seconds_video=0.1) as simulator,
    ):
        link, socket = Path(sockets) / ".s.PGSQL.5432", Path(host) / ".s.PGSQL.5432"
        link.symlink_to(socket)
        complete = {
            "DATABASE_URL": database.replace(f"host={host}", f"host={sockets}"),
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "FAL_REST_URL": simulator,
            "DATA_DIR": str(directory),
            "SIGNING_SECRET": SIGNING_SECRET,
            "PAYMENT_SOURCES_JSON": json.dumps({"shop": WEBHOOK["X-Webhook-Secret"]}),
            **settings,
        }
        with ServiceProcess(directory / "service.log", complete) as process:
            process.wait_until_ready()
            with (
                httpx.Client(base_url=process.url, timeout=60, trust_env=False) as http,
                httpx.Client(base_url=simulator, timeout=60, trust_env=False) as fal,
            ):
                yield Service(http, fal, database, link, socket)


@pytest.fixture(scope="module")
def service(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(postgres_dsn, template_database, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded_service(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """With prices and a secret of its own, and nobody who works on its jobs."""
    with running_service(
        postgres_dsn,
        template_database,
        tmp_path_factory.mktemp("guarded"),
        RUNNER="external",
        AUTH_SECRET=AUTH_SECRET,
        TOKEN_PRICES_JSON='{"text_to_image": 7, "image_to_video_10s": 100}',
    ) as running:
        yield running


def together(count: int, call: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """All at the same moment, each on a connection of its own."""
    barrier = threading.Barrier(count)

    def wait_and_call() -> httpx.Response:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(wait_and_call) for _ in range(count)]
        return [each.result() for each in calls]


@pytest.mark.parametrize(
    ("path", "body", "cost_tokens"),
    [
        ("images/text-to-image", {}, 5),
        ("images/text-to-image", {"num_images": 4}, 20),
        ("images/image-to-image", {"num_images": 2}, 12),
    ],
)
def test_images_are_made_and_charged_for_each(
    service: Service, path: str, body: dict[str, Any], cost_tokens: int
) -> None:
    user = service.register(100)
    sources = {"image_urls": [picture_url(service)]} if path.endswith("image-to-image") else {}

    job = user.until(user.start("A lighthouse", f"/generations/{path}", **body, **sources), FINAL)

    assert (job["status"], job["cost_tokens"], job["error_message"]) == ("COMPLETED", cost_tokens, None), job
    assert job["type"] == path.partition("/")[2].upper().replace("-", "_")
    assert job["model_id"] == f"fal-ai/wan-25-preview/{path.partition('/')[2]}"
    images = job["result"]["images"]
    assert len(images) == body.get("num_images", 1)
    assert httpx.get(images[0]["url"], trust_env=False, timeout=60).content.startswith(b"\x89PNG")
    assert user.balance() == 100 - cost_tokens


def picture_url(service: Service) -> str:
    """A picture that the simulator has: the result of another job."""
    user = service.register(5)
    job = user.until(user.start("A source"), FINAL)
    return str(job["result"]["images"][0]["url"])


@pytest.mark.parametrize(
    ("path", "duration", "cost_tokens"),
    [("videos/text-to-video", 5, 30), ("videos/text-to-video", 10, 55), ("videos/image-to-video", 10, 65)],
)
def test_videos_are_made_and_charged_by_their_length(
    service: Service, path: str, duration: int, cost_tokens: int
) -> None:
    user = service.register(100)
    source = {"image_url": picture_url(service)} if path.endswith("image-to-video") else {}

    job = user.until(user.start("Waves", f"/generations/{path}", duration=duration, **source), FINAL)

    assert (job["status"], job["cost_tokens"], job["error_message"]) == ("COMPLETED", cost_tokens, None), job
    assert job["type"] == path.partition("/")[2].upper().replace("-", "_")
    assert job["result"]["video"]["duration"] == duration
    assert job["result"]["video"]["content_type"] == "video/mp4"
    assert user.balance() == 100 - cost_tokens


@pytest.mark.parametrize(
    ("path", "body", "cost_tokens"),
    [
        ("images/text-to-image", {"num_images": 4}, 28),
        ("images/image-to-image", {"num_images": 4, "image_urls": [PICTURE]}, 24),
        ("videos/image-to-video", {"duration": 10, "image_url": PICTURE}, 100),
        ("videos/image-to-video", {"image_url": PICTURE}, 35),
    ],
)
def test_the_operators_prices_are_charged(
    guarded_service: Service, path: str, body: dict[str, Any], cost_tokens: int
) -> None:
    user = guarded_service.register(100, {"X-Auth-Secret": AUTH_SECRET})

    answer = user.send("POST", f"/generations/{path}", json={"prompt": "A lighthouse", **body})

    assert answer.status_code == 202
    assert answer.json()["cost_tokens"] == cost_tokens
    assert answer.headers["Location"] == f"/generations/{answer.json()['job_id']}"
    assert user.balance() == 100 - cost_tokens


def test_a_balance_that_is_too_low_gets_402_and_nothing_is_written(service: Service) -> None:
    user = service.register(19)
    entries = user.ledger()

    answer = user.send("POST", TEXT_TO_IMAGE, json={"prompt": "too expensive", "num_images": 4})

    assert answer.status_code == 402
    assert answer.headers["Content-Type"] == PROBLEM
    assert (answer.json()["code"], answer.json()["detail"]) == ("insufficient_balance", "insufficient balance")
    assert user.balance() == 19
    assert user.ledger() == entries
    assert user.send("GET", "/generations").json()["items"] == []
    assert service.submits("too expensive") == 0


@pytest.mark.parametrize(
    ("word", "error_code"),
    [
        ("[fail]", "content_policy_violation"),
        ("[fail:500]", "provider_error"),
        ("[fail:504]", "provider_timeout"),
        ("[fail:no_media_generated]", "no_media_generated"),
        ("[fail:image_too_small]", "image_too_small"),
        ("[fail:audio_duration_too_long]", "audio_too_long"),
        ("[no-error-field]", "content_policy_violation"),
        ("[submit:422]", "content_policy_violation"),
    ],
)
def test_a_failure_is_refunded_with_a_code_and_a_sentence(service: Service, word: str, error_code: str) -> None:
    user = service.register(10)

    job = user.until(user.start(f"A lighthouse {word}"), FINAL)

    assert (job["status"], job["error_code"], job["result"]) == ("FAILED", error_code, None)
    assert job["error_message"].endswith(". Nothing was charged.")
    assert user.balance() == 10
    assert user.ledger() == ["CREDIT 10", "DEBIT 5", "REFUND 5"]


def test_a_cancel_before_anything_was_sent_refunds_in_that_answer(guarded_service: Service) -> None:
    user = guarded_service.register(10, {"X-Auth-Secret": AUTH_SECRET})
    job_id = user.start("never sent")

    answer = user.cancel(job_id)

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["error_code"]) == ("CANCELED", "canceled")
    assert user.balance() == 10
    assert guarded_service.submits("never sent") == 0


@pytest.mark.parametrize(("word", "status"), [("[stuck]", "IN_QUEUE"), ("[slow:60]", "IN_PROGRESS")])
def test_a_cancel_at_fal_is_confirmed_and_refunded_in_that_answer(service: Service, word: str, status: str) -> None:
    user = service.register(10)
    job_id = user.start(f"stop me {word}")
    user.until(job_id, {status})

    answer = user.cancel(job_id)

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["result"]) == ("CANCELED", None)
    assert answer.json()["error_message"].endswith("Nothing was charged.")
    assert user.balance() == 10
    assert user.ledger() == ["CREDIT 10", "DEBIT 5", "REFUND 5"]


def test_a_run_that_finishes_in_spite_of_a_cancel_is_delivered_and_charged(service: Service) -> None:
    user = service.register(10)
    job_id = user.start("[ignore-cancel] [slow:5]")
    user.until(job_id, {"IN_PROGRESS"})

    answer = user.cancel(job_id)

    assert answer.json()["status"] == "CANCELING"
    job = user.until(job_id, FINAL)
    assert (job["status"], job["error_code"], len(job["result"]["images"])) == ("COMPLETED", None, 1)
    assert user.balance() == 5
    assert user.ledger() == ["CREDIT 10", "DEBIT 5"]


@pytest.mark.parametrize("word", ["", "[fail]"])
def test_a_finished_job_cannot_be_canceled(service: Service, word: str) -> None:
    user = service.register(10)
    job_id = user.start(f"A lighthouse {word}")
    finished = user.until(job_id, FINAL)
    balance = user.balance()

    answer = user.cancel(job_id)

    assert answer.status_code == 400
    assert (answer.json()["code"], answer.json()["detail"]) == (
        "cannot_cancel_finished_job",
        "cannot cancel finished job",
    )
    # Our own copies of its files may have come meanwhile.
    assert {**user.job(job_id), "outputs": None} == {**finished, "outputs": None}
    assert user.balance() == balance


@pytest.mark.parametrize("status", ["QUEUED", "IN_QUEUE", "IN_PROGRESS"])
def test_eight_cancels_at_once_refund_once(service: Service, guarded_service: Service, status: str) -> None:
    chosen, headers = (guarded_service, {"X-Auth-Secret": AUTH_SECRET}) if status == "QUEUED" else (service, None)
    user = chosen.register(10, headers)
    job_id = user.start("[stuck]" if status == "IN_QUEUE" else "[slow:60]")
    user.until(job_id, {status})

    answers = together(8, lambda: user.cancel(job_id))

    assert {answer.status_code for answer in answers} <= {200, 400}, [answer.text for answer in answers]
    assert any(answer.status_code == 200 and answer.json()["status"] == "CANCELED" for answer in answers)
    assert user.until(job_id, FINAL)["status"] == "CANCELED"
    assert user.balance() == 10
    price = 7 if status == "QUEUED" else 5
    assert user.ledger() == ["CREDIT 10", f"DEBIT {price}", f"REFUND {price}"]


def test_twenty_five_deliveries_of_one_payment_at_once_credit_once(service: Service) -> None:
    user = service.register()
    event_id = str(uuid4())

    answers = together(25, lambda: service.pay(user.id, 40, event_id))

    assert Counter((answer.status_code, answer.text) for answer in answers) == {(200, '{"ok":true}'): 25}
    assert user.balance() == 40
    assert user.ledger() == ["CREDIT 40"]


def test_the_first_payments_of_a_new_user_at_once_are_all_credited(service: Service) -> None:
    user_id = str(uuid4())

    answers = together(10, lambda: service.pay(user_id, 4, str(uuid4())))

    assert [answer.status_code for answer in answers] == [200] * 10
    key = service.http.post("/auth", json={"external_user_id": user_id}).json()["api_key"]
    assert User(service, user_id, key).balance() == 40


def test_of_thirty_requests_at_once_on_a_balance_for_ten_exactly_ten_are_accepted(service: Service) -> None:
    user = service.register(50)

    answers = together(30, lambda: user.send("POST", TEXT_TO_IMAGE, json={"prompt": "a crowd"}))

    assert Counter(answer.status_code for answer in answers) == {202: 10, 402: 20}
    assert user.balance() == 0
    assert len(user.send("GET", "/generations").json()["items"]) == 10
    assert user.ledger() == ["CREDIT 50", *["DEBIT 5"] * 10]


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("POST", "/cancel")])
def test_another_users_job_is_answered_like_an_unknown_one(service: Service, method: str, suffix: str) -> None:
    owner, stranger = service.register(10), service.register(10)
    job_id = owner.start("[stuck]")

    answers = [stranger.send(method, f"/generations/{each}{suffix}") for each in (job_id, uuid4())]

    assert [answer.status_code for answer in answers] == [404, 404]
    foreign, unknown = ({**answer.json(), "request_id": ""} for answer in answers)
    assert foreign == unknown
    assert owner.job(job_id)["status"] not in FINAL | {"CANCELING"}
    owner.cancel(job_id)


def test_a_key_is_not_replaced_without_proof(service: Service) -> None:
    victim, thief = service.register(10), service.register()
    body = {"external_user_id": victim.id, "rotate": True}

    answers = [
        service.http.post("/auth", json=body, headers=headers)
        for headers in ({}, {"X-API-Key": thief.key}, {"X-API-Key": "nonsense"}, {"X-Auth-Secret": AUTH_SECRET})
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, "proof_required")] * 4
    assert victim.balance() == 10


def test_a_second_first_key_is_refused(service: Service) -> None:
    user = service.register(10)

    answer = service.http.post("/auth", json={"external_user_id": user.id})

    assert (answer.status_code, answer.json()["code"]) == (409, "key_already_issued")
    assert user.balance() == 10


def test_the_current_key_replaces_itself_and_stops_working(service: Service) -> None:
    user = service.register(10)

    answer = user.send("POST", "/auth", json={"external_user_id": user.id, "rotate": True})

    assert answer.status_code == 201
    assert User(service, user.id, answer.json()["api_key"]).balance() == 10
    assert user.send("GET", "/balance").status_code == 401


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Secret": "wrong"}, {"X-Auth-Secret": AUTH_SECRET[:-1]}])
def test_with_a_service_secret_nobody_gets_a_key_without_it(
    guarded_service: Service, headers: Mapping[str, str]
) -> None:
    answer = guarded_service.http.post("/auth", json={"external_user_id": str(uuid4())}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "proof_required")


def test_with_a_service_secret_the_current_key_alone_does_not_replace_itself(guarded_service: Service) -> None:
    user = guarded_service.register(10, {"X-Auth-Secret": AUTH_SECRET})

    answer = user.send("POST", "/auth", json={"external_user_id": user.id, "rotate": True})

    assert (answer.status_code, answer.json()["code"]) == (401, "proof_required")
    assert user.balance() == 10


def test_the_service_secret_replaces_a_key(guarded_service: Service) -> None:
    user = guarded_service.register(10, {"X-Auth-Secret": AUTH_SECRET})
    body = {"external_user_id": user.id, "rotate": True}

    answer = guarded_service.http.post("/auth", json=body, headers={"X-Auth-Secret": AUTH_SECRET})

    assert answer.status_code == 201
    assert User(guarded_service, user.id, answer.json()["api_key"]).balance() == 10
    assert user.send("GET", "/balance").status_code == 401


@pytest.mark.alone
def test_a_quick_job_is_delivered_soon_after_fal_has_finished_it(service: Service) -> None:
    user = service.register(10)
    prompt = f"{uuid4()} [slow:1]"

    job = user.until(user.start(prompt), FINAL)

    requests = service.fal.get("/_sim/requests").json()["requests"]
    (ended_at,) = [request["ended_at"] for request in requests if request["input"]["prompt"] == prompt]
    waited = datetime.fromisoformat(job["updated_at"]) - datetime.fromisoformat(ended_at)
    # A job of a second is looked at every half second; the rest is for a slow machine.
    assert waited.total_seconds() < 2.5


def test_failed_looks_at_fal_do_not_end_a_job(service: Service) -> None:
    user = service.register(10)

    job = user.until(user.start("[flaky:3]"), FINAL)

    assert (job["status"], user.balance()) == ("COMPLETED", 5)


def test_a_submit_that_fal_postpones_twice_is_accepted_once(service: Service) -> None:
    user = service.register(10)
    prompt = f"{uuid4()} [submit:429x2]"

    job = user.until(user.start(prompt), FINAL)

    assert (job["status"], user.balance()) == ("COMPLETED", 5)
    assert service.submits(prompt) == 1


def routes_with_bodies(service: Service) -> list[tuple[str, str, dict[str, Any]]]:
    """Every documented route that needs the database, with its first example or a file."""
    document = service.http.get("/openapi.json").json()
    media_id, found = f"{uuid4()}-0", []
    # One that is not signed is refused before the database is asked.
    link = SignedMediaLinks([SIGNING_SECRET]).query_for(media_id, datetime.now(UTC) + timedelta(hours=1))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {"content": {}})["content"]
            examples = content.get("application/json", {"examples": {}})["examples"]
            body = {"json": next((example["value"] for example in examples.values()), None)}
            if "application/octet-stream" in content:
                body = {"content": pictures()["png"]}
            # fal's webhooks are refused for their signature before the database is asked.
            if path not in ("/healthz", "/readyz", "/webhooks/fal/{token}", "/models", "/models/{model}"):
                filled = path.replace("{job_id}", str(uuid4())).replace("{source}", "shop")
                filled = filled.replace("{file_id}", str(uuid4()))
                filled = filled.replace("{endpoint_id}", str(uuid4())).replace("{event_id}", "evt_1")
                filled = filled.replace("{media}", media_id).replace("{name}", f"image-1.png?{link}")
                found.append((method.upper(), filled, body))
    return found


@contextmanager
def nobody_listening(service: Service) -> Iterator[None]:
    """Where the service looks for PostgreSQL."""
    service.socket_link.unlink()
    try:
        yield
    finally:
        service.socket_link.symlink_to(service.socket)


@contextmanager
def database_closed(service: Service) -> Iterator[None]:
    """As an operator does it for maintenance."""
    alter = f"ALTER DATABASE {service.database_name} ALLOW_CONNECTIONS"
    service.query(f"{alter} false", database="postgres")
    try:
        yield
    finally:
        service.query(f"{alter} true", database="postgres")


def end_connections(service: Service) -> None:
    service.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
        service.database_name,
        database="postgres",
    )


def until_it_is_noticed(service: Service) -> httpx.Response:
    """Whether the database keeps what is written is tried from time to time, however often it is asked."""
    deadline = time.monotonic() + 60
    while True:
        answer = service.http.get("/readyz")
        checks = {check["name"]: check["ok"] for check in answer.json()["checks"]}
        if not checks["database"] or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


def until_ready(service: Service) -> None:
    deadline = time.monotonic() + 60
    while (answer := service.http.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


@pytest.mark.parametrize("outage", [nobody_listening, database_closed])
def test_every_route_says_503_while_the_database_is_away_and_works_again_afterwards(
    service: Service, outage: Callable[[Service], AbstractContextManager[None]]
) -> None:
    user = service.register(10)
    routes = routes_with_bodies(service)
    assert len(routes) == 46

    with outage(service):
        end_connections(service)
        answers = {
            (method, path): user.service.http.request(
                method, path, **body, headers={**WEBHOOK, "X-API-Key": user.key, "X-Event-Id": "lost"}
            )
            for method, path, body in routes
        }
        alive, models = service.http.get("/healthz"), service.http.get("/models")
        ready = until_it_is_noticed(service)

    for route, answer in answers.items():
        assert (route, answer.status_code, answer.headers["Content-Type"]) == (route, 503, PROBLEM)
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["code"] == "database_unavailable"
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert alive.status_code == models.status_code == 200
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert {check["name"]: check["ok"] for check in ready.json()["checks"]}["database"] is False
    until_ready(service)
    assert user.until(user.start("after the outage"), FINAL)["status"] == "COMPLETED"
    assert user.balance() == 5
