from sqlalchemy import BigInteger, Boolean, Column, Computed, ForeignKeyConstraint, Identity, Index, Table, Text, UniqueConstraint, Uuid, func, text

from app.infrastructure.postgres.tables.shared import account_key, created_at, metadata, time

payment_events = Table(
    "payment_events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("amount", BigInteger, nullable=False),
    created_at("received_at"),
    Column("is_of_plain_webhook", Boolean),
    account_key("payment_events"),
    UniqueConstraint("source", "event_id", "account_id", "amount", name="payment_events_content_key"),
    Index("payment_events_one_of_plain_webhook", "event_id", unique=True, postgresql_where=text("is_of_plain_webhook")),
)

refused_payments = Table(
    "refused_payments",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("external_user_id", Uuid, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("deliveries", BigInteger, nullable=False, server_default=text("1")),
    created_at("first_seen_at"),
    created_at("last_seen_at"),
    Column("resolved_at", time),
    UniqueConstraint("source", "event_id", "external_user_id", "amount", "reason", name="refused_payments_refusal_key"),
    Index("refused_payments_waiting", "last_seen_at", "id", postgresql_where=text("resolved_at IS NULL")),
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("balance_after", BigInteger, nullable=False),
    Column("job_id", Uuid),
    Column("payment_source", Text),
    Column("payment_event_id", Text),
    Column("debited_tokens", BigInteger, Computed("CASE WHEN kind = 'DEBIT' THEN amount END", persisted=True)),
    Column("refunded_tokens", BigInteger, Computed("CASE WHEN kind = 'REFUND' THEN amount END", persisted=True)),
    Column("created_at", time, nullable=False, server_default=func.clock_timestamp()),
    account_key("ledger_entries"),
    UniqueConstraint("account_id", "seq", name="ledger_entries_account_seq_key"),
    ForeignKeyConstraint(
        ["payment_source", "payment_event_id", "account_id", "amount"],
        ["payment_events.source", "payment_events.event_id", "payment_events.account_id", "payment_events.amount"],
        name="ledger_entries_credit_is_the_event",
        ondelete="RESTRICT",
    ),
    ForeignKeyConstraint(
        ["job_id", "account_id", "debited_tokens"],
        ["jobs.id", "jobs.account_id", "jobs.cost_tokens"],
        name="ledger_entries_debit_is_the_cost",
        ondelete="RESTRICT",
    ),
    ForeignKeyConstraint(
        ["job_id", "account_id", "refunded_tokens"],
        ["jobs.id", "jobs.account_id", "jobs.refunded_tokens"],
        name="ledger_entries_refund_is_the_jobs",
        ondelete="RESTRICT",
    ),
    Index(
        "ledger_entries_one_of_a_kind_per_job",
        "job_id",
        "kind",
        unique=True,
        postgresql_where=text("job_id IS NOT NULL"),
    ),
    Index(
        "ledger_entries_one_credit_per_event",
        "payment_source",
        "payment_event_id",
        unique=True,
        postgresql_where=text("kind = 'CREDIT'"),
    ),
)
