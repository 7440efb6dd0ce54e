"""Which database this is, so that a restored backup is noticed, and which of its jobs wait for the operator's word.

`installation` has no row until a process of this release has started on the database.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN held_at timestamptz")
    op.execute("""
        CREATE TABLE installation (
            is_the_only_row boolean CONSTRAINT installation_pkey PRIMARY KEY DEFAULT true,
            identity text NOT NULL,
            noticed_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT installation_is_one CHECK (is_the_only_row))
    """)


def downgrade() -> None:
    op.execute("DROP TABLE installation")
    op.execute("ALTER TABLE jobs DROP COLUMN held_at")
