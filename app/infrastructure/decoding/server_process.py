"""The fork server as the service has it: started with the first file, started again when it has ended."""

import asyncio
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import app
from app.domain.media_types import MEDIA_TYPES, MediaType
from app.infrastructure.decoding.child import SECONDS

REPORT_BYTES_MAX = 4096
# Beyond what a child may take: for the start of the server, and for what keeps it from a processor.
_GRACE_SECONDS = 30.0
_END_SECONDS_MAX = 5.0
# Without an environment, and without what a directory or a user would have Python import.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from app.infrastructure.decoding.fork_server import main; main(int(sys.argv[1]))"
)


class ServerGone(Exception):
    """The fork server ended, or does not answer. The next file gets a new one."""


class _Started:
    def __init__(self) -> None:
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            path = [str(Path(app.__file__).parents[1]), *(each for each in sys.path if each)]
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-c", _PROGRAM, str(theirs.fileno()), *path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={},
                pass_fds=(theirs.fileno(),),
                # A signal that is typed is for the service, which ends this one.
                start_new_session=True,
            )

    def end(self) -> None:
        """It ends by itself when the socket is closed. Killed, it takes its children with it as well."""
        self.requests.close()
        try:
            self.process.wait(_END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class ServerProcess:
    def __init__(self) -> None:
        # A task, so that whoever waits for the start may leave without leaving a process behind.
        self._start: asyncio.Task[_Started] | None = None
        self._endings: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        if self._start is not None:
            self._drop(self._start)
        await asyncio.gather(*self._endings)

    async def report(self, source: Path, cleaned: Path, media_type: MediaType) -> list[str]:
        """The lines of the child's report, and last how it ended.

        Raises ServerGone, and OSError where one of the files cannot be opened, or the server not be started.
        """
        start = self._start = self._start or asyncio.create_task(asyncio.to_thread(_Started))
        try:
            server = await asyncio.shield(start)
            async with asyncio.timeout(SECONDS[media_type.kind].in_all + _GRACE_SECONDS):
                report = await _ask(server, source, cleaned, media_type)
        except TimeoutError as error:
            server.process.kill()
            self._drop(start)
            raise ServerGone from error
        except ServerGone:
            self._drop(start)
            raise
        except OSError:
            if start.done() and start.exception() is not None:
                # It did not start, and is to be tried again with the next file.
                self._start = None
            raise
        if len(report) > REPORT_BYTES_MAX:
            # No child writes so much that has not been taken over, and the server has nothing to do with it.
            return ["", "too long"]
        if not report.endswith("\n"):
            # The line of the server is missing: it ended before the child did.
            self._drop(start)
            raise ServerGone
        return report[:-1].split("\n")

    def _drop(self, start: asyncio.Task[_Started]) -> None:
        if self._start is start:
            self._start = None
            ending = asyncio.create_task(_end(start))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)


async def _end(start: asyncio.Task[_Started]) -> None:
    await asyncio.wait((start,))
    if start.exception() is None:
        await asyncio.to_thread(start.result().end)


async def _ask(server: _Started, source: Path, cleaned: Path, media_type: MediaType) -> str:
    """Leaving this closes the pipe, which ends the child. Raises ServerGone, OSError."""
    sending = asyncio.create_task(asyncio.to_thread(_send, server, source, cleaned, media_type))
    try:
        pipe = await asyncio.shield(sending)
    except asyncio.CancelledError:
        # A thread cannot be stopped, and it may be about to make the file that nobody wants any more.
        await asyncio.wait((sending,))
        if sending.exception() is None:
            sending.result().close()
        raise
    with pipe:
        return await _read(pipe)


def _send(server: _Started, source: Path, cleaned: Path, media_type: MediaType) -> io.FileIO:
    """Returns from where the report comes. Raises ServerGone, OSError."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    descriptors: list[int] = []
    try:
        descriptors.append(os.open(source, os.O_RDONLY | flags))
        descriptors.append(os.open(cleaned, os.O_RDWR | os.O_CREAT | os.O_TRUNC | flags, 0o600))
        reading, writing = os.pipe()
        descriptors.append(writing)
        pipe = io.FileIO(reading, "rb")
        try:
            socket.send_fds(server.requests, [bytes([MEDIA_TYPES.index(media_type)])], descriptors)
        except OSError as error:
            pipe.close()
            raise ServerGone from error
        return pipe
    finally:
        for each in descriptors:
            os.close(each)


async def _read(pipe: io.FileIO) -> str:
    """By the loop's own notice, because uvloop closes the file of a transport a second time."""
    loop = asyncio.get_running_loop()
    os.set_blocking(pipe.fileno(), False)
    report = b""
    while len(report) <= REPORT_BYTES_MAX:
        noticed = asyncio.Event()
        loop.add_reader(pipe.fileno(), noticed.set)
        try:
            await noticed.wait()
        finally:
            loop.remove_reader(pipe.fileno())
        chunk = pipe.read(REPORT_BYTES_MAX)
        if chunk == b"":
            break
        report += chunk or b""
    return report.decode(errors="replace")
