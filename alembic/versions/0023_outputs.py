"""Outputs of jobs: where each of them is kept, until when, and that it was deleted.

The row of an output is written with the end of its job, whoever writes that, so that no result is without one. What fal
says of the output stays in the job's `result`; here is what we know of our copy.
"""

from types import ModuleType

from alembic import context, op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# A job and the place of the output in its result name the copy in the store as well.
ADD_TABLE = """
CREATE TABLE outputs (
    job_id uuid NOT NULL REFERENCES jobs,
    number integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    content_type text,
    size_bytes bigint,
    sha256 bytea,
    stored_at timestamptz,
    given_up_at timestamptz,
    deleted_at timestamptz,
    deleted_because text,
    erased_at timestamptz,
    PRIMARY KEY (job_id, number),
    CONSTRAINT outputs_number_from_zero CHECK (number >= 0),
    CONSTRAINT outputs_stored_are_described CHECK (
        num_nonnulls(stored_at, content_type, size_bytes, sha256) IN (0, 4)),
    CONSTRAINT outputs_given_up_are_not_stored CHECK (given_up_at IS NULL OR stored_at IS NULL),
    CONSTRAINT outputs_say_why_deleted CHECK ((deleted_at IS NULL) = (deleted_because IS NULL)),
    CONSTRAINT outputs_erased_are_deleted CHECK (erased_at IS NULL OR deleted_at IS NOT NULL)
);
CREATE INDEX outputs_to_copy ON outputs (job_id)
    WHERE stored_at IS NULL AND given_up_at IS NULL AND deleted_at IS NULL;
CREATE INDEX outputs_to_expire ON outputs (expires_at) WHERE deleted_at IS NULL;
CREATE INDEX outputs_to_erase ON outputs (job_id) WHERE deleted_at IS NOT NULL AND erased_at IS NULL
"""
# fal was asked to keep its own objects for longer than three days.
KEEP_OUTPUTS = r"""
CREATE FUNCTION outputs_in(job jobs) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE jsonb_typeof(delivered) WHEN 'array' THEN delivered WHEN 'object' THEN jsonb_build_array(delivered)
                                        ELSE '[]' END
      FROM (SELECT job.result -> coalesce(job.terms ->> 'outputs',
                                          CASE WHEN job.kind LIKE '%\_TO\_VIDEO' THEN 'video' ELSE 'images' END)
                   AS delivered) AS it
$$;
CREATE FUNCTION keep_outputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outputs (job_id, number, expires_at)
    SELECT NEW.id, number, now() + interval '3 days'
      FROM generate_series(0, least(jsonb_array_length(outputs_in(NEW)), 1000) - 1) AS number;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_keep_outputs AFTER UPDATE OF status ON jobs
    FOR EACH ROW WHEN (NEW.status = 'COMPLETED' AND OLD.status <> 'COMPLETED') EXECUTE FUNCTION keep_outputs();
CREATE FUNCTION note_stored_output() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_inbox (account_id, type, job_id, facts)
    SELECT account_id, 'output.stored', id, jsonb_build_object('number', NEW.number) FROM jobs WHERE id = NEW.job_id;
    RETURN NULL;
END $$;
CREATE TRIGGER outputs_note_stored AFTER UPDATE OF stored_at ON outputs
    FOR EACH ROW WHEN (OLD.stored_at IS NULL AND NEW.stored_at IS NOT NULL) EXECUTE FUNCTION note_stored_output();
CREATE FUNCTION guard_output() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.stored_at IS NOT NULL AND (NEW.stored_at, NEW.content_type, NEW.size_bytes, NEW.sha256)
       IS DISTINCT FROM (OLD.stored_at, OLD.content_type, OLD.size_bytes, OLD.sha256) THEN
        RAISE EXCEPTION 'a stored output never changes' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.expires_at < OLD.expires_at THEN
        RAISE EXCEPTION 'an output never expires earlier than was said' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.deleted_at IS NOT NULL AND (NEW.deleted_at, NEW.deleted_because, NEW.stored_at)
       IS DISTINCT FROM (OLD.deleted_at, OLD.deleted_because, OLD.stored_at) THEN
        RAISE EXCEPTION 'a deleted output stays deleted' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER outputs_guard BEFORE UPDATE ON outputs FOR EACH ROW EXECUTE FUNCTION guard_output()
"""
# A text that is a URL as a whole. A prompt that only mentions one is the customer's, and stays. In the text of a jsonb
# a value begins with a quote behind a space or a bracket, a quote inside of a text stands behind a backslash, and
# behind a key is a colon. To walk through the value takes fifty times as long, and a result may have a megabyte.
WITHOUT_URLS = r"""
CREATE FUNCTION without_urls(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT regexp_replace(value::text, '(^|(?<=[[ ]))"(https?|data):[^"\\[:space:]]+"(?!:)', 'null', 'gi')::jsonb
$$
"""
# Of few jobs. An index whose columns every update of a job changes would keep PostgreSQL from updating rows in place.
INDEX_LATE_RESULTS = "CREATE INDEX jobs_late_results ON jobs (id) WHERE late_result IS NOT NULL"
FINAL_IS = "IS DISTINCT FROM (OLD.status, OLD.result,"
FINAL_BUT_FOR_URLS = """IS DISTINCT FROM (OLD.status,
                             CASE WHEN NEW.result IS DISTINCT FROM OLD.result THEN without_urls(OLD.result)
                                  ELSE OLD.result END,"""
FUNCTIONS = ("keep_outputs()", "note_stored_output()")


def upgrade() -> None:
    run = op.get_bind().connection.dbapi_connection.run_async
    for script in (
        module("0014").LOCK_TABLES.format(others="jobs"),
        ADD_TABLE,
        WITHOUT_URLS,
        KEEP_OUTPUTS,
        # As in 0021: a process of the release before may have a role without a right on the new table.
        *(module("0014").AS_OWNER.format(function=function) for function in FUNCTIONS),
        guard_before().replace(FINAL_IS, FINAL_BUT_FOR_URLS),
        INDEX_LATE_RESULTS,
    ):
        # Past SQLAlchemy, which would prepare each script as one statement.
        run(lambda connection, script=script: connection.execute(script))


def downgrade() -> None:
    op.execute(module("0014").LOCK_TABLES.format(others="jobs"))
    op.execute(guard_before())
    op.execute("DROP TRIGGER jobs_keep_outputs ON jobs")
    op.execute("DROP TABLE outputs")
    op.execute("DROP INDEX jobs_late_results")
    for function in (*FUNCTIONS, "guard_output()", "outputs_in(jobs)", "without_urls(jsonb)"):
        op.execute(f"DROP FUNCTION {function}")


def guard_before() -> str:
    before = module("0008")
    guard: str = before.GUARD.replace("{exception}", before.TO_ANOTHER_ATTEMPT)
    assert guard.count(FINAL_IS) == 1
    return guard


def module(revision_id: str) -> ModuleType:
    found = context.script.get_revision(revision_id)
    assert found is not None
    return found.module
