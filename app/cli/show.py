"""Commands that show what the service is: its settings, its document, its main job."""

import json

import typer

from app.bootstrap import build_operator
from app.cli.development import run_demo
from app.cli.ledger import print_entries
from app.cli.running import fail, run, with_database
from app.infrastructure.settings import Settings, SettingsError, load_settings
from app.main import create_app


def show_settings() -> None:
    """Print the settings as the environment and .env have them; secrets are masked.

    null is not set. In development `serve` fills some of those in: the database, fal, PUBLIC_URL and secrets.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        fail(error)
    typer.echo(json.dumps(settings.model_dump(mode="json"), indent=2, default=str))


def openapi() -> None:
    """Print the OpenAPI document."""
    document = create_app(Settings.model_construct()).openapi()
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False))


def demo() -> None:
    """Take the running service through its main job and save the results under DATA_DIR/demo."""

    async def work(settings: Settings) -> None:
        user = await run_demo(settings)
        async with with_database(settings) as complete, build_operator(complete) as operator:
            print_entries(await operator.ledger.entries(user, limit=50))

    run(work, is_quiet=True)
