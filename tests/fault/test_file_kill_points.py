"""The service dies at every fault point of files; what counts is kept, and each job has its files or its money."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fault.file_cases import FILE_CASES
from tests.fault.job_cases import Case
from tests.fault.killing import CASE_SECONDS_MAX, KILLS_PER_CASE, kill_at, open_world_of_kills
from tests.fault.world import World

pytestmark = pytest.mark.timeout(CASE_SECONDS_MAX * KILLS_PER_CASE)

kills: Counter[str] = Counter()


@pytest.fixture(scope="module")
def world(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("file_kills")
    with open_world_of_kills("file_kill_points", kills, directory, postgres_dsn, template_database) as world:
        yield world


@pytest.mark.parametrize("case", FILE_CASES, ids=lambda case: f"{case.point} {case.note}".rstrip())
def test_what_dies_at_a_point_keeps_files_and_counts_as_one(world: World, case: Case) -> None:
    kill_at(world, case, kills)
