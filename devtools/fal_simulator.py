"""The fal simulator as a child process, for development without a fal key."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from devtools import DevtoolError

log = structlog.get_logger(__name__)

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 5
SIMULATOR_KEY = "simulator:simulator"
SIMULATOR_ADMIN_KEY = "admin:simulator"
_LISTENING = "simulator listening on "


@asynccontextmanager
async def fal_simulator(data_dir: Path) -> AsyncIterator[str]:
    """Yield the simulator's base URL. What it accepted is kept in `data_dir/simulator`, with its port, so that
    jobs go on after a restart. It ends with this process, however this process ends. Raises DevtoolError.
    """
    state_dir = data_dir / "simulator"
    state_dir.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "simulator",
        "--port=0",
        f"--state-dir={state_dir}",
        f"--parent-pid={os.getpid()}",
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C is for us: the simulator must answer until the last job step is done.
        start_new_session=True,
    )
    try:
        yield await _wait_until_listening(process)
    finally:
        await _stop(process)


async def _wait_until_listening(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            async for line in process.stdout:
                text = line.decode().strip()
                if text.startswith(_LISTENING):
                    url = text.removeprefix(_LISTENING)
                    log.info("fal_simulator_started", url=url)
                    return url
    except TimeoutError:
        pass
    raise DevtoolError("the fal simulator did not start; install requirements-dev.txt or set FAL_KEY")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
    except TimeoutError:
        process.kill()
        await process.wait()
