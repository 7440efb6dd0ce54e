"""What goes into a statement, and what comes out of it, goes by its name."""

import inspect
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pytest
from sqlalchemy import Integer, Text, insert, literal, select

from app.application.ports import evidence, execution
from app.domain import accounts, jobs, ledger, orders, payments
from app.infrastructure.postgres import payments as payment_rows
from app.infrastructure.postgres.jobs import acceptance, claiming, purses, reader, recording, settling, writing_orders
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder
from app.infrastructure.postgres.keys import lookup
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, column, constant
from app.infrastructure.postgres.tables import jobs as jobs_table

# Each field is of another type than any other, so that no two of them can be given in each other's place.
BY_TYPE = {
    orders.IdempotencyKey,
    orders.OwnedKey,
    orders.Order,
    orders.Accepted,
    orders.FirstUse,
    StorableOrder,
    accounts.Caller,
    ledger.EntryKind,
}
# Two fields of one type, in the order in which everybody names them.
PAIRS = {payments.EventName, claiming.Attempt, claiming.ClaimRequest, reader._OwnedJob}


@dataclass
class Row:
    b: str
    a: int


async def sent(statement: Statement, **values: object) -> tuple[str, tuple[object, ...]]:
    """The text and the values that the driver gets."""
    calls: list[tuple[str, tuple[object, ...]]] = []

    async def fetch(text: str, *given: object) -> list[Any]:
        calls.append((text, given))
        return []

    await statement(fetch, **values)
    return calls[0]


async def test_values_go_in_by_the_name_of_their_column() -> None:
    batch = RowArrays("row", column("a", Integer), column("b", Text))
    statement = Statement(select(batch.c.b, batch.c.a))

    text, values = await sent(statement, **batch.values([Row("x", 1), Row("y", 2)]))

    assert "unnest($1::INTEGER[], $2::TEXT[]) AS row(a, b)" in text
    assert values == ([1, 2], ["x", "y"])


async def test_a_column_that_is_stored_in_another_form_is_given_by_name() -> None:
    batch = RowArrays("row", column("a", Integer), column("b", Text))

    _, values = await sent(Statement(select(*batch.c)), **batch.values([Row("x", 1)], b=["stored"]))

    assert values == ([1], ["stored"])


async def test_a_value_that_is_named_twice_is_sent_once() -> None:
    batch = RowArrays("row", column("a", Integer))
    statement = Statement(select(batch.c.a).where(batch.names(column("c", Integer), "a")))

    text, values = await sent(statement, **batch.values([Row("x", 1)]))

    assert "unnest($1" in text
    assert "ANY ($1" in text
    assert values == ([1],)


@pytest.mark.parametrize("given", [{}, {"ids": [], "more": 1}], ids=["missing", "unknown"])
async def test_refuses_a_value_too_few_or_too_many(given: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="ids"):
        await sent(Statement(select(constant(1)).where(any_of(jobs_table.c.id, "ids"))), **given)


async def test_refuses_a_value_of_another_name() -> None:
    with pytest.raises(KeyError):
        await sent(Statement(select(constant(1)).where(any_of(jobs_table.c.id, "ids"))), other=[])


def test_refuses_a_constant_that_the_planner_would_not_see() -> None:
    with pytest.raises(AssertionError, match="constant"):
        Statement(select(literal("QUEUED")))


def test_a_column_may_be_named_as_the_one_that_it_is_written_to() -> None:
    batch = RowArrays("new", jobs_table.c.id, jobs_table.c.kind)

    statement = Statement(insert(jobs_table).from_select(["id", "kind"], select(*batch.c)))

    assert "unnest($1::UUID[], $2::TEXT[])" in statement.text


def test_no_object_of_a_row_is_made_by_position() -> None:
    """Where two fields of one type stand beside each other, nobody would see that they were exchanged."""
    modules = [accounts, jobs, ledger, orders, payments, evidence, execution]
    modules += [acceptance, claiming, lookup, payment_rows, purses, reader, recording, settling, writing_orders]
    made_by_position = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and is_dataclass(kind)
        if len(fields(kind)) > 1 and not all(field.kw_only for field in fields(kind))
    }

    assert made_by_position <= BY_TYPE | PAIRS
