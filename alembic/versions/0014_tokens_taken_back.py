"""Tokens that are taken back: reversals of payments, and adjustments of the operator.

What is reversed of a payment is the smaller of its amount and the sum of its standing reversals. The database books it,
and not the code, because processes of the release before go on crediting payments: whoever credits one whose reversal
came first books that reversal in the same transaction. Triggers do it:

- A new event books the difference between what stands with it and without it, where its payment was credited.
- A new credit books what stands for its payment by then.

Neither misses the other one: both take the lock of the payment's name, and an event of a payment that was credited
takes that of its account.

Releases before work with this schema. They show the new kinds of entries as they are, and accept nothing for an account
below zero, whose balance is less than any price.
"""

from alembic import context, op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# All locks at once, or none. Requests take these tables in different orders, so that whoever held one of them and
# waited for the next might wait in a circle. Whoever migrates knows how long to wait and to pause where others hold
# them for long; meanwhile nobody behind gets on.
LOCK_TABLES = """
DO $$ DECLARE
    has_accounts boolean;
BEGIN
    FOR try IN 1..20 LOOP
        has_accounts := false;
        BEGIN
            LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE;
            has_accounts := true;
            LOCK TABLE {others} IN ACCESS EXCLUSIVE MODE NOWAIT;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF NOT has_accounts OR try = 20 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.05);
        END;
    END LOOP;
END $$
"""
CHANGED = "ledger_entries, payment_events"

# The rows that are there satisfy what stood before, which was stricter. So nothing is read: NOT VALID says that.
OPEN_ACCOUNTS = """
ALTER TABLE accounts
    DROP CONSTRAINT accounts_balance_not_negative,
    DROP CONSTRAINT accounts_balance_limit,
    ADD CONSTRAINT accounts_balance_limit CHECK (
        balance_tokens BETWEEN -9007199254740991 AND 9007199254740991) NOT VALID
"""
OPEN_ENTRIES = """
ALTER TABLE ledger_entries
    ADD COLUMN reversed_source text,
    ADD COLUMN adjustment_id text,
    DROP CONSTRAINT ledger_entries_kind_known,
    DROP CONSTRAINT ledger_entries_amount_positive,
    DROP CONSTRAINT ledger_entries_balance_not_negative,
    DROP CONSTRAINT ledger_entries_belong_somewhere,
    ADD CONSTRAINT ledger_entries_kind_known CHECK (
        kind IN ('CREDIT', 'DEBIT', 'REFUND', 'REVERSAL', 'REINSTATEMENT', 'ADJUSTMENT')) NOT VALID,
    ADD CONSTRAINT ledger_entries_amount_positive CHECK (
        amount > 0 OR kind = 'ADJUSTMENT' AND amount <> 0) NOT VALID,
    ADD CONSTRAINT ledger_entries_debit_is_covered CHECK (balance_after >= 0 OR kind <> 'DEBIT') NOT VALID,
    ADD CONSTRAINT ledger_entries_belong_somewhere CHECK (
        (kind IN ('DEBIT', 'REFUND')) = (job_id IS NOT NULL)
        AND (kind = 'CREDIT') = (payment_source IS NOT NULL)
        AND (kind IN ('REVERSAL', 'REINSTATEMENT')) = (reversed_source IS NOT NULL)
        AND (kind IN ('CREDIT', 'REVERSAL', 'REINSTATEMENT')) = (payment_event_id IS NOT NULL)
        AND (kind = 'ADJUSTMENT') = (adjustment_id IS NOT NULL)) NOT VALID
"""
CLOSE_ACCOUNTS = """
ALTER TABLE accounts
    DROP CONSTRAINT accounts_balance_limit,
    ADD CONSTRAINT accounts_balance_not_negative CHECK (balance_tokens >= 0),
    ADD CONSTRAINT accounts_balance_limit CHECK (balance_tokens <= 9007199254740991)
"""
CLOSE_ENTRIES = """
ALTER TABLE ledger_entries
    DROP CONSTRAINT ledger_entries_kind_known,
    DROP CONSTRAINT ledger_entries_amount_positive,
    DROP CONSTRAINT ledger_entries_debit_is_covered,
    DROP CONSTRAINT ledger_entries_belong_somewhere,
    DROP COLUMN adjustment_id,
    DROP COLUMN reversed_source,
    ADD CONSTRAINT ledger_entries_kind_known CHECK (kind IN ('CREDIT', 'DEBIT', 'REFUND')),
    ADD CONSTRAINT ledger_entries_amount_positive CHECK (amount > 0),
    ADD CONSTRAINT ledger_entries_balance_not_negative CHECK (balance_after >= 0),
    ADD CONSTRAINT ledger_entries_belong_somewhere CHECK (
        (kind = 'CREDIT') = (payment_event_id IS NOT NULL)
        AND (kind = 'CREDIT') = (payment_source IS NOT NULL)
        AND (kind <> 'CREDIT') = (job_id IS NOT NULL))
"""

