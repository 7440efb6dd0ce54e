from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from app.infrastructure.postgres.tables.shared import created_at, metadata, time

outputs = Table(
    "outputs",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", name="outputs_job_id_fkey"), nullable=False),
    Column("number", Integer, nullable=False),
    created_at(),
    Column("expires_at", time, nullable=False),
    Column("content_type", Text),
    Column("size_bytes", BigInteger),
    Column("sha256", LargeBinary),
    Column("stored_at", time),
    Column("given_up_at", time),
    Column("deleted_at", time),
    Column("deleted_because", Text),
    Column("erased_at", time),
    PrimaryKeyConstraint("job_id", "number", name="outputs_pkey"),
    CheckConstraint("number >= 0", name="outputs_number_from_zero"),
    CheckConstraint(
        "num_nonnulls(stored_at, content_type, size_bytes, sha256) IN (0, 4)", name="outputs_stored_are_described"
    ),
    CheckConstraint("given_up_at IS NULL OR stored_at IS NULL", name="outputs_given_up_are_not_stored"),
    CheckConstraint("(deleted_at IS NULL) = (deleted_because IS NULL)", name="outputs_say_why_deleted"),
    CheckConstraint("erased_at IS NULL OR deleted_at IS NOT NULL", name="outputs_erased_are_deleted"),
    Index(
        "outputs_to_copy",
        "job_id",
        postgresql_where=text("stored_at IS NULL AND given_up_at IS NULL AND deleted_at IS NULL"),
    ),
    Index("outputs_to_expire", "expires_at", postgresql_where=text("deleted_at IS NULL")),
    Index("outputs_to_erase", "job_id", postgresql_where=text("deleted_at IS NOT NULL AND erased_at IS NULL")),
)
