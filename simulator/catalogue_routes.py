"""fal's platform API: which endpoints there are, with their schemas, and the unit price of each.

Shapes: fal's own description of its platform API ("Model search" and "Pricing" at fal.ai/docs/platform-apis/v1,
as kept in jentic/oak, apis/openapi/fal.ai/main/v1/openapi.json). A key is optional for the search and required for
prices. The documents of single endpoints look like those that it expands (cluely/unmodel, data/fal/openapi).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.listed import LISTED
from simulator.models import ENDPOINTS
from simulator.openapi import OutputShape, openapi_document
from simulator.platform_http import authorize, ids_of, one_of, page_of, refusal, values_of

OPENAPI = "openapi-3.0"
MODELS_LIMIT, MODELS_LIMIT_MAX = 50, 1000
# fal says that the bound depends on the expansion; clients in the field (fal_gateway) saw 50 refused with schemas.
EXPANDED_LIMIT = 10
IMAGE_DOLLARS = 0.05
VIDEO_SECOND_DOLLARS = {"480p": 0.05, "720p": 0.10, "1080p": 0.15}
MOMENT = "2026-08-24T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalogue says of one endpoint."""

    endpoint_id: str
    title: str
    category: str
    arguments: type[BaseModel]
    output: OutputShape
    unit: str
    unit_dollars: float

    def as_json(self, *, with_openapi: bool) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "display_name": self.title,
            "category": self.category,
            "description": f"{self.title}, {self.category.replace('-', ' ')}",
            "status": "active",
            "tags": [],
            "updated_at": MOMENT,
            "is_favorited": None,
            "thumbnail_url": "https://fal.media/files/simulator.jpg",
            "model_url": f"https://fal.run/{self.endpoint_id}",
            "date": MOMENT,
            "highlighted": False,
            "pinned": False,
            "kind": "inference",
        }
        fields: dict[str, Any] = {"endpoint_id": self.endpoint_id, "metadata": metadata}
        if with_openapi:
            fields["openapi"] = openapi_document(self.endpoint_id, self.category, self.arguments, self.output)
        return fields


def _entries() -> dict[str, Entry]:
    entries = [
        Entry(
            endpoint_id,
            f"Wan 2.5 {endpoint.kind.replace('-', ' ')}",
            endpoint.kind,
            endpoint.arguments,
            OutputShape(endpoint.makes_video, "told", ("seed" if endpoint.makes_video else "seeds", "actual_prompt")),
            "seconds" if endpoint.makes_video else "images",
            VIDEO_SECOND_DOLLARS["1080p"] if endpoint.makes_video else IMAGE_DOLLARS,
        )
        for endpoint_id, endpoint in ENDPOINTS.items()
    ]
    entries += [
        Entry(
            endpoint_id,
            endpoint.title,
            endpoint.category,
            endpoint.arguments,
            OutputShape(endpoint.makes_video, endpoint.sizes, endpoint.fields),
            endpoint.unit.name,
            float(endpoint.unit.usd),
        )
        for endpoint_id, endpoint in LISTED.items()
    ]
    return {entry.endpoint_id: entry for entry in entries}


ENTRIES = _entries()


async def list_models(request: Request) -> Response:
    if "authorization" in request.headers:
        authorize(request, "models", is_admins=False)
    with_openapi = OPENAPI in values_of(request, "expand")
    limit_default, limit_max = (EXPANDED_LIMIT,) * 2 if with_openapi else (MODELS_LIMIT, MODELS_LIMIT_MAX)
    shown, rest = page_of(request, _found(request), limit_default=limit_default, limit_max=limit_max)
    models = [
        ENTRIES[endpoint_id].as_json(with_openapi=with_openapi)
        if endpoint_id in ENTRIES
        else _unknown(endpoint_id, with_openapi=with_openapi)
        for endpoint_id in shown
    ]
    return JSONResponse({"models": models, **rest})


def _found(request: Request) -> Sequence[str]:
    status = one_of(request, "status", ("active", "deprecated"))
    category, words = request.query_params.get("category"), request.query_params.get("q", "").lower()
    wanted = ids_of(request, "endpoint_id")
    if wanted and category is None and status is None and not words:
        return list(dict.fromkeys(wanted))
    return [
        entry.endpoint_id
        for entry in ENTRIES.values()
        if (not wanted or entry.endpoint_id in wanted)
        and category in (None, entry.category)
        and status in (None, "active")
        and words in f"{entry.endpoint_id} {entry.title} {entry.category}".lower()
    ]


def _unknown(endpoint_id: str, *, with_openapi: bool) -> dict[str, Any]:
    """An id that fal's registry does not know comes back without metadata."""
    error = {"code": "expansion_failed", "message": "Failed to fetch the OpenAPI schema"}
    return {"endpoint_id": endpoint_id} | ({"openapi": {"error": error}} if with_openapi else {})


async def list_prices(request: Request) -> Response:
    authorize(request, "pricing", is_admins=False)
    # fal requires an id; without one, the simulator names its first app.
    endpoint_ids = ids_of(request, "endpoint_id") or list(ENDPOINTS)
    unknown = [endpoint_id for endpoint_id in endpoint_ids if endpoint_id not in ENTRIES]
    if unknown:
        raise refusal(404, f"Endpoint not found: {unknown[0]}")
    prices = [
        {
            "endpoint_id": endpoint_id,
            "unit_price": ENTRIES[endpoint_id].unit_dollars,
            "unit": ENTRIES[endpoint_id].unit,
            "currency": "USD",
        }
        for endpoint_id in endpoint_ids
    ]
    return JSONResponse({"prices": prices, "next_cursor": None, "has_more": False})


routes = [
    Route("/models", list_models, methods=["GET"]),
    Route("/models/pricing", list_prices, methods=["GET"]),
]
