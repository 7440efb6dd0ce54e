from collections.abc import Sequence
from typing import Annotated

import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import User, fail, print_table, run_for_operator
from app.domain.payments import EVENT_ID_LENGTH_MAX, TOPUP_TOKENS_MAX, RefusedPayment

commands = typer.Typer(no_args_is_help=True, help="Look at payments that were refused for good.")


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
        is_new = await operator.top_up(user, amount, event_id=event_id, source="command-line")
        (newest,) = await operator.ledger.entries(user, limit=1)
        said = "credited" if is_new else "credited before: nothing was done"
        typer.echo(f"{said}, balance {newest.balance_after}")

    run_for_operator(work)


@commands.command()
def refused(
    all_: Annotated[bool, typer.Option("--all", help="Also those that were credited since, or dealt with.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
) -> None:
    """Show payments that were refused for good and wait for somebody. Credit what is due by `topup`, then `resolve`."""

    async def work(operator: OperatorUseCases) -> None:
        print_refused(await operator.refused_payments.newest(limit=limit, with_resolved=all_))

    run_for_operator(work)


def print_refused(payments: Sequence[RefusedPayment]) -> None:
    print_table(
        ("id", "source", "payment", "user", "tokens", "reason", "times", "first", "last", "resolved"),
        [
            (
                payment.id,
                payment.source,
                payment.event_id,
                payment.external_user_id,
                payment.amount,
                payment.reason,
                payment.deliveries,
                payment.first_seen_at.isoformat(timespec="seconds"),
                payment.last_seen_at.isoformat(timespec="seconds"),
                payment.resolved_at.isoformat(timespec="seconds") if payment.resolved_at else "",
            )
            for payment in payments
        ],
    )


@commands.command()
def resolve(
    ids: Annotated[list[int], typer.Argument(min=1, max=2**63 - 1, help="The ids that `payments refused` shows.")],
) -> None:
    """Mark refused payments as dealt with. They leave the list, and raise no alarm when they are delivered again."""

    async def work(operator: OperatorUseCases) -> None:
        resolved = await operator.refused_payments.resolve(ids)
        missing = sorted(set(ids) - set(resolved))
        if missing:
            fail(f"not waiting: {', '.join(map(str, missing))}")
        typer.echo("resolved")

    run_for_operator(work)
