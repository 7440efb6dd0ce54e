"""What nobody should send, byte for byte, at a running service: the exact status of each, and nothing done."""

import json
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.application.keys import new_key
from tests.builders import connect, contents, database_copy
from tests.contract.abuse_corpus import CANARY, IMAGES, ROWS, Row
from tests.media_samples import pictures
from tests.service_process import WITHOUT_LIMITS, ServiceProcess
from tests.simulator_server import running_simulator

WEBHOOK_SECRET = "webhook-4e7a90d35c1b48f2a6e3076bd81f592c"
ANSWER_BYTES_MAX = 4096
ANSWER_SECONDS_MAX = 60
TABLES = ("webhook_endpoints", "webhook_secrets", "deliveries", "files")
SECRETS = (
    "key",
    "old_key",
    "foreign_key",
    "reading_key",
    "budgeted_key",
    "secret",
    "endpoint_secret",
    "foreign_endpoint_secret",
)


@dataclass(frozen=True)
class Service:
    port: int
    database: str
    names: dict[str, str]
    log: Path


def mistyped(key: str) -> str:
    return key[:-1] + ("0" if key[-1] != "0" else "1")


def prepare(http: httpx.Client) -> dict[str, str]:
    """Two users with a job and an endpoint each, and a key that was replaced."""
    names = {"secret": WEBHOOK_SECRET, "owner": str(uuid4())}
    other = str(uuid4())

    def pay(user: str, event_id: str, amount: int) -> None:
        headers = {"X-Webhook-Secret": WEBHOOK_SECRET, "X-Event-Id": event_id}
        http.post(
            "/webhook/topup", json={"external_user_id": user, "amount": amount}, headers=headers
        ).raise_for_status()

    def job_of(key: str) -> str:
        return str(
            http.post(IMAGES, json={"prompt": "fox"}, headers={"X-API-Key": key}).raise_for_status().json()["job_id"]
        )

    def endpoint_of(key: str) -> tuple[str, str]:
        content = {"url": "https://hooks.example.com/tollgate", "types": ["generation.submitted"]}
        made = http.post("/webhook-endpoints", json=content, headers={"X-API-Key": key}).raise_for_status().json()
        return made["id"], made["secret"]

    def event_of(job: str, key: str) -> str:
        """Once it is in the log, with its delivery."""
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while not (items := http.get(f"/events?job_id={job}", headers={"X-API-Key": key}).json()["items"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return str(items[0]["id"])

    def key_for(user: str, **proof: str) -> str:
        content = {"external_user_id": user} | ({"rotate": True} if proof else {})
        headers = {name.replace("_", "-"): value for name, value in proof.items()}
        return str(http.post("/auth", json=content, headers=headers).raise_for_status().json()["api_key"])

    def id_of(key: str) -> str:
        return str(http.get("/keys/current", headers={"X-API-Key": key}).raise_for_status().json()["id"])

    def further_key(scopes: list[str], budget: dict[str, object] | None = None) -> tuple[str, str]:
        content = {"name": "further", "scopes": scopes, "budget": budget}
        made = http.post("/keys", json=content, headers={"X-API-Key": names["key"]}).raise_for_status().json()
        return made["api_key"], made["id"]

    pay(names["owner"], "known", 20)
    pay(other, "other", 20)
    names["old_key"] = key_for(names["owner"])
    names["key"] = key_for(names["owner"], X_API_Key=names["old_key"])
    names["foreign_key"] = key_for(other)
    names["mistyped_key"] = mistyped(names["key"])
    names["unknown_key"] = new_key()
    names["key_id"], names["foreign_key_id"] = (id_of(names[name]) for name in ("key", "foreign_key"))
    names["reading_key"], names["reading_id"] = further_key(["read"])
    names["starting_key"], _ = further_key(["generate"])
    names["budgeted_key"], names["budgeted_id"] = further_key(
        ["generate", "read", "manage"], {"tokens": 1, "per": "ever"}
    )
    for name, key in (("endpoint", "key"), ("foreign_endpoint", "foreign_key")):
        names[name], names[f"{name}_secret"] = endpoint_of(names[key])
    names["job"], names["foreign_job"] = job_of(names["key"]), job_of(names["foreign_key"])
    headers = {"X-API-Key": names["foreign_key"]}
    names["foreign_file"] = http.post("/files", content=pictures()["png"], headers=headers).json()["file_id"]
    event_of(names["job"], names["key"])
    names["foreign_event"] = event_of(names["foreign_job"], names["foreign_key"])
    return names


@pytest.fixture(scope="module")
def service(postgres_dsn: str, template_database: str) -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory() as directory,
        database_copy(postgres_dsn, template_database) as database,
        running_simulator() as simulator,
    ):
        settings = {
            "DATABASE_URL": database,
            "DATA_DIR": directory,
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "FAL_REST_URL": simulator,
            "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            **WITHOUT_LIMITS,
            # Nothing moves a job while a row looks whether anything was written.
            "RUNNER": "external",
        }
        log = Path(directory) / "service.log"
        with ServiceProcess(log, settings) as process:
            url = process.wait_until_ready().url
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
                names = prepare(http)
            yield Service(process.port, database, names, log)


def exchange(port: int, request: bytes) -> bytes:
    # From an address of its own: failed authentications of one would be slowed down.
    source = (f"127.{secrets.randbelow(200)}.{secrets.randbelow(250)}.1", 0)
    with socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS_MAX, source) as connection:
        answer = bytearray()
        # It may answer, and close, before it has read everything.
        with suppress(ConnectionError):
            connection.sendall(request)
        with suppress(ConnectionError):
            while received := connection.recv(65536):
                answer += received
        return bytes(answer)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_abuse_gets_its_status_and_changes_nothing(service: Service, row: Row) -> None:
    content = row.body
    for name in ("owner", "job", "foreign_job", "foreign_file"):
        content = content.replace(f"{{{name}}}".encode(), service.names[name].encode())
    request = replace(row, body=content).bytes_with(service.names)
    async with connect(service.database) as connection:
        before = await contents(connection, *TABLES)

        answer = exchange(service.port, request)

        after = await contents(connection, *TABLES)
        if row.code == "payment_event_conflict":
            # What was paid and not credited is listed for the operator.
            assert len(after.pop("refused_payments")) == len(before.pop("refused_payments")) + 1
        if (row.method, row.path) == ("POST", "/files"):
            # Whoever may upload has each try counted before it is read.
            assert [_without_writes(account) for account in after.pop("accounts")] == [
                _without_writes(account) for account in before.pop("accounts")
            ]
        assert after == before
    head, _, content = answer.partition(b"\r\n\r\n")
    assert int(head.split(b" ", 2)[1]) == row.status, answer[:500]
    assert len(answer) <= ANSWER_BYTES_MAX
    assert answer.count(b"HTTP/1.1 ") == 1, "a part of the request was taken for another one"
    assert CANARY.encode() not in answer.lower()
    for name in (*SECRETS, "foreign_job", "foreign_file"):
        assert service.names[name].encode() not in answer, name
    if row.is_without_body:
        assert content == b""
    else:
        problem = json.loads(content)
        assert b"content-type: application/problem+json" in head
        assert (problem["code"], problem["status"]) == (row.code, row.status)
        assert problem["request_id"]


def _without_writes(account: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(account).items() if name not in ("writes", "writes_minute")}


def test_every_route_with_an_id_has_a_row_of_another_tenant(service: Service) -> None:
    document = httpx.get(f"http://127.0.0.1:{service.port}/openapi.json", trust_env=False, timeout=60).json()
    with_id = {re.sub(r"{.*}", "{foreign}", path) for path in document["paths"] if "_id}" in path or "{token}" in path}

    in_paths = [row.path for row in ROWS if "{foreign_" in row.path and "?" not in row.path]
    assert with_id == {re.sub(r"{.*}", "{foreign}", path) for path in in_paths}


def test_the_log_tells_no_secret_and_no_failure(service: Service) -> None:
    exchange(
        service.port, next(row for row in ROWS if row.name == "payment with a wrong secret").bytes_with(service.names)
    )
    log = service.log.read_text()
    assert "request_failed" not in log
    for name in SECRETS:
        assert service.names[name] not in log, name
    assert CANARY not in log
