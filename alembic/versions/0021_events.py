"""The log of what happened: facts that transactions leave themselves, and the order that one sequencer gives them.

A trigger writes a fact into `event_inbox`, in the transaction that it tells of. `sequence_events` moves what is
committed from there into `events` and numbers it. Only one process at a time does that, so that whoever reads `events`
up to a number never finds a smaller one later, in whatever order transactions commit and however long one stays open.
"""

from types import ModuleType

from alembic import context, op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

CHANGED = "jobs, ledger_entries"
ADD_COLUMNS = """
ALTER TABLE jobs ADD COLUMN started_at timestamptz;
ALTER TABLE accounts ADD COLUMN balance_low_tokens bigint
"""
# Facts alone: no prompt, no input and no URL of a customer.
ADD_TABLES = """
CREATE TABLE event_inbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id uuid NOT NULL,
    type text NOT NULL,
    job_id uuid,
    facts jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE events (
    seq bigint PRIMARY KEY,
    account_id uuid NOT NULL,
    type text NOT NULL,
    job_id uuid,
    facts jsonb,
    created_at timestamptz NOT NULL
);
CREATE INDEX events_of_an_account ON events (account_id, seq);
CREATE INDEX events_of_a_job ON events (job_id, seq) WHERE job_id IS NOT NULL;
CREATE TABLE event_log (
    is_the_only_row boolean PRIMARY KEY DEFAULT true,
    last_seq bigint NOT NULL,
    CONSTRAINT event_log_is_one CHECK (is_the_only_row)
);
INSERT INTO event_log (last_seq) VALUES (0);
CREATE TABLE budget_notices (
    key_id uuid,
    ends_at timestamptz,
    PRIMARY KEY (key_id, ends_at)
);
CREATE TABLE forgotten_events (
    account_id uuid PRIMARY KEY,
    last_seq bigint NOT NULL
)
"""
# Most changes of a job are told to nobody, and those cost nothing.
NOTE_JOBS = """
CREATE FUNCTION note_new_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_inbox (account_id, type, job_id) SELECT account_id, 'generation.submitted', id FROM added;
    RETURN NULL;
END $$;
CREATE FUNCTION note_changed_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_inbox (account_id, type, job_id, facts) VALUES (
        NEW.account_id,
        CASE WHEN NEW.is_final THEN 'generation.' || lower(NEW.status) ELSE 'generation.started' END,
        NEW.id,
        CASE WHEN NOT NEW.is_final THEN jsonb_build_object('fal_request_id', NEW.fal_request_id) END);
    RETURN NULL;
END $$;
CREATE FUNCTION start_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.started_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_start BEFORE UPDATE OF status ON jobs
    FOR EACH ROW WHEN (NEW.status = 'IN_PROGRESS' AND OLD.started_at IS NULL) EXECUTE FUNCTION start_job();
CREATE TRIGGER jobs_note_new AFTER INSERT ON jobs
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_new_jobs();
CREATE TRIGGER jobs_note_changed AFTER UPDATE OF status ON jobs
    FOR EACH ROW WHEN (NOT OLD.is_final AND (NEW.is_final OR OLD.started_at IS NULL AND NEW.started_at IS NOT NULL))
    EXECUTE FUNCTION note_changed_job()
"""
# A debit and a refund are told of by their job.
NOTE_ENTRIES = """
CREATE FUNCTION note_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_inbox (account_id, type, facts)
    SELECT account_id,
           CASE WHEN kind = 'REVERSAL' OR amount < 0 THEN 'balance.reversed' ELSE 'balance.credited' END,
           jsonb_build_object('entry_seq', seq)
      FROM added WHERE kind NOT IN ('DEBIT', 'REFUND') ORDER BY account_id, seq;
    RETURN NULL;
END $$;
CREATE FUNCTION note_crossing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.balance_tokens < NEW.balance_low_tokens OR NEW.balance_low_tokens IS NOT NULL
                                                  AND OLD.balance_tokens < OLD.balance_low_tokens THEN
        INSERT INTO event_inbox (account_id, type, facts) VALUES (
            NEW.id,
            CASE WHEN NEW.balance_tokens < NEW.balance_low_tokens THEN 'balance.low' ELSE 'balance.recovered' END,
            jsonb_build_object('balance_tokens', NEW.balance_tokens, 'balance_low_tokens', NEW.balance_low_tokens));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_entries_note AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_entries();
CREATE TRIGGER accounts_note_crossing AFTER UPDATE OF balance_tokens, balance_low_tokens ON accounts
    FOR EACH ROW WHEN ((NEW.balance_tokens < NEW.balance_low_tokens)
                       IS DISTINCT FROM (OLD.balance_tokens < OLD.balance_low_tokens))
    EXECUTE FUNCTION note_crossing()
"""
# The number is the time in microseconds, or one more than the last where that is not earlier. So it goes on rising
# after a backup was restored, from which events are missing whose numbers somebody has seen. Who has the lock sees all
# that the one before has committed, since each statement of this function begins with a snapshot of its own.
ADD_SEQUENCER = """
CREATE FUNCTION sequence_events(events_max integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    moved integer;
    newest bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('sequence_events'), hashtext(current_schema())) THEN
        RETURN NULL;
    END IF;
    WITH taken AS (
        DELETE FROM event_inbox
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM event_inbox ORDER BY id LIMIT events_max))
        RETURNING *
    ), counted AS (
        SELECT count(*)::integer AS events FROM taken
    ), numbered AS (
        UPDATE event_log
           SET last_seq = greatest(last_seq, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) + counted.events
          FROM counted WHERE counted.events > 0
        RETURNING event_log.last_seq, counted.events
    ), added AS (
        INSERT INTO events (seq, account_id, type, job_id, facts, created_at)
        SELECT numbered.last_seq - numbered.events + row_number() OVER (ORDER BY taken.id),
               taken.account_id, taken.type, taken.job_id, taken.facts, taken.created_at
          FROM taken, numbered
    )
    SELECT events, last_seq INTO moved, newest FROM numbered;
    IF moved IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM pg_notify('tollgate_events', newest::text);
    RETURN moved;
END $$
"""
FUNCTIONS = ("note_new_jobs", "note_changed_job", "start_job", "note_entries", "note_crossing")


