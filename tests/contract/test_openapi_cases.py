"""Requests made up from the OpenAPI document, good and bad ones, against a running service with real keys.

schemathesis makes the requests and judges every answer by all of its checks: no 5xx, nothing that the document does
not say, nothing taken that it forbids. `make test` runs few cases of a fixed seed. For more, set
- OPENAPI_CASES: how many made-up cases for each operation in the fuzzing phase, and how many chains of them in the
  stateful one: 200 made 4,216 cases in all, 300 make more than 5,000;
- OPENAPI_SECONDS: when to stop; 0 or not set: when all cases ran;
- OPENAPI_SEED: another set of cases;
- OPENAPI_MODELS: how many models of each family; the default ones are always among them;
- TORTURE_REPORT: a file that gets what was run as JSON; where several tests name one, each adds its own field.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.domain.kinds import GenerationKind
from app.infrastructure.catalogue.reading import read_catalogue
from tests.builders import connect, database_copy
from tests.service_process import PROJECT_DIR, WITHOUT_LIMITS, ServiceProcess
from tests.simulator_server import running_simulator
from tests.torture_report import report

CASES = int(os.environ.get("OPENAPI_CASES", "4"))
SECONDS = int(os.environ.get("OPENAPI_SECONDS", "0"))
SEED = int(os.environ.get("OPENAPI_SEED", "1"))
MODELS = int(os.environ.get("OPENAPI_MODELS", "1"))
WEBHOOK_SECRET = "webhook-4e7a90d35c1b48f2a6e3076bd81f592c"
BALANCE_TOKENS = 10**12
# Examples and coverage alone make more.
CASES_MIN = 500


@dataclass(frozen=True)
class Service:
    url: str
    api_key: str
    database: str
    log: Path


def write_catalogue(directory: Path) -> None:
    """Takes out what is above MODELS of a family. Each model is a form of its own, and each form hundreds of cases."""
    catalogue = read_catalogue()
    defaults = {catalogue.default_of(kind).id for kind in GenerationKind}
    count_of = Counter(model.family for model in catalogue if model.id in defaults)
    removed = []
    for model in catalogue:
        if model.id not in defaults:
            count_of[model.family] += 1
            if count_of[model.family] > MODELS:
                removed.append(model.id)
    directory.mkdir()
    (directory / "removed.toml").write_text(f"remove = {json.dumps(removed)}\n")


@pytest.fixture(scope="module")
def service(postgres_dsn: str, template_database: str) -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory() as directory,
        database_copy(postgres_dsn, template_database) as database,
        running_simulator() as simulator,
    ):
        log, catalogue = Path(directory) / "service.log", Path(directory) / "catalogue"
        write_catalogue(catalogue)
        settings = {
            "DATABASE_URL": database,
            "DATA_DIR": directory,
            "CATALOGUE_DIR": str(catalogue),
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "FAL_REST_URL": simulator,
            "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            **WITHOUT_LIMITS,
            # Made-up endpoints are reached by nobody.
            "WEBHOOK_PROXY": "http://127.0.0.1:9",
            # Each case comes from an address of its own: failed authentications of one would be slowed down.
            "TRUSTED_PROXIES": "127.0.0.1",
        }
        with ServiceProcess(log, settings) as process:
            url = process.wait_until_ready().url
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
                user_id = str(uuid4())
                payment = {"external_user_id": user_id, "amount": BALANCE_TOKENS}
                headers = {"X-Webhook-Secret": WEBHOOK_SECRET, "X-Event-Id": user_id}
                http.post("/webhook/topup", json=payment, headers=headers).raise_for_status()
                api_key = http.post("/auth", json={"external_user_id": user_id}).json()["api_key"]
            yield Service(url, api_key, database, log)


# A finished job is refused with 400: whether a job is finished is nothing that a document can say.
# How many keys there are already, that a moment is over, what makes bytes a picture, or that no offset goes with a
# filter, is nothing either. A stream of all events has no end, and whoever makes up requests would wait for it;
# `tests/integration/test_event_streams.py` listens to it.
LEFT_OUT = 1
CONFIGURATION = """
hooks = "tests.contract.openapi_hooks"
suppress-health-check = ["filter_too_much"]

[[operations]]
include-operation-id = "stream_events"
enabled = false

[[operations]]
include-operation-id = "get_generation"
parameters = { wait = 1 }

[[operations]]
include-operation-id = "list_generations"
checks.positive_data_acceptance.expected-statuses = ["200", "401", "403", "404", "422"]

[[operations]]
include-operation-id = "upload_file"
checks.positive_data_acceptance.expected-statuses = ["201", "401", "402", "422"]

[[operations]]
include-operation-id = "create_key"
checks.positive_data_acceptance.expected-statuses = ["201", "401", "403", "409", "422"]

[[operations]]
include-operation-id = "change_key"
checks.positive_data_acceptance.expected-statuses = ["200", "401", "403", "404", "422"]

[[operations]]
include-operation-id = "cancel_generation"
checks.positive_data_acceptance.expected-statuses = ["200", "400", "401", "404"]
"""


def run_cases(service: Service, directory: Path) -> tuple[dict[str, Any], str]:
    """The report of schemathesis, and what it printed."""
    (directory / "schemathesis.toml").write_text(CONFIGURATION)
    file = directory / "report.json"
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--mode", "all"),
            *("--header", f"X-API-Key: {service.api_key}", "--header", f"X-Webhook-Secret: {WEBHOOK_SECRET}"),
            *("--seed", str(SEED), "--max-examples", str(CASES), "--continue-on-failure", "--no-color"),
            *(("--max-time", str(SECONDS)) if SECONDS else ()),
            *("--report", "json", "--report-json-path", str(file), "--request-timeout", "15"),
            *("--generation-database", "none", "--warnings", "off"),
            # Every request carries the keys; ignored_auth sends its own without them.
            *("--generation-with-security-parameters", "false"),
        ],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(PROJECT_DIR)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert file.exists(), finished.stdout + finished.stderr
    return json.loads(file.read_text()), finished.stdout


# With others beside it, it took four times as long, and them with it: the simulator draws what it makes.
@pytest.mark.alone
@pytest.mark.timeout(max(1500, SECONDS * 2, CASES * 30))
async def test_the_service_does_what_its_document_says(service: Service, tmp_path: Path) -> None:
    document, printed = await asyncio.to_thread(run_cases, service, tmp_path)

    cases = document["test_cases"]
    report(
        "openapi",
        {
            "cases": cases["generated"],
            "failures": cases["unique_failures"],
            "seconds": round(document["running_time"], 1),
            "seed": SEED,
            "phases": {name: phase["status"] for name, phase in document["phases"].items()},
        },
    )
    assert not document["failures"], printed[-20_000:]
    assert not document["errors"], printed
    assert document["operations"]["tested"] == document["operations"]["total"] - LEFT_OUT, printed
    assert cases["generated"] >= CASES_MIN
    async with httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=60) as http:
        balance = await http.get("/balance", headers={"X-API-Key": service.api_key})
    assert balance.status_code == 200, "the cases lost their own key: most of them only saw 401"
    async with connect(service.database) as connection:
        assert await connection.fetch("SELECT * FROM ledger_violations") == []
        assert await connection.fetchval("SELECT count(*) FROM jobs") > len(document["phases"])
    log = service.log.read_text()
    assert "request_failed" not in log
    assert "step_failed" not in log
