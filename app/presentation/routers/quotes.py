from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends

from app.domain.catalogue import Catalogue
from app.domain.errors import CombinationNotAllowed, UnknownModel
from app.domain.kinds import GenerationKind
from app.presentation.http.bodies import JsonBody
from app.presentation.http.keyed_routes import CurrentAccount, KeyedRoute
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, READ_ERRORS, answer, problems
from app.presentation.http.state import UseCases
from app.presentation.schemas.examples import PRICE
from app.presentation.schemas.quotes import QuoteBodies, QuoteBody, QuoteView

_QUOTE = {
    "quote": "eyJhY2NvdW50X2lkIjoiMDE5ZDJmNmE3YzQwN2QxZThhNTUzZjBjOWIyZTRkNjEifQ.c2lnbmF0dXJl",
    "cost_tokens": 5,
    "price": PRICE,
    "balance_tokens": 100,
    "is_affordable": True,
    "valid_until": "2026-11-23T10:25:31Z",
}


def quotes_router(catalogue: Catalogue) -> APIRouter:
    router = APIRouter(tags=["Models"], route_class=KeyedRoute)
    router.add_api_route(
        "/quotes",
        _handler(QuoteBodies.of(catalogue)),
        methods=["POST"],
        operation_id="make_quote",
        summary="Ask what a generation costs",
        response_model=QuoteView,
        response_description="The price, promised for ten minutes",
        responses={
            200: answer(_QUOTE),
            **problems(*READ_ERRORS, UnknownModel, CombinationNotAllowed, *DATABASE_ERRORS, *BODY_ERRORS),
        },
    )
    return router


def _handler(bodies: QuoteBodies) -> Callable[..., Awaitable[QuoteView]]:
    models = [bodies.catalogue.default_of(GenerationKind.TEXT_TO_IMAGE), *bodies.catalogue.of_kind(_SHOWN)[1:2]]
    examples = {model.title: {"type": model.kind.value, "model": model.id, **model.example} for model in models}
    # Pictures change no price: what nobody pays for takes no room of those who do.
    read_body = JsonBody(bodies, examples)

    async def handler(
        account: CurrentAccount, body: Annotated[QuoteBody, Depends(read_body)], use_cases: UseCases
    ) -> QuoteView:
        """Checks the fields of the generation and prices them. Nothing is stored and nothing debited.

        Send the generation with the `quote` until `valid_until`, and it costs exactly this, whatever the prices are by
        then. A quote holds for your account, this model and the fields that the price follows from; the prompt and the
        pictures may be left out here, and may change: a body has at most 64 KiB.
        """
        quote, text = use_cases.jobs.quote(account.id, body.wish())
        return QuoteView.of(quote, text, account.balance_tokens)

    return handler


_SHOWN = GenerationKind.TEXT_TO_VIDEO
