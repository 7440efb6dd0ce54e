from collections.abc import Sequence
from typing import Annotated

import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import User, fail, print_table, run_for_operator
from app.domain.ledger import ACTOR_LENGTH_MAX, ADJUSTMENT_TOKENS_MAX, REASON_LENGTH_MAX, Adjustment
from app.domain.payments import EVENT_ID_LENGTH_MAX, TOPUP_TOKENS_MAX, WEBHOOK_SOURCE, current_source
from app.domain.reversals import PendingReversal, ReversalEvent

commands = typer.Typer(no_args_is_help=True, help="Take tokens back, and correct balances.")


@commands.command()
def reverse(
    payment: Annotated[str, typer.Argument(help="The id of the payment, as `ledger show` has it.")],
    amount: Annotated[int | None, typer.Argument(min=1, max=TOPUP_TOKENS_MAX, help="Tokens to take back.")] = None,
    *,
    event_id: Annotated[
        str, typer.Option(help="The provider's id of the refund or dispute. It counts once, whoever sends it.")
    ],
    withdraws: Annotated[
        str | None, typer.Option(metavar="REVERSAL", help="In place of AMOUNT: the reversal that stands no more.")
    ] = None,
    source: Annotated[str, typer.Option(help="Whose payment it is, as `ledger show` has it.")] = WEBHOOK_SOURCE,
) -> None:
    """Take tokens of a payment back, or withdraw a reversal, as `POST /webhook/reversal` does."""
    if (amount is None) == (withdraws is None):
        fail("give either AMOUNT or --withdraws REVERSAL")
    for name, value in (("PAYMENT", payment), ("--event-id", event_id), ("--withdraws", withdraws)):
        _check_length(name, value, EVENT_ID_LENGTH_MAX)
    event = ReversalEvent(
        source=current_source(source),
        event_id=event_id,
        payment_event_id=payment,
        amount=amount,
        withdraws=withdraws,
    )

    async def work(operator: OperatorUseCases) -> None:
        outcome = await operator.reverse_payment(event)
        if outcome is None:
            typer.echo("it is kept until what it refers to is known: `tokens pending` lists it")
        else:
            typer.echo(f"{outcome.reversed_tokens} of the payment reversed, balance {outcome.balance_tokens}")

    run_for_operator(work)


# A negative amount would be taken for an option.
@commands.command(context_settings={"ignore_unknown_options": True})
def adjust(
    user: User,
    amount: Annotated[
        int,
        typer.Argument(
            min=-ADJUSTMENT_TOKENS_MAX, max=ADJUSTMENT_TOKENS_MAX, help="Tokens to give, or below 0 to take."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why, in words that the user may read.")],
    actor: Annotated[str, typer.Option(help="Who does it. The user does not see it.")],
    event_id: Annotated[str, typer.Option(help="Adjusts once for each id: a ticket number, for example.")],
) -> None:
    """Correct a balance by hand, also to below zero. Repeat it with the same id if its answer was lost."""
    if amount == 0:
        fail("AMOUNT must not be 0")
    for name, value, most in (
        ("--event-id", event_id, EVENT_ID_LENGTH_MAX),
        ("--reason", reason, REASON_LENGTH_MAX),
        ("--actor", actor, ACTOR_LENGTH_MAX),
    ):
        _check_length(name, value, most)
    adjustment = Adjustment(id=event_id, external_user_id=user, amount=amount, reason=reason, actor=actor)

    async def work(operator: OperatorUseCases) -> None:
        typer.echo(f"ok, balance {await operator.adjustments.adjust(adjustment)}")

    run_for_operator(work)


def _check_length(name: str, text: str | None, most: int) -> None:
    if text is not None and (not text.strip() or len(text) > most or "\0" in text):
        fail(f"{name} must have 1 to {most} characters")


@commands.command()
def pending(limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50) -> None:
    """Show reversals whose payment is not known, and withdrawals whose reversal is not."""

    async def work(operator: OperatorUseCases) -> None:
        print_pending(await operator.pending_reversals.newest(limit=limit))

    run_for_operator(work)


def print_pending(pending_reversals: Sequence[PendingReversal]) -> None:
    print_table(
        ("received", "source", "event", "payment", "tokens", "withdraws"),
        [
            (
                one.received_at.isoformat(timespec="seconds"),
                one.event.source,
                one.event.event_id,
                one.event.payment_event_id,
                "" if one.event.amount is None else one.event.amount,
                one.event.withdraws or "",
            )
            for one in pending_reversals
        ],
    )
