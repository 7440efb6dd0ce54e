"""The operator's own entries, each once for its id."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.errors import AccountNotFound, AdjustmentConflict, BalanceLimitExceeded
from app.domain.ledger import BALANCE_TOKENS_MAX, Adjustment
from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.tables import accounts, adjustments


class PostgresAdjustments:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def adjust(self, adjustment: Adjustment) -> int:
        async with transaction(self._engine, "adjust") as connection:
            account_id, balance_tokens = await _locked_account(connection, adjustment)
            row = _row_of(adjustment, account_id)
            known = await _known(connection, adjustment)
            if known is None:
                balance_tokens += adjustment.amount
                if abs(balance_tokens) > BALANCE_TOKENS_MAX:
                    raise BalanceLimitExceeded
                # If another transaction is just writing the same id for another account, this waits for its commit.
                added = upsert(adjustments).values(row).on_conflict_do_nothing().returning(adjustments.c.id)
                if await connection.scalar(added) is None:
                    raise AdjustmentConflict
            elif known != row:
                raise AdjustmentConflict
        return balance_tokens


async def _locked_account(connection: AsyncConnection, adjustment: Adjustment) -> tuple[Any, int]:
    """Its id and its balance. Raises AccountNotFound."""
    found = await connection.execute(
        select(accounts.c.id, accounts.c.balance_tokens)
        .where(accounts.c.external_user_id == adjustment.external_user_id)
        .with_for_update(key_share=True)
    )
    row = found.one_or_none()
    if row is None:
        raise AccountNotFound
    return row.id, row.balance_tokens


async def _known(connection: AsyncConnection, adjustment: Adjustment) -> Mapping[str, Any] | None:
    columns = [column for column in adjustments.c if column is not adjustments.c.created_at]
    found = await connection.execute(select(*columns).where(adjustments.c.id == adjustment.id))
    row = found.mappings().one_or_none()
    return None if row is None else dict(row)


def _row_of(adjustment: Adjustment, account_id: Any) -> Mapping[str, Any]:
    return {
        "id": adjustment.id,
        "account_id": account_id,
        "amount": adjustment.amount,
        "reason": adjustment.reason,
        "actor": adjustment.actor,
    }
