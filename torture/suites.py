"""Tests of `make test` that take a number, run with the large one. Their own figures go into the table."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import xml.etree.ElementTree as Xml
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.service_process import PROJECT_DIR
from torture.report import Check, Outcome, Plan, Scenario

SHOWN_LINES = 15


@dataclass(frozen=True, slots=True)
class Suite:
    tests: Sequence[str]
    numbers: Mapping[str, int]
    """Environment variables that a smaller scale makes smaller."""

    seconds_max: int
    settings: Mapping[str, str] = field(default_factory=dict)
    seed_variable: str | None = None
    at_least: Mapping[str, int] = field(default_factory=dict)
    """Figures of the report, by their last name, and what they must reach at full scale."""

    is_program: bool = False
    """A module to run instead of tests for pytest; its exit code says whether all is well."""

    takes_hours: bool = False
    """Run only where it is named."""


def scenario_of(name: str, suite: Suite) -> Scenario:
    async def run(plan: Plan) -> Outcome:
        return await _run(name, suite, plan)

    return run


async def _run(name: str, suite: Suite, plan: Plan) -> Outcome:
    directory = plan.directory / name
    directory.mkdir()
    report, results = directory / "report.json", directory / "results.xml"
    numbers = {variable: str(plan.count(number)) for variable, number in suite.numbers.items()}
    seed = {} if suite.seed_variable is None else {suite.seed_variable: str(plan.seed)}
    environment = {**os.environ, **numbers, **seed, **suite.settings, "TORTURE_REPORT": str(report)}
    pytest = ["pytest", "-q", f"--junitxml={results}", "-p", "no:cacheprovider"]
    command = ["-m", *([] if suite.is_program else pytest), *suite.tests]
    began = time.monotonic()
    exit_code = await _finish(command, environment, directory / "output.txt", suite.seconds_max)
    figures = json.loads(report.read_text()) if report.exists() else {}
    output = directory / "output.txt"
    checks = [_program_ends_well(exit_code, output) if suite.is_program else _tests_pass(results, exit_code, output)]
    checks += [
        reaches(figures, figure, plan.count(least) if suite.numbers else least)
        for figure, least in suite.at_least.items()
    ]
    return Outcome(name, checks, {**numbers, **figures}, seconds=time.monotonic() - began)


async def _finish(command: Sequence[str], environment: Mapping[str, str], output: Path, seconds: int) -> int | None:
    """The exit code; None: it was not over in time. What it started ends with it: it has a session of its own."""
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            cwd=PROJECT_DIR,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        return await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 30)
        if process.returncode is None:
            process.kill()
            await process.wait()


def _tests_pass(results: Path, exit_code: int | None, output: Path) -> Check:
    cases = list(Xml.parse(results).iter("testcase")) if results.exists() else []
    violations = [
        f"{case.get('classname')}::{case.get('name')} {problem.tag}"
        for case in cases
        for problem in case
        if problem.tag in ("failure", "error")
    ]
    if exit_code != 0 and not violations:
        violations.append(_last_words(exit_code, output))
    return Check("every test passes", len(cases), violations)


def _program_ends_well(exit_code: int | None, output: Path) -> Check:
    return Check("it ends well", 1, [] if exit_code == 0 else [_last_words(exit_code, output)])


def _last_words(exit_code: int | None, output: Path) -> str:
    last = "\n".join(output.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
    return f"{'not over in time' if exit_code is None else f'exit code {exit_code}'}: {last}"


def reaches(figures: Mapping[str, Any], figure: str, least: int) -> Check:
    found = [value for name, value in _flat(figures) if name == figure and isinstance(value, int | float)]
    reached = sum(found)
    violations = [] if reached >= least else [f"{figure} came to {reached:g}, not to {least:,}"]
    return Check(f"at least {least:,} {figure.replace('_', ' ')}", int(reached), violations)


def _flat(figures: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield name, value


SUITES: Mapping[str, Suite] = {
    "property": Suite(
        ["tests/property"],
        {"PROPERTY_EXAMPLES": 5_000},
        seconds_max=900,
        # Bounded in time, not in number: a shared machine comes as far as it comes.
        settings={"PROPERTY_STEPS": "50", "PROPERTY_SECONDS": "480", "PROPERTY_SHRINK": "0"},
        seed_variable="PROPERTY_SEED",
        at_least={"examples": 100},
    ),
    "prices": Suite(
        ["tests/property/test_catalogue_prices.py"],
        {"PRICED_SETS": 1_000_000},
        seconds_max=3_600,
        seed_variable="PRICED_SEED",
        # A model need not have a number of pictures or seconds that could be more.
        at_least={
            "quotes_charged_as_promised": 1_000_000,
            "maxima_kept": 1_000_000,
            "sums_of_lines": 1_000_000,
            "comparisons_with_more": 900_000,
            "refunds_within_the_charge": 1_000_000,
        },
    ),
    "limits": Suite(
        ["tests/property/test_limits.py"],
        {"LIMITED_REQUESTS": 1_000_000},
        seconds_max=7_200,
        seed_variable="LIMITED_SEED",
        at_least={"limited_requests": 1_000_000},
    ),
    "reversals": Suite(
        ["tests/property/test_reversal_sets.py"],
        {"REVERSAL_SETS": 100_000},
        seconds_max=3 * 3_600,
        seed_variable="REVERSAL_SEED",
        at_least={"sets": 100_000, "reversal_events": 300_000, "refused": 100_000, "debts": 2_000},
    ),
    "fairness": Suite(
        ["tests/integration/test_fair_shares.py", "tests/integration/test_places_at_fal.py"],
        {"FAIR_WAITING": 10_000, "FAIR_PICTURES": 40, "FAIR_ENDS": 3_000},
        seconds_max=3_600,
        at_least={"pictures": 120, "ends": 3_000},
    ),
    "waits": Suite(
        ["tests/property/test_eta_windows.py"],
        {"TOLD_WAITS": 20_000},
        seconds_max=1_200,
        seed_variable="TOLD_SEED",
        at_least={"windows": 60_000},
    ),
    "openapi": Suite(
        ["tests/contract/test_openapi_cases.py"],
        {"OPENAPI_CASES": 450, "OPENAPI_MODELS": 100},
        seconds_max=3_600,
        seed_variable="OPENAPI_SEED",
        at_least={"cases": 5_000},
    ),
    "fal-matrix": Suite(
        ["tests/fault/test_fal_matrix.py", "tests/fault/test_fal_outages.py"],
        {"FAULT_JOBS_PER_ROW": 10},
        seconds_max=1_800,
        at_least={"jobs": 2_000},
    ),
    "races": Suite(["tests/fault/test_races.py"], {"RACING_JOBS": 1_000}, seconds_max=1_200, at_least={"jobs": 2_000}),
    "mutants": Suite(["tests.mutants"], {}, seconds_max=3_600, is_program=True, at_least={"mutants": 70}),
    "kill-points": Suite(
        ["tests/fault/test_kill_points.py", "tests/fault/test_webhook_kill_points.py"],
        {"KILLS_PER_POINT": 50},
        seconds_max=4 * 3_600,
        at_least={"kills": 2_000},
        takes_hours=True,
    ),
    "rolling-restarts": Suite(
        ["tests/end_to_end/test_rolling_restart.py"],
        {"ROLLING_RESTARTS": 20},
        seconds_max=900,
        at_least={"rolling_restarts": 20},
    ),
}
