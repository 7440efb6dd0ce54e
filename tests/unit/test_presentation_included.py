"""Our own routes take a short way through FastAPI. On its ordinary way, in an included router, they answer the same."""

from typing import Any

import httpx
import pytest

from app.presentation.routers import auth, jobs, keys, ledger, payments, provider_events, system
from app.presentation.routers.generations import generations_router
from tests.builders import BUILT_IN
from tests.unit.presentation_routers import api_of, client_of
from tests.unit.presentation_stand_ins import WEBHOOK_SECRET, World

START = "/generations/images/text-to-image"
KEY = {"X-API-Key": "{key}"}
SECRET = {"X-Webhook-Secret": WEBHOOK_SECRET}
TWO_NAMES = [("X-API-Key", "{key}"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]

REQUESTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/balance", {"headers": KEY}),
    ("GET", "/balance", {}),
    ("PUT", "/balance", {"headers": KEY}),
    ("GET", "/generations/{job}", {"headers": KEY}),
    ("GET", "/generations/other", {"headers": KEY}),
    ("GET", "/generations", {"headers": KEY}),
    ("GET", "/generations?limit=0", {"headers": KEY}),
    ("GET", "/ledger?cursor=0", {"headers": KEY}),
    ("POST", START, {"headers": KEY | {"Idempotency-Key": "k"}, "json": {"prompt": "fox"}}),
    ("POST", START, {"headers": TWO_NAMES, "json": {"prompt": ""}}),
    ("POST", START, {"headers": TWO_NAMES, "json": {"prompt": "fox"}}),
    ("POST", START, {"headers": KEY, "content": b"{"}),
    ("POST", START, {"content": b"{"}),
    ("POST", "/generations/other/cancel", {"headers": TWO_NAMES}),
    ("POST", "/generations/{job}/cancel", {"headers": TWO_NAMES}),
    ("POST", "/generations/{job}/cancel", {"headers": KEY}),
    ("POST", "/webhook/topup", {"headers": SECRET | {"X-Event-Id": "1"}, "json": {"external_user_id": "{user}"}}),
    (
        "POST",
        "/webhook/topup",
        {"headers": SECRET | {"X-Event-Id": "1"}, "json": {"external_user_id": "{user}", "amount": 5}},
    ),
    ("POST", "/webhook/topup", {"content": b"{"}),
    ("POST", "/webhooks/fal/other", {"content": b"{"}),
    ("POST", "/auth", {"json": {"external_user_id": "{user}"}}),
    ("POST", "/auth", {"content": b"{"}),
    ("GET", "/healthz", {}),
    ("GET", "/readyz", {}),
)


def filled(part: Any, names: dict[str, str]) -> Any:
    if isinstance(part, str):
        for name, value in names.items():
            part = part.replace(f"{{{name}}}", value)
        return part
    if isinstance(part, dict):
        return {name: filled(value, names) for name, value in part.items()}
    if isinstance(part, list):
        return [tuple(filled(value, names) for value in pair) for pair in part]
    return part


def without_its_id(answer: httpx.Response) -> tuple[int, str, list[tuple[str, str]]]:
    request_id = answer.headers.pop("x-request-id")
    return answer.status_code, answer.text.replace(request_id, ""), answer.headers.multi_items()


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
async def test_answers_the_same_where_its_router_is_included(method: str, path: str, options: dict[str, Any]) -> None:
    world = World()
    account, key = await world.a_user(tokens=1000)
    names = {
        "key": key["X-API-Key"],
        "user": str(account.external_user_id),
        "job": str(world.jobs.add(account.id).id),
    }
    api = api_of(world)
    routers = [module.router for module in (jobs, ledger, payments, provider_events, system, auth, keys)]
    for router in (*routers, generations_router(BUILT_IN)):
        api.include_router(router, prefix="/included")
    client, path, options = client_of(api), filled(path, names), filled(options, names)
    # The first request changes something, and the two that are compared find it done.
    await client.request(method, path, **options)

    direct = await client.request(method, path, **options)
    ordinary = await client.request(method, f"/included{path}", **options)

    assert without_its_id(direct) == without_its_id(ordinary)
