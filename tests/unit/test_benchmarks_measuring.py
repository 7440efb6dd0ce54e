import json
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.figures import Figures, Row
from benchmarks.measuring import Measure, Options, Run
from benchmarks.plot import draw, over_callers, over_jobs


def recorded(name: str, calls: list[str], *, fails_at: int | None = None) -> Measure:
    async def measure() -> Figures:
        calls.append(name)
        if calls.count(name) == fails_at:
            raise ValueError("it answers 500")
        return {"per_second": float(len(calls))}

    return measure


async def test_the_rounds_of_all_rows_take_turns() -> None:
    calls: list[str] = []
    run = Run(Options(rounds=3), Progress(disable=True))

    await run.in_turn("two rows", {name: recorded(name, calls) for name in "ab"})

    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert [figures["per_second"] for figures in run.rows["b"].rounds] == [2.0, 4.0, 6.0]


async def test_a_row_that_fails_says_why_and_the_others_go_on() -> None:
    calls: list[str] = []
    run = Run(Options(rounds=3), Progress(disable=True))

    await run.in_turn("two rows", {"a": recorded("a", calls, fails_at=2), "b": recorded("b", calls)})

    assert calls == ["a", "b", "a", "b", "b"]
    assert run.rows["a"].error == "ValueError: it answers 500"
    assert run.rows["a"].median("per_second") is None
    assert len(run.rows["b"].rounds) == 3


def test_named_rows_are_the_only_ones_wanted() -> None:
    assert Options().wants("accept", "status")
    assert Options(selected=frozenset({"status"})).wants("accept", "status")
    assert not Options(selected=frozenset({"status"})).wants("accept")


MEDIANS = {
    "accept c=128": {"per_second": 30.0},
    "accept c=1": {"per_second": 10.0},
    "nothing/accept c=1": {"per_second": 100.0},
    "accept with runner c=32": {"per_second": 1.0},
    "list, 10^6 jobs": {"per_second": 50.0},
    "list, 10^4 jobs": {"per_second": 100.0},
    "list, 10^6 jobs of one user": {"per_second": 1.0},
}


def test_a_line_over_callers_has_the_points_of_its_own_row_alone() -> None:
    assert over_callers(MEDIANS, "accept", "per_second") == [(1, 10.0), (128, 30.0)]


def test_a_line_over_jobs_is_what_a_request_costs_of_the_smallest_size() -> None:
    assert over_jobs(MEDIANS, "list") == [(10_000, 1.0), (1_000_000, 2.0)]


def test_the_picture_of_a_result_is_small_and_shows_what_there_is(tmp_path: Path) -> None:
    result: dict[str, Any] = {
        "measured_at": "2026-11-24T00:00:00+00:00",
        "machine": {"cpu": "some processor", "cores": 2, "postgresql": "18", "python": "3.11"},
        "rows": {name: {"medians": medians} for name, medians in MEDIANS.items()},
    }

    draw(json.loads(json.dumps(result)), tmp_path / "picture.svg")

    assert 10_000 < (tmp_path / "picture.svg").stat().st_size < 1_000_000


def test_a_row_without_a_figure_in_some_round_has_the_median_of_the_others() -> None:
    assert Row([{"a": 1.0}, {"b": 5.0}, {"a": 3.0}]).median("a") == 2.0
