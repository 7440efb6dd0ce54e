"""Two processes with few places at fal, killed again and again: the bound holds, and no place is lost."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import COST_TOKENS
from tests.fault.world import TEXT_TO_IMAGE, Story, World, open_world
from tests.simulator_server import running_simulator
from tests.torture_report import report

PLACES = 2
JOBS = int(os.environ.get("FAIR_KILLED_JOBS", "40"))
KILL_SECONDS = (0.4, 1.6)
# On a slow machine next to nothing gets done between two kills: after so many the rest may end in peace.
KILLS_MAX = JOBS // 2
# One snapshot: a job is claimed in its place, and ends with it.
AT_FAL = """
SELECT count(*) FROM jobs WHERE NOT is_final AND status <> 'QUEUED' AND submit_unknown_at IS NULL
"""
LEFT = "SELECT count(*) FROM jobs WHERE NOT is_final"

pytestmark = pytest.mark.timeout(300 + 5 * JOBS)


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[World]:
    with (
        running_simulator(queue_seconds=0.05, run_seconds_image=0.2) as simulator,
        open_world(tmp_path, database, simulator) as world,
    ):
        world.environment["FAL_CONCURRENCY"] = str(PLACES)
        yield world


def test_the_bound_holds_and_no_place_is_lost(world: World) -> None:
    story = Story(world)
    story.top_up("more", amount=COST_TOKENS * JOBS)
    for number in range(JOBS):
        answer = world.send("POST", TEXT_TO_IMAGE, json={"prompt": f"{story.prompt} {number}"}, headers=story.headers)
        assert answer is not None
        assert answer.status_code == 202, answer.text
    worker = world.launch("worker")
    most, kills = 0, 0
    kill_at = time.monotonic() + random.uniform(*KILL_SECONDS)
    deadline = time.monotonic() + 240 + 2 * JOBS
    while world.sql(LEFT) != [0]:
        assert time.monotonic() < deadline, world.log.read_text()[-3000:]
        most = max(most, *world.sql(AT_FAL))
        if time.monotonic() > kill_at and kills < KILLS_MAX:
            kills += 1
            if kills % 2:
                worker.kill()
                worker = world.launch("worker")
            else:
                world.kill()
                world.run()
            kill_at = time.monotonic() + random.uniform(*KILL_SECONDS)
        # What nobody knows of, and no event tells of, need not be waited for.
        world.sql(
            "UPDATE jobs SET deadline_at = clock_timestamp() WHERE submit_unknown_at < now() - interval '3 seconds'"
            " AND NOT is_final"
        )
    worker.kill()
    world.until(lambda: world.sql("SELECT count(*) FROM places WHERE job_id IS NOT NULL") == [0], "all places are free")

    report("places_after_kills", {"kills": kills, "jobs": JOBS, "most_at_fal": most})
    assert kills >= 3
    assert 1 <= most <= PLACES
    story.assert_nothing_is_left()
