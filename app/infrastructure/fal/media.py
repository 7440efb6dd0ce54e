"""What fal delivered, from the hosts that may have it. What such an answer says is data: nothing of it is trusted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.application.ports.media import MediaNotReached, ProviderAnswer
from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.guarded_http.hosts import Hosts
from app.infrastructure.guarded_http.reasons import NotReached

SECONDS_TO_ANSWER_MAX = 20.0
STALL_SECONDS_MAX = 30.0
# Longer than any film that fal's models make.
BYTES_MAX = 4 * 1024**3
# What fal's storage says of what it does not have, or not any more.
_GONE = frozenset({404, 410})
_OF_A_RANGE = frozenset({200, 206, 416})


@dataclass(frozen=True, slots=True)
class FalMedia:
    http: GuardedClient
    hosts: Hosts

    @asynccontextmanager
    async def open(self, url: str, *, byte_range: str | None = None) -> AsyncIterator[ProviderAnswer]:
        headers = {} if byte_range is None else {"Range": byte_range}
        expected = {200} if byte_range is None else _OF_A_RANGE
        try:
            async with self.http.get(
                url,
                headers,
                hosts=self.hosts,
                seconds_max_to_answer=SECONDS_TO_ANSWER_MAX,
                stall_seconds_max=STALL_SECONDS_MAX,
                bytes_max=BYTES_MAX,
            ) as answer:
                if answer.status not in expected:
                    raise MediaNotReached(f"The provider answered {answer.status}.", is_gone=answer.status in _GONE)
                yield ProviderAnswer(answer.status, answer.headers, _chunks(answer.chunks))
        except NotReached as error:
            raise MediaNotReached(error.reason) from error


async def _chunks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except NotReached as error:
        raise MediaNotReached(error.reason) from error
