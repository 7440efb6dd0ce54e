"""Accepting jobs, many of them in one transaction: debits, jobs, idempotency keys and queue items commit together."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

from app.application.execution.steps import SUBMIT_JOB
from app.application.ports.jobs import Accepted
from app.domain.errors import DomainError, IdempotencyKeyInUse, IdempotencyKeyReused, InsufficientBalance
from app.domain.jobs import IdempotencyKey, Job, JobStatus, NewJob
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.rows import JOB_COLUMN_NAMES, job_of
from app.infrastructure.postgres.queue import insert_items_text

Decision = Accepted | DomainError
# The account and the caller's own name for the request.
Name = tuple[UUID, str]

# In the order of their ids, so that two transactions never wait for each other.
_LOCK_ACCOUNTS = """
    SELECT id, balance_tokens, now() FROM accounts WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE
"""
_JOBS = f"SELECT {JOB_COLUMN_NAMES} FROM jobs WHERE id = ANY($1::uuid[])"  # noqa: S608 - our own column names
_LOCK_NAMES = """
    SELECT account_id, key, pg_try_advisory_xact_lock(hashtextextended(account_id || '/' || key, 0))
      FROM unnest($1::uuid[], $2::text[]) AS name (account_id, key)
"""
_KNOWN_NAMES = f"""
    SELECT known.account_id, known.key, known.fingerprint, {JOB_COLUMN_NAMES}
      FROM unnest($1::uuid[], $2::text[]) AS name (account_id, key)
      JOIN idempotency_keys AS known ON (known.account_id, known.key) = (name.account_id, name.key)
      JOIN jobs ON jobs.id = known.job_id
"""  # noqa: S608 - our own column names
_INSERT_NAMES = """
    INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[])
"""
# All of them or, where an account cannot pay for its own, none.
_INSERT_JOBS = f"""
    WITH wanted AS (
        SELECT * FROM unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::bigint[], $7::int[], $8::int[])
            AS wanted (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)
    ), account AS MATERIALIZED (
        SELECT id, balance_tokens FROM accounts WHERE id = ANY($2::uuid[]) ORDER BY id FOR NO KEY UPDATE
    ), due AS (
        SELECT account_id, sum(cost_tokens) AS tokens FROM wanted GROUP BY account_id
    ), affordable AS MATERIALIZED (
        SELECT now() AS at WHERE NOT EXISTS (
            SELECT FROM due JOIN account ON account.id = due.account_id WHERE account.balance_tokens < due.tokens)
    ), job AS (
        INSERT INTO jobs
            (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)
        SELECT wanted.* FROM affordable, wanted
        RETURNING id, account_id, cost_tokens
    ), debit AS (
        INSERT INTO ledger_entries (account_id, kind, amount, job_id)
        SELECT account_id, 'DEBIT', cost_tokens, id FROM job
    ), item AS ({insert_items_text(SUBMIT_JOB, "SELECT id AS subject_id, 0 AS after_seconds FROM job")})
    SELECT at FROM affordable
"""  # noqa: S608 - our own text


@dataclass(frozen=True, slots=True)
class Order:
    job: NewJob
    idempotency: IdempotencyKey | None
    parameters: str
    """The job's, as JSON."""

    @classmethod
    def of(cls, job: NewJob, idempotency: IdempotencyKey | None) -> Self:
        return cls(job, idempotency, json.dumps(job.parameters))

    @property
    def size_bytes(self) -> int:
        return len(self.parameters)

    @property
    def name(self) -> Name | None:
        return None if self.idempotency is None else (self.job.account_id, self.idempotency.key)


@dataclass(frozen=True, slots=True)
class _Books:
    """What the orders are decided by; it changes with each decision, so that the next one sees it."""

    balances: dict[UUID, int]
    now: datetime | None
    names_in_use: Collection[Name]
    known: dict[Name, tuple[bytes, Job]]
    written: Mapping[UUID, Job]
    fresh: list[Order] = field(default_factory=list)

    def decide(self, order: Order) -> Decision:
        job = order.job
        if job.id in self.written:
            return Accepted(self.written[job.id], is_replay=False)
        if order.name in self.names_in_use:
            return IdempotencyKeyInUse()
        if order.name in self.known:
            assert order.idempotency is not None
            fingerprint, first = self.known[order.name]
            return (
                Accepted(first, is_replay=True)
                if fingerprint == order.idempotency.fingerprint
                else IdempotencyKeyReused()
            )
        if self.balances[job.account_id] < job.cost_tokens:
            return InsufficientBalance()
        self.balances[job.account_id] -= job.cost_tokens
        assert self.now is not None
        accepted = _accepted_job(job, self.now)
        if order.idempotency is not None and order.name is not None:
            self.known[order.name] = (order.idempotency.fingerprint, accepted)
        self.fresh.append(order)
        return Accepted(accepted, is_replay=False)


