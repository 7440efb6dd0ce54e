from typing import Annotated

import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import User, fail, run_for_operator
from app.domain.payments import EVENT_ID_LENGTH_MAX, TOPUP_TOKENS_MAX


def topup(
    user: User,
    amount: Annotated[int, typer.Argument(min=1, max=TOPUP_TOKENS_MAX, help="Tokens to credit.")],
    event_id: Annotated[
        str, typer.Option(help="Credits once for each event id: name the reason, such as a ticket number.")
    ],
) -> None:
    """Credit tokens by hand, once for each event id."""
    if not 1 <= len(event_id) <= EVENT_ID_LENGTH_MAX:
        fail(f"--event-id must have 1 to {EVENT_ID_LENGTH_MAX} characters")

    async def work(operator: OperatorUseCases) -> None:
        await operator.top_up(user, amount, event_id=event_id, source="command-line")
        typer.echo("ok")

    run_for_operator(work)
