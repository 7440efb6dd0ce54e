"""A job that fal seemed to refuse and ran all the same: its signed event takes it from QUEUED to SUBMITTED."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

GUARD = """
CREATE OR REPLACE FUNCTION guard_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.account_id, NEW.kind, NEW.model_id, NEW.cost_tokens, NEW.created_at)
       IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.kind, OLD.model_id, OLD.cost_tokens, OLD.created_at) THEN
        RAISE EXCEPTION 'what a job is and costs never changes' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.fal_request_id IS NOT NULL AND NEW.fal_request_id IS DISTINCT FROM OLD.fal_request_id THEN
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
            WHEN 'QUEUED' THEN NEW.status IN ({after_queued})
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


def upgrade() -> None:
    op.execute(GUARD.replace("{after_queued}", "'SUBMITTING', 'SUBMITTED', 'FAILED', 'CANCELED'"))


def downgrade() -> None:
    op.execute(GUARD.replace("{after_queued}", "'SUBMITTING', 'FAILED', 'CANCELED'"))
