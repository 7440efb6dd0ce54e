"""The table, the bars and the file of a run."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Bar, Rows, Verdict, ratio
from benchmarks.measuring import Options
from tests.service_process import PROJECT_DIR

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "sqlalchemy", "asyncpg", "pgqueuer")
NOTHING = "nothing/"
SHOWN_IN_TABLE = {"per_second", "count", "callers_cpu_share", "p50_ms", "p95_ms", "p99_ms"}


def machine(postgres_version: str) -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average_at_start": os.getloadavg(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.platform(),
        "file_system": _file_system(PROJECT_DIR),
        "python": platform.python_version(),
        "postgresql": postgres_version,
        "packages": {name: version(name) for name in PACKAGES},
        "git_commit": _git("rev-parse", "HEAD"),
        "has_uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _file_system(path: Path) -> str:
    mounted = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return max(mounted, key=lambda part: len(part.mountpoint)).fstype if mounted else "unknown"


def _git(*arguments: str) -> str:
    found = subprocess.run(["git", *arguments], cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _shown(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def print_rows(rows: Rows, console: Console) -> None:
    table = Table(title="medians of the rounds")
    for heading in ("row", "per second", "of nothing", "p50 ms", "p95 ms", "p99 ms", "callers' CPU"):
        side: Literal["left", "right"] = "left" if heading == "row" else "right"
        table.add_column(heading, justify=side, no_wrap=True)
    for name, row in rows.items():
        of_nothing = ratio(rows, name, NOTHING + name)
        table.add_row(
            name,
            "error" if row.error else _shown(row.median("per_second")),
            "" if of_nothing is None else f"{of_nothing.value:.2f}",
            *(_shown(row.median(f"p{percent}_ms"), 2) for percent in (50, 95, 99)),
            _shown(row.median("callers_cpu_share"), 2),
        )
    console.print(table)
    for name, row in rows.items():
        for figure in row.names:
            if figure not in SHOWN_IN_TABLE:
                console.print(f"{name}: {figure} {_shown(row.median(figure), 1)}", highlight=False)
        if row.error is not None:
            console.print(f"{name}: {row.error}", markup=False)


def print_bars(verdicts: Sequence[Verdict], console: Console) -> None:
    table = Table(title="bars")
    for heading in ("what", "measured", "single rounds", "bar", ""):
        table.add_column(heading, justify="right" if heading == "measured" else "left", no_wrap=True)
    for verdict in verdicts:
        found = verdict.ratio
        table.add_row(
            verdict.bar.text,
            f"{found.value:.2f}",
            f"{found.least:.2f} to {found.most:.2f}",
            f"{verdict.bar.sense} {verdict.bar.bound:g}",
            "[green]reached[/green]" if verdict.is_reached else "[red]not reached[/red]",
        )
    console.print(table)


def judge(rows: Rows, bars: Sequence[Bar]) -> list[Verdict]:
    return [verdict for bar in bars if (verdict := bar.judge(rows)) is not None]


def document(
    rows: Rows, verdicts: Sequence[Verdict], options: Options, described: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_seconds": round(seconds),
        "load_average_at_end": os.getloadavg(),
        "rounds": options.rounds,
        "seconds_per_round": options.seconds,
        "machine": dict(described),
        "bars": [verdict.as_json() for verdict in verdicts],
        "rows": {
            name: {
                "medians": {figure: row.median(figure) for figure in row.names},
                "rounds": row.rounds,
                **({} if row.error is None else {"error": row.error}),
            }
            for name, row in rows.items()
        },
    }


def write(result: Mapping[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
