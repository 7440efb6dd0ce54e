"""The process that has the libraries in memory, and forks a child of itself for each file.

Started anew by an import of some 0.4 s, a process for each file would take as long as it may take to refuse one. The
standard library's fork server hands its environment on, and keeps descriptors in its children that are not theirs.

The service sends one byte, the place of the file's type in MEDIA_TYPES, with three descriptors: the file, what is kept
of it, and the writing end of a pipe. Into that goes the child's report, and then a line of this process: how the child
ended. Where the service closes the pipe, the child is killed; where the service ends, this process does, and with it
all children.
"""

import os
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from app.domain.media_types import MEDIA_TYPES, MediaType
from app.infrastructure.decoding import child
from app.infrastructure.decoding.confinement import offer_to_the_killer_first
from app.infrastructure.decoding.pictures import set_bounds

LATE = "late"
"""Instead of a number: the child was killed because it had taken as long as it may."""


@dataclass(slots=True)
class _Child:
    report: int
    deadline: float
    is_late: bool = False


def main(descriptor: int) -> None:
    """Serve until the other end of this socket is closed."""
    set_bounds()
    offer_to_the_killer_first()
    with socket.socket(fileno=descriptor) as requests:
        _Server(requests).serve()


class _Server:
    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)
        self._woken, waking = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(waking, False)
        self._poll.register(self._woken, select.POLLIN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)

    def serve(self) -> None:
        while True:
            for descriptor, event in self._poll.poll(self._milliseconds_left()):
                if descriptor == self._requests.fileno():
                    if not self._take():
                        return
                elif descriptor == self._woken:
                    os.read(self._woken, 4096)
                elif event & (select.POLLERR | select.POLLHUP):
                    self._kill(descriptor)
            self._kill_late()
            self._reap()

    def _milliseconds_left(self) -> float | None:
        deadlines = [each.deadline for each in self._children.values() if not each.is_late]
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1 if deadlines else None

    def _take(self) -> bool:
        """False: the service is gone."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._requests, 1, 3)
        except OSError:
            return False
        if not message:
            return False
        source, output, report = descriptors
        media_type = MEDIA_TYPES[message[0]]
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_the_child(server, descriptors, media_type)
        os.close(source)
        os.close(output)
        os.set_blocking(report, False)
        self._children[pid] = _Child(report, time.monotonic() + child.SECONDS[media_type.kind].in_all)
        # Nothing is awaited of it but that nobody reads it any more.
        self._poll.register(report, 0)
        return True

    def _kill(self, report: int) -> None:
        for pid, each in self._children.items():
            if each.report == report:
                os.kill(pid, signal.SIGKILL)
        # It would be told again and again until the child is reaped.
        self._poll.unregister(report)

    def _kill_late(self) -> None:
        now = time.monotonic()
        for pid, each in self._children.items():
            if each.deadline <= now and not each.is_late:
                each.is_late = True
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        # A child has its number until it is reaped, so that no other process is killed in its place.
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                each = self._children.pop(pid)
                with suppress(KeyError):
                    self._poll.unregister(each.report)
                ending = LATE if each.is_late else str(os.waitstatus_to_exitcode(status))
                with suppress(OSError):
                    os.write(each.report, f"{ending}\n".encode())
                os.close(each.report)


def _be_the_child(server: int, descriptors: list[int], media_type: MediaType) -> NoReturn:
    """Leaves the process in any case, past everything that would be done at the end of the server."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # First out of the way of the numbers that they get.
        moved = [os.dup(each) for each in descriptors]
        while min(moved) < child.DESCRIPTORS:
            moved = [os.dup(each) if each < child.DESCRIPTORS else each for each in moved]
        for descriptor, number in zip(moved, (child.SOURCE, child.OUTPUT, child.REPORT), strict=True):
            os.dup2(descriptor, number)
        # What a library prints is for nobody: a hostile file may have written it.
        os.dup2(1, 2)
        child.run(server, media_type)
        status = 0
    finally:
        os._exit(status)
