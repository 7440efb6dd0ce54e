"""The service, or any other command of it, in a process that dies where a fault point says so.

`python -m tests.fault.service POINT[:HIT] serve`. Tests fork it from a process that has imported everything already,
which makes a start cheap, and may arm a point while it runs.
"""

import importlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx

from app import cli
from app.application.fault_points import arm

# What `reach` ends the process with. A kill from outside would be -9, and nothing else ends with 9.
DEATH = 9
DEATH_SECONDS_MAX = 120
READY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 120

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Launch:
    log: Path
    environment: Mapping[str, str]
    arguments: Sequence[str]
    armed: Sequence[str] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    """Waiting times of the service, by their full names: a test has no time for them."""


class FaultyProcess:
    def __init__(self, launch: Launch) -> None:
        self.log = launch.log
        self._orders, theirs = _forks.Pipe()
        self._process: BaseProcess = _forks.Process(target=_run, args=(launch, theirs))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def arm(self, point: str) -> None:
        self._orders.send(point)
        assert self._orders.recv() == point

    def wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        # One client for all looks: making one reads certificates for 20 ms, in which the service could start.
        with httpx.Client(timeout=2, trust_env=False) as http:
            while time.monotonic() < deadline:
                assert self._process.exitcode is None, f"the service ended: {self.output()}"
                try:
                    if http.get(f"{url}/readyz", headers={"Connection": "close"}).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.03)
        raise AssertionError(f"not ready after {READY_SECONDS_MAX} s: {self.output()}")

    def die(self) -> None:
        """Wait for the death at the point."""
        self._process.join(DEATH_SECONDS_MAX)
        assert self._process.exitcode == DEATH, f"ended with {self._process.exitcode}: {self.output()}"
        self._close()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._close()

    def finish(self) -> int | None:
        """Wait for the end that the command comes to by itself."""
        self._process.join(STOP_SECONDS_MAX)
        exit_code = self._process.exitcode
        self._close()
        return exit_code

    def output(self) -> str:
        return self.log.read_text()[-4000:]

    def _close(self) -> None:
        self._orders.close()
        self._process.close()


def _run(launch: Launch, orders: Connection) -> None:
    log = os.open(launch.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # Not in the checkout: a developer's `.env` there may hold a real fal key.
    os.chdir(launch.log.parent)
    os.environ.clear()
    os.environ.update(launch.environment)
    for name, value in launch.constants.items():
        module, _, constant = name.rpartition(".")
        assert hasattr(importlib.import_module(module), constant), name
        setattr(importlib.import_module(module), constant, value)
    for point in launch.armed:
        _arm(point)
    threading.Thread(target=_obey, args=(orders,), daemon=True).start()
    _command(launch.arguments)


def _obey(orders: Connection) -> None:
    try:
        while True:
            point = orders.recv()
            _arm(point)
            orders.send(point)
    except (EOFError, OSError):
        return


def _arm(point: str) -> None:
    name, _, hit = point.partition(":")
    arm(name, int(hit or 1))


def _command(arguments: Sequence[str]) -> None:
    sys.argv = ["app", *arguments]
    cli.main()


if __name__ == "__main__":
    _arm(sys.argv[1])
    _command(sys.argv[2:])
