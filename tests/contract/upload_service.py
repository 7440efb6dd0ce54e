"""A service with its runner and the simulator, and customers who keep files there."""

import asyncio
import base64
import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from PIL import Image

from tests.builders import connect, database_copy
from tests.media_samples import four_corners, saved
from tests.service_process import WITHOUT_LIMITS, ServiceProcess
from tests.simulator_server import running_simulator

IMAGES = "/generations/images/text-to-image"
IMAGE_TO_IMAGE = "/generations/images/image-to-image"
IMAGE_TO_VIDEO = "/generations/videos/image-to-video"
SECONDS_MAX = 60


@cache
def picture(form: str = "PNG", side: int = 512) -> bytes:
    """Large enough for every model."""
    return saved(four_corners(side, side), form)


def data_uri(content: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def opened(content: bytes) -> Image.Image:
    shown = Image.open(io.BytesIO(content))
    shown.load()
    return shown


@dataclass(frozen=True)
class User:
    http: httpx.Client
    key: str

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-API-Key": self.key} | options.pop("headers", {})
        return self.http.request(method, path, headers=headers, **options)

    def send(self, content: bytes, **headers: str) -> httpx.Response:
        return self.ask(
            "POST", "/files", content=content, headers={name.replace("_", "-"): headers[name] for name in headers}
        )

    def keep(self, content: bytes) -> dict[str, Any]:
        answer = self.send(content)
        assert answer.status_code == 201, answer.text
        kept: dict[str, Any] = answer.json()
        return kept

    def start(self, images: list[str], idempotency_key: str | None = None, **more: object) -> httpx.Response:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        body = {"prompt": "a fox", "image_urls": images, **more}
        return self.ask("POST", IMAGE_TO_IMAGE, json=body, headers=headers)

    def balance(self) -> int:
        return int(self.ask("GET", "/balance").raise_for_status().json()["balance_tokens"])

    def used_bytes(self) -> int:
        return int(self.ask("GET", "/files").raise_for_status().json()["used_bytes"])

    def has(self) -> tuple[int, int]:
        """What no refusal may change: tokens, and bytes of files."""
        return self.balance(), self.used_bytes()

    def ended(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            job: dict[str, Any] = self.ask("GET", f"/generations/{job_id}").raise_for_status().json()
            if job["status"] in ("COMPLETED", "FAILED", "CANCELED"):
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.1)


@dataclass(frozen=True)
class UploadService:
    process: ServiceProcess
    settings: Mapping[str, str]
    database: str
    http: httpx.Client

    def user(self, tokens: int = 1000) -> User:
        user_id = str(uuid4())
        if tokens:
            paid = {"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user_id}
            body = {"external_user_id": user_id, "amount": tokens}
            self.http.post("/webhook/topup", json=body, headers=paid).raise_for_status()
        answer = self.http.post("/auth", json={"external_user_id": user_id}).raise_for_status()
        return User(self.http, answer.json()["api_key"])

    def left(self) -> list[str]:
        """What waits in the directory of uploads."""
        uploads = self.process.log.parent / "uploads"
        return sorted(path.name for path in uploads.iterdir()) if uploads.is_dir() else []

    def until_nothing_is_left(self) -> None:
        deadline = time.monotonic() + 60
        while self.left():
            assert time.monotonic() < deadline, self.left()
            time.sleep(0.05)

    def value(self, query: str, *arguments: object) -> Any:
        async def fetch() -> Any:
            async with connect(self.database) as connection:
                return await connection.fetchval(query, *arguments)

        return asyncio.run(fetch())


@contextmanager
def running_upload_service(postgres_dsn: str, template: str, directory: Path, **more: str) -> Iterator[UploadService]:
    with database_copy(postgres_dsn, template) as database, running_simulator() as simulator:
        settings: Mapping[str, str] = {
            "DATABASE_URL": database,
            "DATA_DIR": str(directory),
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "FAL_REST_URL": simulator,
            **WITHOUT_LIMITS,
            **more,
        }
        with ServiceProcess(directory / "service.log", settings) as process:
            process.wait_until_ready()
            with httpx.Client(base_url=process.url, timeout=60, trust_env=False) as http:
                yield UploadService(process, settings, database, http)
