"""The registry says everything about every step, and nobody but the queue's own files knows its table."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from sqlalchemy import Uuid

from app.application.execution import steps as steps_module
from app.application.execution.steps import (
    CANCEL_ORPHANS,
    COPY_OUTPUTS,
    ERASE_FILE,
    ERASE_MEDIA,
    FOLLOW_JOB,
    FORGET_INPUT,
    SUBMIT_JOB,
    Step,
)
from app.bootstrap.steps import STEPS, StepHandlers, handlers_by_step

# `logging.py` names the library's loggers.
KNOW_THE_QUEUE = {
    "app/infrastructure/background/items.py",
    "app/infrastructure/background/lanes.py",
    "app/infrastructure/background/queries.py",
    "app/infrastructure/background/runner.py",
    "app/infrastructure/logging.py",
    "app/infrastructure/postgres/queue.py",
}


def test_every_step_has_one_row() -> None:
    steps = [value for value in vars(steps_module).values() if isinstance(value, Step)]

    assert [row.step for row in STEPS] == steps
    assert len({step.name for step in steps}) == len(steps)


def test_the_names_that_the_queue_knows_stay_as_they_are() -> None:
    assert [(step.name, step.subject) for step in (SUBMIT_JOB, FOLLOW_JOB, FORGET_INPUT, CANCEL_ORPHANS)] == [
        ("generation.submit", "job"),
        ("generation.follow", "job"),
        ("input.forget", "job"),
        ("attempt.cancel", "job"),
    ]


def test_every_row_names_who_carries_the_step_out() -> None:
    fields = ("submit", "follow", "forget", "cancel_orphans", "copy_outputs", "erase_media", "erase_file")
    stand_ins = SimpleNamespace(**{field: object() for field in fields})

    handlers = handlers_by_step(cast(StepHandlers, stand_ins))

    assert handlers == {
        SUBMIT_JOB: stand_ins.submit,
        FOLLOW_JOB: stand_ins.follow,
        FORGET_INPUT: stand_ins.forget,
        CANCEL_ORPHANS: stand_ins.cancel_orphans,
        COPY_OUTPUTS: stand_ins.copy_outputs,
        ERASE_MEDIA: stand_ins.erase_media,
        ERASE_FILE: stand_ins.erase_file,
    }


def test_every_row_finds_the_subjects_that_wait() -> None:
    for row in STEPS:
        (column,) = row.waiting.selected_columns
        assert (column.name, type(column.type)) == ("id", Uuid), row.step.name


def test_no_lane_hears_of_the_steps_of_another() -> None:
    lanes = {row.step.lane for row in STEPS}
    channels = [*(lane.name for lane in lanes), *(row.step.name for row in STEPS)]

    assert len(set(channels)) == len(channels)
    # The library wants at least two batches to fit.
    assert min(lane.concurrent_steps_max for lane in lanes) >= 2


def test_only_the_queues_own_files_know_its_table(project_dir: Path) -> None:
    knowing = {
        str(path.relative_to(project_dir))
        for path in (project_dir / "app").rglob("*.py")
        if "pgqueuer" in path.read_text()
    }

    assert knowing == KNOW_THE_QUEUE
