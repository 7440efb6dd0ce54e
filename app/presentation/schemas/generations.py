"""The bodies of generations: a class for each model of the catalogue, made once."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, create_model

from app.application.jobs import AskedFor, Wish
from app.domain.catalogue import Catalogue
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.domain.parameters import ParameterType
from app.presentation.schemas.fields import RequestModel
from app.presentation.schemas.generation_fields import as_taken, field_of
from app.presentation.schemas.webhook_urls import WebhookUrl, webhook_url_as_taken

_QUOTE = Field(
    default=None,
    description="From `POST /quotes`: the generation costs exactly what was promised, whatever the prices are by now.",
)
WEBHOOK_URL = Field(
    default=None,
    description="Where this job's end is told, by POST: `generation.completed`, `generation.failed` or "
    "`generation.canceled`, signed with the secret of `GET /webhook-secret`. https to a public host.",
)
_MAX_COST_TOKENS = Field(default=None, ge=0, description="If it costs more, nothing is done.")
# What a request says beside the parameters of its model.
_OTHERS = ("model", "quote", "max_cost_tokens", "webhook_url")
# Classes are kept for so many catalogues; a process has one.
CATALOGUES_MAX = 16
INTEGER_BITS_MAX = 64


class GenerationBody(RequestModel):
    of_model: ClassVar[Model]

    def wish(self) -> Wish:
        given = self.model_dump(exclude_unset=True, exclude_none=True)
        named, quote, maximum, webhook_url = (given.pop(name, None) for name in _OTHERS)
        return Wish(
            model=self.of_model,
            parameters=given,
            is_model_named=named is not None,
            quote=quote,
            max_cost_tokens=maximum,
            webhook_url=webhook_url,
        )


@dataclass(frozen=True, slots=True)
class GenerationBodies:
    """The bodies of one type. Which of them holds is said by `model`; without it that of the default."""

    catalogue: Catalogue
    kind: GenerationKind
    _bodies: Mapping[str, type[GenerationBody]]

    @classmethod
    def of(cls, catalogue: Catalogue, kind: GenerationKind) -> Self:
        return cls(catalogue, kind, _generation_bodies(catalogue))

    def model_validate(self, document: Any, context: Mapping[str, Any]) -> GenerationBody:
        """Raises ValidationError, UnknownModel."""
        return self._bodies[self._model_id_of(document)].model_validate(document, context=context)

    def explained(self, errors: Iterable[Mapping[str, Any]], document: Any) -> Iterable[Mapping[str, Any]]:
        return naming_model(errors, self._model_id_of(document))

    def _model_id_of(self, document: Any) -> str:
        """Raises UnknownModel."""
        named = document.get("model") if isinstance(document, dict) else None
        return self.catalogue.find(named, self.kind).id

    def asked_for(self, document: Any) -> AskedFor | None:
        """What a refused document asks for, in the values that its body had if it was taken once. None: it never was.

        Megabytes of data: URIs take tens of milliseconds.
        """
        if not isinstance(document, dict):
            return None
        named, webhook_url = document.get("model"), document.get("webhook_url")
        given = {name: value for name, value in document.items() if value is not None and name not in _OTHERS}
        are_texts = all(text is None or isinstance(text, str) for text in (named, webhook_url))
        if not are_texts or not all(map(_may_be_given, given.values())):
            return None
        model = self.catalogue.default_of(self.kind) if named is None else self.catalogue.get(named)
        parameters = {name: as_taken(self._type_of(name, model), value) for name, value in given.items()}
        told = None if webhook_url is None else webhook_url_as_taken(webhook_url)
        return AskedFor(kind=self.kind, parameters=parameters, model_id=named, webhook_url=told)

    def _type_of(self, name: str, model: Model | None) -> ParameterType | None:
        parameter = None if model is None else model.parameters.get(name)
        if parameter is None:
            return self.catalogue.types.get(name)
        # One of a few values is taken as it is.
        return None if parameter.values else parameter.type

    @property
    def models(self) -> Sequence[type[GenerationBody]]:
        """The default's first."""
        return [self._bodies[model.id] for model in self.catalogue.of_kind(self.kind)]


@lru_cache(CATALOGUES_MAX)
def _generation_bodies(catalogue: Catalogue) -> Mapping[str, type[GenerationBody]]:
    bodies: dict[str, type[GenerationBody]] = {}
    names: Counter[str] = Counter()
    for model in catalogue:
        name = _camel(model.kind.value.lower() if model.is_default else model.id)
        names[name] += 1
        # Two ids may differ in a stroke alone, and the document refers to a body by its name.
        bodies[model.id] = _generation_body(model, f"{name}{names[name] if names[name] > 1 else ''}Request")
    return bodies


def _generation_body(model: Model, name: str) -> type[GenerationBody]:
    fields: dict[str, Any] = {
        "model": name_of(model),
        **{it.name: field_of(it, is_required=it.is_required) for it in model.parameters.values()},
        "quote": (str | None, _QUOTE),
        "max_cost_tokens": (int | None, _MAX_COST_TOKENS),
        "webhook_url": (WebhookUrl | None, WEBHOOK_URL),
    }
    made: type[GenerationBody] = create_model(name, __base__=GenerationBody, **fields)
    made.of_model = model
    return made


def naming_model(errors: Iterable[Mapping[str, Any]], model_id: str) -> Iterable[Mapping[str, Any]]:
    """Of a field that the model does not know it is said whose fields there are."""
    for error in errors:
        is_unknown = error["type"] == "extra_forbidden" and len(error["loc"]) == 1
        yield {**error, "type": "unknown_parameter", "ctx": {"model": model_id}} if is_unknown else error


def name_of(model: Model) -> tuple[Any, Any]:
    named, about = Literal[model.id], Field(description="The id of the model at fal, as `GET /models` lists them.")
    return (Annotated[named | None, about], None) if model.is_default else (Annotated[named, about], ...)


def _camel(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", text))


def _may_be_given(value: Any) -> bool:
    """Whether any parameter takes values of this form. Thousands of digits, for one, take long to write out again."""
    if isinstance(value, int):
        return value.bit_length() <= INTEGER_BITS_MAX
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    if isinstance(value, dict):
        return value.keys() == {"width", "height"} and all(
            isinstance(side, int) and _may_be_given(side) for side in value.values()
        )
    return isinstance(value, str | float)
