from sqlalchemy import Boolean, CheckConstraint, Column, Table, Text, Uuid, text

from app.infrastructure.postgres.tables.shared import created_at, metadata, time

installation = Table(
    "installation",
    metadata,
    Column("is_the_only_row", Boolean, primary_key=True, server_default=text("true")),
    Column("identity", Text, nullable=False),
    created_at("noticed_at"),
    CheckConstraint("is_the_only_row", name="installation_is_one"),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("process_id", Uuid, primary_key=True),
    Column("duty", Text, primary_key=True),
    Column("command", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("beaten_at", time, nullable=False),
)
