import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import User, run_for_operator

commands = typer.Typer(no_args_is_help=True, help="Issue, rotate and revoke API keys.")


@commands.command()
def issue(user: User) -> None:
    """Issue the user's first key and print it. It is shown this once."""

    async def work(operator: OperatorUseCases) -> None:
        typer.echo(await operator.keys.issue_first(user))

    run_for_operator(work)


@commands.command()
def rotate(user: User) -> None:
    """Replace the user's key and print the new one. The old one stops working at once."""

    async def work(operator: OperatorUseCases) -> None:
        typer.echo(await operator.keys.rotate(user))

    run_for_operator(work)


@commands.command()
def revoke(user: User) -> None:
    """Revoke the user's key. Balance and jobs stay; `keys rotate` gives a new one."""

    async def work(operator: OperatorUseCases) -> None:
        await operator.keys.revoke(user)
        typer.echo("revoked")

    run_for_operator(work)
