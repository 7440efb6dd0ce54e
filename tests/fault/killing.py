"""What the files of kill points share: a service that dies again and again, and the count of it."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.builders import database_copy
from tests.fault.job_cases import Case
from tests.fault.world import World, open_world
from tests.simulator_server import running_simulator
from tests.torture_report import report

KILLS_PER_CASE = int(os.environ.get("KILLS_PER_POINT", "1"))
CASE_SECONDS_MAX = 300


@contextmanager
def open_world_of_kills(
    name: str, kills: Counter[str], directory: Path, postgres_dsn: str, template: str
) -> Iterator[World]:
    """Reports the kills by this name at the end."""
    with (
        database_copy(postgres_dsn, template) as database,
        running_simulator(run_seconds_image=0.1) as simulator,
        open_world(directory, database, simulator) as world,
    ):
        yield world
        violations = world.sql("SELECT invariant || ' ' || subject FROM ledger_violations")
        report(
            name,
            {"points": len(kills), "kills": kills.total(), "kills_by_point": kills, "violations": len(violations)},
        )


def kill_at(world: World, case: Case, kills: Counter[str]) -> None:
    for _ in range(KILLS_PER_CASE):
        before = world.kills
        case.run(world, case.point)
        assert world.kills == before + 1
        kills[case.point] += 1
