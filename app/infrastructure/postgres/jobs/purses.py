"""What the purses of callers hold, under their locks: accounts first, then the windows of keys.

A window is only ever touched under the lock of its account.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, bindparam, case, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from app.domain.accounts import ApiKey
from app.domain.budgets import AccountLimits, Budget, Period, Purse, PurseKind, Spending
from app.domain.orders import Order
from app.infrastructure.postgres.database import Fetch
from app.infrastructure.postgres.keys.lookup import find_each
from app.infrastructure.postgres.keys.rows import IS_LIVE_KEY, IS_LIVE_SECRET, KEY_COLUMNS, key_of
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, constant
from app.infrastructure.postgres.tables import accounts, api_keys, key_windows, keys

THIS_MINUTE = func.date_trunc(constant("minute"), func.now())
# A minute that is over for this transaction may have been left by a later one, which had the lock first. One further
# ahead is of a clock that has been set back since, and says nothing.
_IS_COUNTED = accounts.c.writes_minute.between(THIS_MINUTE, THIS_MINUTE + literal_column("interval '1 minute'"))
WRITES_IN_MINUTE: ColumnElement[int] = case((_IS_COUNTED, accounts.c.writes), else_=constant(0))
MINUTE_OF_WRITES: ColumnElement[Any] = case((_IS_COUNTED, accounts.c.writes_minute), else_=THIS_MINUTE)


def limit_of(column: ColumnElement[Any]) -> ColumnElement[int]:
    """The account's own, or the setting of the service, as a parameter of the column's name."""
    return func.coalesce(column, bindparam(f"default_{column.key}", type_=Integer))


def defaults(limits: AccountLimits) -> Mapping[str, int]:
    """What the statements take that ask for limits."""
    return {
        "default_unfinished_jobs_max": limits.unfinished_jobs_max,
        "default_writes_per_minute": limits.writes_per_minute,
    }


UNFINISHED_JOBS_MAX = limit_of(accounts.c.unfinished_jobs_max)
WRITES_PER_MINUTE = limit_of(accounts.c.writes_per_minute)

# In the order of their ids, so that two transactions never wait for each other.
LOCKED_ACCOUNTS = (
    select(accounts.c.id, accounts.c.balance_tokens).order_by(accounts.c.id).with_for_update(key_share=True)
)
_LOCK_ACCOUNTS = Statement(
    LOCKED_ACCOUNTS.add_columns(
        func.now().label("now"),
        accounts.c.keys_version,
        accounts.c.unfinished_jobs,
        WRITES_IN_MINUTE.label("writes"),
        UNFINISHED_JOBS_MAX.label("unfinished_jobs_max"),
        WRITES_PER_MINUTE.label("writes_per_minute"),
    ).where(any_of(accounts.c.id, "ids"))
)
_KEYS = Statement(
    select(api_keys.c.digest, *KEY_COLUMNS)
    .join_from(api_keys, keys, keys.c.id == api_keys.c.key_id)
    .where(any_of(api_keys.c.digest, "digests"), IS_LIVE_SECRET, IS_LIVE_KEY)
)
_BUDGETS = Statement(
    select(keys.c.id, keys.c.budget_tokens, keys.c.budget_per).where(
        any_of(keys.c.id, "ids"), keys.c.budget_tokens.is_not(None)
    )
)
_NEW_WINDOWS = RowArrays("new", *key_windows.c)
_ADD_WINDOWS = Statement(
    insert(key_windows)
    .from_select([column.key for column in key_windows.c], select(*_NEW_WINDOWS.c))
    .on_conflict_do_nothing()
)
_LOCK_WINDOWS = Statement(
    select(key_windows.c.key_id, key_windows.c.spent_tokens)
    .where(
        any_of(key_windows.c.key_id, "ids"), key_windows.c.starts_at <= func.now(), key_windows.c.ends_at > func.now()
    )
    .order_by(key_windows.c.key_id)
    .with_for_update(key_share=True)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWindow:
    key_id: UUID
    starts_at: datetime
    ends_at: datetime
    limit_tokens: int
    spent_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Purses:
    """What is known, and kept from changing, of accounts and keys."""

    now: datetime | None = None
    left: Mapping[Purse, int] = field(default_factory=dict)
    limits: Mapping[UUID, AccountLimits] = field(default_factory=dict)
    spending: Mapping[UUID, Spending] = field(default_factory=dict)
    missing_windows: Mapping[UUID, NewWindow] = field(default_factory=dict)
    """By key, those in which nothing has been spent yet."""
    changed_keys: Mapping[bytes | None, ApiKey | None] = field(default_factory=dict)
    """By secret."""
    keys_versions: Mapping[UUID, int] = field(default_factory=dict)
    """By account."""


async def locked_purses(fetch: Fetch, orders: Sequence[Order], limits: AccountLimits) -> Purses:
    """Lock the purses that the orders draw on, and see what they hold."""
    account_ids = list({order.job.account_id for order in orders})
    if not account_ids:
        return Purses()
    rows = await _LOCK_ACCOUNTS(fetch, ids=account_ids, **defaults(limits))
    versions = {row["id"]: row["keys_version"] for row in rows}
    changed = await _changed_keys(fetch, orders, versions)
    budgeted = {order.key.id for order in orders if order.key is not None and _has_budget(order.key, changed)}
    now = rows[0]["now"] if rows else None
    spending, missing = await _locked_spending(fetch, budgeted, now) if budgeted and now is not None else ({}, {})
    left = {purse: tokens for row in rows for purse, tokens in _left(row).items()}
    left |= {
        Purse(PurseKind.BUDGET, key_id): each.budget.tokens - each.spent_tokens for key_id, each in spending.items()
    }
    return Purses(
        now=now,
        left=left,
        limits={row["id"]: AccountLimits(row["unfinished_jobs_max"], row["writes_per_minute"]) for row in rows},
        spending=spending,
        missing_windows=missing,
        changed_keys=changed,
        keys_versions=versions,
    )


def _left(row: Mapping[str, Any]) -> Mapping[Purse, int]:
    left = {Purse(PurseKind.BALANCE, row["id"]): row["balance_tokens"]}
    if row["unfinished_jobs_max"]:
        left[Purse(PurseKind.UNFINISHED_JOBS, row["id"])] = row["unfinished_jobs_max"] - row["unfinished_jobs"]
    if row["writes_per_minute"]:
        left[Purse(PurseKind.WRITES, row["id"])] = row["writes_per_minute"] - row["writes"]
    return left


async def _changed_keys(
    fetch: Fetch, orders: Sequence[Order], versions: Mapping[UUID, int]
) -> Mapping[bytes | None, ApiKey | None]:
    """Of accounts whose keys have changed since the callers were looked up, by what they showed."""
    outdated = {
        order.key.secret: order.job.account_id
        for order in orders
        if order.key is not None and versions.get(order.job.account_id) != order.key.version
    }
    if not outdated:
        return {}
    found = await find_each(_KEYS, fetch, [secret for secret in outdated if secret is not None])
    now = {secret: key_of(row, versions[outdated[secret]], secret) for secret, row in found if row is not None}
    return {secret: None if secret is None else now.get(secret) for secret in outdated}


def _has_budget(key: ApiKey, changed: Mapping[bytes | None, ApiKey | None]) -> bool:
    now = changed.get(key.secret, key)
    return now is not None and now.has_budget


async def add_windows(fetch: Fetch, orders: Sequence[Order], purses: Purses) -> None:
    """Those that the orders spend in and that are missing. Before they are accepted, since a refused order leaves none.

    The account has been locked ever since they were missed, so that nobody else has added them.
    """
    spent_by = {order.key.id for order in orders if order.key is not None}
    new = [window for key_id, window in purses.missing_windows.items() if key_id in spent_by]
    if new:
        await _ADD_WINDOWS(fetch, **_NEW_WINDOWS.values(new))


async def _locked_spending(
    fetch: Fetch, key_ids: set[UUID], now: datetime
) -> tuple[Mapping[UUID, Spending], Mapping[UUID, NewWindow]]:
    rows = await _BUDGETS(fetch, ids=list(key_ids))
    budgets = {row["id"]: Budget(row["budget_tokens"], Period(row["budget_per"])) for row in rows}
    spent = {row["key_id"]: row["spent_tokens"] for row in await _LOCK_WINDOWS(fetch, ids=list(key_ids))}
    spending = {key_id: Spending(each, spent.get(key_id, 0), each.renews_at(now)) for key_id, each in budgets.items()}
    missing = {key_id: _new_window(key_id, each, now) for key_id, each in budgets.items() if key_id not in spent}
    return spending, missing


def _new_window(key_id: UUID, budget: Budget, now: datetime) -> NewWindow:
    window = budget.window(now)
    return NewWindow(key_id=key_id, starts_at=window.starts_at, ends_at=window.ends_at, limit_tokens=budget.tokens)
