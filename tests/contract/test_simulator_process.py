"""`python -m simulator` as the service starts it: one line when it listens, gone when it should be."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from typer.testing import CliRunner

from simulator.__main__ import cli

COMMAND = [sys.executable, "-m", "simulator", "--port", "0"]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"simulator listening on (http://127\.0\.0\.1:\d+)\n", line)
            assert match is not None
            yield process, match[1]
        finally:
            process.terminate()


@pytest.mark.alone
def test_stops_within_two_seconds_of_sigterm_when_connections_are_open() -> None:
    took_seconds: list[float] = []
    # A busy machine makes some stops late. What waits for the connections would make all of them late.
    while not took_seconds or (min(took_seconds) >= 2 and len(took_seconds) < 5):
        with started() as (process, url), httpx.Client(base_url=url, timeout=60) as client:
            client.get("/_sim/stats")
            began = time.monotonic()

            process.send_signal(signal.SIGTERM)

            assert process.wait(timeout=60) == 0
            took_seconds.append(time.monotonic() - began)
            assert process.stdout is not None
            assert process.stdout.read() == ""
    assert min(took_seconds) < 2


def test_stops_when_its_parent_is_killed() -> None:
    with (
        subprocess.Popen(["sleep", "60"]) as parent,
        started("--parent-pid", str(parent.pid)) as (process, _),
    ):
        # Nobody waits for the parent here: it stays as a zombie, which counts as gone.
        parent.kill()

        assert process.wait(timeout=60) == 0


def test_says_in_one_line_when_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        outcome = CliRunner().invoke(cli, ["--port", str(port)])

    assert outcome.exit_code == 1
    assert outcome.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in outcome.stderr
