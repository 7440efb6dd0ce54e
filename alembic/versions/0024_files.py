"""Files: inputs of jobs that are kept outside of the jobs' rows.

An account's files count against what it may keep; the sum stands in its row, so that it is right under the same lock
as everything else that the account may use up.
"""

from types import ModuleType

from alembic import context, op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

ADD_COLUMNS = """
ALTER TABLE accounts
    ADD COLUMN files_bytes bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT accounts_files_bytes_from_zero CHECK (files_bytes >= 0) NOT VALID;
ALTER TABLE jobs ADD COLUMN file_ids uuid[]
"""
# An output that is used again has a row of its own here, and no bytes: those stay the output's.
ADD_TABLE = """
CREATE TABLE files (
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES accounts ON DELETE RESTRICT,
    origin text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    content_type text,
    size_bytes bigint,
    width integer,
    height integer,
    duration_seconds double precision,
    sha256 bytea,
    job_id uuid,
    output_job_id uuid,
    output_number integer,
    stored_at timestamptz,
    deleted_at timestamptz,
    deleted_because text,
    erased_at timestamptz,
    sent_url text,
    sent_until timestamptz,
    handed_over_until timestamptz,
    CONSTRAINT files_of_outputs FOREIGN KEY (output_job_id, output_number) REFERENCES outputs,
    CONSTRAINT files_name_their_output CHECK (
        CASE origin WHEN 'output' THEN num_nulls(output_job_id, output_number) = 0
                    ELSE num_nonnulls(output_job_id, output_number) = 0 END),
    CONSTRAINT files_are_described CHECK (
        origin = 'output' OR num_nulls(content_type, size_bytes, sha256) = 0 AND size_bytes > 0),
    CONSTRAINT files_of_data_name_their_job CHECK ((origin = 'data') = (job_id IS NOT NULL)),
    CONSTRAINT files_say_why_deleted CHECK ((deleted_at IS NULL) = (deleted_because IS NULL)),
    CONSTRAINT files_erased_are_deleted CHECK (erased_at IS NULL OR deleted_at IS NOT NULL),
    CONSTRAINT files_say_how_long_sent CHECK ((sent_url IS NULL) = (sent_until IS NULL)),
    CONSTRAINT files_deleted_are_not_sent CHECK (deleted_at IS NULL OR sent_url IS NULL)
);
CREATE UNIQUE INDEX files_one_for_each_output ON files (output_job_id, output_number) WHERE origin = 'output';
CREATE INDEX files_of_an_account ON files (account_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL AND origin <> 'output';
CREATE INDEX files_to_expire ON files (expires_at) WHERE deleted_at IS NULL;
CREATE INDEX files_to_erase ON files (id) WHERE deleted_at IS NOT NULL AND erased_at IS NULL;
CREATE INDEX files_to_forget ON files (erased_at) WHERE erased_at IS NOT NULL
"""
COUNT_FILES = """
CREATE FUNCTION count_file() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts
       SET files_bytes = files_bytes + CASE TG_OP WHEN 'INSERT' THEN NEW.size_bytes ELSE -NEW.size_bytes END
     WHERE id = NEW.account_id;
    RETURN NULL;
END $$;
CREATE TRIGGER files_count_new AFTER INSERT ON files
    FOR EACH ROW WHEN (NEW.origin <> 'output' AND NEW.deleted_at IS NULL) EXECUTE FUNCTION count_file();
CREATE TRIGGER files_count_deleted AFTER UPDATE OF deleted_at ON files
    FOR EACH ROW WHEN (NEW.origin <> 'output' AND OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL)
    EXECUTE FUNCTION count_file();
CREATE FUNCTION guard_file() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.account_id, NEW.origin, NEW.size_bytes, NEW.job_id, NEW.output_job_id, NEW.output_number)
       IS DISTINCT FROM
       (OLD.id, OLD.account_id, OLD.origin, OLD.size_bytes, OLD.job_id, OLD.output_job_id, OLD.output_number)
       OR OLD.sha256 IS NOT NULL AND (NEW.content_type, NEW.sha256) IS DISTINCT FROM (OLD.content_type, OLD.sha256) THEN
        RAISE EXCEPTION 'a file never changes' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.deleted_at IS NOT NULL AND (NEW.deleted_at, NEW.deleted_because, NEW.stored_at)
       IS DISTINCT FROM (OLD.deleted_at, OLD.deleted_because, OLD.stored_at) THEN
        RAISE EXCEPTION 'a deleted file stays deleted' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER files_guard BEFORE UPDATE ON files FOR EACH ROW EXECUTE FUNCTION guard_file();
CREATE FUNCTION forget_output_in_use() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE files
       SET deleted_at = NEW.deleted_at, deleted_because = NEW.deleted_because, erased_at = NEW.deleted_at,
           sent_url = NULL, sent_until = NULL
     WHERE origin = 'output' AND output_job_id = NEW.job_id AND output_number = NEW.number AND deleted_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER outputs_forget_in_use AFTER UPDATE OF deleted_at ON outputs
    FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION forget_output_in_use();
CREATE TRIGGER files_stay BEFORE DELETE ON files
    FOR EACH ROW WHEN (OLD.erased_at IS NULL OR OLD.erased_at > now() - interval '30 days')
    EXECUTE FUNCTION refuse_change()
"""

# The release before would leave them alone for ever.
REFUSE_UNFINISHED = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM jobs WHERE NOT is_final AND file_ids IS NOT NULL) THEN
        RAISE EXCEPTION 'unfinished jobs name files: wait for their end, or cancel them';
    END IF;
END $$
"""


def upgrade() -> None:
    run = op.get_bind().connection.dbapi_connection.run_async
    for script in (
        module("0014").LOCK_TABLES.format(others="jobs, outputs"),
        ADD_COLUMNS,
        ADD_TABLE,
        COUNT_FILES,
        # As in 0021: a process of the release before, which deletes outputs, may have a role without a right on the new
        # table.
        module("0014").AS_OWNER.format(function="forget_output_in_use()"),
    ):
        # Past SQLAlchemy, which would prepare each script as one statement.
        run(lambda connection, script=script: connection.execute(script))


def downgrade() -> None:
    op.execute(module("0014").LOCK_TABLES.format(others="jobs, outputs"))
    op.execute(REFUSE_UNFINISHED)
    op.execute("DROP TRIGGER outputs_forget_in_use ON outputs")
    op.execute("DROP TABLE files")
    for function in ("count_file()", "guard_file()", "forget_output_in_use()"):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("ALTER TABLE jobs DROP COLUMN file_ids")
    op.execute("ALTER TABLE accounts DROP COLUMN files_bytes")


def module(revision_id: str) -> ModuleType:
    found = context.script.get_revision(revision_id)
    assert found is not None
    return found.module
