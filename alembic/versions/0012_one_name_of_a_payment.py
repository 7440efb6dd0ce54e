"""One name space for both headers that name a payment, and a list of the payments that were refused for good.

A release before this one records a payment under `webhook` where X-Event-Id named it, and under `idempotency-key` where
Idempotency-Key did. A trigger and an index hold that no id is credited under both, whichever releases are at work:

- Of this release, which says `is_of_plain_webhook` itself, the row is left out, and it looks again and finds the event.
- An older one would look again for ever, so it is told that it has to wait; it answers 503, and its caller comes again.

What was recorded before stays as it is, also where one id was credited under both.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ADD_COLUMN = "ALTER TABLE payment_events ADD COLUMN is_of_plain_webhook boolean"
ADD_INDEX = """
CREATE UNIQUE INDEX payment_events_one_of_plain_webhook ON payment_events (event_id) WHERE is_of_plain_webhook
"""
ADD_FUNCTION = """
CREATE FUNCTION name_payment_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Whoever records the same id waits here for the other one's end, and then sees what it left.
    PERFORM pg_advisory_xact_lock(73060871, hashtext(NEW.event_id));
    IF EXISTS (SELECT FROM payment_events
                WHERE event_id = NEW.event_id
                  AND source = CASE NEW.source WHEN 'webhook' THEN 'idempotency-key' ELSE 'webhook' END) THEN
        IF NEW.is_of_plain_webhook THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'the payment has been recorded under its other name' USING ERRCODE = 'lock_not_available';
    END IF;
    NEW.is_of_plain_webhook := true;
    RETURN NEW;
END $$
"""
ADD_TRIGGER = """
CREATE TRIGGER payment_events_named_once BEFORE INSERT ON payment_events
    FOR EACH ROW WHEN (NEW.source IN ('webhook', 'idempotency-key')) EXECUTE FUNCTION name_payment_once()
"""

ADD_REFUSED = """
CREATE TABLE refused_payments (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT refused_payments_pkey PRIMARY KEY,
    source text NOT NULL,
    event_id text NOT NULL,
    external_user_id uuid NOT NULL,
    amount bigint NOT NULL,
    reason text NOT NULL,
    deliveries bigint NOT NULL DEFAULT 1,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    -- One row for each distinct refusal, however often it is delivered.
    CONSTRAINT refused_payments_refusal_key UNIQUE (source, event_id, external_user_id, amount, reason)
)
"""
ADD_REFUSED_INDEX = """
CREATE INDEX refused_payments_waiting ON refused_payments (last_seen_at, id) WHERE resolved_at IS NULL
"""


def upgrade() -> None:
    for statement in (ADD_COLUMN, ADD_INDEX, ADD_FUNCTION, ADD_TRIGGER, ADD_REFUSED, ADD_REFUSED_INDEX):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE refused_payments")
    op.execute("DROP TRIGGER payment_events_named_once ON payment_events")
    op.execute("DROP FUNCTION name_payment_once")
    op.execute("DROP INDEX payment_events_one_of_plain_webhook")
    op.execute("ALTER TABLE payment_events DROP COLUMN is_of_plain_webhook")
