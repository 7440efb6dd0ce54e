"""A bucket as a store of media: of S3 and its like, of Google Cloud Storage or of Azure.

An upload that fails or is cancelled is aborted. That of a process that dies stays in the bucket, unseen and paid for,
and so may one that is cancelled while it is completed, or twice, or that the bucket is silent about. Nobody but the
bucket can tell it: it should have a lifecycle rule with AbortIncompleteMultipartUpload.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from app.application.ports.media_store import ObjectMissing, StoredObject
from app.infrastructure.media_store.keys import assert_inside, probe
from app.infrastructure.media_store.presigning import Presigner
from app.infrastructure.media_store.reasons import is_missing, unavailable

# S3 takes parts from 5 MiB on, and 10,000 of them: 50 GB. So many are in memory for each upload, and one more.
_PART_BYTES = 5 * 1024 * 1024
_PARTS_AT_ONCE = 2
_READ_BYTES = 1024 * 1024
# What a page of a listing has at most.
_LISTED_AT_ONCE = 1000


# Until a part has gone, so that the next one may be filled.
_WRITE_SECONDS = 10
# How long a store may be silent while it puts the parts of a large object together, which most do at once.
COMPLETE_SECONDS = 120
_ABORT_SECONDS = 3
Opened = S3Store | GCSStore | AzureStore
# What obstore raises, and what its writer does, and a time limit.
_FAILURES = (BaseError, OSError)


class Bucket:
    def __init__(self, store: Opened, uploads: Opened, presigner: Presigner | None) -> None:
        """`uploads` is the same bucket through a client that bears longer silence."""
        self._store = store
        self._uploads = uploads
        self._presigner = presigner

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """What fits into one part is one request. The chunks are taken here and not by obstore, which would do it in a
        task of its own, where a time limit around a `yield` does not hold.
        """
        assert_inside(key)
        upload = _Upload(self._uploads, key)
        try:
            async for chunk in chunks:
                await upload.write(chunk)
            await upload.complete()
        except BaseException as error:
            await upload.abort(error)
            raise
        return upload.size_bytes

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        assert_inside(key)
        if start >= end:
            return
        with _translated():
            found = await obstore.get_async(self._store, key, options={"range": (start, end)})
        stream = found.stream(min_chunk_size=_READ_BYTES)
        while start < end:
            with _translated():
                chunk = await anext(stream, b"")
            if not chunk:
                raise ObjectMissing(f"{key} ends at {start}.")
            start += len(chunk)
            yield chunk

    async def delete(self, key: str) -> None:
        assert_inside(key)
        with suppress(ObjectMissing), _translated():
            await obstore.delete_async(self._store, key)

    async def each(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        if prefix:
            assert_inside(prefix)
        pages = obstore.list(self._store, prefix or None, chunk_size=_LISTED_AT_ONCE)
        while True:
            with _translated():
                page = await anext(pages, None)
            if page is None:
                return
            for each in page:
                yield StoredObject(each["path"], each["size"], each["last_modified"])

    async def presigned_url(self, key: str, *, content_type: str, disposition: str, seconds: int) -> str | None:
        assert_inside(key)
        if self._presigner is None:
            return None
        with _translated():
            url = await obstore.sign_async(self._store, "GET", key, timedelta(seconds=seconds))
        headers = {"response-content-type": content_type, "response-content-disposition": disposition}
        return self._presigner.with_parameters(url, headers)

    async def check(self) -> None:
        await probe(self)


class _Upload:
    """Its client is patient for the sake of `complete`, so everything else has a limit here."""

    def __init__(self, store: Opened, key: str) -> None:
        self.size_bytes = 0
        self._writer = obstore.open_writer_async(store, key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        self._writing: asyncio.Future[int] | None = None

    async def write(self, chunk: bytes) -> None:
        """Goes on where its caller is cancelled: it may just begin an upload, whose name `abort` then has to know."""
        self._writing = asyncio.ensure_future(self._writer.write(chunk))
        with _translated():
            done, _ = await asyncio.wait({self._writing}, timeout=_WRITE_SECONDS)
            if not done:
                self._writing.cancel()
                raise TimeoutError
            self.size_bytes += self._writing.result()

    async def complete(self) -> None:
        """obstore aborts what it fails to complete, and not what it is stopped in: parts have the client's limit."""
        is_in_parts = self.size_bytes >= _PART_BYTES
        with _translated():
            async with asyncio.timeout(None if is_in_parts else _WRITE_SECONDS):
                await self._writer.close()

    async def abort(self, error: BaseException) -> None:
        """Whoever calls it has an error to pass on already."""
        if self._writing is not None:
            try:
                await asyncio.wait({self._writing}, timeout=_ABORT_SECONDS)
            finally:
                # Nobody is told of its error, which may name the bucket and its credentials.
                self._writing.cancel()
        with suppress(*_FAILURES):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._writer.__aexit__(type(error), error, error.__traceback__)


@contextmanager
def _translated() -> Iterator[None]:
    """Not where the caller's own code runs, because that may raise OSError, too."""
    try:
        yield
    except _FAILURES as error:
        if is_missing(error):
            raise ObjectMissing("The object is not there, or ends before the range.") from error
        raise unavailable(error) from error
