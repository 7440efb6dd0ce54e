"""Whether fal can be reached, takes the key and has our time, and whether fal could reach us. Nothing here costs."""

import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from uuid import uuid4

from app.application.ports.health import Finding, Level
from app.infrastructure.egress import Egress
from app.infrastructure.fal.exchange import HttpLimits, Unanswered, open_exchange
from app.infrastructure.fal.urls import QueueUrls
from app.infrastructure.fal.verdicts import OPERATOR_STATUSES
from app.infrastructure.fal.wire import Answer

_LIMITS = HttpLimits(
    connect_seconds=3.0, pool_seconds=4.0, read_seconds=4.0, exchange_seconds=4.5, body_bytes_max=65_536
)
CLOCK_SECONDS_MAX = 5.0


async def inspect_fal(queue_url: str, key: str, model_id: str, egress: Egress) -> Sequence[Finding]:
    """Ask for a request that does not exist: who is not let in hears 401, everybody else 404."""
    request = QueueUrls(queue_url).rebuild(model_id, str(uuid4()))
    async with open_exchange(limits=_LIMITS, key=key, egress=egress) as exchange:
        try:
            answer = await exchange.get(request.status_url)
        except Unanswered as error:
            text = f"{error}: look at FAL_QUEUE_URL, the name service, proxies and firewalls"
            return [Finding(Level.WRONG, "fal", text)]
    return [_verdict(answer), *_clock(answer)]


def _verdict(answer: Answer) -> Finding:
    if answer.status in OPERATOR_STATUSES:
        text = f"fal refuses the key ({answer.status}): mend FAL_KEY, or the account at fal.ai, and restart"
        return Finding(Level.WRONG, "fal", text)
    if answer.status == 429 or answer.status >= 500:
        return Finding(Level.WARNING, "fal", f"fal answers {answer.status}: it has trouble; jobs wait meanwhile")
    if answer.status in (404, 422):
        return Finding(Level.OK, "fal", "the queue answers and takes the key")
    text = f"what answers at FAL_QUEUE_URL says {answer.status}, which fal's queue would not: is it fal's?"
    return Finding(Level.WARNING, "fal", text)


def _clock(answer: Answer) -> Sequence[Finding]:
    try:
        now_seconds = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return []
    skew_seconds = time.time() - now_seconds
    if abs(skew_seconds) > CLOCK_SECONDS_MAX:
        direction = "ahead of" if skew_seconds > 0 else "behind"
        text = (
            f"this machine's clock is {abs(skew_seconds):.0f} s {direction} fal's: set it by NTP, or fal's webhooks are"
            " taken for old ones"
        )
        return [Finding(Level.WARNING, "clock of fal", text)]
    # The header has whole seconds.
    return [Finding(Level.OK, "clock of fal", "agrees")]


async def inspect_public_url(public_url: str, egress: Egress) -> Sequence[Finding]:
    """Whether this service answers there, as this machine sees it."""
    async with open_exchange(limits=_LIMITS, egress=egress) as exchange:
        try:
            answer = await exchange.get(f"{public_url}/healthz")
        except Unanswered as error:
            reason = str(error).replace("fal", "it")
            text = (
                f"nobody answers at PUBLIC_URL ({reason}): start the service, and look at the name, TLS and the proxy"
            )
            return [Finding(Level.WRONG, "public url", text)]
    return [_public_verdict(answer, is_secure=public_url.startswith("https://"))]


def _public_verdict(answer: Answer, *, is_secure: bool) -> Finding:
    if 300 <= answer.status < 400:
        text = f"PUBLIC_URL answers with a redirect ({answer.status}): name the address that it leads to"
        return Finding(Level.WRONG, "public url", text)
    # Nothing but this service has both.
    is_ours = answer.status == 200 and answer.document() == {"status": "ok"} and "x-request-id" in answer.headers
    if not is_ours:
        text = f"what answers at PUBLIC_URL ({answer.status}) is not this service: look at the proxy and the path"
        return Finding(Level.WRONG, "public url", text)
    if not is_secure:
        return Finding(Level.WARNING, "public url", "this service answers, without TLS: use https://")
    return Finding(Level.OK, "public url", "this service answers")
