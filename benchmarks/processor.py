"""Processor time of the service and of PostgreSQL, all processes of it."""

import time

import psutil

from benchmarks.figures import Figures
from tests.builders import connect


class Used:
    """Since it was opened."""

    def __init__(self, service: psutil.Process, postgres: psutil.Process) -> None:
        self._service = service
        self._postgres = postgres
        self._began_at = time.monotonic()
        self._before = self._seconds()

    @classmethod
    async def open(cls, service_pid: int, dsn: str) -> "Used":
        async with connect(dsn) as connection:
            server = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()")).parent()
        assert server is not None
        return cls(psutil.Process(service_pid), server)

    def shares(self) -> Figures:
        """Of one core."""
        seconds = time.monotonic() - self._began_at
        return {f"{name}_cpu_percent": used / seconds * 100 for name, used in self._since().items()}

    def each(self, count: int) -> Figures:
        return {f"{name}_us_each": used / count * 1e6 for name, used in self._since().items()}

    def _since(self) -> Figures:
        return {name: used - self._before[name] for name, used in self._seconds().items()}

    def _seconds(self) -> Figures:
        # What a session used that has ended is its parent's to tell.
        own = self._postgres.cpu_times()
        ended = own.children_user + own.children_system
        sessions = sum(_seconds_of(child) for child in self._postgres.children())
        return {"service": _seconds_of(self._service), "postgres": _seconds_of(self._postgres) + ended + sessions}


def _seconds_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
