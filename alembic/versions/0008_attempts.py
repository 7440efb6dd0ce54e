"""Attempts as rows of their own: an event of any attempt finds its job, and a second run is known and can be stopped.

A claim writes the row. The release before, which goes on beside this one, writes none: a trigger on `jobs` keeps what
it would overwrite. Only unfinished jobs get rows here: that is quick however many jobs there are, and of the others
nothing is asked but what `jobs.attempt_token` tells.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ATTEMPTS = """
-- Also against those who have locked a job and change it afterwards: they and the foreign key would wait in a circle.
LOCK TABLE jobs IN EXCLUSIVE MODE;

CREATE TABLE attempts (
    token uuid CONSTRAINT attempts_pkey PRIMARY KEY,
    job_id uuid NOT NULL CONSTRAINT attempts_job_id_fkey REFERENCES jobs ON DELETE RESTRICT,
    number integer NOT NULL,
    claimed_at timestamptz NOT NULL,
    outcome text,
    outcome_at timestamptz,
    reason text,
    input_digest bytea,
    fal_request_id text,
    adopted_at timestamptz,
    billed_units numeric,
    orphaned_at timestamptz,
    cancel_sent_at timestamptz,
    closed_at timestamptz,
    CONSTRAINT attempts_job_number_key UNIQUE (job_id, number),
    CONSTRAINT attempts_number_positive CHECK (number > 0),
    CONSTRAINT attempts_outcome_known CHECK (outcome IN ('accepted', 'not_queued', 'refused', 'unknown')),
    CONSTRAINT attempts_outcome_has_its_time CHECK ((outcome IS NULL) = (outcome_at IS NULL)),
    CONSTRAINT attempts_accepted_has_a_request CHECK (outcome <> 'accepted' OR fal_request_id IS NOT NULL),
    CONSTRAINT attempts_input_digest_length CHECK (octet_length(input_digest) = 32),
    CONSTRAINT attempts_billed_units_not_negative CHECK (billed_units >= 0),
    CONSTRAINT attempts_orphan_has_a_request CHECK (orphaned_at IS NULL OR fal_request_id IS NOT NULL),
    CONSTRAINT attempts_only_orphans_are_closed CHECK (closed_at IS NULL OR orphaned_at IS NOT NULL)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX attempts_fal_request_id_key ON attempts (fal_request_id) WHERE fal_request_id IS NOT NULL;
CREATE INDEX attempts_orphans ON attempts (orphaned_at) WHERE orphaned_at IS NOT NULL;

CREATE TRIGGER attempts_no_delete BEFORE DELETE ON attempts FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- What an attempt is stays, and so does its request, once it is known.
CREATE TRIGGER attempts_stay BEFORE UPDATE ON attempts FOR EACH ROW
    WHEN ((NEW.token, NEW.job_id, NEW.number, NEW.claimed_at)
              IS DISTINCT FROM (OLD.token, OLD.job_id, OLD.number, OLD.claimed_at)
          OR (OLD.fal_request_id IS NOT NULL AND NEW.fal_request_id IS DISTINCT FROM OLD.fal_request_id))
    EXECUTE FUNCTION refuse_change();

-- Where a job turns from one attempt to another, the first one keeps its row and its request: an older release wrote
-- both into the job alone.
CREATE FUNCTION keep_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO attempts (token, job_id, number, claimed_at, fal_request_id)
    VALUES (OLD.attempt_token, OLD.id, OLD.attempts, OLD.claimed_at, OLD.fal_request_id)
    ON CONFLICT (token) DO UPDATE SET fal_request_id = EXCLUDED.fal_request_id
     WHERE attempts.fal_request_id IS NULL AND EXCLUDED.fal_request_id IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_keep_attempts AFTER UPDATE OF attempt_token ON jobs FOR EACH ROW
    WHEN (OLD.attempt_token IS NOT NULL AND NEW.attempt_token IS DISTINCT FROM OLD.attempt_token)
    EXECUTE FUNCTION keep_attempt();

INSERT INTO attempts (token, job_id, number, claimed_at, outcome, outcome_at, fal_request_id)
SELECT attempt_token, id, attempts, claimed_at,
       CASE WHEN fal_request_id IS NOT NULL THEN 'accepted' WHEN submit_unknown_at IS NOT NULL THEN 'unknown' END,
       CASE WHEN fal_request_id IS NOT NULL THEN claimed_at ELSE submit_unknown_at END,
       fal_request_id
  FROM jobs WHERE NOT is_final AND attempt_token IS NOT NULL;
"""

GUARD = """
CREATE OR REPLACE FUNCTION guard_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.account_id, NEW.kind, NEW.model_id, NEW.cost_tokens, NEW.created_at)
       IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.kind, OLD.model_id, OLD.cost_tokens, OLD.created_at) THEN
        RAISE EXCEPTION 'what a job is and costs never changes' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.fal_request_id IS NOT NULL AND NEW.fal_request_id IS DISTINCT FROM OLD.fal_request_id{exception} THEN
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
            WHEN 'QUEUED' THEN NEW.status IN ('SUBMITTING', 'SUBMITTED', 'FAILED', 'CANCELED')
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
"""
# The one exception: another attempt of the same job delivered first, and the job takes that one's request.
TO_ANOTHER_ATTEMPT = """
       AND (OLD.is_final OR NOT EXISTS (SELECT FROM attempts WHERE token = NEW.attempt_token AND job_id = NEW.id
                                        AND fal_request_id = NEW.fal_request_id))"""


def upgrade() -> None:
    run = op.get_bind().connection.dbapi_connection.run_async
    run(lambda connection: connection.execute(ATTEMPTS))
    op.execute(GUARD.replace("{exception}", TO_ANOTHER_ATTEMPT))


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_keep_attempts ON jobs")
    op.execute(GUARD.replace("{exception}", ""))
    op.execute("DROP TABLE attempts")
    op.execute("DROP FUNCTION keep_attempt()")
