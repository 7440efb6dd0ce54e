"""Webhooks to customers: who hears of what, and what has been delivered.

Whoever gives an event its place in the log also writes for whom it is to be delivered, in the same transaction. So no
event is in the log whose deliveries are missing, whatever dies in between.
"""

from types import ModuleType

from alembic import context, op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# An endpoint has either a URL, or the origin of the URLs that jobs of its account name for themselves: these have one
# queue for each server, so that one that hangs does not hold up the others.
ADD_TABLES = """
ALTER TABLE jobs ADD COLUMN webhook_url text;
CREATE TABLE webhook_endpoints (
    id uuid PRIMARY KEY,
    account_id uuid REFERENCES accounts,
    url text,
    origin text,
    types text[],
    description text,
    secret text,
    old_secret text,
    old_secret_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz,
    disabled_reason text,
    missed_after bigint,
    deleted_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    last_failed_at timestamptz,
    backs_off_until timestamptz,
    asked_until timestamptz,
    next_due_at timestamptz NOT NULL DEFAULT 'infinity',
    replay_after bigint,
    replay_until bigint,
    replayed_at timestamptz,
    CONSTRAINT webhook_endpoints_have_an_address CHECK (num_nonnulls(url, origin) = 1),
    CONSTRAINT webhook_endpoints_have_a_secret CHECK (url IS NULL OR secret IS NOT NULL),
    CONSTRAINT webhook_endpoints_origin_belongs CHECK (origin IS NULL OR account_id IS NOT NULL),
    CONSTRAINT webhook_endpoints_say_why CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);
CREATE UNIQUE INDEX webhook_endpoints_of_jobs ON webhook_endpoints (account_id, origin) WHERE origin IS NOT NULL;
CREATE INDEX webhook_endpoints_of_an_account ON webhook_endpoints (account_id) WHERE url IS NOT NULL;
CREATE INDEX webhook_endpoints_due ON webhook_endpoints (next_due_at)
    WHERE disabled_at IS NULL AND deleted_at IS NULL;
CREATE INDEX webhook_endpoints_passing ON webhook_endpoints (id) WHERE deleted_at IS NOT NULL OR origin IS NOT NULL;
CREATE INDEX webhook_endpoints_replayed ON webhook_endpoints (replayed_at) WHERE replay_after IS NOT NULL;
CREATE TABLE webhook_secrets (
    account_id uuid PRIMARY KEY REFERENCES accounts,
    secret text NOT NULL,
    old_secret text,
    old_secret_until timestamptz
);
CREATE TABLE deliveries (
    endpoint_id uuid NOT NULL REFERENCES webhook_endpoints,
    event_seq bigint NOT NULL,
    job_id uuid,
    state text NOT NULL DEFAULT 'pending',
    due_at timestamptz NOT NULL,
    claim uuid,
    attempts integer NOT NULL DEFAULT 0,
    attempt_log jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    PRIMARY KEY (endpoint_id, event_seq),
    CONSTRAINT deliveries_state_known CHECK (state IN ('pending', 'delivered', 'exhausted')),
    CONSTRAINT deliveries_end CHECK ((state = 'pending') = (ended_at IS NULL)),
    CONSTRAINT deliveries_claimed_are_pending CHECK (claim IS NULL OR state = 'pending')
);
CREATE INDEX deliveries_due ON deliveries (endpoint_id, due_at, event_seq) WHERE state = 'pending';
CREATE INDEX deliveries_claimed ON deliveries (endpoint_id, due_at) WHERE claim IS NOT NULL;
CREATE INDEX deliveries_of_a_job ON deliveries (endpoint_id, job_id, event_seq)
    WHERE state = 'pending' AND job_id IS NOT NULL;
CREATE INDEX deliveries_left ON deliveries (endpoint_id, event_seq) WHERE state <> 'delivered';
CREATE INDEX deliveries_by_age ON deliveries (event_seq);
CREATE TABLE due_endpoints (
    endpoint_id uuid NOT NULL
)
"""
NOTE_CHANGED_JOB = """
CREATE OR REPLACE FUNCTION note_changed_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_inbox (account_id, type, job_id, facts) VALUES (
        NEW.account_id,
        CASE WHEN NEW.is_final THEN 'generation.' || lower(NEW.status) ELSE 'generation.started' END,
        NEW.id,
        CASE WHEN NOT NEW.is_final THEN jsonb_build_object('fal_request_id', NEW.fal_request_id)
             WHEN NEW.webhook_url IS NOT NULL THEN jsonb_build_object('has_webhook_url', true) END);
    RETURN NULL;
END $$
"""
# The sequencer waits for no endpoint, whoever has it locked: which of them have something due it leaves in a table,
# from which whoever delivers takes it. What cannot be addressed is left out and told of: the log goes on.
SEQUENCER = """
CREATE FUNCTION webhook_origin(url text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT lower(substring(url FROM '^[a-zA-Z]+://[^/?]+'))
$$;
CREATE FUNCTION address_events(after_seq bigint, last_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM events WHERE seq > after_seq AND seq <= last_seq AND facts ? 'has_webhook_url') THEN
        INSERT INTO webhook_endpoints (id, account_id, origin)
        SELECT DISTINCT ON (job.account_id, origin) gen_random_uuid(), job.account_id, origin
          FROM events AS event JOIN jobs AS job ON job.id = event.job_id, webhook_origin(job.webhook_url) AS origin
         WHERE event.seq > after_seq AND event.seq <= last_seq AND event.facts ? 'has_webhook_url'
         ORDER BY job.account_id, origin
        ON CONFLICT DO NOTHING;
        INSERT INTO deliveries (endpoint_id, event_seq, job_id, due_at)
        SELECT endpoint.id, event.seq, event.job_id, now()
          FROM events AS event
          JOIN jobs AS job ON job.id = event.job_id
          JOIN webhook_endpoints AS endpoint
            ON endpoint.account_id = job.account_id AND endpoint.origin = webhook_origin(job.webhook_url)
         WHERE event.seq > after_seq AND event.seq <= last_seq AND event.facts ? 'has_webhook_url';
    END IF;
    IF EXISTS (SELECT FROM webhook_endpoints WHERE url IS NOT NULL) THEN
        INSERT INTO deliveries (endpoint_id, event_seq, job_id, due_at)
        SELECT endpoint.id, event.seq, event.job_id, now()
          FROM events AS event
          JOIN webhook_endpoints AS endpoint ON endpoint.account_id = event.account_id OR endpoint.account_id IS NULL
         WHERE event.seq > after_seq AND event.seq <= last_seq
           AND endpoint.url IS NOT NULL AND endpoint.disabled_at IS NULL AND endpoint.deleted_at IS NULL
           AND CASE WHEN event.type = 'webhook.test' THEN event.facts ->> 'endpoint_id' = endpoint.id::text
                    ELSE endpoint.types IS NULL OR event.type = ANY (endpoint.types) END;
    END IF;
    INSERT INTO due_endpoints (endpoint_id)
    SELECT DISTINCT endpoint_id FROM deliveries WHERE event_seq > after_seq AND event_seq <= last_seq;
END $$;
CREATE FUNCTION address_all_events(after_seq bigint, last_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one bigint;
BEGIN
    PERFORM address_events(after_seq, last_seq);
EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
    FOR one IN SELECT seq FROM events WHERE seq > after_seq AND seq <= last_seq ORDER BY seq LOOP
        BEGIN
            PERFORM address_events(one - 1, one);
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            RAISE WARNING 'event % is not delivered: %', one, SQLERRM;
        END;
    END LOOP;
END $$
"""
DROP_TABLES = """
DROP FUNCTION address_all_events(bigint, bigint), address_events(bigint, bigint), webhook_origin(text);
DROP TABLE due_endpoints, deliveries, webhook_secrets, webhook_endpoints;
ALTER TABLE jobs DROP COLUMN webhook_url
"""
OLD_END = "    PERFORM pg_notify('tollgate_events', newest::text);"
NEW_END = f"    PERFORM address_all_events(newest - moved, newest);\n{OLD_END}"


