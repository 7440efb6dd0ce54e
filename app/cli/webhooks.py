from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated
from uuid import UUID

import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import fail, moment_text, print_table, run_for_operator
from app.domain.events import EventType
from app.domain.keys import OVERLAP_SECONDS_MAX
from app.domain.webhooks import DESCRIPTION_LENGTH_MAX, Endpoint, EndpointNotFound
from app.presentation.schemas.public_hosts import NotPublic
from app.presentation.schemas.webhook_urls import checked_url

commands = typer.Typer(no_args_is_help=True, help="Your own endpoints, which hear of all accounts.")

_Id = Annotated[UUID, typer.Argument(help="As `webhooks list` shows it.")]


@commands.command()
def add(
    url: Annotated[str, typer.Argument(help="https to a public host, or in development http to this machine.")],
    *,
    type_: Annotated[
        list[EventType] | None, typer.Option("--type", help="What it hears of; several times for several.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
) -> None:
    """Add an endpoint and print the secret that signs what it gets. It is shown this once."""
    if description is not None and not 1 <= len(description.strip()) <= DESCRIPTION_LENGTH_MAX:
        fail(f"--description must have 1 to {DESCRIPTION_LENGTH_MAX} characters")
    try:
        # Whether this machine may be reached is asked when something is sent.
        checked = checked_url(url, allows_loopback=True)
    except NotPublic as error:
        fail(error)
    types = sorted(type_) if type_ else None

    async def work(operator: OperatorUseCases) -> None:
        issued = await operator.webhooks.create(None, checked, types, description)
        typer.echo(f"{issued.endpoint.id}  {issued.secret}")

    run_for_operator(work)


@commands.command("list")
def list_() -> None:
    """Show your endpoints, and which of them are disabled, and why."""

    async def work(operator: OperatorUseCases) -> None:
        print_endpoints(await operator.webhooks.endpoints.live(None))

    run_for_operator(work)


def print_endpoints(endpoints: Sequence[Endpoint]) -> None:
    print_table(
        ("id", "url", "types", "description", "created", "failing since", "disabled", "why"),
        [
            (
                endpoint.id,
                endpoint.url,
                "all" if endpoint.types is None else ",".join(endpoint.types),
                endpoint.description,
                moment_text(endpoint.created_at),
                moment_text(endpoint.failing_since),
                moment_text(endpoint.disabled_at),
                endpoint.disabled_reason,
            )
            for endpoint in endpoints
        ],
    )


@commands.command()
def enable(endpoint_id: _Id) -> None:
    """Deliver again to an endpoint that was disabled: what waited for it is due at once."""

    async def work(operator: OperatorUseCases) -> None:
        with _saying_what_is_missing():
            await operator.webhooks.change(None, endpoint_id, {"is_enabled": True})
        typer.echo("enabled")

    run_for_operator(work)


@commands.command()
def rotate(
    endpoint_id: _Id,
    overlap_seconds: Annotated[
        int, typer.Option(min=0, max=OVERLAP_SECONDS_MAX, help="For how long the secret before signs as well.")
    ] = 0,
) -> None:
    """Give an endpoint a new secret and print it."""

    async def work(operator: OperatorUseCases) -> None:
        with _saying_what_is_missing():
            issued = await operator.webhooks.rotate_secret(None, endpoint_id, overlap_seconds=overlap_seconds)
        typer.echo(issued.secret)

    run_for_operator(work)


@commands.command()
def delete(endpoint_id: _Id) -> None:
    """Deliver nothing more to an endpoint."""

    async def work(operator: OperatorUseCases) -> None:
        with _saying_what_is_missing():
            await operator.webhooks.delete(None, endpoint_id)
        typer.echo("deleted")

    run_for_operator(work)


@contextmanager
def _saying_what_is_missing() -> Iterator[None]:
    try:
        yield
    except EndpointNotFound:
        fail("there is no such endpoint: `webhooks list` shows yours")
