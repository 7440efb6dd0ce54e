"""Many keys of an account, what each may do and spend, and the counters that limits are held by.

A counter is a column of the row that an accept locks anyway, and triggers keep it: no statement can forget it, nor can
one of the release before, whose processes go on working beside this schema. They find a secret by its digest, so the
secret of a key that may not do everything is stored under the digest of its digest, which they never look for.

Nothing here is read or written row by row but the counters of accounts with unfinished jobs: everybody waits for these
locks. From here on a new secret belongs to a key, and revision 0018 gives one to those that were there before.
"""

from types import ModuleType

from alembic import context, op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Constants need no rewrite of the table. NULL is the setting of the service.
ADD_COUNTERS = """
ALTER TABLE accounts
    ADD COLUMN keys_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN unfinished_jobs bigint NOT NULL DEFAULT 0
        CONSTRAINT accounts_unfinished_jobs_counted CHECK (unfinished_jobs >= 0),
    ADD COLUMN writes_minute timestamptz,
    ADD COLUMN writes integer NOT NULL DEFAULT 0,
    ADD COLUMN unfinished_jobs_max integer
        CONSTRAINT accounts_unfinished_jobs_max_sound CHECK (unfinished_jobs_max >= 0),
    ADD COLUMN writes_per_minute integer CONSTRAINT accounts_writes_per_minute_sound CHECK (writes_per_minute >= 0),
    ADD COLUMN reads_per_second integer CONSTRAINT accounts_reads_per_second_sound CHECK (reads_per_second >= 0),
    ADD COLUMN weight integer CONSTRAINT accounts_weight_sound CHECK (weight BETWEEN 1 AND 1000)
"""
ADD_KEYS = """
CREATE TABLE keys (
    id uuid CONSTRAINT keys_pkey PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT keys_account_id_fkey REFERENCES accounts ON DELETE RESTRICT,
    name text NOT NULL,
    scopes text[] NOT NULL,
    expires_at timestamptz,
    budget_tokens bigint,
    budget_per text,
    is_first boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    deleted_at timestamptz,
    idempotency_key text,
    fingerprint bytea,
    CONSTRAINT keys_scopes_known CHECK (scopes <@ ARRAY['generate', 'read', 'manage'] AND cardinality(scopes) > 0),
    CONSTRAINT keys_budget_whole CHECK ((budget_tokens IS NULL) = (budget_per IS NULL)),
    CONSTRAINT keys_budget_sound CHECK (budget_tokens > 0 AND budget_per IN ('day', 'month', 'ever')),
    CONSTRAINT keys_idempotency_whole CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL)),
    CONSTRAINT keys_fingerprint_length CHECK (octet_length(fingerprint) = 32)
) WITH (fillfactor = 80)
"""
ADD_KEY_INDEXES = (
    "CREATE UNIQUE INDEX keys_one_first_per_account ON keys (account_id) WHERE is_first AND deleted_at IS NULL",
    """
CREATE UNIQUE INDEX keys_one_for_each_name ON keys (account_id, idempotency_key) WHERE idempotency_key IS NOT NULL
""",
    "CREATE INDEX keys_of_an_account ON keys (account_id, created_at)",
    "CREATE INDEX keys_not_deleted ON keys (account_id, created_at) WHERE deleted_at IS NULL",
)
# A window stays as the bounds that it had, whatever the key's budget becomes.
ADD_WINDOWS = """
CREATE TABLE key_windows (
    key_id uuid NOT NULL CONSTRAINT key_windows_key_id_fkey REFERENCES keys ON DELETE RESTRICT,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    limit_tokens bigint NOT NULL,
    spent_tokens bigint NOT NULL DEFAULT 0,
    CONSTRAINT key_windows_pkey PRIMARY KEY (key_id, starts_at, ends_at),
    CONSTRAINT key_windows_limit_positive CHECK (limit_tokens > 0),
    CONSTRAINT key_windows_spent_not_negative CHECK (spent_tokens >= 0)
) WITH (fillfactor = 50)
"""
ADD_TO_JOBS = "ALTER TABLE jobs ADD COLUMN key_id uuid"
ADD_TO_SECRETS = """
ALTER TABLE api_keys
    ADD COLUMN key_id uuid CONSTRAINT api_keys_key_id_fkey REFERENCES keys ON DELETE RESTRICT,
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN is_hidden boolean NOT NULL DEFAULT false
"""
CHANGED = "api_keys, jobs"
# An account may have several keys from here on.
DROP_ONE_LIVE = "DROP INDEX api_keys_one_live_per_account"
COUNT_UNFINISHED = """
UPDATE accounts SET unfinished_jobs = unfinished.jobs
  FROM (SELECT account_id, count(*) AS jobs FROM jobs WHERE NOT is_final GROUP BY account_id) AS unfinished
 WHERE accounts.id = unfinished.account_id
"""
# A secret without a key is one that the release before issues: the account's first, whose id stays.
ADD_ADOPTION = """
CREATE FUNCTION belong_to_first_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT id INTO NEW.key_id FROM keys WHERE account_id = NEW.account_id AND is_first AND deleted_at IS NULL;
    IF NOT FOUND THEN
        INSERT INTO keys (id, account_id, name, scopes, is_first)
        VALUES (gen_random_uuid(), NEW.account_id, 'First key', ARRAY['generate', 'read', 'manage'], true)
        RETURNING id INTO NEW.key_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER api_keys_belong_to_a_key BEFORE INSERT ON api_keys
    FOR EACH ROW WHEN (NEW.key_id IS NULL) EXECUTE FUNCTION belong_to_first_key();
"""
# Who was let in by a key as it was is asked again, under the lock of the account, if a key has changed since.
ADD_VERSION = """
CREATE FUNCTION count_change_of_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET keys_version = keys_version + 1 WHERE id = NEW.account_id;
    RETURN NULL;
END $$;
CREATE TRIGGER api_keys_change AFTER UPDATE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION count_change_of_keys();
CREATE TRIGGER keys_change AFTER UPDATE OF scopes, expires_at, budget_tokens, budget_per, deleted_at ON keys
    FOR EACH ROW EXECUTE FUNCTION count_change_of_keys();
CREATE TRIGGER keys_no_delete BEFORE DELETE ON keys FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER keys_keep_their_account BEFORE UPDATE OF id, account_id, is_first ON keys
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""
# A minute that is over by the clock of this transaction may have been left by a later one, which had the lock first.
# One further ahead is of a clock that has been set back since, and says nothing.
ADD_ENTRY = """
CREATE OR REPLACE FUNCTION apply_ledger_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    this_minute timestamptz := date_trunc('minute', now());
    next_minute timestamptz := this_minute + interval '1 minute';