def upgrade() -> None:
    run = op.get_bind().connection.dbapi_connection.run_async
    sequencer = module("0021").ADD_SEQUENCER
    assert OLD_END in sequencer
    for script in (
        module("0014").LOCK_TABLES.format(others="jobs, events"),
        ADD_TABLES,
        NOTE_CHANGED_JOB,
        # As in 0021: a process of the release before may have a role without a right on the new tables.
        module("0014").AS_OWNER.format(function="note_changed_job()"),
        SEQUENCER,
        module("0014").AS_OWNER.format(function="address_all_events(bigint, bigint)"),
        sequencer.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace(OLD_END, NEW_END),
    ):
        # Past SQLAlchemy, which would prepare each script as one statement.
        run(lambda connection, script=script: connection.execute(script))


def downgrade() -> None:
    run = op.get_bind().connection.dbapi_connection.run_async
    before = module("0021")
    old_note = before.NOTE_JOBS[before.NOTE_JOBS.index("CREATE FUNCTION note_changed_job") :].partition("END $$;")
    for script in (
        module("0014").LOCK_TABLES.format(others="jobs, events"),
        before.ADD_SEQUENCER.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"),
        (old_note[0] + old_note[1]).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"),
        module("0014").AS_OWNER.format(function="note_changed_job()"),
        DROP_TABLES,
    ):
        run(lambda connection, script=script: connection.execute(script))


def module(revision_id: str) -> ModuleType:
    found = context.script.get_revision(revision_id)
    assert found is not None
    return found.module
