"""`make torture`: what is too long for `make test`. The same seed makes the same choices, not the same interleavings.

Every scenario ends by itself, and checks what it did against what the callers, the database and the simulator say.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from torture.attacks import attacks
from torture.cancels import cancels
from torture.debits import debits
from torture.deliveries import deliveries
from torture.events import events
from torture.kills import kills
from torture.media import media
from torture.neighbours import neighbours
from torture.outages import cuts, restarts
from torture.picture import draw
from torture.report import Outcome, Plan, Scenario, show, write
from torture.suites import SUITES, scenario_of
from torture.topups import topups

RESULTS = Path(__file__).parent / "results"
SCENARIOS: Mapping[str, Scenario] = {
    "kills": kills,
    "topups": topups,
    "debits": debits,
    "cancels": cancels,
    "neighbours": neighbours,
    "restarts": restarts,
    "cuts": cuts,
    "events": events,
    "deliveries": deliveries,
    "media": media,
    "attacks": attacks,
    **{name: scenario_of(name, suite) for name, suite in SUITES.items()},
}
ONLY_BY_NAME = [name for name, suite in SUITES.items() if suite.takes_hours]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument(
        "scenario", nargs="*", help=f"all but {', '.join(ONLY_BY_NAME)}, or some of: {', '.join(SCENARIOS)}"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts; 1 is the full run")
    parsed = parser.parse_args()
    unknown = set(parsed.scenario) - SCENARIOS.keys()
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    return parsed


async def run(names: list[str], plan: Plan) -> list[Outcome]:
    outcomes = []
    for name in names:
        plan.console.rule(f"{name}, seed {plan.seed}, scale {plan.scale:g}")
        outcomes.append(await SCENARIOS[name](plan))
    return outcomes


def main() -> int:
    given = arguments()
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="torture-logs-"))
    plan = Plan(given.seed, given.scale, console, directory)
    console.print(f"seed {plan.seed}; the logs of every process are in {directory}")
    began = datetime.now(UTC)
    outcomes = asyncio.run(run(given.scenario or [name for name in SCENARIOS if name not in ONLY_BY_NAME], plan))
    show(outcomes, console)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{began:%Y-%m-%dT%H%M%SZ}.json"
    write(outcomes, path, seed=plan.seed, scale=plan.scale)
    console.print(f"written to {path}")
    picture = path.with_suffix(".png")
    if draw(outcomes, picture):
        console.print(f"drawn in {picture}")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
