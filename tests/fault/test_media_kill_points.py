"""The service dies at every fault point of media; each output is stored once, and nothing is left of a deleted one."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fault.job_cases import Case
from tests.fault.killing import CASE_SECONDS_MAX, KILLS_PER_CASE, kill_at, open_world_of_kills
from tests.fault.media_cases import MEDIA_CASES
from tests.fault.world import World

pytestmark = pytest.mark.timeout(CASE_SECONDS_MAX * KILLS_PER_CASE)

kills: Counter[str] = Counter()


@pytest.fixture(scope="module")
def world(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("media_kills")
    with open_world_of_kills("media_kill_points", kills, directory, postgres_dsn, template_database) as world:
        yield world


@pytest.mark.parametrize("case", MEDIA_CASES, ids=lambda case: f"{case.point} {case.note}".rstrip())
def test_what_dies_at_a_point_leaves_the_store_as_the_database_says(world: World, case: Case) -> None:
    kill_at(world, case, kills)
