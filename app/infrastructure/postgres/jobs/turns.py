"""Whose turn it is: the tags of app/domain/turns.py, in the statements that accept, claim and cancel.

The row of an account in `fair_turns` is only touched under the lock of the account.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Update,
    Uuid,
    bindparam,
    func,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from app.domain.jobs import JobStatus
from app.domain.turns import TAGS_PER_SECOND
from app.infrastructure.postgres.database import Fetch
from app.infrastructure.postgres.statements import Statement, constant
from app.infrastructure.postgres.tables import accounts, fair_clock, fair_turns, jobs

_VIRTUAL_TIME: ColumnElement[int] = (
    select(fair_clock.c.virtual_time).where(fair_clock.c.is_the_only_row).scalar_subquery()
)


def cost(expected_seconds: ColumnElement[Any], weight: ColumnElement[Any]) -> ColumnElement[int]:
    return expected_seconds * constant(TAGS_PER_SECOND) // func.coalesce(weight, constant(1))


def next_turns(due: FromClause, account: FromClause, affordable: FromClause) -> CTE:
    """Let the turns of the accounts go on by the `seconds` that are due, if that is affordable.

    Whatever this waited for counts: a conflict finds the row as it is by then.
    """
    turn = insert(fair_turns).from_select(
        ["account_id", "next_tag"],
        select(due.c.account_id, _VIRTUAL_TIME + cost(due.c.seconds, account.c.weight))
        .join_from(affordable, due, true())
        .join(account, account.c.id == due.c.account_id),
    )
    start = func.greatest(fair_turns.c.next_tag, _VIRTUAL_TIME)
    return (
        turn.on_conflict_do_update(
            index_elements=[fair_turns.c.account_id],
            set_={fair_turns.c.next_tag: start + turn.excluded.next_tag - _VIRTUAL_TIME},
        )
        .returning(fair_turns.c.account_id, fair_turns.c.next_tag)
        .cte("turn")
    )


def tag_of(wanted: FromClause, due: FromClause, account: FromClause, turn: FromClause) -> ColumnElement[int]:
    """Of one of the orders that came to `next_turns`."""
    weight = account.c.weight
    return turn.c.next_tag - cost(due.c.seconds, weight) + cost(wanted.c.seconds_before, weight)


def advanced_clock(claimed: FromClause) -> Update:
    """Let the virtual time be the newest tag that was claimed.

    While another claim advances it, this one leaves it: the next one makes up for that, and none waits for another.
    """
    newest = select(func.max(claimed.c.fair_tag)).scalar_subquery()
    behind = select(fair_clock.c.is_the_only_row).where(
        fair_clock.c.is_the_only_row, fair_clock.c.virtual_time < newest
    )
    return (
        update(fair_clock)
        .values(virtual_time=newest)
        .where(fair_clock.c.is_the_only_row.in_(behind.with_for_update(skip_locked=True)))
    )


def _unused() -> Select[Any]:
    """The canceled job, if its turn is the last of its account, and those before it that were canceled as well."""
    last = (
        select(jobs.c.id, jobs.c.account_id, jobs.c.created_at, jobs.c.fair_tag, accounts.c.weight)
        .join_from(jobs, accounts, accounts.c.id == jobs.c.account_id)
        .join(fair_turns, fair_turns.c.account_id == jobs.c.account_id)
        # One that was claimed has had its turn.
        .where(jobs.c.id == bindparam("job_id", type_=Uuid), jobs.c.attempts == constant(0))
        .where(_ends_at(fair_turns.c.next_tag, jobs, accounts.c.weight))
        .cte("unused", recursive=True)
    )
    older = jobs.alias("older")
    before = (
        select(
            older.c.id,
            older.c.account_id,
            older.c.created_at,
            older.c.fair_tag,
            older.c.expected_seconds,
            older.c.status,
            older.c.attempts,
        )
        .where(older.c.account_id == last.c.account_id)
        .where(tuple_(older.c.created_at, older.c.id) < tuple_(last.c.created_at, last.c.id))
        .order_by(older.c.created_at.desc(), older.c.id.desc())
        .limit(constant(1))
        .lateral("before")
    )
    is_unused = (before.c.status == constant(JobStatus.CANCELED)) & (before.c.attempts == constant(0))
    is_next = _ends_at(last.c.fair_tag, before, last.c.weight)
    chain = last.union_all(
        select(before.c.id, before.c.account_id, before.c.created_at, before.c.fair_tag, last.c.weight).join_from(
            last, before, is_unused & is_next
        )
    )
    return select(chain.c.account_id, func.min(chain.c.fair_tag).label("fair_tag")).group_by(chain.c.account_id)


def _ends_at(tag: ColumnElement[int], job: FromClause, weight: ColumnElement[int]) -> ColumnElement[bool]:
    """Of jobs that were accepted together the sums were rounded, and not the costs of each."""
    end = job.c.fair_tag + cost(job.c.expected_seconds, weight)
    return end.between(tag - constant(1), tag)


_UNUSED = _unused().subquery("first_unused")
_GIVE_BACK = Statement(
    update(fair_turns)
    .values(next_tag=_UNUSED.c.fair_tag)
    .where(fair_turns.c.account_id == _UNUSED.c.account_id)
    .returning(fair_turns.c.next_tag)
)


async def give_back_turn(fetch: Fetch, job_id: UUID) -> None:
    """In the transaction that has canceled a job which was never claimed, under the lock of its account.

    Only the last turns of an account are given back, so that nothing is left of jobs that were started and canceled.
    In front of jobs that still wait they are lost: whoever got those back could save them up, and have many at once.
    """
    await _GIVE_BACK(fetch, job_id=job_id)
