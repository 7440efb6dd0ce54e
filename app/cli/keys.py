from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import User, fail, moment_text, print_table, run_for_operator
from app.domain.accounts import Scope
from app.domain.budgets import Budget, Period
from app.domain.keys import KEY_NAME_LENGTH_MAX, OVERLAP_SECONDS_MAX, KeyRecord, KeySettings
from app.domain.ledger import BALANCE_TOKENS_MAX

commands = typer.Typer(no_args_is_help=True, help="Issue, list, create, rotate and revoke API keys.")

_KEY_HELP = "The id of one key, as `keys list` shows it."


@commands.command()
def issue(user: User) -> None:
    """Issue the user's first key and print it. It is shown this once."""

    async def work(operator: OperatorUseCases) -> None:
        typer.echo(await operator.keys.issue_first(user))

    run_for_operator(work)


@commands.command("list")
def list_(user: User) -> None:
    """Show the user's live keys: what each may do, what it has spent of its budget, when it was last used."""

    async def work(operator: OperatorUseCases) -> None:
        print_keys(await operator.keys.of_users.live(user))

    run_for_operator(work)


def print_keys(keys: Sequence[KeyRecord]) -> None:
    print_table(
        ("id", "begins with", "name", "scopes", "budget", "spent", "created", "expires", "last used"),
        [
            (
                key.id,
                key.hint,
                key.settings.name,
                ",".join(scope for scope in Scope if scope in key.settings.scopes),
                "" if key.spending is None else f"{key.spending.budget.tokens} per {key.spending.budget.per}",
                "" if key.spending is None else key.spending.spent_tokens,
                moment_text(key.created_at),
                moment_text(key.settings.expires_at),
                moment_text(key.last_used_at),
            )
            for key in keys
        ],
    )


@commands.command()
def create(
    user: User,
    *,
    name: Annotated[str, typer.Option(help="For people: who or what uses the key.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; several times for several.")],
    expires_at: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="In UTC. From then on it opens nothing."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, max=BALANCE_TOKENS_MAX, help="Tokens that it may spend in each period.")
    ] = None,
    per: Annotated[Period | None, typer.Option(help="The period of the budget.")] = None,
) -> None:
    """Make a further key and print it. It is shown this once."""
    if not name.strip() or len(name) > KEY_NAME_LENGTH_MAX:
        fail(f"--name must have 1 to {KEY_NAME_LENGTH_MAX} characters")
    if per is not None and budget is None:
        fail("--per needs --budget: without one the balance is the only bound")
    if budget is not None and per is None:
        fail("--budget needs --per: give it for each day, each month, or ever")
    settings = KeySettings(
        name=name,
        scopes=frozenset(scope),
        expires_at=None if expires_at is None else expires_at.replace(tzinfo=UTC),
        budget=None if budget is None or per is None else Budget(budget, per),
    )

    async def work(operator: OperatorUseCases) -> None:
        typer.echo((await operator.keys.of_users.create(user, settings)).secret)

    run_for_operator(work)


@commands.command()
def rotate(
    user: User,
    key: Annotated[UUID | None, typer.Option(help=f"{_KEY_HELP} Without it the first key, or a new first one.")] = None,
    overlap_seconds: Annotated[
        int, typer.Option(min=0, max=OVERLAP_SECONDS_MAX, help="With --key: how long the secret before works on.")
    ] = 0,
) -> None:
    """Give a key another secret and print it. The old one stops working at once, unless there is an overlap."""
    if key is None and overlap_seconds:
        fail("--overlap-seconds needs --key: the first key is replaced at once")

    async def work(operator: OperatorUseCases) -> None:
        if key is None:
            typer.echo(await operator.keys.rotate(user))
        else:
            typer.echo((await operator.keys.of_users.rotate(user, key, overlap_seconds=overlap_seconds)).secret)

    run_for_operator(work)


@commands.command()
def revoke(
    user: User,
    key: Annotated[UUID | None, typer.Option(help=f"{_KEY_HELP} Without it all keys of the user.")] = None,
) -> None:
    """Revoke the user's keys, or one of them. Balance and jobs stay; `keys rotate` gives a new one."""

    async def work(operator: OperatorUseCases) -> None:
        if key is None:
            await operator.keys.revoke(user)
        else:
            await operator.keys.of_users.delete(user, key)
        typer.echo("revoked")

    run_for_operator(work)
