"""The terms on which a job was accepted, line by line, and what of its lines was given back.

Both columns are null in the rows that are there and in those that the release before goes on writing. It also settles
jobs that have terms, without saying which lines it gives back. A kind is known by whoever carries the job out.

Triggers hold the sums, and not CHECKs, which each update of a job would compute again: the terms are checked once, when
they are written, and never change; the lines that go back are checked by the one update that writes them.
"""

from alembic import context, op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# No row is rewritten: both columns are null without a default.
ADD_COLUMNS = """
ALTER TABLE jobs ADD COLUMN terms jsonb, ADD COLUMN refunded_lines jsonb, DROP CONSTRAINT jobs_kind_known
"""
ADD_FUNCTION_OF_TERMS = """
CREATE FUNCTION check_terms() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_sound boolean;
BEGIN
    SELECT sum((line ->> 'tokens')::bigint) = NEW.cost_tokens AND min((line ->> 'tokens')::bigint) >= 0
      INTO is_sound FROM jsonb_array_elements(NEW.terms -> 'lines') AS line;
    IF is_sound IS NOT TRUE OR NEW.refunded_lines IS NOT NULL THEN
        RAISE EXCEPTION 'the lines of a job come to its cost' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$
"""
# A line that the terms do not have gives nothing back. A job without terms has no lines to compare with.
ADD_FUNCTION_OF_REFUNDED_LINES = """
CREATE FUNCTION check_refunded_lines() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_sound boolean;
BEGIN
    SELECT sum(back.value::bigint) = NEW.refunded_tokens AND min(back.value::bigint) > 0
           AND (NEW.terms IS NULL OR bool_and(coalesce(back.value::bigint <= (line ->> 'tokens')::bigint, false)))
      INTO is_sound
      FROM jsonb_each_text(NEW.refunded_lines) AS back
      LEFT JOIN jsonb_array_elements(NEW.terms -> 'lines') AS line ON line ->> 'line' = back.key;
    IF OLD.is_final OR NEW.status <> 'COMPLETED' OR is_sound IS NOT TRUE THEN
        RAISE EXCEPTION 'the lines that a job gives back come to its refund' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$
"""
ADD_TRIGGERS = (
    """
CREATE TRIGGER jobs_terms_come_to_the_cost BEFORE INSERT ON jobs
    FOR EACH ROW WHEN (NEW.terms IS NOT NULL OR NEW.refunded_lines IS NOT NULL) EXECUTE FUNCTION check_terms()
""",
    # By the columns that an update names: all others cost nothing.
    """
CREATE TRIGGER jobs_keep_their_terms BEFORE UPDATE OF terms ON jobs
    FOR EACH ROW WHEN (NEW.terms IS DISTINCT FROM OLD.terms) EXECUTE FUNCTION refuse_change()
""",
    """
CREATE TRIGGER jobs_refunded_lines_come_to_the_refund BEFORE UPDATE OF refunded_lines ON jobs
    FOR EACH ROW WHEN (NEW.refunded_lines IS DISTINCT FROM OLD.refunded_lines) EXECUTE FUNCTION check_refunded_lines()
""",
)
# Whatever went past the triggers is found by whoever verifies the books.
VIOLATIONS_OF_LINES = """
UNION ALL SELECT 'the lines of a job come to its cost', id::text FROM jobs
 WHERE terms IS NOT NULL AND cost_tokens IS DISTINCT FROM (
    SELECT sum((line ->> 'tokens')::numeric) FROM jsonb_array_elements(terms -> 'lines') AS line)
UNION ALL SELECT 'the lines that a job gives back come to its refund', id::text FROM jobs
 WHERE refunded_lines IS NOT NULL AND refunded_tokens IS DISTINCT FROM (
    SELECT sum(value::numeric) FROM jsonb_each_text(refunded_lines))
"""
# Earlier attempts whose run nobody knows of may be what a search in fal's history finds. There are few: an attempt that
# fal accepted is none. The update that tells of an attempt writes its indexes anew anyway.
ADD_INDEX = """
CREATE INDEX attempts_without_request ON attempts (claimed_at)
    WHERE fal_request_id IS NULL AND outcome IN ('not_queued', 'unknown')
"""


def upgrade() -> None:
    for statement in (
        ADD_COLUMNS,
        ADD_FUNCTION_OF_TERMS,
        ADD_FUNCTION_OF_REFUNDED_LINES,
        *ADD_TRIGGERS,
        ADD_INDEX,
        # The view stays the same object, so that whoever may read it still may.
        f"{violations_of_entries()} {VIOLATIONS_OF_LINES}",
    ):
        op.execute(statement)


def violations_of_entries() -> str:
    """The view as revision 0001 made it, to take the place of the one that is there."""
    revision = context.script.get_revision("0001")
    assert revision is not None
    made: str = revision.module.VIOLATIONS
    return made.replace("CREATE VIEW", "CREATE OR REPLACE VIEW").rstrip().rstrip(";")


# No release before could show what such a job cost, nor refund what of it is not delivered.
KEEP_TERMS = """
DO $$ BEGIN
    LOCK TABLE jobs;
    IF EXISTS (SELECT FROM jobs WHERE terms IS NOT NULL OR refunded_lines IS NOT NULL) THEN
        RAISE EXCEPTION 'jobs have terms, which a downgrade would lose'
            USING HINT = 'The releases before work with this schema as it is: leave it, and start them.';
    END IF;
END $$
"""


def downgrade() -> None:
    op.execute(KEEP_TERMS)
    op.execute(violations_of_entries())
    op.execute("DROP INDEX attempts_without_request")
    for trigger in ("jobs_refunded_lines_come_to_the_refund", "jobs_keep_their_terms", "jobs_terms_come_to_the_cost"):
        op.execute(f"DROP TRIGGER {trigger} ON jobs")
    op.execute("DROP FUNCTION check_refunded_lines()")
    op.execute("DROP FUNCTION check_terms()")
    op.execute("""
        ALTER TABLE jobs DROP COLUMN refunded_lines, DROP COLUMN terms, ADD CONSTRAINT jobs_kind_known CHECK (
            kind IN ('TEXT_TO_IMAGE', 'IMAGE_TO_IMAGE', 'TEXT_TO_VIDEO', 'IMAGE_TO_VIDEO'))
    """)