# An adjustment has its sign in itself.
APPLY_ENTRIES = """
CREATE OR REPLACE FUNCTION apply_ledger_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts
       SET balance_tokens = balance_tokens + CASE WHEN {takes} THEN -NEW.amount ELSE NEW.amount END,
           entry_count = entry_count + 1
     WHERE id = NEW.account_id
    RETURNING entry_count, balance_tokens INTO NEW.seq, NEW.balance_after;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'account % does not exist', NEW.account_id USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$
"""

# Refunds, disputes and their withdrawals share one name space for each source, apart from that of its payments: a
# provider may name a refund by the id of its payment.
ADD_REVERSAL_EVENTS = """
CREATE TABLE reversal_events (
    source text NOT NULL,
    event_id text NOT NULL,
    payment_event_id text NOT NULL,
    amount bigint,
    withdraws text,
    received_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reversal_events_pkey PRIMARY KEY (source, event_id),
    -- Both headers of a top-up name the same, and here it has one name.
    CONSTRAINT reversal_events_source_current CHECK (source <> 'idempotency-key'),
    CONSTRAINT reversal_events_ids_length CHECK (
        length(event_id) BETWEEN 1 AND 255 AND length(payment_event_id) BETWEEN 1 AND 255
        AND length(withdraws) BETWEEN 1 AND 255),
    CONSTRAINT reversal_events_amount_positive CHECK (amount > 0),
    CONSTRAINT reversal_events_reverse_or_withdraw CHECK ((amount IS NULL) <> (withdraws IS NULL))
)
"""
ADD_REVERSAL_INDEX = "CREATE INDEX reversal_events_of_a_payment ON reversal_events (source, payment_event_id)"
ADD_ADJUSTMENTS = """
CREATE TABLE adjustments (
    id text CONSTRAINT adjustments_pkey PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT adjustments_account_id_fkey REFERENCES accounts ON DELETE RESTRICT,
    amount bigint NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT adjustments_amount_not_zero CHECK (amount <> 0),
    CONSTRAINT adjustments_texts_length CHECK (
        length(id) BETWEEN 1 AND 255 AND length(reason) BETWEEN 1 AND 500 AND length(actor) BETWEEN 1 AND 255)
)
"""

# The lock that name_payment_once takes for the plain webhook, and one for each name of the other sources. Names are
# locked in the order of source and id.
ADD_LOCK_PAYMENT = """
CREATE FUNCTION lock_payment(of_source text, of_payment text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF of_source IN ('webhook', 'idempotency-key') THEN
        PERFORM pg_advisory_xact_lock(73060871, hashtext(of_payment));
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended(of_source || '/' || of_payment, 14));
    END IF;
END $$
"""
# An id that once named two payments, one under each header, means that of X-Event-Id.
ADD_CREDIT_OF_PAYMENT = """
CREATE FUNCTION credit_of_payment(of_source text, of_payment text) RETURNS SETOF ledger_entries LANGUAGE sql AS $$
    SELECT * FROM ledger_entries
     WHERE kind = 'CREDIT' AND payment_event_id = of_payment
       AND payment_source IN (of_source, CASE of_source WHEN 'webhook' THEN 'idempotency-key' END)
     ORDER BY payment_source DESC LIMIT 1
$$
"""
# Without some events; null leaves all of them out.
ADD_STANDING_REVERSALS = """
CREATE FUNCTION standing_reversals(of_source text, of_payment text, left_out text[]) RETURNS numeric LANGUAGE sql AS $$
    SELECT coalesce(sum(amount), 0) FROM reversal_events
     WHERE source = of_source AND payment_event_id = of_payment AND event_id <> ALL (left_out) AND event_id NOT IN (
        SELECT withdraws FROM reversal_events
         WHERE source = of_source AND payment_event_id = of_payment AND event_id <> ALL (left_out)
           AND withdraws IS NOT NULL)
$$
"""
ADD_BOOK_REVERSALS = """
CREATE FUNCTION book_reversals(of_source text, of_payment text, new_events text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    credit ledger_entries;
    change bigint;
BEGIN
    SELECT * INTO credit FROM credit_of_payment(of_source, of_payment);
    IF NOT FOUND THEN
        PERFORM lock_payment(of_source, of_payment);
        SELECT * INTO credit FROM credit_of_payment(of_source, of_payment);
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    PERFORM FROM accounts WHERE id = credit.account_id FOR NO KEY UPDATE;
    change := least(credit.amount, standing_reversals(of_source, of_payment, '{}'))
            - least(credit.amount, standing_reversals(of_source, of_payment, new_events));
    IF change <> 0 THEN
        INSERT INTO ledger_entries (account_id, kind, amount, reversed_source, payment_event_id)
        VALUES (credit.account_id, CASE WHEN change > 0 THEN 'REVERSAL' ELSE 'REINSTATEMENT' END, abs(change),
                credit.payment_source, credit.payment_event_id);
    END IF;
END $$
"""
ADD_BOOK_NEW_REVERSALS = """
CREATE FUNCTION book_new_reversals() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    named record;
BEGIN
    FOR named IN
        SELECT source, payment_event_id, array_agg(event_id) AS event_ids FROM added GROUP BY 1, 2 ORDER BY 1, 2
    LOOP
        PERFORM book_reversals(named.source, named.payment_event_id, named.event_ids);
    END LOOP;
    RETURN NULL;
END $$
"""
# A process of the release before may have a role that was given no right on the new tables. What that role creates for
# itself, such as a temporary view of their name, must not run with the rights of the owner.
AS_OWNER = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION {function} SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END $$
"""
ADD_BOOK_EARLIER_REVERSALS = """
CREATE FUNCTION book_earlier_reversals() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of_source text := CASE NEW.payment_source WHEN 'idempotency-key' THEN 'webhook' ELSE NEW.payment_source END;
BEGIN
    IF EXISTS (SELECT FROM reversal_events WHERE source = of_source AND payment_event_id = NEW.payment_event_id) THEN
        PERFORM book_reversals(of_source, NEW.payment_event_id, NULL);
    END IF;
    RETURN NULL;
