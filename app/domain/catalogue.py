"""All models that are sold."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from app.domain.errors import UnknownModel
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.domain.parameters import ParameterType


class Catalogue:
    """The models in a stable order: by type, its default first, then as they were given."""

    def __init__(self, models: Sequence[Model], types: Mapping[str, ParameterType] | None = None) -> None:
        """`types`: of each parameter by its name, also of one that only models had that are sold no more."""
        kinds = list(GenerationKind)
        self.models = sorted(models, key=lambda model: (kinds.index(model.kind), not model.is_default))
        self.types = types or {}
        self._by_id = {model.id: model for model in self.models}
        self._by_kind = {kind: [model for model in self.models if model.kind is kind] for kind in kinds}

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def get(self, model_id: str) -> Model | None:
        return self._by_id.get(model_id)

    def of_kind(self, kind: GenerationKind) -> Sequence[Model]:
        return self._by_kind[kind]

    def default_of(self, kind: GenerationKind) -> Model:
        return self.of_kind(kind)[0]

    def find(self, model_id: object, kind: GenerationKind) -> Model:
        """The type's default without an id. Raises UnknownModel, which names those that fit."""
        if model_id is None:
            return self.default_of(kind)
        model = self._by_id.get(model_id) if isinstance(model_id, str) else None
        if model is None or model.kind is not kind:
            fitting = [each.id for each in self.of_kind(kind)]
            raise UnknownModel(fitting, None if model is None else model.kind)
        return model

    @cached_property
    def cheapest_tokens(self) -> Mapping[GenerationKind, int]:
        """What the cheapest generation of each type costs, if any is sold."""
        return {kind: min(model.from_tokens for model in models) for kind, models in self._by_kind.items() if models}
