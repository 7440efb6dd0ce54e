"""Asking for a price: the body of a generation with its `type`, in which only what the price follows from is needed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, create_model

from app.application.jobs import Wish
from app.domain.catalogue import Catalogue
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.domain.quotes import Quote
from app.presentation.schemas.fields import RequestModel
from app.presentation.schemas.generation_fields import field_of
from app.presentation.schemas.generations import CATALOGUES_MAX, name_of, naming_model
from app.presentation.schemas.jobs import PRICE, PriceLineView

_KINDS: Any = Literal[tuple(kind.value for kind in GenerationKind)]


# What the body of a generation may say beside its parameters is taken here, too, and changes nothing.
_NO_PARAMETERS = {"type", "model", "quote", "max_cost_tokens", "webhook_url"}


class QuoteBody(RequestModel):
    of_model: ClassVar[Model]

    def wish(self) -> Wish:
        given = self.model_dump(exclude_unset=True, exclude_none=True, exclude=_NO_PARAMETERS)
        return Wish(model=self.of_model, parameters=given)


class QuoteRequest(BaseModel):
    """The fields of the generation as they would be sent, and its `type`."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: _KINDS = Field(description="What would be generated.")
    model: str | None = Field(default=None, description="As in the generation: without it the default of the type.")


@dataclass(frozen=True, slots=True)
class QuoteBodies:
    catalogue: Catalogue
    _bodies: Mapping[str, type[QuoteBody]]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Self:
        return cls(catalogue, _quote_bodies(catalogue))

    def model_validate(self, document: Any, context: Mapping[str, Any]) -> QuoteBody:
        """Raises ValidationError, UnknownModel."""
        model_id = self._model_id_of(document)
        if model_id is None:
            # It says what is wrong with the type, or that this is no object.
            _OfType.model_validate(document)
        assert model_id is not None, "a body without a type is refused"
        return self._bodies[model_id].model_validate(document, context=context)

    def explained(self, errors: Iterable[Mapping[str, Any]], document: Any) -> Iterable[Mapping[str, Any]]:
        model_id = self._model_id_of(document)
        return errors if model_id is None else naming_model(errors, model_id)

    def _model_id_of(self, document: Any) -> str | None:
        """None: the document says no type. Raises UnknownModel."""
        known = [kind for kind in GenerationKind if isinstance(document, dict) and document.get("type") == kind.value]
        return self.catalogue.find(document.get("model"), known[0]).id if known else None

    @property
    def models(self) -> Sequence[type[BaseModel]]:
        """The document leaves the fields to the generations' own bodies."""
        return [QuoteRequest]


class _OfType(RequestModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: _KINDS


@lru_cache(CATALOGUES_MAX)
def _quote_bodies(catalogue: Catalogue) -> Mapping[str, type[QuoteBody]]:
    return {model.id: _quote_body(model) for model in catalogue}


def _quote_body(model: Model) -> type[QuoteBody]:
    fields: dict[str, Any] = {
        "type": (Literal[model.kind.value], ...),
        "model": name_of(model),
        **{
            it.name: field_of(it, is_required=it.is_required and it.name in model.quoted_names)
            for it in model.parameters.values()
        },
        "quote": (str | None, None),
        "max_cost_tokens": (int | None, Field(default=None, ge=0)),
        "webhook_url": (str | None, None),
    }
    made: type[QuoteBody] = create_model("QuoteBody", __base__=QuoteBody, **fields)
    made.of_model = model
    return made


class QuoteView(BaseModel):
    quote: str = Field(description="Send it with the generation.")
    cost_tokens: int
    price: list[PriceLineView] = PRICE
    balance_tokens: int = Field(description="What you have now.")
    is_affordable: bool = Field(description="Whether the balance is enough now.")
    valid_until: datetime

    @classmethod
    def of(cls, quote: Quote, text: str, balance_tokens: int) -> Self:
        return cls(
            quote=text,
            cost_tokens=quote.cost_tokens,
            price=PriceLineView.each_of(quote.terms.lines),
            balance_tokens=balance_tokens,
            is_affordable=balance_tokens >= quote.cost_tokens,
            valid_until=quote.valid_until,
        )
