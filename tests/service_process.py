"""The service as a process of its own, for tests that stop, kill and restart it."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

PROJECT_DIR = Path(__file__).resolve().parents[1]
READY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 120
# Below those that systems give to connections and to port 0, so that nobody gets one by chance.
PORTS = range(20_000, 32_000)

# For whatever asks more often than an account may, and looks at something else.
WITHOUT_LIMITS = {"JOBS_UNFINISHED_MAX": "0", "WRITES_PER_MINUTE": "0", "READS_PER_SECOND": "0", "STREAMS_MAX": "0"}

_claims: list[socket.socket] = []


def free_port() -> int:
    """A port that no other test gets as long as this process lives, though nobody listens on it yet.

    The claim is a UDP socket of the same number, which does not disturb a TCP server and ends with the process.
    """
    for port in secrets.SystemRandom().sample(PORTS, len(PORTS)):
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            claim.close()
        else:
            _claims.append(claim)
            return port
    raise AssertionError("no port is free")


class ServiceProcess:
    """`python -m app <command>` with exactly the given settings, and a log to look at when a test fails."""

    def __init__(
        self, log: Path, settings: Mapping[str, str], command: str = "serve", *, descriptors_max: int | None = None
    ) -> None:
        """`descriptors_max` is how many files the process may open, as `ulimit -n` says it."""
        self.port = int(settings.get("PORT", "0")) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        limit = [] if descriptors_max is None else ["sh", "-c", f'ulimit -n {descriptors_max} && exec "$@"', "sh"]
        self._arguments = [*limit, sys.executable, "-m", "app", command]
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT_DIR),
            "HOME": str(log.parent),
            "LANG": "C.UTF-8",
            "PORT": str(self.port),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                # Not in the checkout: a developer's `.env` there may hold a real fal key.
                cwd=self.log.parent,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def wait_until_ready(self) -> Self:
        deadline = time.monotonic() + READY_SECONDS_MAX
        # One client for all looks: making one reads certificates for 20 ms, in which the service could start.
        with httpx.Client(timeout=2, trust_env=False) as http:
            while time.monotonic() < deadline:
                assert self.process.poll() is None, f"the service ended: {self.output()}"
                try:
                    if http.get(f"{self.url}/readyz", headers={"Connection": "close"}).status_code == 200:
                        return self
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"not ready after {READY_SECONDS_MAX} s: {self.output()}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def output(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """As kill -9 does: no handler, no clean-up."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS_MAX)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
