"""A lost submission, in the service as `make run` starts it: with the simulator as fal, its history included."""

import tempfile
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.builders import database_copy
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.timeout(300)

# The last search comes with the end of it.
TIME_LIMIT_SECONDS = 8


def test_is_found_in_the_history_where_no_webhook_comes(postgres_dsn: str, template_database: str) -> None:
    user_id = str(uuid4())
    with (
        tempfile.TemporaryDirectory() as directory,
        database_copy(postgres_dsn, template_database) as database,
        ServiceProcess(
            Path(directory) / "service.log",
            {"DATABASE_URL": database, "DATA_DIR": directory, "IMAGE_TIME_LIMIT_SECONDS": str(TIME_LIMIT_SECONDS)},
        ) as service,
        httpx.Client(base_url=service.wait_until_ready().url, timeout=30, trust_env=False) as http,
    ):
        secret = {"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user_id}
        http.post("/webhook/topup", json={"external_user_id": user_id, "amount": 100}, headers=secret)
        headers = {"X-API-Key": http.post("/auth", json={"external_user_id": user_id}).json()["api_key"]}
        body = {"prompt": "a lighthouse [submit:drop] [webhook:never]"}
        started = http.post("/generations/images/text-to-image", json=body, headers=headers).json()

        deadline = time.monotonic() + 60
        while (job := http.get(f"/generations/{started['job_id']}", headers=headers).json())["billing"] is None:
            assert time.monotonic() < deadline, job
            time.sleep(0.2)

        assert (job["status"], job["billing"]["charged_tokens"]) == ("COMPLETED", 5), service.output()
        assert http.get("/balance", headers=headers).json()["balance_tokens"] == 95
        assert "generation_adopted" in service.output()
