"""A developer's own program, which is handed events as a service would deliver them."""

import time
from dataclasses import dataclass

import aiohttp

from app.domain.webhook_signatures import sign
from app.infrastructure.webhooks.reasons import why_not_connected

# As long as a delivery of the service waits.
ANSWER_SECONDS_MAX = 15.0
USER_AGENT = "Tollgate"


class Unanswered(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    milliseconds: float

    @property
    def is_receipt(self) -> bool:
        return 200 <= self.status < 300


class LocalProgram:
    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str) -> None:
        self._session = session
        self._url = url
        self._secret = secret

    async def hand_on(self, event_id: str, body: bytes) -> Answered:
        """Raises Unanswered."""
        timestamp_seconds = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp_seconds),
            "webhook-signature": sign([self._secret], event_id, timestamp_seconds, body),
        }
        began_at = time.monotonic()
        try:
            async with self._session.post(
                self._url,
                data=body,
                headers=headers,
                # What is meant for this machine stays on it.
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX),
            ) as response:
                return Answered(response.status, (time.monotonic() - began_at) * 1000)
        except aiohttp.ClientConnectorError as error:
            raise Unanswered(f"the program cannot be reached: {why_not_connected(error)}") from error
        except TimeoutError as error:
            raise Unanswered(f"no answer within {ANSWER_SECONDS_MAX:g} s") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise Unanswered(f"no answer that is HTTP ({type(error).__name__})") from error
