"""The edges of the real process: descriptors, memory, silence, and what it does at its start and its stop."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from PIL import Image

from tests.service_process import PROJECT_DIR, WITHOUT_LIMITS, ServiceProcess
from tests.simulator_server import running_simulator

pytestmark = pytest.mark.timeout(300)

SECRET = {"X-Webhook-Secret": "development-webhook-secret"}
IMAGES = "/generations/images/image-to-image"


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    with running_simulator() as simulator:
        yield {
            "DATABASE_URL": database,
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "FAL_JWKS_URL": f"{simulator}/.well-known/jwks.json",
            "DATA_DIR": str(tmp_path),
        }


def a_key(http: httpx.Client, tokens: int) -> dict[str, str]:
    user = str(uuid4())
    if tokens:
        headers = SECRET | {"X-Event-Id": user}
        http.post(
            "/webhook/topup", json={"external_user_id": user, "amount": tokens}, headers=headers
        ).raise_for_status()
    return {"X-API-Key": http.post("/auth", json={"external_user_id": user}).raise_for_status().json()["api_key"]}


def balance_on_a_new_connection(service: ServiceProcess, key: dict[str, str]) -> int:
    return httpx.get(f"{service.url}/balance", headers=key, timeout=60, trust_env=False).status_code


@pytest.mark.parametrize("descriptors_max", [256, 1024])
def test_silent_callers_keep_nobody_out(settings: dict[str, str], tmp_path: Path, descriptors_max: int) -> None:
    service = ServiceProcess(tmp_path / "serve.log", settings, descriptors_max=descriptors_max)
    with service, ExitStack() as stack:
        service.wait_until_ready()
        with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as http:
            key = a_key(http, 100)
        for _ in range(descriptors_max + 50):
            with suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=5))

        assert [balance_on_a_new_connection(service, key) for _ in range(20)] == [200] * 20
        # The runner gets its descriptors as well.
        with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as http:
            prompt = {"prompt": "somebody else"}
            job = http.post("/generations/images/text-to-image", json=prompt, headers=key).raise_for_status().json()
            deadline = time.monotonic() + 60
            while (status := http.get(f"/generations/{job['job_id']}", headers=key).json()["status"]) != "COMPLETED":
                assert time.monotonic() < deadline, status
                time.sleep(0.2)
        assert service.process.poll() is None
    log = service.output()
    assert log.count("connections_full") == 1
    assert "Traceback" not in log


def test_says_what_it_lacks_where_it_may_open_next_to_no_files(tmp_path: Path) -> None:
    started = subprocess.run(
        ["sh", "-c", f'ulimit -n 64 && exec "{sys.executable}" -m app serve'],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT_DIR), "HOME": str(tmp_path), "PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert started.returncode == 1
    assert started.stderr.strip().splitlines()[-1].startswith("error: this process may open 64 files, but needs 128")


def test_raises_its_soft_limit(settings: dict[str, str], tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path / "serve.log", settings)
    service._arguments = ["sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh", *service._arguments]
    with service:
        service.wait_until_ready()
        soft, hard = psutil.Process(service.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == min(hard, 65_536)


def test_large_bodies_leave_no_memory_behind_and_others_are_served(settings: dict[str, str], tmp_path: Path) -> None:
    # Noise, which no compression makes smaller: as large as a picture may be.
    written = io.BytesIO()
    Image.frombytes("RGB", (1300, 1340), os.urandom(1300 * 1340 * 3)).save(written, "PNG")
    picture = base64.b64encode(written.getvalue()).decode()
    uri = f"data:image/png;base64,{picture}"
    body = json.dumps({"prompt": "both", "image_urls": [uri, uri]}).encode()
    # Nothing takes the jobs up, so that it is the bodies alone that are looked at.
    service = ServiceProcess(tmp_path / "serve.log", settings | {"RUNNER": "external"})
    with service, httpx.Client(base_url=service.url, timeout=60, trust_env=False) as http:
        service.wait_until_ready()
        process = psutil.Process(service.process.pid)
        poor, rich = a_key(http, 0), [a_key(http, 100) for _ in range(6)]

        def send(key: dict[str, str]) -> int:
            with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as own:
                return own.post(IMAGES, content=body, headers=key | {"Content-Type": "application/json"}).status_code

        before = process.memory_info().rss
        with ThreadPoolExecutor(24) as pool:
            assert set(pool.map(send, [poor] * 48)) == {402}
            assert process.memory_info().rss - before < 30e6
            sending = [pool.submit(send, key) for key in rich * 4]
            peak = before
            while not all(one.done() for one in sending):
                peak = max(peak, process.memory_info().rss)
                assert balance_on_a_new_connection(service, rich[0]) == 200
            statuses = {one.result() for one in sending}
        time.sleep(0.5)

        assert 202 in statuses
        assert statuses <= {202, 429, 503}
        assert peak - before < 500e6
        assert process.memory_info().rss - before < 60e6


def test_serves_behind_a_path_and_to_pages(settings: dict[str, str], tmp_path: Path) -> None:
    own = {"ROOT_PATH": "/ai/", "CORS_ORIGINS": "https://App.example.com, http://localhost:5173/"}
    with ServiceProcess(tmp_path / "serve.log", settings | own) as service:
        service.wait_until_ready()
        with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as http:
            for prefix in ("", "/ai"):
                assert http.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/ai"}]
                assert http.head(f"{prefix}/healthz").status_code == 200
            asks = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
            assert http.options("/ai/auth", headers=asks).headers["access-control-allow-origin"] == asks["Origin"]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"ROOT_PATH": "/generations"}, "ROOT_PATH: must not be the beginning of a route of ours"),
        ({"ROOT_PATH": "ai"}, "ROOT_PATH: must be a path such as /ai"),
        ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS: must be origins"),
    ],
)
def test_says_which_setting_cannot_be(
    settings: dict[str, str], tmp_path: Path, setting: dict[str, str], sentence: str
) -> None:
    with ServiceProcess(tmp_path / "serve.log", settings | setting) as service:
        assert service.process.wait(60) == 1
    assert f"error: {sentence}" in service.output()


@pytest.mark.alone
def test_a_stop_in_development_resets_no_request(settings: dict[str, str], tmp_path: Path) -> None:
    """Each request is answered, or its connection is refused: then it was never sent."""
    with ServiceProcess(tmp_path / "serve.log", settings | WITHOUT_LIMITS) as service:
        service.wait_until_ready()
        with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as http:
            key = a_key(http, 100)

        def ask_until_refused() -> list[str]:
            with httpx.Client(base_url=service.url, headers=key, timeout=60, trust_env=False) as own:
                seen: list[str] = []
                while True:
                    try:
                        seen.append(str(own.get("/balance").status_code))
                    except httpx.ConnectError:
                        return seen
                    except httpx.TransportError as error:
                        return [*seen, type(error).__name__]

        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask_until_refused) for _ in range(8)]
            time.sleep(1)
            assert service.stop() == 0
            seen = [one.result() for one in asking]
    assert all(set(one) == {"200"} for one in seen), [one[-1] for one in seen]


def test_good_probes_are_not_in_the_log(settings: dict[str, str], tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "serve.log", settings) as service:
        service.wait_until_ready()
        httpx.get(f"{service.url}/healthz", trust_env=False, timeout=60)
        httpx.get(f"{service.url}/nothing", trust_env=False, timeout=60)
    served = [line for line in service.output().splitlines() if "request_served" in line]
    # Until it is ready it says so, and that is no good probe.
    told = [line for line in served if '"route":"/readyz","status":503' not in line]
    assert len(told) == 1, told
    assert '"status":404' in told[0]
