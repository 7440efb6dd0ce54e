import pytest

from benchmarks.figures import Bar, Row, percentile, percentiles, ratio


@pytest.mark.parametrize(("share", "expected"), [(0.01, 1), (0.5, 50), (0.501, 51), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(share: float, expected: float) -> None:
    assert percentile(range(1, 101), share) == expected


def test_percentiles_do_not_need_sorted_values() -> None:
    assert percentiles([30.0, 10.0, 20.0]) == {"p50_ms": 20.0, "p95_ms": 30.0, "p99_ms": 30.0}


def test_a_single_value_is_every_percentile() -> None:
    assert set(percentiles([7.0]).values()) == {7.0}


def rows(**rounds: list[float]) -> dict[str, Row]:
    return {name: Row([{"per_second": value} for value in values]) for name, values in rounds.items()}


def test_a_ratio_is_of_the_medians_and_knows_the_extremes_of_the_rounds() -> None:
    found = ratio(rows(ours=[10.0, 20.0, 90.0], floor=[100.0, 50.0, 100.0]), "ours", "floor")

    assert found is not None
    assert (found.value, found.least, found.most) == (0.2, 0.1, 0.9)


@pytest.mark.parametrize("missing", ["ours", "floor"])
def test_there_is_no_ratio_without_both_rows(missing: str) -> None:
    present = rows(ours=[1.0], floor=[1.0])
    del present[missing]

    assert ratio(present, "ours", "floor") is None


def test_a_row_that_failed_has_no_figure_however_many_rounds_went_well() -> None:
    measured = rows(ours=[1.0, 1.0], floor=[1.0, 1.0])
    measured["ours"].error = "it answers 500"

    assert measured["ours"].median("per_second") is None
    assert ratio(measured, "ours", "floor") is None


@pytest.mark.parametrize(
    ("sense", "bound", "is_reached"),
    [(">=", 0.2, True), (">=", 0.21, False), ("<=", 0.2, True), ("<=", 0.19, False), ("<", 0.2, False)],
)
def test_a_bar_is_reached_or_it_is_not(sense: str, bound: float, is_reached: bool) -> None:
    verdict = Bar("ours of the floor", "ours", "floor", sense, bound).judge(rows(ours=[20.0], floor=[100.0]))

    assert verdict is not None
    assert verdict.is_reached is is_reached


def test_a_bar_without_a_divisor_judges_the_figure_itself() -> None:
    verdict = Bar("lag", "lag", None, "<=", 100, "p95_ms").judge({"lag": Row([{"p95_ms": 90.0}, {"p95_ms": 110.0}])})

    assert verdict is not None
    assert (verdict.ratio.value, verdict.is_reached) == (100.0, True)


def test_a_bar_whose_rows_were_not_measured_gives_no_verdict() -> None:
    assert Bar("ours of the floor", "ours", "floor", ">=", 0.2).judge({}) is None