BEGIN
    IF NEW.kind = 'DEBIT' THEN
        UPDATE accounts
           SET balance_tokens = balance_tokens - NEW.amount,
               entry_count = entry_count + 1,
               unfinished_jobs = unfinished_jobs + 1,
               writes = CASE WHEN writes_minute BETWEEN this_minute AND next_minute THEN writes + 1 ELSE 1 END,
               writes_minute =
                   CASE WHEN writes_minute BETWEEN this_minute AND next_minute THEN writes_minute ELSE this_minute END
         WHERE id = NEW.account_id
        RETURNING entry_count, balance_tokens INTO NEW.seq, NEW.balance_after;
    ELSE
        UPDATE accounts
           SET balance_tokens = balance_tokens + CASE WHEN NEW.kind = 'REVERSAL' THEN -NEW.amount ELSE NEW.amount END,
               entry_count = entry_count + 1
         WHERE id = NEW.account_id
        RETURNING entry_count, balance_tokens INTO NEW.seq, NEW.balance_after;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'account % does not exist', NEW.account_id USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
"""
# What comes back goes into the window that it was taken from, while that lasts.
COUNT_ENDED_JOB = """
CREATE OR REPLACE FUNCTION count_ended_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET unfinished_jobs = unfinished_jobs - 1 WHERE id = NEW.account_id;
    IF NEW.key_id IS NOT NULL AND NEW.refunded_tokens > 0 THEN
        UPDATE key_windows
           SET spent_tokens = spent_tokens - NEW.refunded_tokens
         WHERE key_id = NEW.key_id AND starts_at <= NEW.created_at AND ends_at > NEW.created_at AND ends_at > now();
    END IF;
    RETURN NULL;
END $$
"""
ADD_END = """
CREATE TRIGGER jobs_end AFTER UPDATE OF status ON jobs
    FOR EACH ROW WHEN (NEW.is_final AND NOT OLD.is_final) EXECUTE FUNCTION count_ended_job();
CREATE TRIGGER jobs_keep_their_key BEFORE UPDATE OF key_id ON jobs
    FOR EACH ROW WHEN (NEW.key_id IS DISTINCT FROM OLD.key_id) EXECUTE FUNCTION refuse_change();
"""
ADD_LIMIT = """
CREATE FUNCTION refuse_overspending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'key % spends more than its budget', NEW.key_id USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER key_windows_hold BEFORE UPDATE OF spent_tokens ON key_windows
    FOR EACH ROW WHEN (NEW.spent_tokens > OLD.spent_tokens AND NEW.spent_tokens > NEW.limit_tokens)
    EXECUTE FUNCTION refuse_overspending();
"""
# They write what a role of the release before may have no right on.
AS_OWNER = ("belong_to_first_key()", "count_ended_job()")
# Whatever went past the triggers is found by whoever verifies the books. Each of these reads the jobs once, however
# many accounts and windows there are. A window is joined to its jobs by the key alone: no index leads the planner to
# read the jobs of the account anew for each of its windows.
VIOLATIONS_OF_COUNTERS = """
UNION ALL SELECT 'the account counts its unfinished jobs', a.id::text FROM accounts a
  LEFT JOIN (SELECT j.account_id, count(*) AS jobs FROM jobs j WHERE NOT j.is_final GROUP BY 1) unfinished
    ON unfinished.account_id = a.id
 WHERE a.unfinished_jobs <> coalesce(unfinished.jobs, 0)
