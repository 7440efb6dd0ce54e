"""What the torture says of a run: nothing passes that was not tested, and what failed is shown and counted."""

import io
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from torture.debits import AFFORDABLE, REQUESTS_EACH, exactly_what_is_affordable
from torture.picture import draw
from torture.report import Check, Outcome, Plan, show, write
from torture.suites import SUITES, Suite, reaches, scenario_of
from torture.timeline import Mark, Sample, Timeline
from torture.topups import DELIVERIES_EACH, balances_are_right, credited_once, deliveries_of, events_of

RIGHT = Check("it holds", 7)
WRONG = Check("it breaks", 7, ["job 3 [fail] is gone [/]"])


def outcome(*checks: Check) -> Outcome:
    return Outcome("kills", checks, {"jobs": 7})


@pytest.mark.parametrize(
    ("checks", "passes"),
    [([RIGHT], True), ([RIGHT, WRONG], False), ([RIGHT, Check("held against nothing", 0)], False), ([], False)],
)
def test_passes_only_where_every_claim_was_tested_and_holds(checks: list[Check], passes: bool) -> None:
    assert outcome(*checks).passed is passes


def test_shows_what_broke() -> None:
    shown = io.StringIO()

    show([outcome(RIGHT, WRONG)], Console(file=shown, width=120))

    assert "BROKEN" in shown.getvalue()
    assert "job 3 [fail] is gone [/]" in shown.getvalue()


def test_writes_violations_and_the_seed(tmp_path: Path) -> None:
    write([outcome(RIGHT, WRONG)], tmp_path / "results.json", seed=42, scale=1)

    written = json.loads((tmp_path / "results.json").read_text())

    assert (written["seed"], written["passed"]) == (42, False)
    assert written["scenarios"][0]["checks"][1]["violations"] == ["job 3 [fail] is gone [/]"]


def test_draws_a_picture_of_a_run_and_none_of_nothing(tmp_path: Path) -> None:
    timeline = Timeline(
        marks=[Mark(1, "kill api")],
        samples=[Sample(0, {"QUEUED": 1}, 100, 0), Sample(2, {"COMPLETED": 1}, 95, 1)],
    )

    assert draw([Outcome("kills", [RIGHT], {}, timeline)], tmp_path / "run.png")
    assert not draw([outcome(RIGHT)], tmp_path / "nothing.png")

    with Image.open(tmp_path / "run.png") as picture:
        assert picture.width > 1000
    assert timeline.violating_samples == ["1 at 2 s"]


@pytest.mark.parametrize("accepted", [AFFORDABLE - 1, AFFORDABLE + 1])
def test_one_debit_too_few_or_too_many_is_noticed(accepted: int) -> None:
    right = Counter({202: AFFORDABLE, 402: REQUESTS_EACH - AFFORDABLE})
    wrong = Counter({202: accepted, 402: REQUESTS_EACH - accepted})

    assert exactly_what_is_affordable([right, right]).holds
    assert len(exactly_what_is_affordable([right, wrong]).violations) == 1


def test_a_credit_too_few_or_too_many_is_noticed() -> None:
    events = events_of(random.Random(1), 4)
    credited = [(event.id, event.amount) for event in events]
    balances = {event.user_id: sum(e.amount for e in events if e.user_id == event.user_id) for event in events}

    assert credited_once(events, credited).holds
    assert credited_once(events, credited[1:]).violations
    assert credited_once(events, [*credited, credited[0]]).violations
    assert balances_are_right(events, balances).holds
    assert balances_are_right(events, balances | {events[0].user_id: 0}).violations


def test_every_event_is_delivered_fifty_times() -> None:
    events = events_of(random.Random(1), 6)

    assert Counter(deliveries_of(random.Random(1), events)) == dict.fromkeys(events, DELIVERIES_EACH)


def test_too_few_cases_are_noticed() -> None:
    figures = {"openapi": {"cases": 8, "seed": 9}, "seconds": 9}

    assert reaches(figures, "cases", 8).holds
    assert reaches(figures, "cases", 9).violations
    assert reaches({}, "cases", 9).violations


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_names_tests_that_exist_and_numbers_that_they_read(name: str, project_dir: Path) -> None:
    suite = SUITES[name]
    paths = [project_dir / (test.replace(".", "/") if suite.is_program else test) for test in suite.tests]
    assert all(path.exists() for path in paths)

    files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    source = "".join(file.read_text() for file in files)
    # What several of them share is in a module beside them.
    shared = re.findall(r"^from (tests\.[\w.]+) import", source, re.MULTILINE)
    modules = [(project_dir / name.replace(".", "/")).with_suffix(".py") for name in shared]
    source += "".join(module.read_text() for module in modules if module.exists())

    assert all(f'"{variable}"' in source for variable in [*suite.numbers, *suite.settings])
    assert all(f'"{figure}"' in source for figure in suite.at_least)


@pytest.mark.timeout(300)
async def test_runs_a_suite_with_its_numbers_and_names_what_fails(tmp_path: Path) -> None:
    test = tmp_path / "test_long.py"
    test.write_text(
        "import os\n"
        "def test_right():\n    assert os.environ['CASES'] == '9'\n"
        "def test_wrong():\n    assert os.environ['CASES'] == '90'\n"
    )
    suite = Suite([str(test), f"--rootdir={tmp_path}"], {"CASES": 90}, seconds_max=60)

    result = await scenario_of("long", suite)(Plan(1, 0.1, Console(file=io.StringIO()), tmp_path))

    assert not result.passed
    assert result.checks[0].examined == 2
    assert result.checks[0].violations == ["test_long::test_wrong failure"]
