"""Fair turns between accounts, and places at fal that bound how many jobs are there at once.

The turn of a job is a tag, kept with the job, and the priority of its queue item is the negative of it: PgQueuer takes
the largest first. It counts millionths of a second of virtual time, for which 32 bits last some minutes of a busy
service; with 64 there is no end to be seen, and no moment at which all tags would have to be counted anew.

What the release before accepts gets its turn by triggers, and what waits already gets one here. Its processes know no
places: what they claim is beyond the bound. A place is given up by a trigger, so that no statement forgets it, whoever
ends the job.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Jobs first, as every transaction takes them, and the library's tables in the order of its prepared statements.
LOCK = ("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE", "LOCK TABLE pgqueuer_log, pgqueuer IN ACCESS EXCLUSIVE MODE")
ADD_TO_JOBS = """
ALTER TABLE jobs ADD COLUMN fair_tag bigint, ADD COLUMN expected_seconds integer, ADD COLUMN place integer
"""
# The second table holds a priority for a moment, before the trigger drops the row.
WIDEN_PRIORITY = (
    "ALTER TABLE pgqueuer ALTER COLUMN priority TYPE bigint",
    "ALTER TABLE pgqueuer_log ALTER COLUMN priority TYPE bigint",
)
ADD_TURNS = (
    """
CREATE TABLE fair_turns (
    account_id uuid CONSTRAINT fair_turns_pkey PRIMARY KEY
        CONSTRAINT fair_turns_account_id_fkey REFERENCES accounts ON DELETE RESTRICT,
    next_tag bigint NOT NULL
) WITH (fillfactor = 50)
""",
    """
CREATE TABLE fair_clock (
    is_the_only_row boolean NOT NULL DEFAULT true CONSTRAINT fair_clock_pkey PRIMARY KEY
        CONSTRAINT fair_clock_is_one CHECK (is_the_only_row),
    virtual_time bigint NOT NULL
)
""",
    "INSERT INTO fair_clock (virtual_time) VALUES (1)",
)
ADD_PLACES = """
CREATE TABLE places (
    number integer CONSTRAINT places_pkey PRIMARY KEY,
    job_id uuid CONSTRAINT places_job_id_key UNIQUE,
    claimed_at timestamptz,
    expires_at timestamptz,
    CONSTRAINT places_are_somebodys CHECK (job_id IS NOT NULL OR (claimed_at IS NULL AND expires_at IS NULL))
) WITH (fillfactor = 20)
"""
# Nobody knows how long these take. The items alone get a turn: their jobs may be many, and would be written anew.
GIVE_TURNS = """
WITH waiting AS (
    SELECT item.id, job.account_id, row_number() OVER (PARTITION BY job.account_id ORDER BY item.id) AS turn
      FROM pgqueuer AS item JOIN jobs AS job ON item.dedupe_key = 'generation.submit:' || job.id
     WHERE item.entrypoint = 'generation.submit' AND item.status IN ('queued', 'picked')
), turned AS (
    UPDATE pgqueuer SET priority = -1 - (waiting.turn - 1) * 30000000 FROM waiting WHERE pgqueuer.id = waiting.id
)
INSERT INTO fair_turns (account_id, next_tag)
SELECT account_id, 1 + max(turn) * 30000000 FROM waiting GROUP BY account_id
"""
# The accept has locked the account.
ADD_TURN_OF_JOB = (
    """
CREATE FUNCTION take_a_turn() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now bigint;
    cost bigint;
BEGIN
    NEW.expected_seconds := CASE WHEN NEW.kind LIKE '%VIDEO' THEN 90 ELSE 15 END;
    SELECT virtual_time INTO now FROM fair_clock;
    SELECT NEW.expected_seconds * 1000000::bigint / coalesce(weight, 1) INTO cost
      FROM accounts WHERE id = NEW.account_id;
    INSERT INTO fair_turns AS turn (account_id, next_tag) VALUES (NEW.account_id, now + cost)
        ON CONFLICT (account_id) DO UPDATE SET next_tag = greatest(turn.next_tag, now) + cost
        RETURNING next_tag - cost INTO NEW.fair_tag;
    RETURN NEW;