UNION ALL SELECT 'a window counts what its jobs cost', w.key_id::text FROM key_windows w
  LEFT JOIN jobs j ON j.key_id = w.key_id
 WHERE w.ends_at > now()
 GROUP BY w.key_id, w.starts_at, w.ends_at, w.spent_tokens
HAVING w.spent_tokens <> coalesce(
           sum(j.cost_tokens - j.refunded_tokens)
               FILTER (WHERE j.created_at >= w.starts_at AND j.created_at < w.ends_at), 0)
UNION ALL SELECT 'a job belongs to the account of its key', j.id::text FROM jobs j LEFT JOIN keys k ON k.id = j.key_id
 WHERE j.key_id IS NOT NULL AND k.account_id IS DISTINCT FROM j.account_id
"""


def upgrade() -> None:
    # Past SQLAlchemy, which would prepare each script as one statement.
    run = op.get_bind().connection.dbapi_connection.run_async
    for script in (
        module_before().LOCK_TABLES.format(others=CHANGED),
        ADD_COUNTERS,
        ADD_KEYS,
        *ADD_KEY_INDEXES,
        ADD_WINDOWS,
        ADD_TO_JOBS,
        ADD_TO_SECRETS,
        DROP_ONE_LIVE,
        COUNT_UNFINISHED,
        ADD_ADOPTION,
        ADD_VERSION,
        ADD_ENTRY,
        COUNT_ENDED_JOB,
        ADD_END,
        ADD_LIMIT,
        *(module_before().AS_OWNER.format(function=function) for function in AS_OWNER),
        f"{violations_before()} {VIOLATIONS_OF_COUNTERS}",
    ):
        run(lambda connection, script=script: connection.execute(script))


def module_before() -> ModuleType:
    """That of the revision before."""
    revision = context.script.get_revision(down_revision)
    assert revision is not None
    return revision.module


def violations_before() -> str:
    """The view as the revision before leaves it, to take the place of the one that is there."""
    view: str = module_before().violations()
    return view


# No release before could tell what such a key may not do: it would be a key to everything, or be lost.
KEEP_KEYS = """
DO $$ BEGIN
    LOCK TABLE keys;
    IF EXISTS (
        SELECT FROM keys
         WHERE NOT is_first AND deleted_at IS NULL
            OR cardinality(scopes) < 3 OR budget_tokens IS NOT NULL OR expires_at IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'there are keys that a downgrade would lose'
            USING HINT = 'The releases before work with this schema as it is: leave it, and start them.';
    END IF;
END $$
"""


def downgrade() -> None:
    op.execute(KEEP_KEYS)
    op.execute(violations_before())
    for table, trigger in (
        ("key_windows", "key_windows_hold"),
        ("jobs", "jobs_end"),
        ("jobs", "jobs_keep_their_key"),
        ("keys", "keys_change"),
        ("keys", "keys_no_delete"),
        ("api_keys", "api_keys_change"),
        ("api_keys", "api_keys_belong_to_a_key"),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for function in ("refuse_overspending", "count_ended_job", "count_change_of_keys", "belong_to_first_key"):
        op.execute(f"DROP FUNCTION {function}()")
    op.execute(entry_before())
    # A secret that works no longer than an overlap is none that the release before may find.
    op.execute("UPDATE api_keys SET revoked_at = now() WHERE revoked_at IS NULL AND expires_at IS NOT NULL")
    op.execute("ALTER TABLE api_keys DROP COLUMN expires_at, DROP COLUMN is_hidden, DROP COLUMN key_id")
    # Where this revision itself gave keys to all secrets, as it once did, it also exchanged these.
    op.execute("DROP INDEX IF EXISTS api_keys_of_an_account")
    op.execute("CREATE INDEX IF NOT EXISTS api_keys_account_id ON api_keys (account_id)")
    op.execute("DROP TABLE key_windows, keys")
    op.execute("CREATE UNIQUE INDEX api_keys_one_live_per_account ON api_keys (account_id) WHERE revoked_at IS NULL")
    op.execute("ALTER TABLE jobs DROP COLUMN key_id")
    op.execute("""
        ALTER TABLE accounts DROP COLUMN keys_version, DROP COLUMN unfinished_jobs, DROP COLUMN writes_minute,
            DROP COLUMN writes, DROP COLUMN unfinished_jobs_max, DROP COLUMN writes_per_minute,
            DROP COLUMN reads_per_second, DROP COLUMN weight
    """)


def entry_before() -> str:
    """The function as the revision before leaves it."""
    function: str = module_before().APPLY_ENTRIES
    return function.format(takes="NEW.kind IN ('DEBIT', 'REVERSAL')")
