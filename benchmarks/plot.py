"""The picture of a result: `python -m benchmarks.plot RESULT.json PICTURE.svg` draws it again."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_CALLERS = re.compile(r"(?P<name>.+) c=(?P<callers>\d+)")
_SIZE = re.compile(r"(?P<name>\w+), 10\^(?P<exponent>\d) jobs")

Medians = Mapping[str, Mapping[str, float | None]]
Line = Sequence[tuple[float, float]]


def over_callers(medians: Medians, name: str, figure: str) -> Line:
    """The figure of the row at each number of callers that it was measured with."""
    points = []
    for row, figures in medians.items():
        found = _CALLERS.fullmatch(row)
        value = figures.get(figure)
        if found is not None and found["name"] == name and value is not None:
            points.append((float(found["callers"]), value))
    return sorted(points)


def over_jobs(medians: Medians, name: str) -> Line:
    """What a request costs at each number of jobs, as a multiple of what it costs at the smallest one."""
    rates = []
    for row, figures in medians.items():
        found = _SIZE.fullmatch(row)
        rate = figures.get("per_second")
        if found is not None and found["name"] == name and rate:
            rates.append((10.0 ** int(found["exponent"]), rate))
    rates.sort()
    return [(jobs, rates[0][1] / rate) for jobs, rate in rates]


def draw(result: Mapping[str, Any], path: Path) -> None:
    medians: Medians = {name: row["medians"] for name, row in result["rows"].items() if "error" not in row}
    with mpl.rc_context({"font.size": 9, "svg.hashsalt": "benchmarks", "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        throughput, latency, growth = figure.subplots(1, 3)
        _draw_throughput(throughput, medians)
        _draw_latency(latency, medians)
        _draw_growth(growth, medians)
        machine = result["machine"]
        figure.suptitle(
            f"{machine['cpu']}, {machine['cores']} cores, PostgreSQL {machine['postgresql']}, "
            f"Python {machine['python']}, {result['measured_at'][:10]}",
            fontsize=9,
        )
        figure.savefig(path, metadata={"Date": None})


def _draw_throughput(axes: Axes, medians: Medians) -> None:
    labels = {"nothing/accept": "nothing", "accept": "accept", "unbatched": "unbatched", "pgbench": "pgbench"}
    for name, label in labels.items():
        _line(axes, over_callers(medians, name, "per_second"), label)
    _finish(axes, "accept: requests per second", "callers")
    axes.set_ylim(bottom=0)


def _draw_latency(axes: Axes, medians: Medians) -> None:
    for name, color in (("accept", "C1"), ("status", "C4")):
        _line(axes, over_callers(medians, name, "p50_ms"), f"{name} p50", color=color)
        _line(axes, over_callers(medians, name, "p99_ms"), f"{name} p99", color=color, linestyle="--")
    _finish(axes, "latency, ms", "callers")
    if axes.lines:
        axes.set_yscale("log")


def _draw_growth(axes: Axes, medians: Medians) -> None:
    for name in ("accept", "status", "list"):
        _line(axes, over_jobs(medians, name), name)
    _finish(axes, "cost of a request, of that at 10,000 jobs", "jobs in the database")
    axes.set_ylim(bottom=0)


def _line(axes: Axes, points: Line, label: str, **style: Any) -> None:
    if points:
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=label, **style)


def _finish(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x_label)
    if not axes.lines:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        return
    axes.set_xscale("log")
    ticks = sorted({float(x) for line in axes.lines for x in np.asarray(line.get_xdata())})
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.legend()


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
