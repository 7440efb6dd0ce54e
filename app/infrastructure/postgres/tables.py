"""The tables as queries see them. The migrations are the source; a test compares the two.

Constraint names that mean something to a caller are constants here.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    desc,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

REQUEST_OF_ONE_JOB = "jobs_fal_request_id_key"
REQUEST_OF_ONE_ATTEMPT = "attempts_fal_request_id_key"
BALANCE_LIMIT = "accounts_balance_limit"

metadata = MetaData()

_time = DateTime(timezone=True)


def _created_at(name: str = "created_at") -> Column[object]:
    return Column(name, _time, nullable=False, server_default=func.now())


def _account_key(table: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["account_id"], ["accounts.id"], name=f"{table}_account_id_fkey", ondelete="RESTRICT")


accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("external_user_id", Uuid, nullable=False),
    Column("balance_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("entry_count", BigInteger, nullable=False, server_default=text("0")),
    _created_at(),
    UniqueConstraint("external_user_id", name="accounts_external_user_id_key"),
    CheckConstraint("balance_tokens BETWEEN -9007199254740991 AND 9007199254740991", name=BALANCE_LIMIT),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("hint", Text, nullable=False),
    _created_at(),
    Column("revoked_at", _time),
    _account_key("api_keys"),
    Index("api_keys_account_id", "account_id"),
    Index("api_keys_one_live_per_account", "account_id", unique=True, postgresql_where=text("revoked_at IS NULL")),
)

payment_events = Table(
    "payment_events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("amount", BigInteger, nullable=False),
    _created_at("received_at"),
    Column("is_of_plain_webhook", Boolean),
    _account_key("payment_events"),
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
    _created_at("first_seen_at"),
    _created_at("last_seen_at"),
    Column("resolved_at", _time),
    UniqueConstraint("source", "event_id", "external_user_id", "amount", "reason", name="refused_payments_refusal_key"),
    Index("refused_payments_waiting", "last_seen_at", "id", postgresql_where=text("resolved_at IS NULL")),
)

reversal_events = Table(
    "reversal_events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("payment_event_id", Text, nullable=False),
    Column("amount", BigInteger),
    Column("withdraws", Text),
    _created_at("received_at"),
    Index("reversal_events_of_a_payment", "source", "payment_event_id"),
)

adjustments = Table(
    "adjustments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _created_at(),
    _account_key("adjustments"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("cost_tokens", BigInteger, nullable=False),
    Column("refunded_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("outputs_requested", Integer, nullable=False),
    Column("time_limit_seconds", Integer, nullable=False),
    Column("status", Text, nullable=False, server_default="QUEUED"),
    Column(
        "is_final", Boolean, Computed("status IN ('COMPLETED', 'FAILED', 'CANCELED')", persisted=True), nullable=False
    ),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("attempt_token", Uuid),
    Column("claimed_at", _time),
    Column("deadline_at", _time),
    Column("submit_unknown_at", _time),
    Column("status_reason", Text),
    Column("fal_request_id", Text),
    Column("fal_status_url", Text),
    Column("fal_response_url", Text),
    Column("fal_cancel_url", Text),
    Column("cancel_requested_at", _time),
    Column("cancel_sent_at", _time),
    Column("overdue_noticed_at", _time),
    Column("result", JSONB(none_as_null=True)),
    Column("late_result", JSONB(none_as_null=True)),
    Column("error_code", Text),
    Column("error_message", Text),
    _created_at(),
    _created_at("updated_at"),
    Column("input_bytes", Integer),
    Column("input_forgotten_at", _time),
    Column("held_at", _time),
    Column("terms", JSONB(none_as_null=True)),
    Column("refunded_lines", JSONB(none_as_null=True)),
    _account_key("jobs"),
    UniqueConstraint("attempt_token", name="jobs_attempt_token_key"),
    UniqueConstraint("fal_request_id", name=REQUEST_OF_ONE_JOB),
    UniqueConstraint("id", "account_id", "cost_tokens", name="jobs_cost_key"),
    UniqueConstraint("id", "account_id", "refunded_tokens", name="jobs_refund_key"),
    Index("jobs_newest_first", "account_id", desc("created_at"), desc("id")),
    Index("jobs_unfinished", "created_at", postgresql_where=text("NOT is_final")),
    Index(
        "jobs_inputs_to_forget",
        "id",
        postgresql_where=text("is_final AND input_bytes IS NOT NULL AND input_forgotten_at IS NULL"),
    ),
)

attempts = Table(
    "attempts",
    metadata,
    Column("token", Uuid, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("claimed_at", _time, nullable=False),
    Column("outcome", Text),
    Column("outcome_at", _time),
    Column("reason", Text),
    Column("input_digest", LargeBinary),
    Column("fal_request_id", Text),
    Column("adopted_at", _time),
    Column("billed_units", Numeric),
    Column("orphaned_at", _time),
    Column("cancel_sent_at", _time),
    Column("closed_at", _time),
    ForeignKeyConstraint(["job_id"], ["jobs.id"], name="attempts_job_id_fkey", ondelete="RESTRICT"),
    UniqueConstraint("job_id", "number", name="attempts_job_number_key"),
    Index(REQUEST_OF_ONE_ATTEMPT, "fal_request_id", unique=True, postgresql_where=text("fal_request_id IS NOT NULL")),
    Index("attempts_orphans", "orphaned_at", postgresql_where=text("orphaned_at IS NOT NULL")),
    Index(
        "attempts_without_request",
        "claimed_at",
        postgresql_where=text("fal_request_id IS NULL AND outcome IN ('not_queued', 'unknown')"),
    ),
)

installation = Table(
    "installation",
    metadata,
    Column("is_the_only_row", Boolean, primary_key=True, server_default=text("true")),
    Column("identity", Text, nullable=False),
    _created_at("noticed_at"),
    CheckConstraint("is_the_only_row", name="installation_is_one"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("job_id", Uuid, nullable=False),
    _created_at(),
    _account_key("idempotency_keys"),
    ForeignKeyConstraint(
        ["job_id"],
        ["jobs.id"],
        name="idempotency_keys_job_id_fkey",
        ondelete="RESTRICT",
        deferrable=True,
        initially="DEFERRED",
    ),
    Index("idempotency_keys_created_at", "created_at"),
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
    Column("created_at", _time, nullable=False, server_default=func.clock_timestamp()),
    Column("reversed_source", Text),
    Column("adjustment_id", Text),
    _account_key("ledger_entries"),
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

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("process_id", Uuid, primary_key=True),
    Column("duty", Text, primary_key=True),
    Column("command", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("beaten_at", _time, nullable=False),
)
