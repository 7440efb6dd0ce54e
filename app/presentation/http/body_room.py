"""How many bytes of bodies may be in memory at once, over all requests of the process."""

import asyncio
from collections import deque
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from app.presentation.http.errors import NoRoomForBody, RefusedRequest, TooManyLargeBodies

SMALL_BODY_BYTES_MAX = 64 * 1024
# This leaves room for two pictures of 5 MiB as data URIs in base64, and for the other fields.
LARGE_BODY_BYTES_MAX = 16 * 1024 * 1024
# Eight of the largest at once, of which one caller may have two.
LARGE_ROOM_BYTES = 8 * LARGE_BODY_BYTES_MAX
LARGE_SHARE_BYTES = 2 * LARGE_BODY_BYTES_MAX
# However small a large one is: to parse it takes a turn, and one caller must not have hundreds of them before others.
LARGE_CHARGE_BYTES_MIN = 1024 * 1024
# Small ones never wait behind large ones. Only those count that are not there yet when they are read.
SMALL_ROOM_BYTES = 256 * SMALL_BODY_BYTES_MAX
SMALL_SHARE_BYTES = 64 * SMALL_BODY_BYTES_MAX
# A caller who waits costs a connection and no memory: nothing is read of its body meanwhile.
WAIT_SECONDS_MAX = 5.0
WAITING_MAX = 64
# From its parsing until its job is stored a body takes several times its size, and most of a processor here and in
# PostgreSQL: two at a time made others wait three times as long as one.
PARSED_AT_ONCE_MAX = 1

_HELD = "held_body"


@dataclass(slots=True)
class _Waiting:
    caller: Hashable
    size_bytes: int
    admitted: asyncio.Future[None]


@dataclass(slots=True)
class Room:
    """So many bytes, of which each caller may take a share. Of those that wait the first one that fits goes first."""

    size_bytes: int
    share_bytes: int
    waiting_max: int = 0
    used_bytes: int = 0
    _used_by_caller: dict[Hashable, int] = field(default_factory=dict)
    _waiting: deque[_Waiting] = field(default_factory=deque)

    def take(self, caller: Hashable, size_bytes: int) -> None:
        """Raises TooManyLargeBodies if the caller's share is used up, and NoRoomForBody if the room is."""
        refused = self._refused(caller, size_bytes)
        if refused is not None:
            raise refused
        self.used_bytes += size_bytes
        self._used_by_caller[caller] = self._used_by_caller.get(caller, 0) + size_bytes

    async def wait_and_take(self, caller: Hashable, size_bytes: int) -> None:
        """Wait for room, though not for long. Raises TooManyLargeBodies, NoRoomForBody."""
        refused = self._refused(caller, size_bytes)
        if refused is None:
            self.take(caller, size_bytes)
            return
        mine = sum(waiting.caller == caller for waiting in self._waiting)
        if len(self._waiting) >= self.waiting_max or mine >= self.waiting_max // 4:
            raise refused
        waiting = _Waiting(caller, size_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await waiting.admitted
        except BaseException as error:
            if waiting.admitted.done() and not waiting.admitted.cancelled():
                self.give_back(caller, size_bytes)
            else:
                self._waiting.remove(waiting)
            if isinstance(error, TimeoutError):
                raise self._refused(caller, size_bytes) or NoRoomForBody() from None
            raise

    def give_back(self, caller: Hashable, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
        left_bytes = self._used_by_caller[caller] - size_bytes
        if left_bytes:
            self._used_by_caller[caller] = left_bytes
        else:
            del self._used_by_caller[caller]
        self._admit()

    def _admit(self) -> None:
        for waiting in [*self._waiting]:
            if not waiting.admitted.done() and self._refused(waiting.caller, waiting.size_bytes) is None:
                self._waiting.remove(waiting)
                self.take(waiting.caller, waiting.size_bytes)
                waiting.admitted.set_result(None)

    def _refused(self, caller: Hashable, size_bytes: int) -> RefusedRequest | None:
        if self._used_by_caller.get(caller, 0) + size_bytes > self.share_bytes:
            return TooManyLargeBodies()
        return NoRoomForBody() if self.used_bytes + size_bytes > self.size_bytes else None


class BodyRoom:
    """The rooms of one process, and who parses."""

    def __init__(self) -> None:
        self.large = Room(LARGE_ROOM_BYTES, LARGE_SHARE_BYTES, WAITING_MAX)
        self.small = Room(SMALL_ROOM_BYTES, SMALL_SHARE_BYTES)
        self.parsing = asyncio.Semaphore(PARSED_AT_ONCE_MAX)


class HeldBody:
    """The bytes of one request's body that are in memory. They are given back once the request is answered."""

    def __init__(self, room: BodyRoom, caller: Hashable) -> None:
        self._room = room
        self._caller = caller
        self._taken_in = room.small
        self._taken_bytes = 0
        self.is_parsing = False

    async def expect(self, size_bytes: int) -> None:
        """Take room for a large body before its first byte is read. Raises TooManyLargeBodies, NoRoomForBody."""
        size_bytes = max(size_bytes, LARGE_CHARGE_BYTES_MIN)
        await self._room.large.wait_and_take(self._caller, size_bytes)
        self._taken_in, self._taken_bytes = self._room.large, size_bytes

    def grow_to(self, size_bytes: int) -> None:
        """Take room as the body comes. Raises TooManyLargeBodies, NoRoomForBody."""
        if size_bytes <= self._taken_bytes:
            return
        if size_bytes > SMALL_BODY_BYTES_MAX and self._taken_in is self._room.small:
            size_bytes = max(size_bytes, LARGE_CHARGE_BYTES_MIN)
            self._room.large.take(self._caller, size_bytes)
            if self._taken_bytes:
                self._room.small.give_back(self._caller, self._taken_bytes)
            self._taken_in = self._room.large
        else:
            self._taken_in.take(self._caller, size_bytes - self._taken_bytes)
        self._taken_bytes = size_bytes

    async def take_turn(self) -> None:
        """Wait until few enough others are parsed. What was taken in the end is given back with the rest.

        Raises NoRoomForBody.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await self._room.parsing.acquire()
        except TimeoutError:
            raise NoRoomForBody from None
        self.is_parsing = True

    def end_turn(self) -> None:
        if self.is_parsing:
            self._room.parsing.release()
        self.is_parsing = False

    def give_back(self) -> None:
        self.end_turn()
        if self._taken_bytes:
            self._taken_in.give_back(self._caller, self._taken_bytes)
        self._taken_bytes = 0


def hold_body(state: MutableMapping[str, Any], room: BodyRoom, caller: Hashable) -> HeldBody:
    """What the request holds, from its first use on."""
    held: HeldBody | None = state.get(_HELD)
    if held is None:
        held = state[_HELD] = HeldBody(room, caller)
    return held


def give_back(state: MutableMapping[str, Any]) -> None:
    """Called once for each request, when it is over."""
    held: HeldBody | None = state.get(_HELD)
    if held is not None:
        held.give_back()


def held_in_turn(state: MutableMapping[str, Any]) -> HeldBody | None:
    """What the request holds while others wait until it is answered."""
    held: HeldBody | None = state.get(_HELD)
    return held if held is not None and held.is_parsing else None
