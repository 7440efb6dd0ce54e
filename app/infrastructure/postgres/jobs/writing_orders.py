"""The one statement that writes orders: jobs, debits, queue items and what keys have spent, all of it or nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Text,
    Uuid,
    cast,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.application.execution.steps import SUBMIT_JOB
from app.domain.accounts import ApiKey
from app.domain.budgets import AccountLimits
from app.domain.jobs import NewJob
from app.domain.ledger import EntryKind
from app.domain.orders import IdempotencyKey, Order
from app.domain.turns import seconds_before
from app.infrastructure.postgres.database import Fetch
from app.infrastructure.postgres.jobs.inputs import LARGE_INPUT_BYTES
from app.infrastructure.postgres.jobs.purses import (
    LOCKED_ACCOUNTS,
    UNFINISHED_JOBS_MAX,
    WRITES_IN_MINUTE,
    WRITES_PER_MINUTE,
    Purses,
    defaults,
)
from app.infrastructure.postgres.jobs.turns import next_turns, tag_of
from app.infrastructure.postgres.queue import insert_items
from app.infrastructure.postgres.statements import RowArrays, Statement, column, constant
from app.infrastructure.postgres.tables import accounts, jobs, key_windows, ledger_entries


@dataclass(frozen=True, slots=True)
class StorableOrder:
    order: Order
    parameters: str
    """The job's, as JSON."""
    terms: str
    """The job's, as JSON."""

    @classmethod
    def of(cls, job: NewJob, idempotency: IdempotencyKey | None, key: ApiKey | None = None) -> Self:
        parameters = json.dumps(job.parameters)
        size_bytes = len(parameters)
        return cls(
            Order(job, idempotency, size_bytes if size_bytes > LARGE_INPUT_BYTES else None, key),
            parameters,
            job.terms.json_with_files if job.file_ids else job.terms.json,
        )

    @property
    def size_bytes(self) -> int:
        return len(self.parameters)


_FILE_IDS = jobs.c.file_ids.key
_STORED = [
    *(field.name for field in fields(NewJob) if field.name != _FILE_IDS),
    jobs.c.input_bytes.key,
    jobs.c.key_id.key,
]
_NEW_JOBS = RowArrays(
    "wanted",
    *(jobs.c[name] for name in _STORED),
    # As texts: an array of arrays would come apart in its items.
    column(_FILE_IDS, Text),
    column("keys_version", BigInteger),
    column("has_budget", Boolean),
    # What the orders of the account before it take together.
    column("seconds_before", BigInteger),
)
_WANTED = select(*_NEW_JOBS.c).cte("wanted")
_ACCOUNT = (
    LOCKED_ACCOUNTS.add_columns(
        accounts.c.keys_version,
        accounts.c.unfinished_jobs,
        WRITES_IN_MINUTE.label("writes"),
        UNFINISHED_JOBS_MAX.label("unfinished_jobs_max"),
        WRITES_PER_MINUTE.label("writes_per_minute"),
        accounts.c.weight,
    )
    .where(_NEW_JOBS.names(accounts.c.id, "account_id"))
    .cte("account")
    .prefix_with("MATERIALIZED")
)
_DUE = (
    select(
        _WANTED.c.account_id,
        func.sum(_WANTED.c.cost_tokens).label("tokens"),
        func.count().label("jobs"),
        func.sum(_WANTED.c.expected_seconds).label("seconds"),
        func.min(_WANTED.c.keys_version).label("oldest_keys"),
        func.max(_WANTED.c.keys_version).label("newest_keys"),
    )
    .group_by(_WANTED.c.account_id)
    .cte("due")
)
_IS_SHORT = exists(
    select(constant(1))
    .join_from(_DUE, _ACCOUNT, _ACCOUNT.c.id == _DUE.c.account_id)
    .where(
        or_(
            _ACCOUNT.c.balance_tokens < _DUE.c.tokens,
            (_ACCOUNT.c.unfinished_jobs_max > constant(0))
            & (_ACCOUNT.c.unfinished_jobs + _DUE.c.jobs > _ACCOUNT.c.unfinished_jobs_max),
            (_ACCOUNT.c.writes_per_minute > constant(0))
            & (_ACCOUNT.c.writes + _DUE.c.jobs > _ACCOUNT.c.writes_per_minute),
            # Null where an order came by no key. A key that has changed since is looked at again.
            (_DUE.c.oldest_keys != _ACCOUNT.c.keys_version),
            (_DUE.c.newest_keys != _ACCOUNT.c.keys_version),
        )
    )
)
_DUE_OF_KEY = (
    select(
        _WANTED.c.key_id,
        _WANTED.c.account_id,
        func.sum(_WANTED.c.cost_tokens).label("tokens"),
    )
    .where(_WANTED.c.has_budget)
    .group_by(_WANTED.c.key_id, _WANTED.c.account_id)
    .cte("due_of_key")
)
# After the lock of the account, and as it is by then, not as the statement first saw it.
_WINDOW = (
    select(
        key_windows.c.key_id,
        key_windows.c.starts_at,
        key_windows.c.ends_at,
        key_windows.c.spent_tokens,
        key_windows.c.limit_tokens,
        _DUE_OF_KEY.c.tokens,
    )
    .join_from(_DUE_OF_KEY, _ACCOUNT, _ACCOUNT.c.id == _DUE_OF_KEY.c.account_id)
    .join(
        key_windows,
        (key_windows.c.key_id == _DUE_OF_KEY.c.key_id)
        & (key_windows.c.starts_at <= func.now())
        & (key_windows.c.ends_at > func.now()),
    )
    .with_for_update(of=key_windows, key_share=True)
    .cte("window_of_key")
    .prefix_with("MATERIALIZED")
)
_IS_OVER_BUDGET = exists(
    select(constant(1))
    .join_from(_DUE_OF_KEY, _WINDOW, _WINDOW.c.key_id == _DUE_OF_KEY.c.key_id, isouter=True)
    .where(or_(_WINDOW.c.key_id.is_(None), _WINDOW.c.spent_tokens + _DUE_OF_KEY.c.tokens > _WINDOW.c.limit_tokens))
)


