"""The key set with which a receiver of webhooks checks their signature."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.http import simulation_of


async def show_key_set(request: Request) -> Response:
    simulation = simulation_of(request)
    simulation.calls["jwks", ""] += 1
    return JSONResponse(simulation.webhooks.key_set)


routes = [Route("/.well-known/jwks.json", show_key_set, methods=["GET"])]
