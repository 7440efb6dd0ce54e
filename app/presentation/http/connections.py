"""The connections of one server: how many there may be, who goes first where they are too many, and for how long."""

import asyncio
from typing import Protocol

import structlog

from app.presentation.http.connection_refusals import ConnectionRefusals

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
# An answer of 503 takes a connection too; beyond these, whoever comes is cut off without one.
TURNED_AWAY_AT_ONCE_MAX = 64
SECONDS_BETWEEN_WARNINGS = 60.0


class Connection(Protocol):
    def cut(self) -> None:
        """End it at once, without an answer."""
        ...

    def check(self, now: float) -> None:
        """End it if it is over its time. `now` is the time of the event loop."""
        ...


class Connections:
    """Where there are too many, those that ask for nothing make room: first the oldest that never asked for anything,
    then the one that has been idle the longest. A request that is being served is never cut off.
    """

    def __init__(self, connections_max: int) -> None:
        self.connections_max = connections_max
        self.refusals = ConnectionRefusals()
        # As ordered sets: the first one is the one that has waited the longest.
        self._all: dict[Connection, None] = {}
        self._silent: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._turned_away: set[Connection] = set()
        self._is_sweeping = False
        self._warned_at = float("-inf")
        self._cut = 0

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for it, if need be made by cutting another one off."""
        self._start_sweeping()
        if len(self._all) >= self.connections_max and not self._make_room():
            return False
        self._all[connection] = self._silent[connection] = None
        return True

    def may_turn_away(self, connection: Connection) -> bool:
        """Whether one that was not admitted can be given an answer; it then counts until it is lost."""
        self._warn()
        if len(self._turned_away) >= TURNED_AWAY_AT_ONCE_MAX:
            return False
        self._turned_away.add(connection)
        return True

    def asks(self, connection: Connection) -> None:
        """It has sent the whole head of a request."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def idles(self, connection: Connection) -> None:
        """All that it asked for is answered. One that was turned away makes no room by its end."""
        if connection in self._all:
            self._idle[connection] = None

    def lost(self, connection: Connection) -> None:
        self.asks(connection)
        self._all.pop(connection, None)
        self._turned_away.discard(connection)

    def _make_room(self) -> bool:
        oldest = next(iter(self._silent or self._idle), None)
        if oldest is None:
            return False
        self._cut += 1
        self.lost(oldest)
        oldest.cut()
        self._warn()
        return True

    def _warn(self) -> None:
        """Once a minute, with how many were cut off since."""
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= SECONDS_BETWEEN_WARNINGS:
            self._warned_at = now
            log.warning(
                "connections_full",
                connections=len(self._all),
                connections_max=self.connections_max,
                silent=len(self._silent),
                idle=len(self._idle),
                cut_off=self._cut,
            )
            self._cut = 0

    def _start_sweeping(self) -> None:
        if not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """One timer for all connections: a timer for each would cost every request as much as its whole head does."""
        now = asyncio.get_running_loop().time()
        for connection in [*self._all, *self._turned_away]:
            connection.check(now)
        self.refusals.write()
        self._is_sweeping = False
        if self._all or self._turned_away:
            self._start_sweeping()
