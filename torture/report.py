"""What a scenario hands back, and how it is shown and stored."""

import json
import os
import platform
import textwrap
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torture.timeline import Timeline

VIOLATIONS_SHOWN_MAX = 20
COUNTS_SHOWN_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Check:
    """One claim, how many things it was held against, and each of them that breaks it."""

    claim: str
    examined: int
    violations: Sequence[str] = ()

    @property
    def holds(self) -> bool:
        """A claim that was held against nothing was not tested."""
        return self.examined > 0 and not self.violations


@dataclass(frozen=True, slots=True)
class Outcome:
    scenario: str
    checks: Sequence[Check]
    counts: Mapping[str, Any] = field(default_factory=dict)
    timeline: Timeline | None = None
    seconds: float = 0

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.holds for check in self.checks)

    @property
    def violation_count(self) -> int:
        return sum(len(check.violations) for check in self.checks)


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    scale: float
    console: Console
    directory: Path

    def count(self, full: int) -> int:
        return max(1, round(full * self.scale))


Scenario: TypeAlias = Callable[[Plan], Coroutine[Any, Any, Outcome]]


def table_of(outcomes: Sequence[Outcome]) -> Table:
    table = Table("scenario", "what was checked", "count", "violations", "verdict")
    for outcome in outcomes:
        for number, check in enumerate(outcome.checks):
            table.add_row(
                "" if number else f"{outcome.scenario}, {outcome.seconds:.0f} s",
                check.claim,
                f"{check.examined:,}",
                f"{len(check.violations):,}",
                "holds" if check.holds else "[red]BROKEN" if check.violations else "[red]NOT TESTED",
            )
        table.add_section()
    return table


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_short(found)}" for name, found in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    for outcome in outcomes:
        happened = "; ".join(f"{name.replace('_', ' ')}: {_short(value)}" for name, value in outcome.counts.items())
        console.print(
            f"[bold]{outcome.scenario}[/bold]: {escape(textwrap.shorten(happened, COUNTS_SHOWN_MAX))}", soft_wrap=True
        )
    console.print(table_of(outcomes))
    for outcome in outcomes:
        for check in outcome.checks:
            for violation in check.violations[:VIOLATIONS_SHOWN_MAX]:
                console.print(f"[red]{outcome.scenario}: {check.claim}:[/red] {escape(violation)}")
            left_out = len(check.violations) - VIOLATIONS_SHOWN_MAX
            if left_out > 0:
                console.print(f"... and {left_out} more")


def write(outcomes: Sequence[Outcome], path: Path, *, seed: int, scale: float) -> None:
    document = {
        "seed": seed,
        "scale": scale,
        "passed": all(outcome.passed for outcome in outcomes),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
        "scenarios": [
            {
                "scenario": outcome.scenario,
                "passed": outcome.passed,
                "seconds": round(outcome.seconds, 1),
                "counts": outcome.counts,
                "checks": [asdict(check) | {"holds": check.holds} for check in outcome.checks],
            }
            for outcome in outcomes
        ],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
