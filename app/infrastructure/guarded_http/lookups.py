"""Look up the addresses of names that strangers choose, some of which answer late or never.

The system's getaddrinfo blocks a thread for up to half a minute and cannot be stopped. So look-ups have threads of
their own: neither the event loop nor whatever else uses its few threads waits for them. They are bounded twice:
LOOKUPS_PER_OWNER_MAX at a time for one owner, who alone waits when names of theirs hang, and LOOKUPS_MAX for all. It
takes sixteen owners with eight hanging names each before anybody else waits, and then only until those give up.

A look-up holds its place until its thread ends, not only until nobody waits for it any more. Whoever asks for a name
that is being looked up joins, so that a hanging name takes one place however many requests wait for it.

The threads do not keep the process from ending, as those of a ThreadPoolExecutor would.
"""

import asyncio
import socket
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from threading import Thread
from weakref import WeakValueDictionary

from aiohttp.abc import AbstractResolver, ResolveResult

from app.infrastructure.guarded_http.addresses import parse_address

LOOKUPS_MAX = 128
LOOKUPS_PER_OWNER_MAX = 8
# A name with hundreds of addresses would have us knock at all of them, and aiohttp, which tries the rest again after
# each one that fails, many times at some.
ADDRESSES_TRIED_MAX = 4

Addresses = tuple[str, ...]
Permission = Callable[[str], bool]

_owner: ContextVar[Hashable] = ContextVar("owner", default=None)


class NotPermitted(OSError):
    """An address may not be connected to. aiohttp lets nothing but an OSError through from where this is raised."""


@contextmanager
def on_behalf_of(owner: Hashable) -> Iterator[None]:
    """Say whose names are looked up from here on. aiohttp's resolvers are told the name alone."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


class Lookups:
    """The look-ups of one event loop."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[Addresses]] = {}
        self._places = asyncio.Semaphore(LOOKUPS_MAX)
        # An owner is forgotten once nothing of theirs runs or waits.
        self._places_by_owner: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    async def find(self, name: str) -> Addresses:
        """Raises OSError. Who stops waiting does not disturb those who joined."""
        running = self._running.get(name)
        return await asyncio.shield(await self._start(name) if running is None else running)

    async def _start(self, name: str) -> asyncio.Future[Addresses]:
        # Without an owner, names of one domain count together.
        owner = _owner.get()
        if owner is None:
            owner = ".".join(name.split(".")[-2:])
        own_places = self._places_by_owner.setdefault(owner, asyncio.Semaphore(LOOKUPS_PER_OWNER_MAX))
        with ExitStack() as held:
            for places in (own_places, self._places):
                await places.acquire()
                held.callback(places.release)
            if (running := self._running.get(name)) is not None:
                return running
            found: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
            Thread(target=_look_up, args=(name, found), name="look-up", daemon=True).start()
            self._running[name] = found
            found.add_done_callback(partial(self._end, name, held.pop_all()))
        return found

    def _end(self, name: str, held: ExitStack, found: asyncio.Future[Addresses]) -> None:
        del self._running[name]
        held.close()
        # Nobody may be waiting any more, and asyncio would log an error that nobody asked for.
        found.exception()


def _look_up(name: str, found: asyncio.Future[Addresses]) -> None:
    """Runs in a thread."""
    settle: Callable[[], None]
    try:
        # Not only the families that this machine has addresses of (AI_ADDRCONFIG): every address is to be checked.
        answer = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        settle = partial(found.set_result, tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in answer)))
    except Exception as error:
        settle = partial(found.set_exception, error)
    # The event loop may have ended meanwhile.
    with suppress(RuntimeError):
        found.get_loop().call_soon_threadsafe(settle)


class CheckingResolver(AbstractResolver):
    """Finds the addresses of a name if all of them are permitted, and none if one is not."""

    def __init__(self, lookups: Lookups, permits: Permission) -> None:
        self._lookups = lookups
        self.permits = permits

    async def addresses(self, host: str) -> Addresses:
        """Of a name or of what is an address itself. Raises OSError, NotPermitted among them."""
        found = (host,) if parse_address(host) else await self._lookups.find(host)
        if not found or not all(self.permits(address) for address in found):
            raise NotPermitted
        return found[:ADDRESSES_TRIED_MAX]

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - both families, whichever is preferred
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_UNSPEC, proto=0, flags=0)
            for address in await self.addresses(host)
        ]

    async def close(self) -> None:
        pass
