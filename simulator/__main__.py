from pathlib import Path
from typing import Annotated

import psutil
import typer
from pydantic import ValidationError

from simulator.behaviours import help_text
from simulator.config import SimulatorConfig
from simulator.server import serve

DEFAULTS = SimulatorConfig()

# \b keeps click from rewrapping the table.
cli = typer.Typer(add_completion=False, rich_markup_mode=None)


@cli.command(epilog="\b\n" + help_text())
def main(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 chooses a free one, with --state-dir always the same.")
    ] = 9000,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    public_url: Annotated[
        str | None, typer.Option(help="Base of the URLs handed out; otherwise the Host header of each submit.")
    ] = None,
    queue_seconds: Annotated[float, typer.Option(help="Time in the queue.")] = DEFAULTS.queue_seconds,
    run_seconds_image: Annotated[float, typer.Option(help="Time of an image.")] = DEFAULTS.run_seconds_image,
    run_seconds_video: Annotated[float, typer.Option(help="Time of a video.")] = DEFAULTS.run_seconds_video,
    speed: Annotated[float, typer.Option(help="Divides every duration.")] = DEFAULTS.speed,
    user_id: Annotated[str, typer.Option(help="User that webhooks name.")] = DEFAULTS.user_id,
    webhook_retry_seconds: Annotated[
        float, typer.Option(help="Time before the second attempt of a webhook; then it doubles.")
    ] = DEFAULTS.webhook_retry_seconds,
    webhook_attempts_max: Annotated[
        int, typer.Option(help="Attempts before a webhook is given up.")
    ] = DEFAULTS.webhook_attempts_max,
    unknown_key_id: Annotated[
        list[str] | None, typer.Option(help="Key id to refuse with 401; may be repeated. Default: unknown.")
    ] = None,
    admin_key_id: Annotated[
        list[str] | None, typer.Option(help="Key id of scope ADMIN; may be repeated. Default: admin.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Keep requests and input pictures here, and go on after a restart.")
    ] = None,
    parent_pid: Annotated[int | None, typer.Option(help="Stop when this process is gone.")] = None,
) -> None:
    """fal.ai's queue on this machine: the same HTTP protocol, drawings instead of generated media, no cost.

    Without --state-dir nothing is kept: requests and files are gone when it stops.
    """
    try:
        config = SimulatorConfig(
            public_url=public_url,
            queue_seconds=queue_seconds,
            run_seconds_image=run_seconds_image,
            run_seconds_video=run_seconds_video,
            speed=speed,
            user_id=user_id,
            webhook_retry_seconds=webhook_retry_seconds,
            webhook_attempts_max=webhook_attempts_max,
            unknown_key_ids=frozenset(unknown_key_id) if unknown_key_id else DEFAULTS.unknown_key_ids,
            admin_key_ids=frozenset(admin_key_id) if admin_key_id else DEFAULTS.admin_key_ids,
        )
        serve(host, port, config, parent_pid, state_dir)
    except ValidationError as error:
        problem = error.errors()[0]
        raise typer.BadParameter(f"{problem['loc'][0]}: {problem['msg']}") from None
    except psutil.NoSuchProcess:
        typer.echo(f"simulator: no process {parent_pid} to serve", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"simulator: cannot listen on {host}:{port}: {error.strerror}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    cli(prog_name="python -m simulator")
