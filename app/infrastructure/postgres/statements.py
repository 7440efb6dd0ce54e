"""Statements for the driver, whose values go in and whose rows come out by name.

They are SQLAlchemy Core, compiled once when the module is loaded. The driver executes the text past SQLAlchemy, which
would take a multiple of the time for each execution.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Dialect, Executable, FromClause, any_, bindparam, func, literal_column
from sqlalchemy.dialects.postgresql import ARRAY, asyncpg
from sqlalchemy.sql.elements import ColumnClause, KeyedColumnElement
from sqlalchemy.types import TypeEngine

from app.infrastructure.postgres.database import Fetch

_DIALECT: Dialect = asyncpg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


class Statement:
    """A statement, and the order in which the driver wants its values."""

    def __init__(self, core: Executable) -> None:
        compiled = core.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
        self.text = str(compiled)
        self._names: Sequence[str] = compiled.positiontup or ()
        constants = [name for name, value in compiled.construct_params(_check=False).items() if value is not None]
        # As a value it would be unknown to the plan, and the driver would have to be given it.
        assert not constants, f"write constant(...) for {constants} in {self.text}"

    async def __call__(self, fetch: Fetch, **values: object) -> Sequence[Mapping[str, Any]]:
        if len(values) != len(self._names):
            raise TypeError(f"the statement takes {sorted(self._names)}, not {sorted(values)}")
        return await fetch(self.text, *[values[name] for name in self._names])


class RowArrays:
    """Rows that a statement takes as one array for each column.

    The columns have the names of the attributes that hold their values.
    """

    def __init__(self, name: str, *columns: KeyedColumnElement[Any]) -> None:
        self._names = [column.key for column in columns]
        self._name = name
        arrays = [bindparam(self._parameter(column.key), type_=ARRAY(column.type)) for column in columns]
        unnested = func.unnest(*arrays).table_valued(*[ColumnClause(column.key, column.type) for column in columns])
        self.table: FromClause = unnested.render_derived(name=name)

    @property
    def c(self) -> Any:
        return self.table.c

    def values(self, rows: Sequence[object], **stored: list[Any]) -> Mapping[str, list[Any]]:
        """What the statement takes for these rows. `stored` are columns that are stored in another form."""
        return {
            self._parameter(name): stored[name] if name in stored else [getattr(row, name) for row in rows]
            for name in self._names
        }

    def names(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """The condition that one of the rows has the column's value in `name`."""
        return any_of(column, self._parameter(name))

    def _parameter(self, name: str) -> str:
        # By the name of a column alone SQLAlchemy would take it for the value of that column in an INSERT or UPDATE.
        return f"{self._name}_{name}"


def any_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """The condition that the column's value is in the array `name`."""
    return column == any_(bindparam(name, type_=ARRAY(column.type)))


def constant(value: str | int) -> ColumnElement[Any]:
    """A value of our own that is written into the statement, where the planner sees it."""
    return literal_column(str(value) if isinstance(value, int) else f"'{value}'")


def seconds(count: ColumnElement[Any]) -> ColumnElement[Any]:
    """So many seconds, as an interval."""
    return literal_column("interval '1 second'") * count


def constants(values: Iterable[str]) -> list[ColumnElement[Any]]:
    return [constant(value) for value in values]


def column(name: str, type_: TypeEngine[Any] | type[TypeEngine[Any]]) -> ColumnClause[Any]:
    return ColumnClause(name, type_() if isinstance(type_, type) else type_)
