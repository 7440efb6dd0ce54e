"""Whose secret it is, asked for many secrets at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from app.domain.accounts import Account, Caller
from app.infrastructure.postgres.database import DriverConnection, Fetch
from app.infrastructure.postgres.keys.rows import IS_LIVE_KEY, IS_LIVE_SECRET, KEY_COLUMNS, hidden, key_of
from app.infrastructure.postgres.statements import Statement, any_of
from app.infrastructure.postgres.tables import accounts, api_keys, keys

_FIND = Statement(
    select(
        api_keys.c.digest,
        api_keys.c.expires_at.is_not(None).label("secret_expires"),
        *KEY_COLUMNS,
        accounts.c.id,
        accounts.c.external_user_id,
        accounts.c.balance_tokens,
        accounts.c.reads_per_second,
        accounts.c.keys_version,
    )
    .join_from(api_keys, keys, keys.c.id == api_keys.c.key_id)
    .join(accounts, accounts.c.id == api_keys.c.account_id)
    .where(any_of(api_keys.c.digest, "digests"), IS_LIVE_SECRET, IS_LIVE_KEY)
)


async def find_all(
    driver: DriverConnection, digests: Sequence[bytes], *, is_repeated: bool = False
) -> Sequence[Caller | None]:
    found = await find_each(_FIND, driver.fetch, digests)
    return [None if row is None else _caller_of(row, digest) for digest, row in found]


async def find_each(
    statement: Statement, fetch: Fetch, digests: Sequence[bytes]
) -> Sequence[tuple[bytes, Mapping[str, Any] | None]]:
    """What the statement has of each of the `digests`, in their order. A secret is stored in one of two forms."""
    rows = await statement(fetch, digests=[*digests, *map(hidden, digests)])
    found = {row["digest"]: row for row in rows}
    return [(digest, found.get(digest) or found.get(hidden(digest))) for digest in digests]


def _caller_of(row: Mapping[str, Any], secret: bytes) -> Caller:
    account = Account(
        id=row["id"],
        external_user_id=row["external_user_id"],
        balance_tokens=row["balance_tokens"],
        reads_per_second=row["reads_per_second"],
    )
    return Caller(account, key_of(row, row["keys_version"], secret), secret_expires=row["secret_expires"])