def upgrade() -> None:
    run = op.get_bind().connection.dbapi_connection.run_async
    for script in (
        module("0014").LOCK_TABLES.format(others=CHANGED),
        ADD_COLUMNS,
        ADD_TABLES,
        NOTE_JOBS,
        NOTE_ENTRIES,
        # A process of the release before may have a role that was given no right on the inbox.
        *(
            module("0014").AS_OWNER.format(function=f"{function}()")
            for function in FUNCTIONS
            if function != "start_job"
        ),
        ADD_SEQUENCER,
    ):
        # Past SQLAlchemy, which would prepare each script as one statement.
        run(lambda connection, script=script: connection.execute(script))


def downgrade() -> None:
    op.execute(module("0014").LOCK_TABLES.format(others=CHANGED))
    for trigger, table in (
        ("jobs_start", "jobs"),
        ("jobs_note_new", "jobs"),
        ("jobs_note_changed", "jobs"),
        ("ledger_entries_note", "ledger_entries"),
        ("accounts_note_crossing", "accounts"),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    op.execute("DROP FUNCTION sequence_events(integer)")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}()")
    op.execute("DROP TABLE event_inbox, events, event_log, budget_notices, forgotten_events")
    op.execute("ALTER TABLE accounts DROP COLUMN balance_low_tokens")
    op.execute("ALTER TABLE jobs DROP COLUMN started_at")


def module(revision_id: str) -> ModuleType:
    found = context.script.get_revision(revision_id)
    assert found is not None
    return found.module
