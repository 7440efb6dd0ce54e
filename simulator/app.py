import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

import httpx
from starlette.applications import Starlette

from simulator import introspection, page, platform_routes, queue_routes, storage_routes, webhook_routes
from simulator.answers import Refused
from simulator.config import SimulatorConfig
from simulator.http import refused
from simulator.inputs import LOOPBACK_FETCH_SECONDS_MAX
from simulator.simulation import Simulation
from simulator.webhooks import open_post

# Input pictures on this machine are fetched directly, also where the environment names a proxy.
DIRECT_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class State(TypedDict):
    simulation: Simulation


def create_app(
    config: SimulatorConfig | None = None,
    *,
    is_stopping: Callable[[], bool] = lambda: False,
    state_dir: Path | None = None,
) -> Starlette:
    """The simulator as an ASGI application; it holds its state between start and end of its lifespan.

    With `state_dir`, requests and their input pictures are found again by the next start.
    A server that says when it is stopping does not have to break off open status streams. `DroppableProtocol` is
    what a server must use for prompts that ask for a dropped connection.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        with tempfile.TemporaryDirectory(prefix="fal-simulator-", ignore_cleanup_errors=True) as temporary:
            async with (
                httpx.AsyncClient(
                    follow_redirects=True,
                    timeout=LOOPBACK_FETCH_SECONDS_MAX,
                    mounts={f"all://{host}": None for host in DIRECT_HOSTS},
                ) as client,
                open_post() as post_webhook,
            ):
                simulation = Simulation(
                    config or SimulatorConfig(),
                    state_dir or Path(temporary),
                    client,
                    post_webhook,
                    is_stopping=is_stopping,
                    is_kept=state_dir is not None,
                )
                yield {"simulation": simulation}
                await simulation.close()

    return Starlette(
        # The queue comes last: its paths, the ids of endpoints, match everything.
        routes=[
            *page.routes,
            *introspection.routes,
            *webhook_routes.routes,
            *platform_routes.routes,
            *storage_routes.routes,
            *queue_routes.routes,
        ],
        exception_handlers={Refused: refused},
        lifespan=lifespan,
    )
