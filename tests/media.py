"""Media as tests need them: links, and what opens and deletes what they lead to."""

from pathlib import Path
from typing import cast

from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.files import CustomerFiles, KeepFile
from app.application.media import CustomerMedia, DeleteMedia, OpenMedia
from app.application.ports.media import ProviderMedia
from app.application.ports.media_decoder import MediaDecoder
from app.application.ports.media_store import MediaStore
from app.infrastructure.media_links import SignedMediaLinks
from app.infrastructure.postgres.files.records import PostgresFiles
from app.infrastructure.postgres.media.copies import PostgresOutputCopies
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from app.infrastructure.spool import DirectorySpool
from app.presentation.http.output_links import OutputLinks

MEDIA_DAYS = 30
FILES_BYTES_MAX = 1024**3
LINKS = SignedMediaLinks(["the secret that signs links, here"])
link_to = OutputLinks(LINKS, lambda: "https://api.example.com")


def media_of(
    engine: AsyncEngine, provider: ProviderMedia | None = None, store: MediaStore | None = None
) -> CustomerMedia:
    copies, deletion = PostgresOutputCopies(engine, MEDIA_DAYS), PostgresMediaDeletion(engine)
    files = PostgresFiles(engine, MEDIA_DAYS)
    opening = OpenMedia(LINKS, copies, files, cast(ProviderMedia, provider), store)
    return CustomerMedia(LINKS, opening, DeleteMedia(deletion))


def without_files(engine: AsyncEngine) -> CustomerFiles:
    """Of a service that has no store."""
    records, spool = PostgresFiles(engine, MEDIA_DAYS), DirectorySpool(Path("/nowhere"))
    keep = KeepFile(records, cast(MediaDecoder, None), None, spool, FILES_BYTES_MAX)
    return CustomerFiles(keep)
