"""Bodies that are large, slow or not worth reading."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from app.domain.kinds import GenerationKind
from app.presentation.http import bodies, body_room
from app.presentation.http.body_room import LARGE_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX
from app.presentation.http.errors import InvalidJson
from tests.builders import BUILT_IN
from tests.unit.presentation_routers import api_of, client_of
from tests.unit.presentation_stand_ins import WEBHOOK_SECRET, World, problem_of

TOPUP = "/webhook/topup"
PATH = "/generations/images/text-to-image"
JSON = {"Content-Type": "application/json"}
FOX = b'{"prompt": "a fox"}'


async def asked(api: FastAPI, headers: dict[str, str], receive: Callable[[], Any], path: str = PATH) -> Message:
    """The start of the answer to a request whose body comes as `receive` says."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in (JSON | headers).items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": raw,
        "query_string": b"",
        "client": ("1.2.3.4", 5),
    }
    await api(scope, receive, send)
    return sent[0]


def never() -> Any:
    raise AssertionError("the body was read")


def slowly(parts: list[bytes], pause_seconds: float) -> Callable[[], Any]:
    left = [*parts]

    async def receive() -> Message:
        await asyncio.sleep(pause_seconds)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


@pytest.mark.parametrize(
    "length", [{"Content-Length": str(2 * SMALL_BODY_BYTES_MAX)}, {"Transfer-Encoding": "chunked"}]
)
@pytest.mark.parametrize("tokens", [0, BUILT_IN.cheapest_tokens[GenerationKind.TEXT_TO_IMAGE] - 1])
async def test_reads_no_large_body_for_an_account_that_can_pay_for_nothing(length: dict[str, str], tokens: int) -> None:
    world = World()
    _, key = await world.a_user(tokens)

    start = await asked(api_of(world), key | length, never)

    assert start["status"] == 402


@pytest.mark.parametrize("kind", GenerationKind)
async def test_what_a_large_body_needs_is_the_cheapest_price_of_its_type(kind: GenerationKind) -> None:
    world = World()
    name = kind.value.lower().replace("_", "-")
    path = f"/generations/{'videos' if kind.is_video else 'images'}/{name}"
    cheapest_tokens = min(model.from_tokens for model in BUILT_IN.of_kind(kind))
    _, key = await world.a_user(cheapest_tokens - 1)
    _, other_key = await world.a_user(cheapest_tokens)
    body = b" " * 2 * SMALL_BODY_BYTES_MAX

    refused = await world.client().post(path, content=body, headers=key | JSON)
    judged = await world.client().post(path, content=body, headers=other_key | JSON)

    problem = problem_of(refused, "required_tokens", "balance_tokens", "missing_tokens", "is_at_least")
    assert problem["is_at_least"] is True
    assert (refused.status_code, problem["required_tokens"], problem["missing_tokens"]) == (402, cheapest_tokens, 1)
    assert judged.status_code == 400


@pytest.mark.parametrize(
    ("tokens", "headers"), [(5, {}), (0, {"Idempotency-Key": "again"})], ids=["can pay", "may be a repeat"]
)
async def test_reads_a_large_body_that_may_be_accepted(tokens: int, headers: dict[str, str]) -> None:
    world = World()
    _, key = await world.a_user(tokens)
    body = FOX.ljust(2 * SMALL_BODY_BYTES_MAX)
    length = {"Content-Length": str(len(body))}

    start = await asked(api_of(world), key | length | headers, slowly([body], 0))

    assert start["status"] == (202 if tokens else 402)


async def test_judges_a_small_body_whatever_the_balance_is() -> None:
    world = World()
    _, key = await world.a_user(0)

    response = await world.client().post(PATH, content=b'{"prompt": ""}', headers=key | JSON)

    assert response.status_code == 422


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (PATH, {"X-API-Key": "tgk_wrong"}, 401),
        ("/webhook/topup", {"X-Webhook-Secret": "wrong"}, 401),
        ("/webhooks/fal/not-a-uuid", {}, 401),
        ("/auth", {"Content-Length": str(SMALL_BODY_BYTES_MAX + 1)}, 413),
        (PATH, {"Content-Type": "text/plain"}, 415),
    ],
)
async def test_reads_nothing_of_what_is_refused_anyway(path: str, headers: dict[str, str], status: int) -> None:
    world = World()
    _, key = await world.a_user(5)

    start = await asked(api_of(world), key | {"Content-Length": "50"} | headers, never, path)

    assert start["status"] == status


