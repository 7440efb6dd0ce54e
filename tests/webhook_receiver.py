"""The customer's side: a program that takes webhooks, and checks each with the library of Standard Webhooks."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook


@dataclass(frozen=True, slots=True)
class Taken:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def event(self, secret: str) -> dict[str, Any]:
        """Raises WebhookVerificationError unless the secret has signed it."""
        verified: dict[str, Any] = Webhook(secret).verify(self.body, dict(self.headers))
        return verified


@dataclass(slots=True)
class Answers:
    """By path. A path of `/hang` never answers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


class Receiver:
    def __init__(self) -> None:
        self.url = ""
        self.taken: list[Taken] = []
        self.answers: defaultdict[str, Answers] = defaultdict(Answers)
        self.hanging = 0
        self.at_once: Counter[str] = Counter()
        self.at_once_max: Counter[str] = Counter()

    def ids(self, path: str) -> list[str]:
        return [taken.id for taken in self.taken if taken.path == path]

    async def take(self, request: web.Request) -> web.Response:
        taken = Taken(request.path, {name.lower(): value for name, value in request.headers.items()}, b"")
        path = request.path
        self.at_once[path] += 1
        self.at_once_max[path] = max(self.at_once_max[path], self.at_once[path])
        try:
            self.taken.append(Taken(taken.path, taken.headers, await request.read()))
            if path.startswith("/hang"):
                await asyncio.sleep(60)
            answer = self.answers[path]
            return web.Response(status=answer.status, headers=answer.headers, text=answer.text)
        finally:
            self.at_once[path] -= 1


@asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.take)
    async with TestServer(application) as server:
        receiver.url = str(server.make_url("")).rstrip("/")
        yield receiver
