"""What a row of `files` becomes."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func

from app.domain.files import FileOrigin, KeptFile
from app.domain.newer_words import known
from app.domain.outputs import DeletedBecause, Output
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import files

F = files.c
FILE_COLUMNS = (
    F.id,
    F.account_id,
    F.origin,
    F.created_at,
    F.expires_at,
    F.content_type,
    F.size_bytes,
    F.width,
    F.height,
    F.duration_seconds,
    func.encode(F.sha256, constant("hex")).label("sha256"),
    F.stored_at,
    F.deleted_at,
    F.deleted_because,
)


def file_of(row: Mapping[Any, Any]) -> KeptFile:
    """From a row that has FILE_COLUMNS."""
    values = {each.key: row[each.key] for each in FILE_COLUMNS if each.key != F.stored_at.key}
    values["origin"] = known(FileOrigin, row["origin"])
    if row["deleted_because"] is not None:
        values["deleted_because"] = known(DeletedBecause, row["deleted_because"])
    return KeptFile(**values, is_stored=row["stored_at"] is not None)


def of_output(row: Mapping[Any, Any], output: Output) -> KeptFile:
    """The file that stands for an output, from its row with FILE_COLUMNS: what is known is known of the output."""
    kept = output.kept
    return KeptFile(
        id=row["id"],
        account_id=row["account_id"],
        origin=FileOrigin.OUTPUT,
        created_at=row["created_at"],
        expires_at=kept.expires_at,
        content_type=output.content_type,
        size_bytes=output.size_bytes,
        width=output.width,
        height=output.height,
        duration_seconds=output.duration_seconds,
        sha256=kept.sha256,
        is_stored=kept.is_stored,
        deleted_at=kept.deleted_at,
        deleted_because=kept.deleted_because,
    )
