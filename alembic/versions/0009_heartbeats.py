"""Heartbeats: what each process has to do again and again, and when it last did. And a queue that is vacuumed in time.

By the server's defaults a queue in which many items wait is vacuumed after as many dead rows as a fifth of those.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

HEARTBEATS = """
CREATE TABLE heartbeats (
    process_id uuid NOT NULL,
    duty text NOT NULL,
    command text NOT NULL,
    host text NOT NULL,
    beaten_at timestamptz NOT NULL,
    CONSTRAINT heartbeats_pkey PRIMARY KEY (process_id, duty)
) WITH (fillfactor = 50)
"""
OFTEN_VACUUMED = {
    "autovacuum_vacuum_scale_factor": "0.0",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_vacuum_cost_delay": "0",
    "autovacuum_analyze_scale_factor": "0.0",
    "autovacuum_analyze_threshold": "2000",
}


def upgrade() -> None:
    op.execute(HEARTBEATS)
    op.execute(f"ALTER TABLE pgqueuer SET ({', '.join(f'{name} = {value}' for name, value in OFTEN_VACUUMED.items())})")


def downgrade() -> None:
    op.execute(f"ALTER TABLE pgqueuer RESET ({', '.join(OFTEN_VACUUMED)})")
    op.execute("DROP TABLE heartbeats")
