"""A process that remembers a caller is told of all that it remembers.

Whoever was looked up some seconds ago is only looked up again if `keys_version` says so. That a secret is deleted,
which no release does, and that an account may read less or more, counts as well from here on.
"""

from alembic import context, op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

COUNT_CHANGE = """
CREATE OR REPLACE FUNCTION count_change_of_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET keys_version = keys_version + 1 WHERE id = {account};
    RETURN NULL;
END $$
"""
CHANGES = (
    "DROP TRIGGER api_keys_change ON api_keys",
    """
CREATE TRIGGER api_keys_change AFTER UPDATE OR DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION count_change_of_keys()
""",
    """
CREATE FUNCTION count_change_of_reads() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.keys_version := OLD.keys_version + 1;
    RETURN NEW;
END $$
""",
    """
CREATE TRIGGER accounts_change_of_reads BEFORE UPDATE OF reads_per_second ON accounts
    FOR EACH ROW EXECUTE FUNCTION count_change_of_reads()
""",
)
NO_CHANGES = (
    "DROP TRIGGER accounts_change_of_reads ON accounts",
    "DROP FUNCTION count_change_of_reads()",
    "DROP TRIGGER api_keys_change ON api_keys",
    """
CREATE TRIGGER api_keys_change AFTER UPDATE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION count_change_of_keys()
""",
)


def upgrade() -> None:
    execute(COUNT_CHANGE.format(account="coalesce(NEW.account_id, OLD.account_id)"), *CHANGES)


def downgrade() -> None:
    execute(*NO_CHANGES, COUNT_CHANGE.format(account="NEW.account_id"))


def execute(*statements: str) -> None:
    found = context.script.get_revision("0014")
    assert found is not None
    for statement in (found.module.LOCK_TABLES.format(others="api_keys"), *statements):
        op.execute(statement)
