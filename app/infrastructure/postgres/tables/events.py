from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Identity, Index, Table, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB

from app.infrastructure.postgres.tables.shared import metadata, time

event_inbox = Table(
    "event_inbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("job_id", Uuid),
    Column("facts", JSONB(none_as_null=True)),
    Column("created_at", time, nullable=False, server_default=func.clock_timestamp()),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("account_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("job_id", Uuid),
    Column("facts", JSONB(none_as_null=True)),
    Column("created_at", time, nullable=False),
    Index("events_of_an_account", "account_id", "seq"),
    Index("events_of_a_job", "job_id", "seq", postgresql_where=text("job_id IS NOT NULL")),
)

event_log = Table(
    "event_log",
    metadata,
    Column("is_the_only_row", Boolean, primary_key=True, server_default=text("true")),
    Column("last_seq", BigInteger, nullable=False),
    CheckConstraint("is_the_only_row", name="event_log_is_one"),
)

budget_notices = Table(
    "budget_notices",
    metadata,
    Column("key_id", Uuid, primary_key=True),
    Column("ends_at", time, primary_key=True),
)

forgotten_events = Table(
    "forgotten_events",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
)
