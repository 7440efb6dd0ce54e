"""Searches fal's request history, as the port `RequestHistory` asks: which finished requests had exactly this input.

fal documents neither which of a request's times it compares with `start` and `end`, nor whether it lists waiting
requests. So we name no `end`, which then is fal's own now, and leave out here what was sent outside the window.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Any, Self
from urllib.parse import urlencode

import structlog

from app.application.ports.evidence import Name
from app.application.ports.provider import ProviderUnavailable
from app.infrastructure.egress import Egress
from app.infrastructure.fal import comparison, wire
from app.infrastructure.fal.exchange import Exchange, HttpLimits, Unanswered, open_exchange
from app.infrastructure.fal.urls import checked_base_url, checked_key
from app.infrastructure.fal.verdicts import OPERATOR_STATUSES

log = structlog.get_logger(__name__)

# The second size is for inputs that carry pictures: a page of a hundred such inputs is more than we take.
PAGE_SIZES = (100, 10)
PAGES_MAX = 50
SEARCH_SECONDS_MAX = 25.0
# Each search holds a page in memory.
SEARCHES_AT_ONCE = 2
# One input may carry two pictures of 5 MiB in base64.
LIMITS = HttpLimits(exchange_seconds=10.0, body_bytes_max=16 * 1024 * 1024, connections_max=SEARCHES_AT_ONCE)
CURSOR_LENGTH_MAX = 1024


class _TooLarge(Exception):
    """The page is larger than we take."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The model that was called, and when."""

    model_id: str
    sent_from: datetime
    sent_until: datetime

    def has(self, item: Mapping[str, Any]) -> bool:
        return item.get("endpoint_id") == self.model_id and _is_within(
            item.get("sent_at"), self.sent_from, self.sent_until
        )


@dataclass(frozen=True, slots=True)
class _Page:
    inputs: Mapping[str, object]
    """Of the requests that are wanted, in the form that is compared: without the megabytes of pictures."""
    next_cursor: str | None


class FalHistory:
    """Callers open one with `FalHistory.open`."""

    def __init__(self, exchange: Exchange, api_url: str) -> None:
        self._exchange = exchange
        self._url = f"{api_url}/models/requests/by-endpoint"
        self._searching = asyncio.Semaphore(SEARCHES_AT_ONCE)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        api_url: str,
        key: str,
        limits: HttpLimits = LIMITS,
        ssl_context: SSLContext | None = None,
        egress: Egress | None = None,
    ) -> AsyncIterator[Self]:
        """Open connections of its own, because the admin key is for this host only.

        Raises ValueError if the key or the URL cannot be used.
        """
        base_url = checked_base_url(api_url)
        async with open_exchange(
            key=checked_key(key), limits=limits, ssl_context=ssl_context, egress=egress
        ) as exchange:
            yield cls(exchange, base_url)

    async def find(
        self, model_id: str, parameters: Mapping[str, Any], *, sent_from: datetime, sent_until: datetime
    ) -> Sequence[str]:
        return (await self.find_each(model_id, {0: parameters}, sent_from=sent_from, sent_until=sent_until))[0]

    async def find_each(
        self, model_id: str, inputs: Mapping[Name, Mapping[str, Any]], *, sent_from: datetime, sent_until: datetime
    ) -> Mapping[Name, Sequence[str]]:
        wanted = _Wanted(model_id, sent_from, sent_until)
        sent = await asyncio.to_thread(_sent_forms, inputs)
        try:
            # The time limit begins with the turn: many submissions are lost together and searched at the same moments.
            async with self._searching, asyncio.timeout(SEARCH_SECONDS_MAX):
                seen = await self._every_input(wanted)
        except TimeoutError as error:
            raise ProviderUnavailable(f"fal's history took longer than {SEARCH_SECONDS_MAX:g} s") from error
        return {
            name: [request_id for request_id, shown in seen.items() if comparison.has_all_of(asked, shown)]
            for name, asked in sent.items()
        }

    async def _every_input(self, wanted: _Wanted) -> Mapping[str, object]:
        for page_size in PAGE_SIZES:
            try:
                return await self._inputs_on_pages(wanted, page_size)
            except _TooLarge:
                continue
        raise ProviderUnavailable("a page of fal's history is too large")

    async def _inputs_on_pages(self, wanted: _Wanted, page_size: int) -> Mapping[str, object]:
        """Collect them by request id: a request that ends while we read moves the others, and some come twice."""
        query = {"endpoint_id": wanted.model_id, "start": _iso(wanted.sent_from), "expand": "payloads"}
        query["limit"] = str(page_size)
        seen: dict[str, object] = {}
        for _ in range(PAGES_MAX):
            page = await self._page(query, wanted)
            seen.update(page.inputs)
            if page.next_cursor is None:
                return seen
            query["cursor"] = page.next_cursor
        # The pages that were not read might hold a second match.
        raise ProviderUnavailable(f"fal's history is longer than {PAGES_MAX} pages")

    async def _page(self, query: Mapping[str, str], wanted: _Wanted) -> _Page:
        try:
            answer = await self._exchange.get(f"{self._url}?{urlencode(query)}")
        except Unanswered as error:
            raise ProviderUnavailable(str(error)) from error
        if answer.status in OPERATOR_STATUSES:
            log.error("fal_admin_key_refused", status_code=answer.status)
        if answer.status != 200:
            raise ProviderUnavailable(f"fal's history answered {answer.status}")
        if answer.body is None:
            raise _TooLarge
        # A thread reads them: megabytes of JSON, and of pictures in it, must not hold up everybody else.
        return await asyncio.to_thread(_page_of, answer, wanted)


def _sent_forms(inputs: Mapping[Name, Mapping[str, Any]]) -> Mapping[Name, Mapping[str, Any]]:
    return {name: comparison.sent_form(parameters) for name, parameters in inputs.items()}


def _page_of(answer: wire.Answer, wanted: _Wanted) -> _Page:
    page = answer.document()
    inputs = {
        request_id: comparison.seen_form(item.get("json_input"))
        for request_id, item in _items_of(page).items()
        if wanted.has(item)
    }
    return _Page(inputs, _next_cursor(page))


def _items_of(page: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    listed = page.get("items")
    if not isinstance(listed, list):
        raise ProviderUnavailable("fal's history has no list of requests")
    items = [item for item in listed if isinstance(item, dict)]
    return {request_id: item for item in items if (request_id := wire.request_id_in(item)) is not None}


def _next_cursor(page: Mapping[str, Any]) -> str | None:
    cursor = page.get("next_cursor")
    if not cursor or page.get("has_more") is False:
        return None
    if not isinstance(cursor, str) or len(cursor) > CURSOR_LENGTH_MAX:
        raise ProviderUnavailable("fal's history goes on, and does not say where")
    return cursor


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_within(sent_at: object, sent_from: datetime, sent_until: datetime) -> bool:
    try:
        moment = datetime.fromisoformat(sent_at) if isinstance(sent_at, str) else None
    except ValueError:
        return False
    if moment is None:
        return False
    return sent_from <= (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) <= sent_until
