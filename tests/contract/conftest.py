from collections.abc import Iterator

import httpx
import pytest

from tests.simulator_server import running_simulator


@pytest.fixture(scope="session")
def simulator_client() -> Iterator[httpx.Client]:
    # One client for all tests: making one reads the certificates of the system.
    with (
        running_simulator() as url,
        httpx.Client(base_url=url, headers={"Authorization": "Key id:secret"}) as client,
    ):
        yield client


@pytest.fixture
def fal_http(simulator_client: httpx.Client) -> httpx.Client:
    """A client with a key for a simulator that has seen nothing yet and completes every run at once."""
    simulator_client.post("/_sim/reset").raise_for_status()
    return simulator_client


@pytest.fixture
def fal_simulator(fal_http: httpx.Client) -> str:
    """The base URL of that simulator."""
    return str(fal_http.base_url).rstrip("/")
