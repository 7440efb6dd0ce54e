"""Media as tests need them: links, and what opens and deletes what they lead to."""

from typing import cast

from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.media import CustomerMedia, DeleteMedia, OpenMedia
from app.application.ports.media import ProviderMedia
from app.application.ports.media_store import MediaStore
from app.infrastructure.media_links import SignedMediaLinks
from app.infrastructure.postgres.media.copies import PostgresOutputCopies
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from app.presentation.http.output_links import OutputLinks

MEDIA_DAYS = 30
LINKS = SignedMediaLinks(["the secret that signs links, here"])
link_to = OutputLinks(LINKS, lambda: "https://api.example.com")


def media_of(
    engine: AsyncEngine, provider: ProviderMedia | None = None, store: MediaStore | None = None
) -> CustomerMedia:
    copies, deletion = PostgresOutputCopies(engine, MEDIA_DAYS), PostgresMediaDeletion(engine)
    return CustomerMedia(LINKS, OpenMedia(LINKS, copies, cast(ProviderMedia, provider), store), DeleteMedia(deletion))
