"""PgQueuer's tables, frozen as its release 1.6.0 installs them (`pgq sql install`)."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCRIPT = Path(__file__).with_name("pgqueuer_1_6_0.sql")


def upgrade() -> None:
    script = SCRIPT.read_text()
    op.get_bind().connection.dbapi_connection.run_async(lambda connection: connection.execute(script))


def downgrade() -> None:
    op.execute("DROP TABLE pgqueuer, pgqueuer_log, pgqueuer_schedules, pgqueuer_statistics")
    op.execute("DROP FUNCTION fn_pgqueuer_changed()")
    op.execute("DROP TYPE pgqueuer_status")
