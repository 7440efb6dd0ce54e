"""A worker that was thought dead comes back with fal's answer."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.service import FaultyProcess
from tests.fault.world import Story, World, open_world
from tests.simulator_server import running_simulator

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_simulator(run_seconds_image=0.1) as simulator, open_world(tmp_path, database, simulator) as world:
        world.use(RUNNER="external")
        world.process.wait_until_ready(world.url)
        yield world


@pytest.fixture
def workers(world: World) -> Iterator[tuple[FaultyProcess, FaultyProcess, Story]]:
    """The first holds a claim and has posted, and does not move; the second has found the claim lost."""
    story = Story(world, "[submit:hang:1] [webhook:never]")
    first = world.launch("worker")
    try:
        story.start()
        world.until(story.requests, "fal has the job")
        os.kill(first.pid, signal.SIGSTOP)
        second = world.launch("worker")
        try:
            story.until("SUBMITTING unknown")
            yield first, second, story
        finally:
            second.kill()
    finally:
        first.kill()


def test_its_answer_is_taken_while_nobody_knows_better(workers: tuple[FaultyProcess, FaultyProcess, Story]) -> None:
    first, _, story = workers

    os.kill(first.pid, signal.SIGCONT)

    story.assert_right("COMPLETED", posts=1)


def test_its_answer_changes_nothing_once_the_job_was_refunded(
    workers: tuple[FaultyProcess, FaultyProcess, Story],
) -> None:
    first, _, story = workers
    story.let_the_time_limit_pass()
    story.until("FAILED unknown refunded")

    os.kill(first.pid, signal.SIGCONT)
    story.world.until(lambda: "generation_submission_unclaimed" in first.output(), "the first worker's answer")

    # But the run is known now: its end is looked for, and what it delivered is kept for the operator.
    story.assert_right("FAILED unknown late refunded", posts=1)
    closed = "SELECT closed_at IS NOT NULL FROM attempts WHERE orphaned_at IS NOT NULL"
    story.world.until(lambda: story.world.sql(closed) == [True], "nothing is left to do with the run")
