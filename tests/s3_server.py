"""A server of S3 as a process of its own: moto, in an environment beside ours, with whose packages it does not go."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.service_process import free_port

MOTO = Path(sys.prefix) / "moto" / "bin" / "moto_server"
START_SECONDS_MAX = 120
# moto takes any.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret/of+tests",
    "AWS_REGION": "eu-west-3",
}


@contextmanager
def running_s3() -> Iterator[str]:
    """Yields its URL."""
    assert MOTO.exists(), "The server of S3 is not installed: `make test` does it."
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [MOTO, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        assert process.poll() is None, f"moto ended with {process.returncode}"
        try:
            httpx.get(f"{url}/moto-api/").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"moto does not answer after {START_SECONDS_MAX} s")
