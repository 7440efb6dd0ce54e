"""The command line: `python -m app --help`."""

import typer

from app.cli import (
    accounts,
    catalogue,
    doctor,
    jobs,
    keys,
    ledger,
    listen,
    media,
    payments,
    restores,
    serve,
    show,
    tokens,
    webhooks,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Metered AI image and video generation.")
# The order of `--help`.
app.command()(serve.serve)
app.command()(serve.worker)
app.command()(serve.migrate)
app.command()(payments.topup)
app.command()(doctor.doctor)
app.command()(restores.restore_check)
app.command()(restores.restore_release)
app.command("settings")(show.show_settings)
app.command()(show.openapi)
app.command()(show.demo)
app.command()(listen.listen)
app.add_typer(catalogue.commands, name="catalogue")
app.add_typer(webhooks.commands, name="webhooks")
app.add_typer(media.commands, name="media")
app.add_typer(keys.commands, name="keys")
app.add_typer(accounts.commands, name="accounts")
app.add_typer(jobs.commands, name="jobs")
app.add_typer(payments.commands, name="payments")
app.add_typer(tokens.commands, name="tokens")
app.add_typer(ledger.commands, name="ledger")


def main() -> None:
    app()
