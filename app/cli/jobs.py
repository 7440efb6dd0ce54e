import json
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import print_table, run_for_operator
from app.domain.jobs import Job

JobId = Annotated[UUID, typer.Argument(help="The job's id.")]

commands = typer.Typer(no_args_is_help=True, help="Look at jobs and queue lost ones again.")


@commands.command("list")
def list_newest(
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only jobs that are not final.")] = False,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Only jobs of which nobody knows whether fal got them.")
    ] = False,
    late: Annotated[bool, typer.Option("--late", help="Only jobs whose result came after their end.")] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Only jobs with a run at fal that they do not follow.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
) -> None:
    """Show the newest jobs of all users. Options add up."""

    async def work(operator: OperatorUseCases) -> None:
        print_jobs(
            await operator.jobs.newest(
                unfinished_only=unfinished, unknown_only=unknown, late_only=late, orphans_only=orphans, limit=limit
            )
        )

    run_for_operator(work)


def print_jobs(jobs: Sequence[Job]) -> None:
    """Kinds and statuses are shown as they are stored: a newer release may have written ones that are unknown here."""
    print_table(
        ("job", "type", "status", "tokens", "refunded", "created", "error"),
        [
            (
                job.id,
                str(job.kind),
                str(job.status),
                job.cost_tokens,
                job.refunded_tokens,
                job.created_at.isoformat(timespec="seconds"),
                job.error_code or "",
            )
            for job in jobs
        ],
    )


@commands.command()
def show(job_id: JobId) -> None:
    """Show everything that is known about one job, as JSON."""

    async def work(operator: OperatorUseCases) -> None:
        typer.echo(json.dumps(await operator.jobs.inspect(job_id), indent=2, default=str))

    run_for_operator(work)


@commands.command()
def requeue(job_id: JobId) -> None:
    """Queue an unfinished job again that has lost its queue item. The service does this by itself each minute."""

    async def work(operator: OperatorUseCases) -> None:
        requeued = await operator.steps.requeue_lost(job_id)
        typer.echo(
            "requeued" if any(requeued.values()) else "nothing to do: the job is final, unknown, or queued already"
        )

    run_for_operator(work)
