from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.infrastructure.postgres.tables.shared import account_key, created_at, metadata, time

BALANCE_LIMIT = "accounts_balance_limit"

accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("external_user_id", Uuid, nullable=False),
    Column("balance_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("entry_count", BigInteger, nullable=False, server_default=text("0")),
    created_at(),
    Column("keys_version", BigInteger, nullable=False, server_default=text("0")),
    Column("unfinished_jobs", BigInteger, nullable=False, server_default=text("0")),
    Column("writes_minute", time),
    Column("writes", Integer, nullable=False, server_default=text("0")),
    Column("unfinished_jobs_max", Integer),
    Column("writes_per_minute", Integer),
    Column("reads_per_second", Integer),
    Column("weight", Integer),
    Column("balance_low_tokens", BigInteger),
    Column("files_bytes", BigInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("external_user_id", name="accounts_external_user_id_key"),
    CheckConstraint("balance_tokens BETWEEN -9007199254740991 AND 9007199254740991", name=BALANCE_LIMIT),
    CheckConstraint("files_bytes >= 0", name="accounts_files_bytes_from_zero"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("hint", Text, nullable=False),
    created_at(),
    Column("revoked_at", time),
    Column("key_id", Uuid, nullable=False),
    Column("expires_at", time),
    Column("is_hidden", Boolean, nullable=False, server_default=text("false")),
    account_key("api_keys"),
    ForeignKeyConstraint(["key_id"], ["keys.id"], name="api_keys_key_id_fkey", ondelete="RESTRICT"),
    Index("api_keys_of_an_account", "account_id", "created_at"),
    Index("api_keys_not_revoked", "key_id", "created_at", postgresql_where=text("revoked_at IS NULL")),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("expires_at", time),
    Column("budget_tokens", BigInteger),
    Column("budget_per", Text),
    Column("is_first", Boolean, nullable=False, server_default=text("false")),
    created_at(),
    Column("last_used_at", time),
    Column("deleted_at", time),
    Column("idempotency_key", Text),
    Column("fingerprint", LargeBinary),
    account_key("keys"),
    Index(
        "keys_one_first_per_account",
        "account_id",
        unique=True,
        postgresql_where=text("is_first AND deleted_at IS NULL"),
    ),
    Index(
        "keys_one_for_each_name",
        "account_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index("keys_of_an_account", "account_id", "created_at"),
    Index("keys_not_deleted", "account_id", "created_at", postgresql_where=text("deleted_at IS NULL")),
)

key_windows = Table(
    "key_windows",
    metadata,
    Column("key_id", Uuid, primary_key=True),
    Column("starts_at", time, primary_key=True),
    Column("ends_at", time, primary_key=True),
    Column("limit_tokens", BigInteger, nullable=False),
    Column("spent_tokens", BigInteger, nullable=False, server_default=text("0")),
    ForeignKeyConstraint(["key_id"], ["keys.id"], name="key_windows_key_id_fkey", ondelete="RESTRICT"),
)
