"""Commands about what is sold: whether its files are right, what it costs, and what fal has changed since."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated

import typer

from app.application.ports.provider import ProviderUnavailable
from app.bootstrap.catalogue import load_catalogue, open_offers, safety_concern
from app.cli.catalogue_text import lines_of, margin_line, table_of
from app.cli.running import fail, print_table, run
from app.domain.catalogue import Catalogue
from app.domain.kinds import GenerationKind
from app.domain.margins import sold_below
from app.domain.offered_prices import OfferedPrice, usd_text
from app.domain.offers import Difference, Offer, differences, new_models
from app.infrastructure.settings import Settings, SettingsError, load_settings

TOKEN_USD_MIN, TOKEN_USD_MAX = Decimal("0.000001"), Decimal(1_000_000)


def _token_usd(text: str) -> Fraction:
    try:
        usd = Decimal(text)
    except ArithmeticError:
        usd = Decimal(0)
    if not usd.is_finite() or not TOKEN_USD_MIN <= usd <= TOKEN_USD_MAX:
        raise typer.BadParameter(f"must be a number from {TOKEN_USD_MIN:f} to {TOKEN_USD_MAX}, such as 0.01")
    return Fraction(usd)


TokenUsd = Annotated[
    Fraction | None,
    typer.Option(
        parser=_token_usd, metavar="USD", help="What you are paid for a token: names what is sold below cost."
    ),
]

commands = typer.Typer(no_args_is_help=True, help="Look at the models and prices, and compare them with fal's.")


@commands.command()
def check(token_usd: TokenUsd = None) -> None:
    """Read the catalogue, with your own files over it. Exits with 1 and says what to mend where something is wrong."""
    settings = _settings()
    catalogue = _catalogue(settings)
    typer.echo(f"the catalogue is right: {len(catalogue)} models")
    concern = safety_concern(settings, catalogue)
    if concern is not None:
        typer.echo(concern)
    if token_usd is None:
        return
    below = sold_below(catalogue, token_usd)
    for margin in below:
        typer.echo(margin_line(margin, token_usd))
    if not below:
        typer.echo(f"nothing is sold below its cost at {usd_text(token_usd)} a token")


@commands.command("list")
def list_models(
    kind: Annotated[GenerationKind | None, typer.Option("--type", help="Only models of this type.")] = None,
    without_safety_switch: Annotated[
        bool,
        typer.Option("--without-safety-switch", help="Only models that SAFETY_CHECKER=on tells nothing."),
    ] = False,
) -> None:
    """Show each model with its price lines, and what its cheapest and its dearest request cost."""
    catalogue = _catalogue(_settings())
    print_table(
        ("model", "type", "price lines", "tokens"),
        [
            (
                f"{model.id} (default)" if model.is_default else model.id,
                model.kind.value,
                ", ".join(f"{rule.line} {rule.tokens} per {rule.unit}" for rule in model.prices),
                f"{model.from_tokens}-{model.to_tokens}",
            )
            for model in (catalogue if kind is None else catalogue.of_kind(kind))
            if not (without_safety_switch and model.has_safety_switch)
        ],
    )


@commands.command()
def show(
    model_id: Annotated[str, typer.Argument(metavar="MODEL", help="fal's endpoint id, such as fal-ai/flux/schnell.")],
) -> None:
    """Show everything that is known about one model."""
    model = _catalogue(_settings()).get(model_id)
    if model is None:
        fail("there is no such model: `python -m app catalogue list` shows all of them")
    for line in lines_of(model):
        typer.echo(line)


@commands.command()
def table() -> None:
    """Print all models in Markdown, as docs/catalogue.md has them."""
    for line in table_of(_catalogue(_settings())):
        typer.echo(line)


@commands.command()
def compare(token_usd: TokenUsd = None) -> None:
    """Ask fal what has changed. Exits with 1 where we sell what fal no longer does so, or charges more for."""
    found: list[Difference] = []

    async def work(settings: Settings) -> None:
        catalogue = _catalogue(settings)
        async with open_offers(settings) as offers:
            if offers is None:
                fail("FAL_KEY is not set: fal tells its prices to customers only. Set it to the key of your account")
            try:
                listed = await offers.listed()
                offered = await offers.of([model.id for model in catalogue])
                prices = await offers.prices(
                    [model_id for model_id, offer in offered.items() if not offer.is_withdrawn]
                )
            except ProviderUnavailable as error:
                fail(f"{error}. Look at FAL_KEY and FAL_API_URL, and try again")
        found.extend(_compared(catalogue, offered, prices, token_usd))
        found.extend(new_models(catalogue, listed))

    run(work, is_quiet=True)
    _print(found)


def _compared(
    catalogue: Catalogue, offered: dict[str, Offer], prices: dict[str, OfferedPrice], token_usd: Fraction | None
) -> Iterator[Difference]:
    for model in catalogue:
        yield from differences(model, offered.get(model.id), prices.get(model.id), token_usd)


def _print(found: Sequence[Difference]) -> None:
    for difference in sorted(found, key=lambda it: not it.is_wrong):
        typer.echo(f"{'wrong' if difference.is_wrong else 'new':<6}{difference.model_id}: {difference.text}")
    wrong = sum(difference.is_wrong for difference in found)
    if wrong:
        fail("1 thing is wrong" if wrong == 1 else f"{wrong} things are wrong")
    typer.echo("all that we sell is as fal has it")


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        fail(error)


def _catalogue(settings: Settings) -> Catalogue:
    try:
        return load_catalogue(settings)
    except SettingsError as error:
        fail(error)
