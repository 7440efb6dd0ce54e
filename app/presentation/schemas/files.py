from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from pydantic import BaseModel, Field

from app.domain.files import KeptFile

LinkToFile: TypeAlias = Callable[[KeptFile], str]


class FileView(BaseModel):
    file_id: UUID
    content_type: str = Field(description="By content, of what is kept: HEIC and AVIF have become JPEG or PNG.")
    size_bytes: int
    width: int | None = Field(description="As it is shown, upright. null: it is a sound.")
    height: int | None
    duration_seconds: float | None = Field(description="null: it is a picture.")
    sha256: str = Field(description="Of the bytes that are kept, in hexadecimal.")
    created_at: datetime
    expires_at: datetime = Field(description="Until when it is kept. A file of a `data:` URI stays for its job.")
    url: str = Field(description="Where the file is, for everybody who has this link, until `expires_at`.")

    @classmethod
    def of(cls, file: KeptFile, link_to: LinkToFile) -> "FileView":
        assert file.content_type is not None
        assert file.size_bytes is not None
        assert file.sha256 is not None
        return cls(
            file_id=file.id,
            content_type=file.content_type,
            size_bytes=file.size_bytes,
            width=file.width,
            height=file.height,
            duration_seconds=file.duration_seconds,
            sha256=file.sha256,
            created_at=file.created_at,
            expires_at=file.expires_at,
            url=link_to(file),
        )


class FileList(BaseModel):
    items: list[FileView]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
    used_bytes: int = Field(description="What all files of the account take.")
    bytes_max: int = Field(description="What they may take.")
