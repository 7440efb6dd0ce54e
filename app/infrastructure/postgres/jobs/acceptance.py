"""Accepting orders, many of them in one transaction: debits, jobs, idempotency keys and queue items commit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, insert, select

from app.domain.budgets import NO_LIMITS, AccountLimits, Purse, PurseKind
from app.domain.errors import CommitUnknown, DomainError
from app.domain.jobs import Job
from app.domain.orders import (
    FirstUse,
    Order,
    OrderDecision,
    OwnedKey,
    Standing,
    decide_orders,
    is_new,
)
from app.infrastructure.postgres.database import DriverConnection, driver_statement, driver_transaction
from app.infrastructure.postgres.jobs.inputs import recent_large_inputs
from app.infrastructure.postgres.jobs.purses import Purses, add_windows, locked_purses
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder, insert_jobs
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, constant
from app.infrastructure.postgres.tables import accounts, idempotency_keys, jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyRow:
    account_id: UUID
    key: str
    fingerprint: bytes
    job_id: UUID


_JOBS = Statement(select(*JOB_COLUMNS).where(any_of(jobs.c.id, "job_ids")))

_OWNED = RowArrays("owned", idempotency_keys.c.account_id, idempotency_keys.c.key)


def try_lock_of_key(account_id: Any, key: Any) -> ColumnElement[bool]:
    """Until the end of the transaction. False: another request that is being served has the key."""
    name = cast(account_id, Text) + constant("/") + key
    return func.pg_try_advisory_xact_lock(func.hashtextextended(name, constant(0)))


_TRY_LOCK_KEYS = Statement(
    select(_OWNED.c.account_id, _OWNED.c.key, try_lock_of_key(_OWNED.c.account_id, _OWNED.c.key).label("is_locked"))
)
_FIRST_USES = Statement(
    select(idempotency_keys.c.key, idempotency_keys.c.fingerprint, accounts.c.balance_tokens, *JOB_COLUMNS)
    .join_from(
        _OWNED.table,
        idempotency_keys,
        (idempotency_keys.c.account_id == _OWNED.c.account_id) & (idempotency_keys.c.key == _OWNED.c.key),
    )
    .join(jobs, jobs.c.id == idempotency_keys.c.job_id)
    .join(accounts, accounts.c.id == idempotency_keys.c.account_id)
)
_NEW_KEYS = RowArrays("new", *(idempotency_keys.c[field.name] for field in fields(_KeyRow)))
_INSERT_KEYS = Statement(
    insert(idempotency_keys).from_select([field.name for field in fields(_KeyRow)], select(*_NEW_KEYS.c))
)


async def accept_all(
    driver: DriverConnection,
    storable: Sequence[StorableOrder],
    *,
    limits: AccountLimits = NO_LIMITS,
    is_repeated: bool = False,
) -> Sequence[OrderDecision]:
    """Accept what fits, in the order of arrival. `limits` are those of accounts that have none of their own.

    Locks the accounts, in the order of their ids. Should an earlier try with the same orders still run, the locks
    wait for its end: what then is not there never will be. Only a try in a single statement may yet begin; then a job
    that is written here fails it by its id, and of an order that is refused here CommitUnknown is the answer.
    """
    orders = [one.order for one in storable]
    is_one_statement = not any(order.idempotency or order.input_bytes for order in orders)
    if is_one_statement and not is_repeated:
        # Almost always all of them fit, and nothing has to be asked first.
        async with driver_statement("accept"):
            written = await _write(driver, storable, limits)
        if written is not None:
            return decide_orders(orders, written)
    async with driver_transaction(driver, "accept"):
        standing, purses = await _standing(driver, orders, limits, is_repeated=is_repeated)
        decisions = decide_orders(orders, standing)
        new = [one for one, decision in zip(storable, decisions, strict=True) if is_new(one.order, decision, standing)]
        await add_windows(driver.fetch, [one.order for one in new], purses)
        if new and await _write(driver, new, limits, purses) is None:
            raise RuntimeError("what fits into the locked purses was not written")
    if is_one_statement and is_repeated:
        return [CommitUnknown() if isinstance(decision, DomainError) else decision for decision in decisions]
    return decisions


async def _standing(
    driver: DriverConnection, orders: Sequence[Order], limits: AccountLimits = NO_LIMITS, *, is_repeated: bool
) -> tuple[Standing, Purses]:
    written: Mapping[UUID, Job] = {}
    if is_repeated:
        # First of all, so that whatever the earlier try still does is done.
        await locked_purses(driver.fetch, orders, limits)
        rows = await _JOBS(driver.fetch, job_ids=[order.job.id for order in orders])
        written = {row["id"]: job_of(row) for row in rows}
    keys = sorted({order.owned_key for order in orders if order.owned_key is not None})
    in_use = await _keys_in_use(driver, keys) if keys else set()
    # With the balances, which no lock keeps from changing.
    known = await _FIRST_USES(driver.fetch, **_OWNED.values(keys)) if keys else []
    first_uses = {OwnedKey(row["account_id"], row["key"]): FirstUse(row["fingerprint"], job_of(row)) for row in known}
    # Neither a refusal nor a replay waits for the account.
    paying = [order for order in orders if order.owned_key not in in_use and order.owned_key not in first_uses]
    purses = await locked_purses(driver.fetch, orders if is_repeated else paying, limits)
    large = list({order.job.account_id for order in paying if order.input_bytes is not None})
    standing = Standing(
        accepted_at=purses.now,
        left={**{Purse(PurseKind.BALANCE, row["account_id"]): row["balance_tokens"] for row in known}, **purses.left},
        limits=purses.limits,
        spending=purses.spending,
        changed_keys=purses.changed_keys,
        first_uses=first_uses,
        keys_in_use=in_use,
        large_inputs=await recent_large_inputs(driver, large) if large else {},
        written=written,
    )
    return standing, purses


async def _keys_in_use(driver: DriverConnection, keys: Sequence[OwnedKey]) -> set[OwnedKey]:
    """Those that another request has locked. Without the lock the insert would wait for it, however long it takes."""
    rows = await _TRY_LOCK_KEYS(driver.fetch, **_OWNED.values(keys))
    return {OwnedKey(row["account_id"], row["key"]) for row in rows if not row["is_locked"]}


async def _write(
    driver: DriverConnection,
    storable: Sequence[StorableOrder],
    limits: AccountLimits = NO_LIMITS,
    purses: Purses | None = None,
) -> Standing | None:
    """What all of them fitted into. None: nothing is written, because a purse holds too little.

    `purses` if they are locked already; otherwise the keys are taken to be as they were looked up. Locks the accounts,
    in the order of their ids.
    """
    named = [
        _KeyRow(
            account_id=one.order.job.account_id,
            key=one.order.idempotency.key,
            fingerprint=one.order.idempotency.fingerprint,
            job_id=one.order.job.id,
        )
        for one in storable
        if one.order.idempotency is not None
    ]
    if named:
        await _INSERT_KEYS(driver.fetch, **_NEW_KEYS.values(named))
    rows = await insert_jobs(driver.fetch, storable, limits, purses)
    if not rows:
        return None
    balances = {Purse(PurseKind.BALANCE, row["id"]): row["balance_tokens"] for row in rows}
    return Standing(accepted_at=rows[0]["accepted_at"], left=balances)
