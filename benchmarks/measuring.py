"""Rounds in turn: whatever else the machine does meets every row, and no row has the better half of the run."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from rich.progress import Progress

from benchmarks.figures import Figures, Row, Rows

Measure: TypeAlias = Callable[[], Awaitable[Figures]]


@dataclass(frozen=True, slots=True)
class Options:
    rounds: int = 5
    seconds: float = 2.0
    is_quick: bool = False
    selected: frozenset[str] = frozenset()

    def wants(self, *names: str) -> bool:
        return not self.selected or not self.selected.isdisjoint(names)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the benchmarks: what is asked for, and what came of it so far."""

    options: Options
    progress: Progress
    rows: Rows = field(default_factory=dict)

    async def in_turn(self, title: str, measures: Mapping[str, Measure], rounds: int | None = None) -> None:
        rounds = rounds or self.options.rounds
        task = self.progress.add_task(title, total=rounds * len(measures))
        for number in range(rounds):
            for name, measure in measures.items():
                row = self.rows.setdefault(name, Row())
                self.progress.update(task, description=f"{title}, round {number + 1} of {rounds}: {name}")
                if row.error is None:
                    try:
                        row.rounds.append(await measure())
                    except Exception as error:
                        # The other rows of a long run are worth having; this one has no figure, and says why.
                        row.error = f"{type(error).__name__}: {error}"
                self.progress.advance(task)
        self.progress.update(task, description=title)
