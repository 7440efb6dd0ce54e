"""Limits of this process, as callers meet them."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app import serving
from app.infrastructure.settings import load_settings
from app.presentation.http import rates
from app.presentation.http.api import create_api
from app.presentation.http.connections import Connections
from app.presentation.http.rates import FAILURES_PER_MINUTE, SLOWED_OF_ONE_MAX, Reads
from tests.builders import BUILT_IN
from tests.unit.presentation_stand_ins import WEBHOOK_SECRET, World, problem_of

QUOTE = {"type": "TEXT_TO_IMAGE", "prompt": "a lighthouse"}
TEXT_TO_IMAGE = "/generations/images/text-to-image"


def client_of(world: World, reads: Reads | None = None) -> httpx.AsyncClient:
    api = create_api(BUILT_IN, version="1")
    if reads is not None:
        api.state.reads = reads
    api.state.use_cases = world.use_cases()
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://tollgate")


async def test_reads_of_a_key_are_bounded_and_say_so() -> None:
    world = World()
    _, key = await world.a_user(100)
    async with client_of(world, Reads(2, lambda: 600.0)) as http:
        assert (await http.get("/balance", headers=key)).status_code == 200
        assert (await http.post("/quotes", json=QUOTE, headers=key)).status_code == 200
        refused = await http.get("/generations", headers=key)
        written = await http.post(TEXT_TO_IMAGE, json={"prompt": "a lighthouse"}, headers=key)

    assert (refused.status_code, problem_of(refused)["code"]) == (429, "too_many_reads")
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["RateLimit-Policy"] == '"reads";q=2;w=1'
    assert refused.headers["RateLimit"] == '"reads";r=0;t=1'
    assert written.status_code == 202


@pytest.mark.alone
async def test_failures_of_an_address_are_slowed_down_and_a_valid_key_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SLOWED_SECONDS", 0.3)
    world = World()
    _, key = await world.a_user()
    async with client_of(world) as http:
        for _ in range(FAILURES_PER_MINUTE // 2):
            assert (await http.get("/balance")).status_code == 401
            top_up = await http.post("/webhook/topup", headers={"X-Webhook-Secret": f"not {WEBHOOK_SECRET}"})
            assert top_up.status_code == 401
        began = time.monotonic()
        slowed = asyncio.gather(*(http.get("/balance") for _ in range(SLOWED_OF_ONE_MAX + 1)))
        await asyncio.sleep(0.05)
        assert (await http.get("/balance", headers=key)).status_code == 200
        assert time.monotonic() - began < 0.3
        answers = await slowed

    assert time.monotonic() - began >= 0.3
    assert sorted(answer.status_code for answer in answers) == [401] * SLOWED_OF_ONE_MAX + [429]
    refused = max(answers, key=lambda answer: answer.status_code)
    assert problem_of(refused)["code"] == "too_many_failed_authentications"
    assert 0 < int(refused.headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [("127.0.0.1,10.0.0.0/8", "192.0.2.7"), ("10.0.0.0/8", "127.0.0.1"), (None, "127.0.0.1")],
)
async def test_a_trusted_proxy_says_who_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trusted: str | None, expected: str
) -> None:
    seen: list[str] = []

    class Api(FastAPI):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["client"][0])

    if trusted is not None:
        monkeypatch.setenv("TRUSTED_PROXIES", trusted)
    settings = load_settings(_env_file=None, data_dir=tmp_path)
    config = serving._configuration(Api(), Connections(10), settings)
    config.load()
    # What the caller wrote, whom the first proxy saw, and that proxy.
    forwarded = b"203.0.113.1, 192.0.2.7, 10.1.2.3"
    scope = {"type": "http", "client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", forwarded)]}

    await config.loaded_app(scope, None, None)

    assert seen == [expected]
