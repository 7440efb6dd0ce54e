"""Why a job waits, since when it does so because of fal, how many stand before it there, and how long runs take.

NULL is what the release before goes on writing. A QUEUED job without a reason waits for its turn.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# No words are checked: a newer release may have more of them. Nothing is rewritten, and the lock is held for a moment.
ADD_TO_JOBS = """
ALTER TABLE jobs
    ADD COLUMN waiting_for text,
    ADD COLUMN provider_waiting_since timestamptz,
    ADD COLUMN provider_position integer
"""
# The newest first. Written anew every few seconds at most.
ADD_PACES = """
CREATE TABLE model_paces (
    model_id text CONSTRAINT model_paces_pkey PRIMARY KEY,
    seconds real[] NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50)
"""


def upgrade() -> None:
    op.execute(ADD_TO_JOBS)
    op.execute(ADD_PACES)


def downgrade() -> None:
    op.execute("DROP TABLE model_paces")
    op.execute(
        "ALTER TABLE jobs DROP COLUMN provider_position, DROP COLUMN provider_waiting_since, DROP COLUMN waiting_for"
    )
