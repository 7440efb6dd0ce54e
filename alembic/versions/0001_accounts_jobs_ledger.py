"""Accounts, keys, jobs and the ledger, with the invariants that the database itself holds."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE accounts (
    id uuid CONSTRAINT accounts_pkey PRIMARY KEY,
    external_user_id uuid NOT NULL CONSTRAINT accounts_external_user_id_key UNIQUE,
    balance_tokens bigint NOT NULL DEFAULT 0,
    entry_count bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT accounts_balance_not_negative CHECK (balance_tokens >= 0),
    CONSTRAINT accounts_balance_limit CHECK (balance_tokens <= 9007199254740991)
) WITH (fillfactor = 80);

CREATE TABLE api_keys (
    digest bytea CONSTRAINT api_keys_pkey PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT api_keys_account_id_fkey REFERENCES accounts ON DELETE RESTRICT,
    hint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    CONSTRAINT api_keys_digest_length CHECK (octet_length(digest) = 32)
);
CREATE UNIQUE INDEX api_keys_one_live_per_account ON api_keys (account_id) WHERE revoked_at IS NULL;

CREATE TABLE payment_events (
    source text NOT NULL,
    event_id text NOT NULL,
    account_id uuid NOT NULL CONSTRAINT payment_events_account_id_fkey REFERENCES accounts ON DELETE RESTRICT,
    amount bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT payment_events_pkey PRIMARY KEY (source, event_id),
    CONSTRAINT payment_events_content_key UNIQUE (source, event_id, account_id, amount),
    CONSTRAINT payment_events_event_id_length CHECK (length(event_id) BETWEEN 1 AND 255),
    CONSTRAINT payment_events_amount_positive CHECK (amount > 0)
);

CREATE TABLE jobs (
    id uuid CONSTRAINT jobs_pkey PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT jobs_account_id_fkey REFERENCES accounts ON DELETE RESTRICT,
    kind text NOT NULL,
    model_id text NOT NULL,
    parameters jsonb NOT NULL,
    cost_tokens bigint NOT NULL,
    refunded_tokens bigint NOT NULL DEFAULT 0,
    outputs_requested integer NOT NULL,
    time_limit_seconds integer NOT NULL,
    status text NOT NULL DEFAULT 'QUEUED',
    is_final boolean NOT NULL GENERATED ALWAYS AS (status IN ('COMPLETED', 'FAILED', 'CANCELED')) STORED,
    attempts integer NOT NULL DEFAULT 0,
    attempt_token uuid CONSTRAINT jobs_attempt_token_key UNIQUE,
    claimed_at timestamptz,
    deadline_at timestamptz,
    submit_unknown_at timestamptz,
    status_reason text,
    fal_request_id text CONSTRAINT jobs_fal_request_id_key UNIQUE,
    fal_status_url text,
    fal_response_url text,
    fal_cancel_url text,
    cancel_requested_at timestamptz,
    cancel_sent_at timestamptz,
    overdue_noticed_at timestamptz,
    result jsonb,
    late_result jsonb,
    error_code text,
    error_message text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT jobs_kind_known CHECK (
        kind IN ('TEXT_TO_IMAGE', 'IMAGE_TO_IMAGE', 'TEXT_TO_VIDEO', 'IMAGE_TO_VIDEO')),
    CONSTRAINT jobs_status_known CHECK (status IN (
        'QUEUED', 'SUBMITTING', 'SUBMITTED', 'IN_QUEUE', 'IN_PROGRESS', 'COMPLETED', 'FAILED', 'CANCELED')),
    CONSTRAINT jobs_cost_positive CHECK (cost_tokens > 0),
    CONSTRAINT jobs_outputs_positive CHECK (outputs_requested > 0),
    CONSTRAINT jobs_time_limit_positive CHECK (time_limit_seconds > 0),
    CONSTRAINT jobs_refund_fits_status CHECK (CASE
        WHEN status IN ('FAILED', 'CANCELED') THEN refunded_tokens = cost_tokens
        WHEN status = 'COMPLETED' THEN refunded_tokens >= 0 AND refunded_tokens < cost_tokens
        ELSE refunded_tokens = 0 END),
    CONSTRAINT jobs_result_only_if_completed CHECK ((status = 'COMPLETED') = (result IS NOT NULL)),
    CONSTRAINT jobs_error_only_if_failed CHECK ((status IN ('FAILED', 'CANCELED')) = (error_code IS NOT NULL)),
    CONSTRAINT jobs_cost_key UNIQUE (id, account_id, cost_tokens),
    CONSTRAINT jobs_refund_key UNIQUE (id, account_id, refunded_tokens)
) WITH (fillfactor = 70);
CREATE INDEX jobs_newest_first ON jobs (account_id, created_at DESC, id DESC);
CREATE INDEX jobs_unfinished ON jobs (created_at) WHERE NOT is_final;

CREATE TABLE ledger_entries (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT ledger_entries_pkey PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT ledger_entries_account_id_fkey REFERENCES accounts ON DELETE RESTRICT,
    seq bigint NOT NULL,
    kind text NOT NULL,
    amount bigint NOT NULL,
    balance_after bigint NOT NULL,
    job_id uuid,
    payment_source text,
    payment_event_id text,
    debited_tokens bigint GENERATED ALWAYS AS (CASE WHEN kind = 'DEBIT' THEN amount END) STORED,
    refunded_tokens bigint GENERATED ALWAYS AS (CASE WHEN kind = 'REFUND' THEN amount END) STORED,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ledger_entries_kind_known CHECK (kind IN ('CREDIT', 'DEBIT', 'REFUND')),
    CONSTRAINT ledger_entries_amount_positive CHECK (amount > 0),
    CONSTRAINT ledger_entries_balance_not_negative CHECK (balance_after >= 0),
    CONSTRAINT ledger_entries_belong_somewhere CHECK (
        (kind = 'CREDIT') = (payment_event_id IS NOT NULL)
        AND (kind = 'CREDIT') = (payment_source IS NOT NULL)
        AND (kind <> 'CREDIT') = (job_id IS NOT NULL)),
    CONSTRAINT ledger_entries_account_seq_key UNIQUE (account_id, seq),
    CONSTRAINT ledger_entries_credit_is_the_event FOREIGN KEY (payment_source, payment_event_id, account_id, amount)
        REFERENCES payment_events (source, event_id, account_id, amount) ON DELETE RESTRICT,
    CONSTRAINT ledger_entries_debit_is_the_cost FOREIGN KEY (job_id, account_id, debited_tokens)
        REFERENCES jobs (id, account_id, cost_tokens) ON DELETE RESTRICT,
    -- Together with jobs_refund_fits_status this pins a refunded job to its status for ever.
    CONSTRAINT ledger_entries_refund_is_the_jobs FOREIGN KEY (job_id, account_id, refunded_tokens)
        REFERENCES jobs (id, account_id, refunded_tokens) ON DELETE RESTRICT
);
CREATE UNIQUE INDEX ledger_entries_one_debit_per_job ON ledger_entries (job_id) WHERE kind = 'DEBIT';
CREATE UNIQUE INDEX ledger_entries_one_refund_per_job ON ledger_entries (job_id) WHERE kind = 'REFUND';
CREATE UNIQUE INDEX ledger_entries_one_credit_per_event
    ON ledger_entries (payment_source, payment_event_id) WHERE kind = 'CREDIT';
"""

