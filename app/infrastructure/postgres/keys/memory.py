"""Callers as they were looked up lately, for what finds out by itself whether they still are the same."""

import time
from collections.abc import Callable
from dataclasses import replace

from app.domain.accounts import Caller

# What is remembered of the account, such as how often it may read, is never older.
REMEMBERED_SECONDS = 10.0
REMEMBERED_MAX = 10_000


class CallerMemory:
    """By the digest of the secret. Whose key or secret ends by itself is not remembered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, tuple[float, Caller]] = {}

    def add(self, digest: bytes, caller: Caller) -> None:
        if caller.ends_by_itself:
            self.forget(digest)
            return
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[digest] = (self._clock() + REMEMBERED_SECONDS, replace(caller, is_remembered=True))

    def forget(self, digest: bytes) -> None:
        self._known.pop(digest, None)

    def get(self, digest: bytes) -> Caller | None:
        until, caller = self._known.get(digest, (0.0, None))
        if caller is not None and self._clock() < until:
            return caller
        return None
