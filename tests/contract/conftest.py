from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from app.infrastructure.fal.client import FalClient
from tests.contract.fal_calls import KEY, PATIENT, PLAIN
from tests.contract.stores import OTHER_NAMES, Case, environment_of, folder_case, s3_case
from tests.fal_stub import FalStub, running_stub
from tests.simulator_server import running_simulator


@pytest.fixture(scope="session")
def simulator_client() -> Iterator[httpx.Client]:
    # One client for all tests: making one reads the certificates of the system.
    with (
        running_simulator() as url,
        httpx.Client(base_url=url, headers={"Authorization": "Key id:secret"}, timeout=60) as client,
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


@pytest.fixture
async def stub() -> AsyncIterator[FalStub]:
    async with running_stub() as server:
        yield server


@pytest.fixture
async def client(stub: FalStub) -> AsyncIterator[FalClient]:
    """The client of the stub, with a key as people paste it."""
    async with FalClient.open(queue_url=stub.url, key=f" {KEY}\n", limits=PATIENT, ssl_context=PLAIN) as fal:
        yield fal


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, s3_server: str) -> str:
    """What leads to the server of S3, and nothing that leads elsewhere. Its URL."""
    for name in OTHER_NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment_of(s3_server).items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["folder", "s3"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "folder":
        return folder_case(tmp_path)
    return s3_case(request.getfixturevalue("s3_environment"))