async def accept_all(
    driver: DriverConnection, orders: Sequence[Order], *, is_repeated: bool = False
) -> Sequence[Decision]:
    """Each order in its turn: refused is only what does not fit by then, whatever comes before or after it.

    Locks the accounts, in the order of their ids. Should an earlier try with the same orders still run, the locks
    wait for its end: what then is not there never will be.
    """
    async with driver_transaction(driver, "accept"):
        if not is_repeated and not any(order.idempotency for order in orders):
            # Almost always all of them fit, and nothing has to be asked first.
            accepted_at = await _write(driver, orders)
            if accepted_at is not None:
                return [Accepted(_accepted_job(order.job, accepted_at), is_replay=False) for order in orders]
        books = await _open_books(driver, orders, is_repeated=is_repeated)
        decisions = [books.decide(order) for order in orders]
        if books.fresh and await _write(driver, books.fresh) is None:
            raise RuntimeError("what fits by the locked balances was not written")
    return decisions


async def _open_books(driver: DriverConnection, orders: Sequence[Order], *, is_repeated: bool) -> _Books:
    if is_repeated:
        # First of all, so that whatever the earlier try still does is done.
        await driver.fetch(_LOCK_ACCOUNTS, [order.job.account_id for order in orders])
    written = await driver.fetch(_JOBS, [order.job.id for order in orders]) if is_repeated else []
    names = sorted({order.name for order in orders if order.name is not None})
    known: dict[Name, tuple[bytes, Job]] = {}
    in_use: set[Name] = set()
    if names:
        columns = [account_id for account_id, _ in names], [key for _, key in names]
        # Without the lock the insert would wait for the other request, however long that takes.
        in_use = {(row[0], row[1]) for row in await driver.fetch(_LOCK_NAMES, *columns) if not row[2]}
        for account_id, key, fingerprint, *job in await driver.fetch(_KNOWN_NAMES, *columns):
            known[account_id, key] = (fingerprint, job_of(job))
    # Neither a refusal nor a replay waits for the account.
    paying = {order.job.account_id for order in orders if order.name not in in_use and order.name not in known}
    rows = await driver.fetch(_LOCK_ACCOUNTS, list(paying)) if paying else []
    return _Books(
        balances={row[0]: row[1] for row in rows},
        now=rows[0][2] if rows else None,
        names_in_use=in_use,
        known=known,
        written={row[0]: job_of(row) for row in written},
    )


async def _write(driver: DriverConnection, orders: Sequence[Order]) -> datetime | None:
    """When they were accepted. None: nothing is written, because an account cannot pay for its own.

    Locks the accounts, in the order of their ids.
    """
    accepted = [order.job for order in orders]
    named = [(order.job, order.idempotency) for order in orders if order.idempotency is not None]
    if named:
        await driver.fetch(
            _INSERT_NAMES,
            [job.account_id for job, _ in named],
            [idempotency.key for _, idempotency in named],
            [idempotency.fingerprint for _, idempotency in named],
            [job.id for job, _ in named],
        )
    rows = await driver.fetch(
        _INSERT_JOBS,
        [job.id for job in accepted],
        [job.account_id for job in accepted],
        [job.kind.value for job in accepted],
        [job.model_id for job in accepted],
        [order.parameters for order in orders],
        [job.cost_tokens for job in accepted],
        [job.outputs_requested for job in accepted],
        [job.time_limit_seconds for job in accepted],
    )
    return rows[0][0] if rows else None


def _accepted_job(job: NewJob, now: datetime) -> Job:
    """As the table's defaults make it; `now` is the time of the transaction."""
    return Job(
        id=job.id,
        kind=job.kind,
        model_id=job.model_id,
        status=JobStatus.QUEUED,
        cost_tokens=job.cost_tokens,
        refunded_tokens=0,
        fal_request_id=None,
        result=None,
        error_code=None,
        error_message=None,
        status_reason=None,
        cancel_requested_at=None,
        created_at=now,
        updated_at=now,
    )