@pytest.mark.parametrize(
    "parts", [[b""] * 50 + [FOX], [b" "] * 50 + [FOX], [FOX[:5], *[b" "] * 50]], ids=["nothing", "drops", "stalled"]
)
@pytest.mark.parametrize(
    "length", [{"Content-Length": "70"}, {"Content-Length": "1000000"}, {"Transfer-Encoding": "chunked"}]
)
async def test_answers_408_to_a_body_that_makes_no_progress(
    parts: list[bytes], length: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PROGRESS_SECONDS", 0.2)
    world = World()
    _, key = await world.a_user(5)
    api = api_of(world)

    start = await asked(api, key | length, slowly(parts, 0.02))

    assert start["status"] == 408
    assert api.state.body_room.large.used_bytes == api.state.body_room.small.used_bytes == 0


@pytest.mark.parametrize("path", ["/webhook/topup", "/auth"])
async def test_every_body_must_make_progress(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PROGRESS_SECONDS", 0.1)
    headers = {"X-Webhook-Secret": WEBHOOK_SECRET, "Content-Length": "70"}

    start = await asked(api_of(World()), headers, slowly([b" "] * 50, 0.02), path)

    assert start["status"] == 408


@pytest.mark.alone
async def test_waits_for_a_slow_caller_who_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PROGRESS_SECONDS", 0.2)
    world = World()
    _, key = await world.a_user(5)
    parts = [FOX, *[b" " * 40_000] * 40]

    start = await asked(api_of(world), key | {"Content-Length": str(sum(map(len, parts)))}, slowly(parts, 0.02))

    assert start["status"] == 202


async def test_a_body_that_only_drips_is_not_waited_for_whatever_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PACE_AFTER_SECONDS", 0.1)
    world = World()
    _, key = await world.a_user(5)
    api = api_of(world)
    # Each part is progress enough, and all of them together are ten times too slow.
    parts = [b" " * bodies.LARGE_PROGRESS_BYTES] * 100
    monkeypatch.setattr(bodies, "PACE_BYTES_PER_SECOND", 10 * bodies.LARGE_PROGRESS_BYTES / 0.02)

    start = await asked(api, key | {"Content-Length": str(sum(map(len, parts)))}, slowly(parts, 0.02))

    assert start["status"] == 408
    assert api.state.body_room.large.used_bytes == api.state.body_room.small.used_bytes == 0


@pytest.mark.alone
async def test_waits_beyond_the_grace_for_who_keeps_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PACE_AFTER_SECONDS", 0.2)
    monkeypatch.setattr(bodies, "PACE_BYTES_PER_SECOND", 512 * 1024)
    world = World()
    _, key = await world.a_user(5)
    parts = [FOX, *[b" " * bodies.LARGE_PROGRESS_BYTES] * 40]

    start = await asked(api_of(world), key | {"Content-Length": str(sum(map(len, parts)))}, slowly(parts, 0.02))

    assert start["status"] == 202


async def test_answers_408_to_a_body_that_stalls_after_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PROGRESS_SECONDS", 0.2)
    world = World()
    _, key = await world.a_user(5)
    parts = [b" " * 2 * bodies.LARGE_PROGRESS_BYTES, *[b" "] * 50]

    start = await asked(api_of(world), key | {"Content-Length": "1000000"}, slowly(parts, 0.02))

    assert start["status"] == 408


async def test_one_account_cannot_take_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "WAIT_SECONDS_MAX", 0.05)
    world = World()
    (_, greedy), (_, other) = await world.a_user(100), await world.a_user(100)
    api = api_of(world)
    gate = asyncio.Event()
    length = {"Content-Length": str(LARGE_BODY_BYTES_MAX)}

    async def held() -> Message:
        await gate.wait()
        return {"type": "http.request", "body": FOX, "more_body": False}

    first = [asyncio.create_task(asked(api, greedy | length, held)) for _ in range(2)]
    await asyncio.sleep(0.02)
    refused = await asked(api, greedy | length, never)
    small = await client_of(api).post(PATH, content=FOX, headers=greedy | JSON)
    served = asyncio.create_task(asked(api, other | length, held))
    await asyncio.sleep(0.02)
    gate.set()

    assert refused["status"] == 429
    assert (b"retry-after", b"2") in refused["headers"]
    assert small.status_code == 202
    assert [start["status"] for start in await asyncio.gather(*first, served)] == [202, 202, 202]
    assert api.state.body_room.large.used_bytes == 0


async def test_strangers_at_one_route_take_no_place_of_another_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy a payment provider has the same address as everybody."""
    monkeypatch.setattr(body_room, "SMALL_SHARE_BYTES", 3 * len(FOX))
    api = api_of(World())
    gate = asyncio.Event()

    def in_two_parts() -> Callable[[], Any]:
        parts = [FOX, b" "]

        async def receive() -> Message:
            if len(parts) == 1:
                await gate.wait()
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        return receive

    chunked = {"Transfer-Encoding": "chunked"}
    strangers = [asyncio.create_task(asked(api, chunked, in_two_parts(), "/auth")) for _ in range(4)]
    await asyncio.sleep(0.02)
    payment = asyncio.create_task(asked(api, chunked | {"X-Webhook-Secret": WEBHOOK_SECRET}, in_two_parts(), TOPUP))
    await asyncio.sleep(0.02)
    gate.set()

    assert sorted(start["status"] for start in await asyncio.gather(*strangers))[-1] == 429
    assert (await payment)["status"] == 422


async def test_answers_503_where_all_together_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "WAIT_SECONDS_MAX", 0.05)
    world = World()
    _, key = await world.a_user(100)
    api = api_of(world)
    for caller in range(4):
        api.state.body_room.large.take(caller, 2 * LARGE_BODY_BYTES_MAX)

    async def parts() -> AsyncIterator[bytes]:
        yield b" " * 2 * SMALL_BODY_BYTES_MAX

    for content in (FOX.ljust(2 * SMALL_BODY_BYTES_MAX), parts()):
        response = await client_of(api).post(PATH, content=content, headers=key | JSON)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert problem_of(response)["code"] == "no_room_for_body"


async def test_a_large_body_is_judged_as_a_small_one_is() -> None:
    world = World()
    _, key = await world.a_user(100)
    large = b" " * 2 * SMALL_BODY_BYTES_MAX
    cases = ((b"{", 400), (b'{"prompt": ""}', 422), (b'{"prompt": "a", "prompt": "b"}', 400), (FOX, 202))

    for body, status in cases:
        response = await world.client().post(PATH, content=body + large, headers=key | JSON)
        assert response.status_code == status, response.text
    answers = await asyncio.gather(
        *(
            world.client().post(PATH, content=FOX + large, headers=key | JSON | {"Idempotency-Key": "k"})
            for _ in range(3)
        )
    )
    assert len({json.loads(answer.content)["job_id"] for answer in answers}) == 1


async def test_who_goes_away_while_its_body_comes_leaves_nothing_behind() -> None:
    world = World()
    _, key = await world.a_user(100)
    api = api_of(world)
    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": b" " * 100_000, "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(messages)

    with pytest.raises(IndexError):
        await asked(api, key | {"Content-Length": "200000"}, receive)
    assert api.state.body_room.large.used_bytes == 0


async def test_a_length_of_thousands_of_digits_is_too_long() -> None:
    """Python refuses to read such a number."""
    world = World()
    _, key = await world.a_user(100)

    assert (await asked(api_of(world), key | {"Content-Length": "9" * 5000}, never))["status"] == 413


async def test_reads_an_event_of_fal_only_where_its_head_is_right() -> None:
    checked: list[str | None] = []

    class Events:
        def check_headers(self, headers: httpx.Headers) -> None:
            checked.append(headers.get("x-fal-webhook-signature"))
            raise InvalidJson

    world = World()
    api = api_of(world)
    object.__setattr__(api.state.use_cases, "receive_provider_event", Events())
    token = "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b"

    start = await asked(api, {"X-Fal-Webhook-Signature": "00"}, never, f"/webhooks/fal/{token}")

    assert start["status"] == 400
    assert checked == ["00"]


async def test_whoever_does_not_read_the_answer_keeps_no_room() -> None:
    world = World()
    _, key = await world.a_user(100)
    api = api_of(world)
    room = api.state.body_room
    used: list[tuple[int, int, bool]] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            used.append((message["status"], room.large.used_bytes, room.parsing.locked()))

    body = b'{"prompt": "' + b"x" * (SMALL_BODY_BYTES_MAX + 1) + b'"}'
    raw = [(name.lower().encode(), value.encode()) for name, value in (JSON | key).items()]
    scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "client": ("1.2.3.4", 5)}
    length = (b"content-length", str(len(body)).encode())

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    await api({**scope, "headers": [*raw, length, (b"host", b"a")]}, receive, send)

    assert used == [(422, 0, False)]
