"""What the runbook says is seen in the log is something that the service says."""

import re
from pathlib import Path

import pytest

from app.application.execution import steps as steps_module
from app.application.execution.steps import Step

RUNBOOK = Path("docs/runbook.md").read_text(encoding="utf-8")
CODE = "\n".join(path.read_text(encoding="utf-8") for path in Path("app").rglob("*.py"))
# Made of the first part of a step's name.
REQUEUED = {f"{step.area}_requeued" for step in vars(steps_module).values() if isinstance(step, Step)}


def _names_seen() -> list[str]:
    """What looks like the name of a log event, a code or a field, in the first column of any table."""
    first_columns = re.findall(r"^\| (.*?) \|", RUNBOOK, flags=re.MULTILINE)
    return sorted({name for column in first_columns for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", column)})


@pytest.mark.parametrize("name", _names_seen())
def test_the_service_says_what_the_runbook_explains(name: str) -> None:
    assert name in REQUEUED or re.search(rf"\b{name}\b", CODE)


def test_explains_each_event_of_a_step_that_was_queued_again() -> None:
    assert set(_names_seen()) >= REQUEUED
