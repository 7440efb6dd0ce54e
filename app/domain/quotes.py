"""A price that is promised to an account for a while, whatever the prices are by then."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from app.domain.errors import PriceExceedsMaximum, QuoteNotValid
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.domain.parameters import Parameter
from app.domain.terms import Terms

QUOTE_SECONDS = 600

_MEND = "Nothing was done. Ask for a new one, or leave it out."


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    account_id: UUID
    kind: GenerationKind
    model_id: str
    priced: Mapping[str, Any]
    """The value of each parameter that the price follows from; None for one that was left out, which also counts."""
    unpriced: Mapping[str, Any]
    """The values of the other parameters but texts and media: one of them may get a price meanwhile."""
    terms: Terms
    """With the amounts that the lines were made of: prices of tomorrow may count others, and a refund needs these."""
    valid_until: datetime

    @classmethod
    def of(cls, account_id: UUID, model: Model, parameters: Mapping[str, Any], now: datetime) -> Self:
        """For completed parameters."""
        return cls(
            account_id=account_id,
            kind=model.kind,
            model_id=model.id,
            priced={name: parameters.get(name) for name in model.quoted_names},
            unpriced={name: parameters[name] for name in model.unquoted_names if name in parameters},
            terms=model.terms(parameters),
            # Whole seconds, and never less than was promised.
            valid_until=datetime.fromtimestamp(math.ceil(now.timestamp()) + QUOTE_SECONDS, UTC),
        )

    @property
    def cost_tokens(self) -> int:
        return self.terms.cost_tokens

    def terms_for(self, account_id: UUID, model: Model, parameters: Mapping[str, Any], now: datetime) -> Terms:
        """The promised terms of a request with these completed parameters. Raises QuoteNotValid."""
        if account_id != self.account_id:
            raise QuoteNotValid
        if now > self.valid_until:
            raise QuoteNotValid(f"This quote was valid until {self.valid_until:%Y-%m-%dT%H:%M:%SZ}. {_MEND}")
        if (model.kind, model.id) != (self.kind, self.model_id):
            raise QuoteNotValid(f"This quote is for {self.model_id} as {self.kind.value}. {_MEND}")
        others = [name for name, value in self.priced.items() if not _is_same(parameters.get(name), value)]
        others += [
            name for name in model.quoted_names if not self._covers(model.parameters[name], parameters.get(name))
        ]
        if others:
            raise QuoteNotValid(f"This quote is for other values of {', '.join(others)}. {_MEND}")
        # The price is what was promised; how the result is read is known best today.
        return replace(self.terms, shape=model.shape, takes_seed=model.takes_seed_with(parameters))

    def _covers(self, parameter: Parameter, value: Any) -> bool:
        """What has got a price since has none in what was promised. But its value may be one that nobody could choose
        then, so that it has to be the value of then, or left out.
        """
        known = (self.unpriced.get(parameter.name), parameter.filled_in)
        return parameter.name in self.priced or any(_is_same(value, each) for each in known)

    def as_json(self) -> Mapping[str, Any]:
        return {
            "account_id": self.account_id.hex,
            "kind": self.kind.value,
            "model_id": self.model_id,
            "priced": self.priced,
            "unpriced": self.unpriced,
            "terms": self.terms.as_json(),
            "valid_until": int(self.valid_until.timestamp()),
        }

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Self:
        """Of this release's form."""
        return cls(
            account_id=UUID(stored["account_id"]),
            kind=GenerationKind(stored["kind"]),
            model_id=stored["model_id"],
            priced=stored["priced"],
            # Quotes of the release before say nothing of it.
            unpriced=stored.get("unpriced", {}),
            terms=Terms.of_json(stored["terms"]),
            valid_until=datetime.fromtimestamp(stored["valid_until"], UTC),
        )


def check_maximum(cost_tokens: int, max_cost_tokens: int | None) -> None:
    """Raises PriceExceedsMaximum."""
    if max_cost_tokens is not None and cost_tokens > max_cost_tokens:
        raise PriceExceedsMaximum(cost_tokens)


def _is_same(value: Any, other: Any) -> bool:
    """True is no 1: JSON tells them apart, Python does not."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
