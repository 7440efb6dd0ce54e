"""`make bench`: this service as ratios, each measured in one run beside its floor."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    deliveries,
    flight,
    growth,
    hostile,
    jobs,
    limits,
    media,
    plot,
    prices,
    report,
    rows,
    startup,
    streams,
)
from benchmarks.figures import Bar, Row
from benchmarks.measuring import Options, Run
from benchmarks.stage import TEMPLATE, Stage, open_stage, server_version
from tests.builders import connect

BUSY_LOAD_AVERAGE = 0.5


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that share what they run on."""

    names: Sequence[str]
    measure: Callable[[Stage, Run], Awaitable[None]]
    bars: Sequence[Bar]
    estimate_seconds: Callable[[Options], float]


GROUPS = (
    Group((*rows.NAMES, "callers"), rows.run_routes, rows.BARS, rows.estimate_seconds),
    Group(limits.NAMES, limits.run_limited, limits.BARS, limits.estimate_seconds),
    Group(jobs.NAMES, jobs.run_jobs, jobs.BARS, jobs.estimate_seconds),
    Group(flight.NAMES, flight.run_flight, flight.BARS, flight.estimate_seconds),
    Group(streams.NAMES, streams.run_streams, streams.BARS, streams.estimate_seconds),
    Group(deliveries.NAMES, deliveries.run_deliveries, deliveries.BARS, deliveries.estimate_seconds),
    Group(media.NAMES, media.run_media, media.BARS, media.estimate_seconds),
    Group(hostile.NAMES, hostile.run_hostile, hostile.BARS, hostile.estimate_seconds),
    Group(growth.NAMES, growth.run_growth, growth.BARS, growth.estimate_seconds),
    Group(startup.NAMES, startup.run_startup, (), startup.estimate_seconds),
    Group(prices.NAMES, prices.run_prices, prices.BARS, prices.estimate_seconds),
)


def options_from_command_line() -> Options:
    names = [name for group in GROUPS for name in group.names]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which ones; all without any: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round of a row")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, not how fast is it")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(names):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    rounds, seconds = (1, 1.0) if given.quick else (given.rounds, given.seconds)
    return Options(rounds, seconds, given.quick, frozenset(given.rows))


async def main(options: Options) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    started = time.monotonic()
    chosen = [group for group in GROUPS if options.wants(*group.names)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    estimate_seconds = sum(group.estimate_seconds(options) for group in chosen)
    console.print(f"about {max(1, round(estimate_seconds / 60))} minutes, longer where the machine has other work")
    if os.getloadavg()[0] > BUSY_LOAD_AVERAGE:
        console.print("[yellow]The machine is busy: the ratios will be worse than on an idle one.[/yellow]")
    async with open_stage() as stage:
        async with connect(stage.dsn(TEMPLATE)) as connection:
            described = report.machine(await server_version(connection))
        with Progress(*columns, console=console) as progress:
            run = Run(options, progress)
            for group in chosen:
                try:
                    await group.measure(stage, run)
                except Exception as error:
                    console.print_exception()
                    run.rows[", ".join(group.names)] = Row(error=f"{type(error).__name__}: {error}")
    verdicts = report.judge(run.rows, [bar for group in chosen for bar in group.bars])
    report.print_rows(run.rows, console)
    report.print_bars(verdicts, console)
    result = report.document(run.rows, verdicts, options, described, time.monotonic() - started)
    path = report.write(result)
    plot.draw(result, path.with_suffix(".svg"))
    console.print(f"written to {path}, with a picture beside it")


if __name__ == "__main__":
    try:
        asyncio.run(main(options_from_command_line()))
    except KeyboardInterrupt:
        # Also what SIGTERM becomes. Everything that was started has been stopped on the way here.
        sys.exit(130)
