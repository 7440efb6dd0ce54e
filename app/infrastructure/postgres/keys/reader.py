"""Keys as their account sees them, with what their budgets have seen."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.accounts import Scope
from app.domain.budgets import Budget, Period, Spending
from app.domain.key_errors import KeyNotFound
from app.domain.keys import KeyRecord, KeySettings
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.keys.rows import IS_LIVE_KEY
from app.infrastructure.postgres.tables import api_keys, key_windows, keys

_HINT = (
    select(api_keys.c.hint)
    .where(api_keys.c.key_id == keys.c.id, api_keys.c.revoked_at.is_(None))
    .order_by(api_keys.c.created_at.desc())
    .limit(1)
    .scalar_subquery()
)
_SETTINGS = (keys.c.name, keys.c.scopes, keys.c.expires_at, keys.c.budget_tokens, keys.c.budget_per)
_RECORDS = select(
    keys.c.id, _HINT.label("hint"), *_SETTINGS, keys.c.created_at, keys.c.last_used_at, func.now().label("now")
).where(IS_LIVE_KEY)
_WINDOWS = select(
    key_windows.c.key_id, key_windows.c.starts_at, key_windows.c.ends_at, key_windows.c.spent_tokens
).where(key_windows.c.ends_at > func.now())


class PostgresKeyReader:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def live(self, account_id: UUID) -> Sequence[KeyRecord]:
        async with reading(self.engine) as connection:
            query = _RECORDS.where(keys.c.account_id == account_id).order_by(keys.c.created_at, keys.c.id)
            return await _records(connection, query)

    async def get(self, account_id: UUID, key_id: UUID) -> KeyRecord:
        async with reading(self.engine) as connection:
            return await key_record(connection, account_id, key_id)


async def key_record(connection: AsyncConnection, account_id: UUID, key_id: UUID) -> KeyRecord:
    """Raises KeyNotFound."""
    found = await _records(connection, _RECORDS.where(keys.c.id == key_id, keys.c.account_id == account_id))
    if not found:
        raise KeyNotFound
    return found[0]


async def key_settings(connection: AsyncConnection, account_id: UUID, key_id: UUID) -> KeySettings:
    """Raises KeyNotFound."""
    query = select(*_SETTINGS).where(keys.c.id == key_id, keys.c.account_id == account_id, IS_LIVE_KEY)
    found = (await connection.execute(query)).all()
    if not found:
        raise KeyNotFound
    return _settings_of(found[0])


async def _records(connection: AsyncConnection, query: Select[Any]) -> Sequence[KeyRecord]:
    rows = (await connection.execute(query)).all()
    budgeted = [row.id for row in rows if row.budget_tokens is not None]
    windows = await connection.execute(_WINDOWS.where(key_windows.c.key_id.in_(budgeted))) if budgeted else ()
    spent = {(row.key_id, row.starts_at, row.ends_at): row.spent_tokens for row in windows}
    return [_record_of(row, spent) for row in rows]


def _record_of(row: Row[Any], spent_tokens: dict[tuple[UUID, datetime, datetime], int]) -> KeyRecord:
    settings = _settings_of(row)
    spending = None
    if settings.budget is not None:
        window = settings.budget.window(row.now)
        # There is no row of a window in which nothing was asked for yet.
        spent = spent_tokens.get((row.id, window.starts_at, window.ends_at), 0)
        spending = Spending(settings.budget, spent, settings.budget.renews_at(row.now))
    return KeyRecord(
        id=row.id,
        hint=row.hint or "",
        settings=settings,
        spending=spending,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
    )


def _settings_of(row: Any) -> KeySettings:
    budget = None if row.budget_tokens is None else Budget(row.budget_tokens, Period(row.budget_per))
    return KeySettings(
        name=row.name,
        # A scope that only a newer release knows allows nothing here.
        scopes=frozenset(scope for scope in Scope if scope in row.scopes),
        expires_at=row.expires_at,
        budget=budget,
    )
