"""Asks fal's platform API which endpoints there are, what they take, and what they cost. It is not trusted."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from ssl import SSLContext
from typing import Any, Self
from urllib.parse import urlencode

from app.application.ports.provider import ProviderUnavailable
from app.domain.kinds import GenerationKind
from app.domain.offered_prices import OfferedPrice
from app.domain.offers import Offer
from app.infrastructure.egress import Egress
from app.infrastructure.fal.exchange import Exchange, HttpLimits, Unanswered, open_exchange
from app.infrastructure.fal.offer_schemas import parameters_in
from app.infrastructure.fal.urls import checked_base_url, checked_key
from app.infrastructure.fal.verdicts import OPERATOR_STATUSES

# fal gives at most so many at once with their schemas.
IDS_AT_ONCE = 10
PAGE_SIZE = 100
PAGES_MAX = 50
CURSOR_LENGTH_MAX = 1024
LIMITS = HttpLimits(read_seconds=30.0, exchange_seconds=60.0, body_bytes_max=16 * 1024 * 1024, connections_max=1)
USD_MAX = 10**6

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)+", re.ASCII)
_ID_LENGTH_MAX = 200
_KINDS = {kind.value.lower().replace("_", "-"): kind for kind in GenerationKind}
UNIT_LENGTH_MAX = 100


class FalOffers:
    """Callers open one with `FalOffers.open`. Its methods raise ProviderUnavailable."""

    def __init__(self, exchange: Exchange, api_url: str) -> None:
        self._exchange = exchange
        self._url = f"{api_url}/models"

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
        """Raises ValueError if the key or the URL cannot be used."""
        base_url = checked_base_url(api_url)
        async with open_exchange(
            key=checked_key(key), limits=limits, ssl_context=ssl_context, egress=egress
        ) as exchange:
            yield cls(exchange, base_url)

    async def listed(self) -> Mapping[str, GenerationKind]:
        """The active models of our types, by id."""
        found: dict[str, GenerationKind] = {}
        for category, kind in _KINDS.items():
            query = [("category", category), ("status", "active"), ("limit", str(PAGE_SIZE))]
            async for page in self._pages(self._url, query):
                found.update(
                    {
                        model_id: kind
                        for model_id, item in _items(page, "models")
                        if not _offer(item, model_id).is_withdrawn
                    }
                )
        return found

    async def of(self, model_ids: Sequence[str]) -> dict[str, Offer]:
        """What fal says of these models, with what they take. Those that it does not mention are missing."""
        found: dict[str, Offer] = {}
        for ids in _batches(model_ids):
            query = [("expand", "openapi-3.0"), ("limit", str(IDS_AT_ONCE)), *(("endpoint_id", each) for each in ids)]
            async for page in self._pages(self._url, query):
                found.update(
                    {model_id: _offer(item, model_id) for model_id, item in _items(page, "models") if model_id in ids}
                )
        return found

    async def prices(self, model_ids: Sequence[str]) -> dict[str, OfferedPrice]:
        found: dict[str, OfferedPrice] = {}
        for ids in _batches(model_ids):
            async for page in self._pages(f"{self._url}/pricing", [("endpoint_id", each) for each in ids]):
                prices = ((model_id, _price(item)) for model_id, item in _items(page, "prices") if model_id in ids)
                found.update({model_id: price for model_id, price in prices if price is not None})
        return found

    async def _pages(self, url: str, query: Sequence[tuple[str, str]]) -> AsyncIterator[Mapping[str, Any]]:
        cursor = None
        for _ in range(PAGES_MAX):
            page = await self._page(f"{url}?{urlencode([*query, *([] if cursor is None else [('cursor', cursor)])])}")
            yield page
            cursor = page.get("next_cursor")
            if not cursor or page.get("has_more") is False:
                return
            if not isinstance(cursor, str) or len(cursor) > CURSOR_LENGTH_MAX:
                raise ProviderUnavailable("fal's list of models goes on, and does not say where")
        raise ProviderUnavailable(f"fal's list of models is longer than {PAGES_MAX} pages")

    async def _page(self, url: str) -> Mapping[str, Any]:
        try:
            answer = await self._exchange.get(url)
        except Unanswered as error:
            raise ProviderUnavailable(str(error)) from error
        if answer.status in OPERATOR_STATUSES:
            raise ProviderUnavailable(f"fal's platform API refuses the key ({answer.status})")
        if answer.status != 200:
            raise ProviderUnavailable(f"fal's platform API answered {answer.status}")
        if answer.body is None:
            raise ProviderUnavailable("an answer of fal's platform API is too large")
        return await asyncio.to_thread(answer.document)


def _batches(model_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(model_ids), IDS_AT_ONCE):
        yield model_ids[start : start + IDS_AT_ONCE]


def _items(page: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    listed = page.get(name)
    if not isinstance(listed, list):
        raise ProviderUnavailable("fal's platform API answered with no list of models or prices")
    for item in listed:
        model_id = item.get("endpoint_id") if isinstance(item, dict) else None
        if isinstance(model_id, str) and len(model_id) <= _ID_LENGTH_MAX and _ID.fullmatch(model_id):
            yield model_id, item


def _offer(item: Mapping[str, Any], model_id: str) -> Offer:
    """fal gives back an id that it does not know, without metadata."""
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        return Offer(is_withdrawn=True)
    category, status = metadata.get("category"), metadata.get("status")
    return Offer(
        is_withdrawn=isinstance(status, str) and status != "active",
        kind=_KINDS.get(category) if isinstance(category, str) else None,
        parameters=parameters_in(item.get("openapi"), model_id),
    )


def _price(item: Mapping[str, Any]) -> OfferedPrice | None:
    usd, unit = item.get("unit_price"), item.get("unit")
    if (
        isinstance(usd, bool)
        or not isinstance(usd, int | float)
        or not 0 < usd <= USD_MAX
        or item.get("currency", "USD") != "USD"
    ):
        return None
    if not isinstance(unit, str) or len(unit) > UNIT_LENGTH_MAX:
        return None
    # What JSON writes as 0.05 is that and not the double beside it.
    return OfferedPrice(usd=Fraction(repr(usd)), unit=unit)