END $$
"""
ADD_LOCK_NEW_PAYMENT = """
CREATE FUNCTION lock_new_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_payment(NEW.source, NEW.event_id);
    RETURN NEW;
END $$
"""
ADD_BOOK_ADJUSTMENT = """
CREATE FUNCTION book_adjustment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger_entries (account_id, kind, amount, adjustment_id)
    VALUES (NEW.account_id, 'ADJUSTMENT', NEW.amount, NEW.id);
    RETURN NULL;
END $$
"""
FUNCTIONS = (
    "book_adjustment()",
    "lock_new_payment()",
    "book_earlier_reversals()",
    "book_new_reversals()",
    "book_reversals(text, text, text[])",
    "standing_reversals(text, text, text[])",
    "credit_of_payment(text, text)",
    "lock_payment(text, text)",
)

ADD_TRIGGERS = (
    """
CREATE TRIGGER reversal_events_are_booked AFTER INSERT ON reversal_events
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION book_new_reversals()
""",
    """
CREATE TRIGGER ledger_entries_credit_takes_reversals AFTER INSERT ON ledger_entries
    FOR EACH ROW WHEN (NEW.kind = 'CREDIT') EXECUTE FUNCTION book_earlier_reversals()
""",
    """
CREATE TRIGGER payment_events_lock_their_name BEFORE INSERT ON payment_events
    FOR EACH ROW EXECUTE FUNCTION lock_new_payment()
""",
    """
CREATE TRIGGER adjustments_are_booked AFTER INSERT ON adjustments
    FOR EACH ROW EXECUTE FUNCTION book_adjustment()
""",
    # Depth 0 is a statement of the application, which leaves such entries to the triggers above.
    """
CREATE TRIGGER ledger_entries_by_their_event_only BEFORE INSERT ON ledger_entries
    FOR EACH ROW WHEN (NEW.kind IN ('REVERSAL', 'REINSTATEMENT', 'ADJUSTMENT') AND pg_trigger_depth() = 0)
    EXECUTE FUNCTION refuse_change()
