"""One strip for each scenario under load: jobs by status over time, what was done to the service, and the ledger."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from torture.report import Outcome
from torture.timeline import Sample, Timeline

WIDTH, STRIP_HEIGHT = 1400, 330
LEFT, RIGHT, TOP, AXIS = 70, 210, 44, 60
STATUS_COLORS = {
    "COMPLETED": "#4c9f70",
    "FAILED": "#d08c60",
    "CANCELED": "#9a8fb5",
    "IN_PROGRESS": "#3d6fb4",
    "IN_QUEUE": "#6f9bd1",
    "SUBMITTED": "#a3c1e3",
    "SUBMITTING": "#e8c547",
    "QUEUED": "#c9c9c9",
}
MARK_COLORS = ("#b3261e", "#1d4e89", "#6b4f9e", "#0f7b6c")
INK, PAPER, GRID = "#222222", "#ffffff", "#e5e5e5"
BALANCE = "#000000"


def draw(outcomes: Sequence[Outcome], path: Path) -> bool:
    """False: none of the scenarios has a timeline."""
    strips = [(outcome, outcome.timeline) for outcome in outcomes if outcome.timeline and outcome.timeline.samples]
    if not strips:
        return False
    image = Image.new("RGB", (WIDTH, STRIP_HEIGHT * len(strips)), PAPER)
    pen = ImageDraw.Draw(image)
    for number, (outcome, timeline) in enumerate(strips):
        _Strip(pen, number * STRIP_HEIGHT, timeline).draw(outcome)
    image.quantize(64).save(path, optimize=True)
    return True


class _Strip:
    def __init__(self, pen: ImageDraw.ImageDraw, top: int, timeline: Timeline) -> None:
        self._pen = pen
        self._top = top + TOP
        self._bottom = top + STRIP_HEIGHT - AXIS
        self._timeline = timeline
        self._seconds = max(1.0, timeline.samples[-1].seconds, *(mark.seconds for mark in timeline.marks))
        self._jobs = max(1, *(sum(sample.jobs.values()) for sample in timeline.samples))
        self._tokens = max(1, *(sample.balance_tokens for sample in timeline.samples))
        self._font = ImageFont.load_default(14)

    def draw(self, outcome: Outcome) -> None:
        self._text((LEFT, self._top - 28), f"{outcome.scenario}: {'passed' if outcome.passed else 'FAILED'}", size=18)
        self._axes()
        for before, after in zip(self._timeline.samples, self._timeline.samples[1:], strict=False):
            self._stack(before, after)
        self._line(sample for sample in self._timeline.samples)
        self._marks()
        self._legend()

    def _x(self, seconds: float) -> float:
        return LEFT + seconds / self._seconds * (WIDTH - LEFT - RIGHT)

    def _y(self, share: float) -> float:
        return self._bottom - share * (self._bottom - self._top)

    def _text(self, at: tuple[float, float], text: str, *, size: int | None = None, color: str = INK) -> None:
        self._pen.text(at, text, fill=color, font=self._font if size is None else ImageFont.load_default(size))

    def _axes(self) -> None:
        for part in range(5):
            y = self._y(part / 4)
            self._pen.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=GRID)
            self._text((6, y - 8), f"{self._jobs * part / 4:,.0f}")
        step = next(step for step in (5, 10, 30, 60, 120, 300, 900) if self._seconds / step < 13 or step == 900)
        for seconds in range(0, int(self._seconds) + 1, step):
            self._text((self._x(seconds) - 8, self._bottom + 24), f"{seconds} s")

    def _stack(self, before: Sample, after: Sample) -> None:
        x0, x1 = self._x(before.seconds), self._x(after.seconds)
        low0 = low1 = 0
        for status, color in STATUS_COLORS.items():
            high0, high1 = low0 + before.jobs.get(status, 0), low1 + after.jobs.get(status, 0)
            corners = [(x0, low0), (x1, low1), (x1, high1), (x0, high0)]
            self._pen.polygon([(x, self._y(jobs / self._jobs)) for x, jobs in corners], fill=color)
            low0, low1 = high0, high1

    def _line(self, samples: Iterable[Sample]) -> None:
        points = [(self._x(sample.seconds), self._y(sample.balance_tokens / self._tokens)) for sample in samples]
        self._pen.line(points, fill=BALANCE, width=2)

    def _kinds(self) -> dict[str, str]:
        kinds = sorted({mark.kind for mark in self._timeline.marks})
        return {kind: MARK_COLORS[number % len(MARK_COLORS)] for number, kind in enumerate(kinds)}

    def _marks(self) -> None:
        """Below the axis, a row for each kind; above it, in red, each look at the ledger that found something."""
        for row, (kind, color) in enumerate(self._kinds().items()):
            y = self._bottom + 3 + row * 6
            for mark in self._timeline.marks:
                if mark.kind == kind:
                    self._pen.line([(self._x(mark.seconds), y), (self._x(mark.seconds), y + 5)], fill=color, width=2)
        for sample in self._timeline.samples:
            if sample.violations:
                x = self._x(sample.seconds)
                self._pen.line([(x, self._top), (x, self._bottom)], fill=MARK_COLORS[0], width=3)

    def _legend(self) -> None:
        x, y = WIDTH - RIGHT + 14, self._top - 8
        entries = [*STATUS_COLORS.items(), (f"balances, up to {self._tokens:,}", BALANCE), *self._kinds().items()]
        looks, found = self._timeline.ledger_looks, len(self._timeline.violating_samples)
        for number, (name, color) in enumerate(entries):
            self._pen.rectangle([x, y + number * 17, x + 10, y + number * 17 + 10], fill=color)
            self._text((x + 16, y + number * 17 - 3), name)
        self._text((x, y + len(entries) * 17), f"violations: {found} of {looks} looks")
