"""The service against a model of it, in random orders of everything that can happen.

`make test` runs a fixed set of orders. For more, set
- PROPERTY_EXAMPLES: how many orders (5000 for a long run), PROPERTY_STEPS: how many steps each (50);
- PROPERTY_SHRINK: 0 reports a failure as it was found, at once, not made as small as it can be;
- PROPERTY_SECONDS: no new batch of orders begins after this time;
- PROPERTY_SEED: another set of orders, a whole number; a failure prints its own;
- TORTURE_REPORT: a file that gets what was run as JSON; where several tests name one, each adds its own field.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.builders import database_copy
from tests.conftest import scratch_dir
from tests.property.machine import TollgateMachine
from tests.property.model import FINAL
from tests.property.world import World, open_world
from tests.torture_report import report

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "40"))
STEPS = int(os.environ.get("PROPERTY_STEPS", "30"))
SECONDS = int(os.environ.get("PROPERTY_SECONDS", "0"))
SHRINKS = os.environ.get("PROPERTY_SHRINK", "1") == "1"
SEED = int(os.environ.get("PROPERTY_SEED", "1"))
# Each batch has its own seed, so that a failure late in a long run is found again in seconds.
BATCH_EXAMPLES = 40


@pytest.fixture
def world(postgres_dsn: str, template_database: str) -> Iterator[World]:
    with (
        tempfile.TemporaryDirectory(dir=scratch_dir()) as directory,
        database_copy(postgres_dsn, template_database) as database,
        open_world(database, Path(directory)) as world,
    ):
        yield world


@pytest.mark.timeout(max(300, SECONDS * 2 + EXAMPLES))
def test_whatever_happens_the_books_close_and_every_job_ends(world: World) -> None:
    started = time.monotonic()
    examples = failures = 0
    TollgateMachine.world, TollgateMachine.seen = world, Counter()
    try:
        while examples < EXAMPLES and not (SECONDS and time.monotonic() - started > SECONDS):
            number, size = SEED + examples // BATCH_EXAMPLES, min(BATCH_EXAMPLES, EXAMPLES - examples)
            examples += size
            try:
                _run(number, size)
            except BaseException as error:
                failures += 1
                error.add_note(f"Run again: PROPERTY_SEED={number} PROPERTY_EXAMPLES={size} PROPERTY_STEPS={STEPS}")
                raise
    finally:
        seconds = round(time.monotonic() - started, 1)
        seen = dict(sorted(TollgateMachine.seen.items()))
        report("property", {"examples": examples, "failures": failures, "seconds": seconds, "seed": SEED, "seen": seen})
    if examples >= BATCH_EXAMPLES:
        for what in (*(f"cancel of a job that is {ending}" for ending in sorted(FINAL)), "partly refunded"):
            assert seen.get(what), f"no run came to this: {what}; but {seen}"


def _run(number: int, examples: int) -> None:
    @seed(number)
    class Machine(TollgateMachine):
        pass

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if SHRINKS else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