END $$
""",
    """
CREATE TRIGGER jobs_take_a_turn BEFORE INSERT ON jobs
    FOR EACH ROW WHEN (NEW.fair_tag IS NULL) EXECUTE FUNCTION take_a_turn()
""",
)
# A tag is never 0.
ADD_TURN_OF_ITEM = (
    """
CREATE FUNCTION keep_the_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT -coalesce(
        (SELECT fair_tag FROM jobs WHERE id = encode(NEW.payload, 'hex')::uuid), (SELECT virtual_time FROM fair_clock)
    ) INTO NEW.priority;
    RETURN NEW;
END $$
""",
    """
CREATE TRIGGER pgqueuer_keeps_the_turn BEFORE INSERT ON pgqueuer
    FOR EACH ROW WHEN (NEW.entrypoint = 'generation.submit' AND NEW.priority = 0) EXECUTE FUNCTION keep_the_turn()
""",
)
ADD_LIFE_OF_PLACE = (
    """
CREATE FUNCTION keep_place() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.is_final OR NEW.status = 'QUEUED' THEN
        UPDATE places SET job_id = NULL, claimed_at = NULL, expires_at = NULL
         WHERE number = NEW.place AND job_id = NEW.id;
    ELSE
        UPDATE places
           SET claimed_at = NEW.claimed_at,
               expires_at = CASE WHEN NEW.submit_unknown_at IS NOT NULL
                                 THEN NEW.claimed_at + 2 * coalesce(NEW.expected_seconds, 60) * interval '1 second' END
         WHERE number = NEW.place AND job_id = NEW.id;
    END IF;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER jobs_keep_their_place AFTER UPDATE OF status, submit_unknown_at ON jobs
    FOR EACH ROW WHEN (
        NEW.place IS NOT NULL
        AND (NEW.is_final OR NEW.status = 'QUEUED' OR OLD.status = 'QUEUED'
             OR NEW.submit_unknown_at IS DISTINCT FROM OLD.submit_unknown_at))
    EXECUTE FUNCTION keep_place()
""",
)
# What revision 0006 says of an item: whoever hears it looks what comes next.
ADD_WORD_OF_PLACE = (
    """
CREATE FUNCTION wake_for_a_place() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('generation.submit', json_build_object(
                'channel', 'generation.submit',
                'operation', 'update',
                'sent_at', now(),
                'table', TG_TABLE_NAME,
                'type', 'table_changed_event')::text);
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER places_wake AFTER UPDATE OF job_id ON places
    FOR EACH ROW WHEN (NEW.job_id IS NULL AND OLD.job_id IS NOT NULL) EXECUTE FUNCTION wake_for_a_place()
""",
)
TRIGGERS = (
    ("jobs", "jobs_take_a_turn", "take_a_turn"),
    ("pgqueuer", "pgqueuer_keeps_the_turn", "keep_the_turn"),
    ("jobs", "jobs_keep_their_place", "keep_place"),
    ("places", "places_wake", "wake_for_a_place"),
)


def upgrade() -> None:
    for statement in (
        *LOCK,
        ADD_TO_JOBS,
        *ADD_TURNS,
        ADD_PLACES,
        *WIDEN_PRIORITY,
        GIVE_TURNS,
        *ADD_TURN_OF_JOB,
        *ADD_TURN_OF_ITEM,
        *ADD_LIFE_OF_PLACE,
        *ADD_WORD_OF_PLACE,
    ):
        op.execute(statement)


def downgrade() -> None:
    for statement in LOCK:
        op.execute(statement)
    for table, trigger, function in TRIGGERS:
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
        op.execute(f"DROP FUNCTION {function}()")
    # As before, what came first goes first.
    op.execute("ALTER TABLE pgqueuer ALTER COLUMN priority TYPE integer USING 0")
    op.execute("ALTER TABLE pgqueuer_log ALTER COLUMN priority TYPE integer USING 0")
    op.execute("ALTER TABLE jobs DROP COLUMN place, DROP COLUMN expected_seconds, DROP COLUMN fair_tag")
    op.execute("DROP TABLE places, fair_clock, fair_turns")
