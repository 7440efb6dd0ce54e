"""Stores of media for the tests of their contract, and what is done to them."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx

from app.application.ports.media_store import MediaStore
from app.infrastructure.media_store.opening import open_store
from tests.s3_server import CREDENTIALS

KEY = "outputs/ab/cd/0a1b2c3d.77aa"
MIB = 1024 * 1024
# What would lead somewhere else.
OTHER_NAMES = [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]


@dataclass(frozen=True, slots=True)
class Case:
    """A store, how another process opens it, and where one sees what it does not show."""

    store: MediaStore
    url: str
    environment: Mapping[str, str]
    folder: Path | None = None
    bucket_url: str = ""

    def hidden(self) -> int:
        """How many uploads a bucket holds that are neither completed nor aborted."""
        return 0 if self.folder else httpx.get(f"{self.bucket_url}?uploads", timeout=60).text.count("<Upload>")


def folder_case(directory: Path) -> Case:
    folder = directory / "media of tests"
    url = folder.as_uri()
    return Case(open_store(url), url, {}, folder)


def environment_of(endpoint: str) -> dict[str, str]:
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}


def s3_case(endpoint: str) -> Case:
    """The environment must say already what `environment_of` does."""
    bucket = f"bucket-{uuid4().hex}"
    httpx.put(f"{endpoint}/{bucket}", timeout=60).raise_for_status()
    url = f"s3://{bucket}/some/prefix"
    return Case(open_store(url), url, environment_of(endpoint), bucket_url=f"{endpoint}/{bucket}")


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def mebibytes(count: int, filled_with: bytes = b"x") -> AsyncIterator[bytes]:
    for _ in range(count):
        yield filled_with * MIB


async def whole(store: MediaStore, key: str, size: int) -> bytes:
    return b"".join([chunk async for chunk in store.read(key, 0, size)])


async def keys_in(store: MediaStore, prefix: str = "") -> list[str]:
    return sorted([found.key async for found in store.each(prefix)])


def calls_of(store: MediaStore) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """Everything that has to ask the store, by name."""
    return {
        "put": lambda: store.put(KEY, chunks_of(b"abc")),
        "put of much": lambda: store.put(KEY, mebibytes(12)),
        "read": lambda: whole(store, KEY, 3),
        "delete": lambda: store.delete(KEY),
        "each": lambda: keys_in(store),
        "each below a prefix": lambda: keys_in(store, "outputs"),
        "check": store.check,
    }
