"""One index for the entries of a job, which the check of a refund's foreign key can use, too.

That check asks for a job's entries of any kind, each time that `jobs.refunded_tokens` changes. The partial indexes
could not serve it, and every refund read all the entries of its account.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE UNIQUE INDEX ledger_entries_one_of_a_kind_per_job ON ledger_entries (job_id, kind)"
        " WHERE job_id IS NOT NULL"
    )
    op.execute("DROP INDEX ledger_entries_one_debit_per_job, ledger_entries_one_refund_per_job")


def downgrade() -> None:
    op.execute("CREATE UNIQUE INDEX ledger_entries_one_debit_per_job ON ledger_entries (job_id) WHERE kind = 'DEBIT'")
    op.execute("CREATE UNIQUE INDEX ledger_entries_one_refund_per_job ON ledger_entries (job_id) WHERE kind = 'REFUND'")
    op.execute("DROP INDEX ledger_entries_one_of_a_kind_per_job")
