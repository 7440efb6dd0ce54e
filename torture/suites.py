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
    paths: Sequence[str]
    numbers: Mapping[str, int]
    """Environment variables that a smaller scale makes smaller."""

    seconds_max: int
    settings: Mapping[str, str] = field(default_factory=dict)
    seed_variable: str | None = None
    at_least: Mapping[str, int] = field(default_factory=dict)
    """Figures of the report, by their last name, and what they must reach at full scale."""


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
    command = ["-m", "pytest", "-q", f"--junitxml={results}", "-p", "no:cacheprovider", *suite.paths]
    began = time.monotonic()
    exit_code = await _finish(command, environment, directory / "output.txt", suite.seconds_max)
    figures = json.loads(report.read_text()) if report.exists() else {}
    checks = [_tests_pass(results, exit_code, directory / "output.txt")]
    checks += [reaches(figures, figure, plan.count(least)) for figure, least in suite.at_least.items()]
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
        last = "\n".join(output.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
        violations.append("not over in time" if exit_code is None else f"exit code {exit_code}: {last}")
    return Check("every test passes", len(cases), violations)


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
    "openapi": Suite(
        ["tests/contract/test_openapi_cases.py"],
        {"OPENAPI_CASES": 60},
        seconds_max=1_200,
        seed_variable="OPENAPI_SEED",
        at_least={"cases": 5_000},
    ),
}
