"""What every store does alike: look at keys, and try itself out."""

import secrets
from collections.abc import AsyncIterator

from app.application.ports.media_store import MediaStore, ObjectMissing, StoreUnavailable

_PROBE = b"tollgate"


def assert_inside(key: str) -> None:
    """Callers make keys up themselves. This is against a mistake of theirs, not against an attacker."""
    assert not {"", ".", ".."} & set(key.split("/")), f"{key!r} is no key"
    assert "\0" not in key, f"{key!r} is no key"


async def probe(store: MediaStore) -> None:
    """Raises StoreUnavailable. Each time the object has another name, because several processes may try at once."""
    key = f"probe/{secrets.token_hex(8)}"
    await store.put(key, _once(_PROBE))
    try:
        found = b"".join([chunk async for chunk in store.read(key, 0, len(_PROBE))])
    except ObjectMissing:
        found = b""
    await store.delete(key)
    if found != _PROBE:
        raise StoreUnavailable("What was just written is not what is read.")


async def _once(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk
