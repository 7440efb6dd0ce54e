from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.infrastructure.postgres.tables.shared import account_key, created_at, metadata, time

fair_turns = Table(
    "fair_turns",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("next_tag", BigInteger, nullable=False),
    account_key("fair_turns"),
)

fair_clock = Table(
    "fair_clock",
    metadata,
    Column("is_the_only_row", Boolean, primary_key=True, server_default=text("true")),
    Column("virtual_time", BigInteger, nullable=False),
    CheckConstraint("is_the_only_row", name="fair_clock_is_one"),
)

model_paces = Table(
    "model_paces",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("seconds", ARRAY(REAL), nullable=False),
    created_at("updated_at"),
)

places = Table(
    "places",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("job_id", Uuid),
    Column("claimed_at", time),
    Column("expires_at", time),
    UniqueConstraint("job_id", name="places_job_id_key"),
)
