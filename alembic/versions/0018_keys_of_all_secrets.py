"""Every secret belongs to a key: those that were there before revision 0015 become the first keys of their accounts.

`fill_slice` does that for some accounts at a time, each time in a transaction of its own, so that nobody waits for all
of them. It passes over accounts that others have locked, so that it waits for nobody while it holds locks. These few
are left to the revision itself, and a lock of the table that it holds for a moment. Where revision 0015 still did all
this by itself, nothing is left at all.
"""

from uuid import UUID

from alembic import op
from sqlalchemy import Connection, text

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# Accepts and changes of keys of these accounts wait for so many at most.
ACCOUNTS_OF_A_SLICE = 500
FIND_ACCOUNTS = """
SELECT DISTINCT account_id FROM api_keys WHERE key_id IS NULL AND account_id > :after
 ORDER BY account_id LIMIT CAST(:accounts_max AS bigint)
"""
# Whoever changes the keys of an account has locked it before.
LOCK_ACCOUNTS = "SELECT id FROM accounts WHERE id = ANY(:accounts) ORDER BY id FOR NO KEY UPDATE"
# The release before may have issued a secret since revision 0015, and the account has its first key by that.
ADOPT_SECRETS = (
    """
INSERT INTO keys (id, account_id, name, scopes, is_first, created_at, deleted_at)
SELECT gen_random_uuid(), account_id, 'First key', ARRAY['generate', 'read', 'manage'], true, min(created_at),
       CASE WHEN bool_and(revoked_at IS NOT NULL) THEN max(revoked_at) END
  FROM api_keys WHERE account_id = ANY(:accounts) GROUP BY account_id HAVING count(key_id) = 0
""",
    """
UPDATE keys SET created_at = oldest.created_at
  FROM (SELECT account_id, min(created_at) AS created_at FROM api_keys
         WHERE account_id = ANY(:accounts) GROUP BY account_id) AS oldest
 WHERE keys.account_id = oldest.account_id AND keys.is_first AND keys.created_at > oldest.created_at
""",
    """
UPDATE api_keys SET key_id = keys.id FROM keys
 WHERE keys.account_id = api_keys.account_id AND keys.is_first
   AND api_keys.account_id = ANY(:accounts) AND api_keys.key_id IS NULL
""",
)
# Readers go on meanwhile.
ADD_INDEXES = (
    """
CREATE INDEX IF NOT EXISTS api_keys_not_revoked ON api_keys (key_id, created_at) WHERE revoked_at IS NULL
""",
    "CREATE INDEX IF NOT EXISTS api_keys_of_an_account ON api_keys (account_id, created_at)",
)


def fill_slice(connection: Connection, after: UUID) -> UUID | None:
    """For the next accounts by id. Returns the last one of them, or None after all."""
    accounts = find_accounts(connection, after, ACCOUNTS_OF_A_SLICE)
    if accounts:
        # Others may have locked all of these, and none of the next ones.
        adopt_secrets(connection, accounts, is_patient=False)
        return accounts[-1]
    for statement in ADD_INDEXES:
        connection.execute(text(statement))
    return None


def find_accounts(connection: Connection, after: UUID, accounts_max: int | None) -> list[UUID]:
    """Those with secrets without a key, by id."""
    return list(connection.scalars(text(FIND_ACCOUNTS), {"after": after, "accounts_max": accounts_max}))


def adopt_secrets(connection: Connection, accounts: list[UUID], *, is_patient: bool) -> None:
    """The accounts stay locked until the end of the transaction."""
    query = text(LOCK_ACCOUNTS if is_patient else f"{LOCK_ACCOUNTS} SKIP LOCKED")
    locked = list(connection.scalars(query, {"accounts": accounts}))
    # Each statement sees what was committed before the locks were there.
    for statement in ADOPT_SECRETS if locked else ():
        connection.execute(text(statement), {"accounts": locked})


def upgrade() -> None:
    connection = op.get_bind()
    adopt_secrets(connection, find_accounts(connection, UUID(int=0), None), is_patient=True)
    for statement in (
        # All at once: whoever has read the table, and writes to it next, would wait in a circle with us.
        "LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE",
        *ADD_INDEXES,
        "ALTER TABLE api_keys ALTER COLUMN key_id SET NOT NULL",
        "DROP INDEX IF EXISTS api_keys_account_id",
    ):
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE api_keys ALTER COLUMN key_id DROP NOT NULL")
    op.execute("CREATE INDEX api_keys_account_id ON api_keys (account_id)")
    op.execute("DROP INDEX api_keys_of_an_account")
    op.execute("DROP INDEX api_keys_not_revoked")
