"""An index for the keys of an account, live or not: whether there ever was one is asked before the first is issued."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX api_keys_account_id ON api_keys (account_id)")


def downgrade() -> None:
    op.execute("DROP INDEX api_keys_account_id")
