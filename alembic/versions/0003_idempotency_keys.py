"""Idempotency keys: which job a caller's own name for a request led to."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE idempotency_keys (
            account_id uuid NOT NULL
                CONSTRAINT idempotency_keys_account_id_fkey REFERENCES accounts ON DELETE RESTRICT,
            key text NOT NULL,
            fingerprint bytea NOT NULL,
            -- Checked at COMMIT: the key is written before its job.
            job_id uuid NOT NULL CONSTRAINT idempotency_keys_job_id_fkey REFERENCES jobs ON DELETE RESTRICT
                DEFERRABLE INITIALLY DEFERRED,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT idempotency_keys_pkey PRIMARY KEY (account_id, key),
            CONSTRAINT idempotency_keys_key_length CHECK (length(key) BETWEEN 1 AND 255),
            CONSTRAINT idempotency_keys_fingerprint_length CHECK (octet_length(fingerprint) = 32)
        )
        """
    )
    op.execute("CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at)")


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_keys")
