"""The secret of an account, by which the webhooks are signed that its jobs name for themselves."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.budgets import NO_LIMITS, AccountLimits
from app.domain.webhook_signatures import new_secret
from app.domain.webhooks import WebhookSecret
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.keys.repeating import until_known
from app.infrastructure.postgres.tables import webhook_secrets
from app.infrastructure.postgres.webhooks.endpoints import rotated
from app.infrastructure.postgres.writes import count_write

_S = webhook_secrets.c


class PostgresWebhookSecrets:
    def __init__(self, engine: AsyncEngine, limits: AccountLimits = NO_LIMITS) -> None:
        """`limits` are those of accounts that have none of their own."""
        self.engine = engine
        self._limits = limits

    async def get(self, account_id: UUID) -> WebhookSecret:
        async with reading(self.engine) as connection:
            await make_missing(connection, [account_id])
            return await _secret_of(connection, account_id)

    async def rotate(self, account_id: UUID, secret: str, *, overlap_seconds: int) -> WebhookSecret:
        return await until_known(partial(self._rotate, account_id, secret, overlap_seconds))

    async def _rotate(self, account_id: UUID, secret: str, overlap_seconds: int) -> WebhookSecret:
        async with transaction(self.engine, "rotate_webhook_secret") as connection:
            await count_write(connection, account_id, self._limits)
            await make_missing(connection, [account_id])
            values = rotated(_S, secret, overlap_seconds)
            await connection.execute(update(webhook_secrets).values(values).where(_S.account_id == account_id))
            return await _secret_of(connection, account_id)


async def make_missing(connection: AsyncConnection, account_ids: Collection[UUID]) -> None:
    rows: Sequence[Mapping[str, object]] = [
        {"account_id": account_id, "secret": new_secret()} for account_id in sorted(account_ids)
    ]
    await connection.execute(insert(webhook_secrets).values(rows).on_conflict_do_nothing())


async def _secret_of(connection: AsyncConnection, account_id: UUID) -> WebhookSecret:
    row = (await connection.execute(select(webhook_secrets).where(_S.account_id == account_id))).one()
    return WebhookSecret(secret=row.secret, old_secret_until=row.old_secret_until)
