"""Accepting orders, many of them in one transaction: debits, jobs, idempotency keys and queue items commit together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, exists, func, insert, select, true

from app.application.execution.steps import SUBMIT_JOB
from app.domain.jobs import Job, NewJob
from app.domain.ledger import EntryKind
from app.domain.orders import (
    FirstUse,
    IdempotencyKey,
    Order,
    OrderDecision,
    OwnedKey,
    Standing,
    decide_orders,
    is_new,
)
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.inputs import LARGE_INPUT_BYTES, recent_large_inputs
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.queue import insert_items
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, constant
from app.infrastructure.postgres.tables import accounts, idempotency_keys, jobs, ledger_entries


@dataclass(frozen=True, slots=True)
class StorableOrder:
    order: Order
    parameters: str
    """The job's, as JSON."""
    terms: str
    """The job's, as JSON."""

    @classmethod
    def of(cls, job: NewJob, idempotency: IdempotencyKey | None) -> Self:
        parameters = json.dumps(job.parameters)
        size_bytes = len(parameters)
        return cls(
            Order(job, idempotency, size_bytes if size_bytes > LARGE_INPUT_BYTES else None),
            parameters,
            json.dumps(job.terms.as_json()),
        )

    @property
    def size_bytes(self) -> int:
        return len(self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyRow:
    account_id: UUID
    key: str
    fingerprint: bytes
    job_id: UUID


# In the order of their ids, so that two transactions never wait for each other.
_LOCKED_ACCOUNTS = (
    select(accounts.c.id, accounts.c.balance_tokens).order_by(accounts.c.id).with_for_update(key_share=True)
)
_LOCK_ACCOUNTS = Statement(_LOCKED_ACCOUNTS.add_columns(func.now().label("now")).where(any_of(accounts.c.id, "ids")))
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

_STORED = [*(field.name for field in fields(NewJob)), jobs.c.input_bytes.key]
_NEW_JOBS = RowArrays("wanted", *(jobs.c[name] for name in _STORED))
_WANTED = select(*_NEW_JOBS.c).cte("wanted")
_ACCOUNT = (
    _LOCKED_ACCOUNTS.where(_NEW_JOBS.names(accounts.c.id, "account_id")).cte("account").prefix_with("MATERIALIZED")
)
_DUE = (
    select(_WANTED.c.account_id, func.sum(_WANTED.c.cost_tokens).label("tokens"))
    .group_by(_WANTED.c.account_id)
    .cte("due")
)
_IS_SHORT = exists(
    select(constant(1))
    .join_from(_DUE, _ACCOUNT, _ACCOUNT.c.id == _DUE.c.account_id)
    .where(_ACCOUNT.c.balance_tokens < _DUE.c.tokens)
)
# All or nothing: no job is written if any account cannot pay its share.
_AFFORDABLE = select(func.now().label("accepted_at")).where(~_IS_SHORT).cte("affordable").prefix_with("MATERIALIZED")
_JOB = (
    insert(jobs)
    .from_select(_STORED, select(*_WANTED.c).join_from(_AFFORDABLE, _WANTED, true()))
    .returning(jobs.c.id, jobs.c.account_id, jobs.c.cost_tokens)
    .cte("job")
)
_DEBIT = insert(ledger_entries).from_select(
    ["account_id", "kind", "amount", "job_id"],
    select(_JOB.c.account_id, constant(EntryKind.DEBIT), _JOB.c.cost_tokens, _JOB.c.id),
)
_SUBMITTABLE = select(_JOB.c.id.label("subject_id"), constant(0).label("after_seconds")).subquery("submittable")
_INSERT_JOBS = Statement(
    select(_AFFORDABLE.c.accepted_at, *_ACCOUNT.c)
    .join_from(_AFFORDABLE, _ACCOUNT, true())
    .add_cte(_DEBIT.cte("debit"), insert_items(SUBMIT_JOB, _SUBMITTABLE).cte("item"))
)


async def accept_all(
    driver: DriverConnection, storable: Sequence[StorableOrder], *, is_repeated: bool = False
) -> Sequence[OrderDecision]:
    """Accept what fits, in the order of arrival.

    Locks the accounts, in the order of their ids. Should an earlier try with the same orders still run, the locks
    wait for its end: what then is not there never will be.
    """
    orders = [one.order for one in storable]
    async with driver_transaction(driver, "accept"):
        if not is_repeated and not any(order.idempotency or order.input_bytes for order in orders):
            # Almost always all of them fit, and nothing has to be asked first.
            written = await _write(driver, storable)
            if written is not None:
                return decide_orders(orders, written)
        standing = await _standing(driver, orders, is_repeated=is_repeated)
        decisions = decide_orders(orders, standing)
        new = [one for one, decision in zip(storable, decisions, strict=True) if is_new(one.order, decision, standing)]
        if new and await _write(driver, new) is None:
            raise RuntimeError("what fits by the locked balances was not written")
    return decisions


async def _standing(driver: DriverConnection, orders: Sequence[Order], *, is_repeated: bool) -> Standing:
    written: Mapping[UUID, Job] = {}
    waited_for: set[UUID] = set()
    if is_repeated:
        waited_for = {order.job.account_id for order in orders}
        # First of all, so that whatever the earlier try still does is done.
        await _LOCK_ACCOUNTS(driver.fetch, ids=list(waited_for))
        rows = await _JOBS(driver.fetch, job_ids=[order.job.id for order in orders])
        written = {row["id"]: job_of(row) for row in rows}
    keys = sorted({order.owned_key for order in orders if order.owned_key is not None})
    in_use = await _keys_in_use(driver, keys) if keys else set()
    # With the balances, which no lock keeps from changing.
    known = await _FIRST_USES(driver.fetch, **_OWNED.values(keys)) if keys else []
    first_uses = {OwnedKey(row["account_id"], row["key"]): FirstUse(row["fingerprint"], job_of(row)) for row in known}
    # Neither a refusal nor a replay waits for the account.
    paying = {
        order.job.account_id for order in orders if order.owned_key not in in_use and order.owned_key not in first_uses
    }
    rows = await _LOCK_ACCOUNTS(driver.fetch, ids=list(paying | waited_for)) if paying | waited_for else []
    large = list({order.job.account_id for order in orders if order.input_bytes is not None} & paying)
    return Standing(
        accepted_at=rows[0]["now"] if rows else None,
        balances_tokens={
            **{row["account_id"]: row["balance_tokens"] for row in known},
            **{row["id"]: row["balance_tokens"] for row in rows},
        },
        first_uses=first_uses,
        keys_in_use=in_use,
        large_inputs=await recent_large_inputs(driver, large) if large else {},
        written=written,
    )


async def _keys_in_use(driver: DriverConnection, keys: Sequence[OwnedKey]) -> set[OwnedKey]:
    """Those that another request has locked. Without the lock the insert would wait for it, however long it takes."""
    rows = await _TRY_LOCK_KEYS(driver.fetch, **_OWNED.values(keys))
    return {OwnedKey(row["account_id"], row["key"]) for row in rows if not row["is_locked"]}


async def _write(driver: DriverConnection, storable: Sequence[StorableOrder]) -> Standing | None:
    """What all of them fitted into. None: nothing is written, because an account cannot pay for its own.

    Locks the accounts, in the order of their ids.
    """
    keys = [
        _KeyRow(
            account_id=one.order.job.account_id,
            key=one.order.idempotency.key,
            fingerprint=one.order.idempotency.fingerprint,
            job_id=one.order.job.id,
        )
        for one in storable
        if one.order.idempotency is not None
    ]
    if keys:
        await _INSERT_KEYS(driver.fetch, **_NEW_KEYS.values(keys))
    new_jobs = _NEW_JOBS.values(
        [one.order.job for one in storable],
        parameters=[one.parameters for one in storable],
        terms=[one.terms for one in storable],
        input_bytes=[one.order.input_bytes for one in storable],
    )
    rows = await _INSERT_JOBS(driver.fetch, **new_jobs)
    if not rows:
        return None
    balances_tokens = {row["id"]: row["balance_tokens"] for row in rows}
    return Standing(accepted_at=rows[0]["accepted_at"], balances_tokens=balances_tokens)
