"""On what terms a job was accepted: its price lines, and the shape of its result. No later step reads prices."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from app.domain.pricing import PriceLine, Quantities, Unit, delivered, megapixels_of, refunded, total_tokens

# Of what stands in the column. A release leaves the jobs of a newer form to a newer release.
FORM = 1
# The same, of a job whose parameters name kept files: a release that knows none would send their names to fal.
FORM_WITH_FILES = 2
FORMS = (FORM, FORM_WITH_FILES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultShape:
    outputs: str
    """The field of fal's result that has them: a list of files, or one file."""
    flags: str | None = None
    """The field that says of each output whether fal's safety checker blanked it."""

    @property
    def is_list(self) -> bool:
        """fal's models give pictures in a list, and a film alone."""
        return self.outputs == "images"

    def outputs_in(self, result: Mapping[str, Any]) -> Sequence[Any]:
        found = result.get(self.outputs)
        return found if isinstance(found, list) else [] if found is None else [found]

    def blanked_in(self, result: Mapping[str, Any]) -> Collection[int]:
        """The places of the outputs that fal's safety checker blanked."""
        flags = None if self.flags is None else result.get(self.flags)
        if not isinstance(flags, list):
            return range(len(self.outputs_in(result))) if flags is True else ()
        return {number for number, flag in enumerate(flags) if flag is True}

    def delivered_in(self, result: Mapping[str, Any]) -> Sequence[Any]:
        """The outputs that are not blanked."""
        blanked = self.blanked_in(result)
        return [output for number, output in enumerate(self.outputs_in(result)) if number not in blanked]


@dataclass(frozen=True, kw_only=True)
class Terms:
    lines: tuple[PriceLine, ...]
    shape: ResultShape
    outputs_max: int
    """So many are charged at most; whatever fal makes beyond them is a gift."""
    megapixels: int = 0
    """Of each output, as it was charged; 0 where size has no price."""
    seconds: int = 0
    takes_seed: bool = True
    """Whether the model has a seed that may be added to what was asked for, to mark an attempt."""

    @cached_property
    def cost_tokens(self) -> int:
        return total_tokens(self.lines)

    def refund_for(self, result: Mapping[str, Any]) -> Mapping[str, int] | None:
        """The tokens that go back, by line. None: nothing was delivered, and everything goes back."""
        outputs = self.shape.delivered_in(result)[: self.outputs_max]
        if not outputs:
            return None
        came = Quantities(megapixels=[self._megapixels_of(output) for output in outputs], seconds=self.seconds)
        back = dict(refunded(self.lines, came))
        if back and sum(back.values()) >= self.cost_tokens:
            # Something came, and the books know no job that delivers for nothing. The catalogue's check leaves no such
            # price, so this keeps a job from never ending.
            back[max(back, key=back.__getitem__)] -= 1
        return {line: tokens for line, tokens in back.items() if tokens}

    @property
    def least_tokens(self) -> int:
        """What is charged for the least that can be delivered: one output, and as small as can be."""
        return total_tokens(
            delivered(self.lines, Quantities(megapixels=[min(1, self.megapixels)], seconds=self.seconds))
        )

    def _megapixels_of(self, output: object) -> int:
        """Never more than was charged for one: a larger output does not stand in for another one that is missing."""
        width, height = (output.get(side) if isinstance(output, dict) else None for side in ("width", "height"))
        if type(width) is not int or type(height) is not int or width < 1 or height < 1:
            return self.megapixels
        return min(megapixels_of(width, height), self.megapixels)

    def as_json(self, form: int = FORM) -> Mapping[str, Any]:
        return {
            "form": form,
            "lines": [line.as_json() for line in self.lines],
            "outputs": self.shape.outputs,
            "flags": self.shape.flags,
            "outputs_max": self.outputs_max,
            "megapixels": self.megapixels,
            "seconds": self.seconds,
            "takes_seed": self.takes_seed,
        }

    @cached_property
    def json(self) -> str:
        return json.dumps(self.as_json())

    @cached_property
    def json_with_files(self) -> str:
        return json.dumps(self.as_json(FORM_WITH_FILES))

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Self:
        """Of one of this release's FORMS."""
        return cls(
            lines=tuple(PriceLine.of_json(line) for line in stored["lines"]),
            shape=ResultShape(outputs=stored["outputs"], flags=stored["flags"]),
            outputs_max=stored["outputs_max"],
            megapixels=stored["megapixels"],
            seconds=stored["seconds"],
            takes_seed=stored["takes_seed"],
        )

    @classmethod
    def before_lines(cls, *, is_video: bool, cost_tokens: int, outputs: int) -> Self:
        """Those of a job that a release accepted which kept a cost and a number of outputs only."""
        line = PriceLine(line="generation", unit=Unit.IMAGE, unit_tokens=cost_tokens // outputs, quantity=outputs)
        shape = ResultShape(outputs="video" if is_video else "images", flags="has_nsfw_concepts")
        return cls(lines=(line,), shape=shape, outputs_max=outputs)
