"""The simulator on a free port of this process, for any test that needs a fal to talk to."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from simulator.app import create_app
from simulator.config import SimulatorConfig
from simulator.dropping import DroppableProtocol
from simulator.server import GRACE_SECONDS, KEEP_ALIVE_SECONDS

START_SECONDS_MAX = 60


@contextmanager
def running_simulator(*, port: int = 0, state_dir: Path | None = None, **config: Any) -> Iterator[str]:
    """Serve from a thread and give the base URL; the other arguments are the fields of SimulatorConfig.

    Without any, every run completes at once and a webhook is soon tried again.
    """
    defaults = {"queue_seconds": 0, "run_seconds_image": 0, "run_seconds_video": 0, "webhook_retry_seconds": 0.05}
    settings = SimulatorConfig(**defaults | config)
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings, is_stopping=lambda: server.should_exit, state_dir=state_dir),
            http=DroppableProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the simulator did not start")
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
