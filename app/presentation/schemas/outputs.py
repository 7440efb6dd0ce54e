from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Field

from app.domain.outputs import DeletedBecause, Output
from app.presentation.schemas.fields import OrNewer

LinkTo: TypeAlias = Callable[[Output], str]


class OutputView(BaseModel):
    url: str | None = Field(
        description="Where the file is, for everybody who has this link, until `expires_at`. It stays the same until "
        "our copy is made, and from then on. null once it was deleted."
    )
    content_type: str | None = Field(description="By content, once `is_stored`; what the provider says until then.")
    size_bytes: int | None
    width: int | None
    height: int | None
    duration_seconds: float | None
    sha256: str | None = Field(description="Of the bytes, in hexadecimal, once `is_stored`.")
    is_stored: bool = Field(
        description="Whether we have a copy of our own. Until then the link passes through what the provider keeps."
    )
    is_blanked: bool = Field(description="Whether the provider's safety checker blanked it. It is not charged then.")
    expires_at: datetime = Field(description="Until when the file is kept. It never moves to an earlier time.")
    deleted_at: datetime | None
    deleted_because: Annotated[DeletedBecause | str, OrNewer()] | None = Field(
        description="`expired`, its time was over; `requested`, you asked for it; `lost`, the provider did not have it "
        "any more before our copy was made."
    )

    @classmethod
    def of(cls, output: Output, link_to: LinkTo) -> "OutputView":
        kept = output.kept
        return cls(
            url=link_to(output) if kept.deleted_at is None else None,
            content_type=output.content_type,
            size_bytes=output.size_bytes,
            width=output.width,
            height=output.height,
            duration_seconds=output.duration_seconds,
            sha256=kept.sha256,
            is_stored=kept.is_stored and kept.deleted_at is None,
            is_blanked=output.is_blanked,
            expires_at=kept.expires_at,
            deleted_at=kept.deleted_at,
            deleted_because=kept.deleted_because,
        )
