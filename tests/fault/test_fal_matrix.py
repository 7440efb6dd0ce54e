"""Whatever fal does: the exact end of every job, to the token, and never a second POST.

FAULT_JOBS_PER_ROW runs each row with more jobs, TORTURE_REPORT names a file that gets each row as JSON.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.builders import connect
from tests.conftest import with_database
from tests.fault.fal_rows import ROWS
from tests.fault.fal_world import Row, World, open_world, run_row
from tests.simulator_server import running_simulator
from tests.torture_report import report

JOBS_PER_ROW = int(os.environ.get("FAULT_JOBS_PER_ROW", "1"))

pytestmark = pytest.mark.timeout(300 + 5 * JOBS_PER_ROW)


class Worlds:
    """One of each kind for all rows: to connect everything takes longer than most rows."""

    def __init__(self, stack: AsyncExitStack, fal_url: str, database: str) -> None:
        self._stack = stack
        self._fal_url = fal_url
        self._database = database
        self._worlds: dict[tuple[bool, bool], World] = {}

    async def of(self, row: Row) -> World:
        kind = (row.with_webhooks, row.limits is not None)
        if kind not in self._worlds:
            opening = open_world(self._fal_url, self._database, with_webhooks=row.with_webhooks, limits=row.limits)
            self._worlds[kind] = await self._stack.enter_async_context(opening)
        return self._worlds[kind]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worlds(postgres_dsn: str, template_database: str) -> AsyncIterator[Worlds]:
    database = f"test_{uuid4().hex}"
    async with connect(postgres_dsn) as sql, AsyncExitStack() as stack:
        await sql.execute(f"CREATE DATABASE {database} TEMPLATE {template_database} STRATEGY FILE_COPY")
        url = stack.enter_context(running_simulator())
        yield Worlds(stack, url, with_database(postgres_dsn, database))
        await stack.aclose()
        await sql.execute(f"DROP DATABASE {database} WITH (FORCE)")


def alone_if_limits_are_short(row: Row) -> list[pytest.MarkDecorator]:
    """Of such a row also what is not slow must be answered within them."""
    return [] if row.limits is None else [pytest.mark.alone]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id, marks=alone_if_limits_are_short(row)) for row in ROWS])
async def test_every_job_ends_as_the_row_says(row: Row, worlds: Worlds) -> None:
    start, result = time.monotonic(), "failed"
    try:
        await run_row(row, await worlds.of(row), JOBS_PER_ROW)
        result = "passed"
    finally:
        seconds = round(time.monotonic() - start, 2)
        report(f"row {row.id}", {"jobs": JOBS_PER_ROW, "result": result, "seconds": seconds})


def test_no_row_is_there_twice() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