GUARDS = """
-- The only writer of a balance: an entry. The account row stays locked until the transaction ends,
-- so entries of one account are numbered without a gap.
CREATE FUNCTION apply_ledger_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts
       SET balance_tokens = balance_tokens + CASE WHEN NEW.kind = 'DEBIT' THEN -NEW.amount ELSE NEW.amount END,
           entry_count = entry_count + 1
     WHERE id = NEW.account_id
    RETURNING entry_count, balance_tokens INTO NEW.seq, NEW.balance_after;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'account % does not exist', NEW.account_id USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ledger_entries_apply BEFORE INSERT ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION apply_ledger_entry();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is not allowed', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_entries_no_truncate BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payment_events_append_only BEFORE UPDATE OR DELETE ON payment_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER jobs_no_delete BEFORE DELETE ON jobs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- Depth 0 is a statement of the application; the entry's own trigger runs at depth 1.
CREATE TRIGGER accounts_balance_by_entry_only BEFORE UPDATE OF balance_tokens, entry_count ON accounts
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER accounts_start_empty BEFORE INSERT ON accounts
    FOR EACH ROW WHEN (NEW.balance_tokens <> 0 OR NEW.entry_count <> 0) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER accounts_keep_their_user BEFORE UPDATE OF id, external_user_id ON accounts
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER jobs_start_queued BEFORE INSERT ON jobs
    FOR EACH ROW WHEN (NEW.status <> 'QUEUED') EXECUTE FUNCTION refuse_change();

CREATE FUNCTION guard_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.account_id, NEW.kind, NEW.model_id, NEW.cost_tokens, NEW.created_at)
       IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.kind, OLD.model_id, OLD.cost_tokens, OLD.created_at) THEN
        RAISE EXCEPTION 'what a job is and costs never changes' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.fal_request_id IS NOT NULL AND NEW.fal_request_id IS DISTINCT FROM OLD.fal_request_id THEN
        RAISE EXCEPTION 'the provider request id is written once' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.is_final THEN
        IF (NEW.status, NEW.result, NEW.refunded_tokens, NEW.error_code, NEW.error_message)
           IS DISTINCT FROM (OLD.status, OLD.result, OLD.refunded_tokens, OLD.error_code, OLD.error_message) THEN
            RAISE EXCEPTION 'a final job never changes' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.status <> OLD.status AND NOT (CASE OLD.status
            WHEN 'QUEUED' THEN NEW.status IN ('SUBMITTING', 'FAILED', 'CANCELED')
            WHEN 'SUBMITTING' THEN true
            WHEN 'SUBMITTED' THEN NEW.status NOT IN ('QUEUED', 'SUBMITTING')
            WHEN 'IN_QUEUE' THEN NEW.status NOT IN ('QUEUED', 'SUBMITTING', 'SUBMITTED')
            WHEN 'IN_PROGRESS' THEN NEW.status NOT IN ('QUEUED', 'SUBMITTING', 'SUBMITTED')
            ELSE false END) THEN
        RAISE EXCEPTION 'a job does not go from % to %', OLD.status, NEW.status USING ERRCODE = 'check_violation';
    END IF;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_guard BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION guard_job();

-- At COMMIT: a job has its debit, a refund that a job speaks of was booked, an event has its credit, and a balance
-- is that of an entry: one that ON CONFLICT DO NOTHING dropped after its trigger moved the balance is no entry.
CREATE FUNCTION require_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'payment_events' THEN
        IF NOT EXISTS (SELECT FROM ledger_entries WHERE kind = 'CREDIT'
                       AND payment_source = NEW.source AND payment_event_id = NEW.event_id) THEN
            RAISE EXCEPTION 'event %/% has no credit', NEW.source, NEW.event_id USING ERRCODE = 'check_violation';
        END IF;
    ELSIF TG_TABLE_NAME = 'accounts' THEN
        IF NOT EXISTS (SELECT FROM ledger_entries WHERE account_id = NEW.id
                       AND seq = NEW.entry_count AND balance_after = NEW.balance_tokens) THEN
            RAISE EXCEPTION 'the balance of % has no entry', NEW.id USING ERRCODE = 'check_violation';
        END IF;
    ELSIF TG_OP = 'INSERT' THEN
        IF NOT EXISTS (SELECT FROM ledger_entries WHERE kind = 'DEBIT' AND job_id = NEW.id) THEN
            RAISE EXCEPTION 'job % has no debit', NEW.id USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NOT EXISTS (SELECT FROM ledger_entries WHERE kind = 'REFUND' AND job_id = NEW.id) THEN
        RAISE EXCEPTION 'job % has no refund', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER jobs_have_a_debit AFTER INSERT ON jobs
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION require_entry();
CREATE CONSTRAINT TRIGGER jobs_have_their_refund AFTER UPDATE OF refunded_tokens ON jobs
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.refunded_tokens > 0) EXECUTE FUNCTION require_entry();
CREATE CONSTRAINT TRIGGER accounts_balance_has_its_entry AFTER UPDATE OF balance_tokens ON accounts
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION require_entry();
CREATE CONSTRAINT TRIGGER payment_events_are_credited AFTER INSERT ON payment_events
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION require_entry();
"""