def _insert_jobs(is_short: ColumnElement[bool], *, has_budgets: bool) -> Statement:
    """All or nothing: no job is written if any purse holds too little for what is drawn on it."""
    affordable = select(func.now().label("accepted_at")).where(~is_short).cte("affordable").prefix_with("MATERIALIZED")
    turn = next_turns(_DUE, _ACCOUNT, affordable)
    stored = (
        select(
            *(_WANTED.c[name] for name in _STORED),
            cast(_WANTED.c[_FILE_IDS], ARRAY(Uuid)),
            tag_of(_WANTED, _DUE, _ACCOUNT, turn),
        )
        .join_from(_WANTED, turn, turn.c.account_id == _WANTED.c.account_id)
        .join(_DUE, _DUE.c.account_id == _WANTED.c.account_id)
        .join(_ACCOUNT, _ACCOUNT.c.id == _WANTED.c.account_id)
    )
    job = (
        insert(jobs)
        .from_select([*_STORED, _FILE_IDS, jobs.c.fair_tag.key], stored)
        .returning(jobs.c.id, jobs.c.account_id, jobs.c.cost_tokens, jobs.c.fair_tag)
        .cte("job")
    )
    debit = insert(ledger_entries).from_select(
        ["account_id", "kind", "amount", "job_id"],
        select(job.c.account_id, constant(EntryKind.DEBIT), job.c.cost_tokens, job.c.id),
    )
    submittable = select(job.c.id.label("subject_id"), constant(0).label("after_seconds"), job.c.fair_tag).subquery(
        "submittable"
    )
    written = select(affordable.c.accepted_at, _ACCOUNT.c.id, _ACCOUNT.c.balance_tokens).join_from(
        affordable, _ACCOUNT, true()
    )
    written = written.add_cte(debit.cte("debit"), insert_items(SUBMIT_JOB, submittable).cte("item"))
    if has_budgets:
        spent = (
            update(key_windows)
            .values(spent_tokens=key_windows.c.spent_tokens + _WINDOW.c.tokens)
            .where(
                key_windows.c.key_id == _WINDOW.c.key_id,
                key_windows.c.starts_at == _WINDOW.c.starts_at,
                key_windows.c.ends_at == _WINDOW.c.ends_at,
                exists(select(constant(1)).select_from(affordable)),
            )
        )
        written = written.add_cte(spent.cte("spent"))
    return Statement(written)


_INSERT_JOBS = _insert_jobs(_IS_SHORT, has_budgets=False)
_INSERT_JOBS_OF_BUDGETS = _insert_jobs(or_(_IS_SHORT, _IS_OVER_BUDGET), has_budgets=True)


async def insert_jobs(
    fetch: Fetch,
    storable: Sequence[StorableOrder],
    limits: AccountLimits,
    purses: Purses | None,
) -> Sequence[Mapping[str, Any]]:
    """Nothing, if any purse holds too little. Otherwise when they were accepted, and the balance before by account.

    `purses` if they are locked already; otherwise the keys are taken to be as they were looked up.
    Locks the accounts, in the order of their ids, then the windows, and then the turns.
    """
    orders = [one.order for one in storable]
    has_budgets = [order.key is not None and _has_budget(order.key, purses) for order in orders]
    versions = [None if order.key is None else _version(order.job.account_id, order.key, purses) for order in orders]
    new_jobs = _NEW_JOBS.values(
        [order.job for order in orders],
        parameters=[one.parameters for one in storable],
        terms=[one.terms for one in storable],
        file_ids=[_file_ids_of(order.job) for order in orders],
        input_bytes=[order.input_bytes for order in orders],
        key_id=[None if order.key is None else order.key.id for order in orders],
        keys_version=versions,
        has_budget=has_budgets,
        seconds_before=seconds_before((order.job.account_id, order.job.expected_seconds) for order in orders),
    )
    statement = _INSERT_JOBS_OF_BUDGETS if any(has_budgets) else _INSERT_JOBS
    return await statement(fetch, **new_jobs, **defaults(limits))


def _file_ids_of(job: NewJob) -> str | None:
    return f"{{{','.join(map(str, job.file_ids))}}}" if job.file_ids else None


def _has_budget(key: ApiKey, purses: Purses | None) -> bool:
    return key.has_budget if purses is None else key.id in purses.spending


def _version(account_id: UUID, key: ApiKey, purses: Purses | None) -> int:
    return key.version if purses is None else purses.keys_versions[account_id]
