from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import User, fail, print_table, run_for_operator
from app.domain.ledger import EntryKind, LedgerEntry

# The sign says what a kind does to the balance. A kind of a newer release is unknown here and gets none.
SIGNS: Mapping[str, str] = {
    EntryKind.CREDIT: "+",
    EntryKind.DEBIT: "-",
    EntryKind.REFUND: "+",
    EntryKind.REVERSAL: "-",
    EntryKind.REINSTATEMENT: "+",
    # It has its own.
    EntryKind.ADJUSTMENT: "",
}

commands = typer.Typer(no_args_is_help=True, help="Check the books, and put counters right.")


@commands.command()
def verify() -> None:
    """Recompute every balance and job from the entries. Exits with 1 where anything differs."""

    async def work(operator: OperatorUseCases) -> None:
        violations = await operator.ledger.violations()
        for violation in violations:
            typer.echo(f"{violation.invariant}: {violation.subject}")
        if violations:
            fail(f"{len(violations)} differences")
        typer.echo("the ledger is right: every token is accounted for")

    run_for_operator(work)


@commands.command()
def recount() -> None:
    """Count anew what `verify` names: unfinished jobs of accounts, and what keys spent of budgets. Moves no token."""

    async def work(operator: OperatorUseCases) -> None:
        changes = 0
        async for each in operator.ledger.recount():
            typer.echo(f"{each.counter} of {each.subject}: {each.before} before, {each.after} now")
            changes += 1
        if not changes:
            typer.echo("every counter is right: nothing was changed")

    run_for_operator(work)


@commands.command()
def show(
    user: User,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
) -> None:
    """Show the user's newest entries."""

    async def work(operator: OperatorUseCases) -> None:
        # An account without entries has nothing yet, and who has no account is no user.
        await operator.accounts.usage(user)
        print_entries(await operator.ledger.entries(user, limit=limit))

    run_for_operator(work)


def print_entries(entries: Sequence[LedgerEntry]) -> None:
    print_table(
        ("time", "kind", "tokens", "balance", "job, payment or adjustment", "source or actor", "reason"),
        [
            (
                entry.created_at.isoformat(timespec="seconds"),
                str(entry.kind),
                f"{SIGNS.get(entry.kind, '')}{entry.amount}",
                entry.balance_after,
                entry.job_id or entry.payment_event_id or entry.adjustment_id,
                entry.payment_source or entry.actor or "",
                entry.reason or "",
            )
            for entry in entries
        ],
    )