""",
    *(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        for table in ("reversal_events", "adjustments")
    ),
    *(
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        for table in ("reversal_events", "adjustments")
    ),
)
TRIGGERS_OF_OTHER_TABLES = {
    "ledger_entries_by_their_event_only": "ledger_entries",
    "ledger_entries_credit_takes_reversals": "ledger_entries",
    "payment_events_lock_their_name": "payment_events",
}

# What the lines of the view say of kinds, and now.
CHANGES_OF_VIOLATIONS = {
    "WHEN kind = 'DEBIT' THEN -amount": "WHEN kind IN ('DEBIT', 'REVERSAL') THEN -amount",
    "'balance is not negative', id::text FROM accounts WHERE balance_tokens < 0": """
    'a debit leaves no balance below zero', id::text FROM signed WHERE kind = 'DEBIT' AND balance_after < 0""",
    "WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = s.job_id)": """
 WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = s.job_id)
   AND NOT EXISTS (SELECT FROM adjustments a WHERE a.id = s.adjustment_id)""",
    "(s.payment_source, s.payment_event_id)": "(coalesce(s.payment_source, s.reversed_source), s.payment_event_id)",
}
VIOLATIONS_OF_WHAT_IS_TAKEN_BACK = """
UNION ALL SELECT 'what is reversed of a payment is what its standing reversals come to', e.source || '/' || e.event_id
  FROM payment_events e
  LEFT JOIN (SELECT r.source, r.payment_event_id, sum(r.amount) AS tokens FROM reversal_events r
              WHERE NOT EXISTS (SELECT FROM reversal_events w WHERE (w.source, w.payment_event_id, w.withdraws)
                                                                  = (r.source, r.payment_event_id, r.event_id))
              GROUP BY r.source, r.payment_event_id) standing
    ON standing.payment_event_id = e.event_id
   AND standing.source = CASE e.source WHEN 'idempotency-key' THEN 'webhook' ELSE e.source END
   AND NOT (e.source = 'idempotency-key' AND EXISTS (
       SELECT FROM payment_events o WHERE o.source = 'webhook' AND o.event_id = e.event_id))
  LEFT JOIN (SELECT s.reversed_source, s.payment_event_id, s.account_id, -sum(s.change) AS tokens
               FROM signed s WHERE s.reversed_source IS NOT NULL GROUP BY 1, 2, 3) booked
    ON (booked.reversed_source, booked.payment_event_id) = (e.source, e.event_id)
 WHERE least(e.amount, coalesce(standing.tokens, 0)) <> coalesce(booked.tokens, 0)
    OR booked.account_id <> e.account_id
UNION ALL SELECT 'an adjustment has one entry of its amount', a.id
  FROM adjustments a LEFT JOIN ledger_entries l ON l.kind = 'ADJUSTMENT' AND l.adjustment_id = a.id
 GROUP BY a.id HAVING count(l.id) <> 1 OR min(l.amount) <> a.amount OR (array_agg(l.account_id))[1] <> a.account_id
"""

# The view takes all columns of the entries, so that none can go while it is there. It stays the same object.
NO_VIOLATIONS = "CREATE OR REPLACE VIEW ledger_violations (invariant, subject) AS SELECT '', '' WHERE false"

# No release before knows what such entries did to a balance, and what waits for its payment would be lost.
KEEP_WHAT_IS_TAKEN_BACK = """
DO $$ BEGIN
    LOCK TABLE reversal_events, adjustments;
    IF EXISTS (SELECT FROM reversal_events) OR EXISTS (SELECT FROM adjustments) THEN
        RAISE EXCEPTION 'tokens were taken back, which a downgrade would lose'
            USING HINT = 'The releases before work with this schema as it is: leave it, and start them.';
    END IF;
END $$
"""


def upgrade() -> None:
    for statement in (
        LOCK_TABLES.format(others=CHANGED),
        OPEN_ACCOUNTS,
        OPEN_ENTRIES,
        APPLY_ENTRIES.format(takes="NEW.kind IN ('DEBIT', 'REVERSAL')"),
        ADD_REVERSAL_EVENTS,
        ADD_REVERSAL_INDEX,
        ADD_ADJUSTMENTS,
        ADD_LOCK_PAYMENT,
        ADD_CREDIT_OF_PAYMENT,
        ADD_STANDING_REVERSALS,
        ADD_BOOK_REVERSALS,
        ADD_BOOK_NEW_REVERSALS,
        ADD_BOOK_EARLIER_REVERSALS,
        AS_OWNER.format(function="book_earlier_reversals()"),
        ADD_LOCK_NEW_PAYMENT,
        ADD_BOOK_ADJUSTMENT,
        *ADD_TRIGGERS,
        violations(),
    ):
        op.execute(statement)


def violations_before() -> str:
    """The view as revision 0013 made it, to take the place of the one that is there."""
    revision = context.script.get_revision("0013")
    assert revision is not None
    return f"{revision.module.violations_of_entries()} {revision.module.VIOLATIONS_OF_LINES}"


def violations() -> str:
    view = violations_before()
    for old, new in CHANGES_OF_VIOLATIONS.items():
        assert view.count(old) == 1, old
        view = view.replace(old, new)
    return f"{view} {VIOLATIONS_OF_WHAT_IS_TAKEN_BACK}"


def downgrade() -> None:
    op.execute(LOCK_TABLES.format(others=CHANGED))
    op.execute(KEEP_WHAT_IS_TAKEN_BACK)
    op.execute(NO_VIOLATIONS)
    for trigger, table in TRIGGERS_OF_OTHER_TABLES.items():
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for table in ("reversal_events", "adjustments"):
        op.execute(f"DROP TABLE {table}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.execute(APPLY_ENTRIES.format(takes="NEW.kind = 'DEBIT'"))
    op.execute(CLOSE_ENTRIES)
    op.execute(CLOSE_ACCOUNTS)
    op.execute(violations_before())
