import asyncio
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from app.application.ports.health import EVERY_MODEL
from app.domain.catalogue import Catalogue
from app.domain.errors import ModelNotFound
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.presentation.http.documents import StoredDocument
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.openapi import answer, problems
from app.presentation.http.parameters import ModelInPath
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases
from app.presentation.schemas.models import ModelList, ModelView, model_view

# Answers that are kept, written and compressed: there are few, and anybody may ask for them.
_LISTS_MAX, _MODELS_MAX = 32, 512


def models_router(catalogue: Catalogue) -> APIRouter:
    router = APIRouter(prefix="/models", tags=["Models"], route_class=DirectRoute)
    lists, shown = _Lists(catalogue), _shown_by(catalogue)
    example = model_view(catalogue.default_of(GenerationKind.TEXT_TO_IMAGE), is_paused=False)

    @router.get(
        "",
        operation_id="list_models",
        summary="List the models",
        response_model=ModelList,
        response_description="What is sold",
        responses={
            200: answer({"items": [example.model_dump(mode="json", by_alias=True)]}),
            **problems(InvalidRequest),
        },
    )
    async def list_models(
        request: Request,
        use_cases: UseCases,
        type: Annotated[GenerationKind | None, Query(description="Those of one type alone.")] = None,  # noqa: A002
    ) -> Response:
        """All models with their parameters and prices. No key is needed; `If-None-Match` spares you what you have."""
        return (await lists.of(type, frozenset(await use_cases.paused_models.ids()))).answer(request)

    @router.get(
        "/{model:path}",
        operation_id="get_model",
        summary="Look at a model",
        response_model=ModelView,
        response_description="The model",
        responses={200: answer(example.model_dump(mode="json", by_alias=True)), **problems(ModelNotFound)},
    )
    async def get_model(
        request: Request, model_id: Annotated[str, Depends(ModelInPath())], use_cases: UseCases
    ) -> Response:
        """Its parameters, what it costs, and a body that works as it is."""
        model = catalogue.get(model_id)
        if model is None:
            raise ModelNotFound
        return shown(model_id, _is_paused(model, await use_cases.paused_models.ids())).answer(request)

    return router


class _Lists:
    """Written and compressed in a thread, which takes some 60 ms, and once for each set of paused models."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[tuple[GenerationKind | None, frozenset[str]], StoredDocument] = {}
        self._writing = asyncio.Lock()

    async def of(self, kind: GenerationKind | None, paused: frozenset[str]) -> StoredDocument:
        key = (kind, paused)
        if key not in self._known:
            async with self._writing:
                if key not in self._known:
                    written = await asyncio.to_thread(self._written, kind, paused)
                    if len(self._known) >= _LISTS_MAX:
                        self._known.clear()
                    self._known[key] = written
        return self._known[key]

    def _written(self, kind: GenerationKind | None, paused: frozenset[str]) -> StoredDocument:
        models = self._catalogue.models if kind is None else self._catalogue.of_kind(kind)
        return _stored(ModelList(items=[model_view(model, is_paused=_is_paused(model, paused)) for model in models]))


def _shown_by(catalogue: Catalogue) -> Callable[[str, bool], StoredDocument]:
    @lru_cache(_MODELS_MAX)
    def shown(model_id: str, is_paused: bool) -> StoredDocument:
        model = catalogue.get(model_id)
        assert model is not None, "the route has found it"
        return _stored(model_view(model, is_paused=is_paused))

    return shown


def _is_paused(model: Model, paused: Collection[str]) -> bool:
    return model.id in paused or EVERY_MODEL in paused


def _stored(view: ModelList | ModelView) -> StoredDocument:
    return StoredDocument.of(view.model_dump_json(by_alias=True).encode(), "application/json")