VIOLATIONS = """
CREATE VIEW ledger_violations (invariant, subject) AS
WITH signed AS (
    SELECT *, CASE WHEN kind = 'DEBIT' THEN -amount ELSE amount END AS change,
           lag(balance_after, 1, 0::bigint) OVER chain AS balance_before,
           lag(seq, 1, 0::bigint) OVER chain AS seq_before
      FROM ledger_entries WINDOW chain AS (PARTITION BY account_id ORDER BY seq)
), per_account AS (
    SELECT account_id, sum(change) AS tokens, max(seq) AS entries FROM signed GROUP BY account_id
), per_job AS (
    SELECT job_id, count(*) FILTER (WHERE kind = 'DEBIT') AS debits,
           count(*) FILTER (WHERE kind = 'REFUND') AS refunds,
           sum(amount) FILTER (WHERE kind = 'DEBIT') AS debited,
           sum(amount) FILTER (WHERE kind = 'REFUND') AS refunded,
           count(DISTINCT account_id) AS accounts, (array_agg(account_id))[1] AS account_id
      FROM ledger_entries WHERE job_id IS NOT NULL GROUP BY job_id
)
SELECT 'balance is the sum of its entries', a.id::text FROM accounts a LEFT JOIN per_account p ON p.account_id = a.id
 WHERE a.balance_tokens <> coalesce(p.tokens, 0)
UNION ALL SELECT 'balance is not negative', id::text FROM accounts WHERE balance_tokens < 0
UNION ALL SELECT 'entries are numbered without a gap', s.id::text FROM signed s WHERE s.seq <> s.seq_before + 1
UNION ALL SELECT 'each entry continues from the one before', s.id::text FROM signed s
 WHERE s.balance_after <> s.balance_before + s.change
UNION ALL SELECT 'the account counts its entries', a.id::text FROM accounts a LEFT JOIN per_account p
    ON p.account_id = a.id WHERE a.entry_count <> coalesce(p.entries, 0)
UNION ALL SELECT 'a job has one debit of its cost', j.id::text FROM jobs j LEFT JOIN per_job p ON p.job_id = j.id
 WHERE coalesce(p.debits, 0) <> 1 OR p.debited <> j.cost_tokens
UNION ALL SELECT 'a job has at most one refund, of what it says', j.id::text FROM jobs j
    LEFT JOIN per_job p ON p.job_id = j.id
 WHERE coalesce(p.refunds, 0) > 1 OR coalesce(p.refunded, 0) <> j.refunded_tokens
UNION ALL SELECT 'a refund is at most the debit', p.job_id::text FROM per_job p
 WHERE coalesce(p.refunded, 0) > coalesce(p.debited, 0)
UNION ALL SELECT 'debit and refund are of the job''s own account', j.id::text FROM jobs j
    JOIN per_job p ON p.job_id = j.id WHERE p.accounts <> 1 OR p.account_id <> j.account_id
UNION ALL SELECT 'failed and canceled jobs are refunded in full', id::text FROM jobs
 WHERE status IN ('FAILED', 'CANCELED') AND refunded_tokens <> cost_tokens
UNION ALL SELECT 'live jobs are not refunded', id::text FROM jobs WHERE NOT is_final AND refunded_tokens <> 0
UNION ALL SELECT 'a job is completed exactly when it has a result', id::text FROM jobs
 WHERE (status = 'COMPLETED') <> (result IS NOT NULL)
UNION ALL SELECT 'a payment event has one credit of its amount', e.source || '/' || e.event_id
  FROM payment_events e LEFT JOIN ledger_entries l
    ON l.kind = 'CREDIT' AND l.payment_source = e.source AND l.payment_event_id = e.event_id
 GROUP BY e.source, e.event_id, e.amount, e.account_id
HAVING count(l.id) <> 1 OR min(l.amount) <> e.amount OR (array_agg(l.account_id))[1] <> e.account_id
UNION ALL SELECT 'an entry belongs to a job or payment event that exists', s.id::text FROM signed s
 WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = s.job_id)
   AND NOT EXISTS (SELECT FROM payment_events e WHERE (e.source, e.event_id) = (s.payment_source, s.payment_event_id))
UNION ALL SELECT 'tokens are conserved', 'all accounts'
 WHERE (SELECT coalesce(sum(change), 0) FROM signed) <> (SELECT coalesce(sum(balance_tokens), 0) FROM accounts);
"""


def upgrade() -> None:
    run = op.get_bind().connection.dbapi_connection.run_async
    for script in (TABLES, GUARDS, VIOLATIONS):
        run(lambda connection, script=script: connection.execute(script))


def downgrade() -> None:
    op.execute("DROP VIEW ledger_violations")
    for table in ("ledger_entries", "jobs", "payment_events", "api_keys", "accounts"):
        op.execute(f"DROP TABLE {table} CASCADE")
    for function in ("apply_ledger_entry", "refuse_change", "guard_job", "require_entry"):
        op.execute(f"DROP FUNCTION {function}()")
