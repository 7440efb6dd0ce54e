"""The service dies at every fault point of webhooks; what was to be delivered is, by one id."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fault.job_cases import Case
from tests.fault.killing import CASE_SECONDS_MAX, KILLS_PER_CASE, kill_at, open_world_of_kills
from tests.fault.webhook_cases import WEBHOOK_CASES
from tests.fault.world import World

pytestmark = pytest.mark.timeout(CASE_SECONDS_MAX * KILLS_PER_CASE)

kills: Counter[str] = Counter()


@pytest.fixture(scope="module")
def world(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("webhook_kills")
    with open_world_of_kills("webhook_kill_points", kills, directory, postgres_dsn, template_database) as world:
        yield world


@pytest.mark.parametrize("case", WEBHOOK_CASES, ids=lambda case: case.point)
def test_what_dies_at_a_point_delivers_all_the_same(world: World, case: Case) -> None:
    kill_at(world, case, kills)
