"""What is to be done after a backup was restored; docs/restore.md is the chapter to it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

import typer

from app.bootstrap import AfterRestore, build_after_restore
from app.cli.running import migrate_database, print_table, run, with_database
from app.infrastructure.settings import Settings

NEXT = """
{held} job(s) are held. They are submitted only after `python -m app restore-release`, which means a second run of those
that fal has run since the backup. `restore-release --refund` ends them in place of that, and gives the tokens back.
Replay the payment provider's events since the backup: what was credited before is not credited again."""


def restore_check(
    hold: Annotated[bool, typer.Option("--hold", help="First hold what waits now, as a noticed restore does.")] = False,
    adopt: Annotated[
        list[str] | None,
        typer.Option("--adopt", metavar="JOB=REQUEST", help="Give this job that request of fal, which it has led to."),
    ] = None,
) -> None:
    """Look at the jobs that a restored backup has as waiting, and find those that fal may have run already."""
    chosen = dict(map(_adoption, adopt or []))

    async def work(restored: AfterRestore) -> None:
        await restored.jobs.notice()
        if hold:
            await restored.jobs.hold()
        findings = [finding async for finding in restored.check(chosen)]
        print_table(
            ("job", "account", "created", "fal's request", "what is known"),
            [
                (
                    finding.job.id,
                    finding.job.account_id,
                    finding.job.created_at.isoformat(timespec="seconds"),
                    finding.request_id or "",
                    finding.sentence,
                )
                for finding in findings
            ],
        )
        counts = Counter(finding.request_id is None for finding in findings)
        typer.echo(NEXT.format(held=counts[True]) if counts[True] else "\nno job is held")

    _run(work)


def _adoption(text: str) -> tuple[UUID, str]:
    job_id, _, request_id = text.partition("=")
    try:
        return UUID(job_id), request_id
    except ValueError:
        raise typer.BadParameter("--adopt needs the id of a job, =, and the id of a request of fal") from None


def restore_release(
    job_ids: Annotated[list[UUID] | None, typer.Argument(help="These alone; without any, all that are held.")] = None,
    refund: Annotated[bool, typer.Option("--refund", help="End all of them and give the tokens back.")] = False,
) -> None:
    """Let held jobs be submitted, or end them."""

    async def work(restored: AfterRestore) -> None:
        if refund:
            typer.echo(f"{await restored.end()} job(s) ended, and their tokens are back")
        else:
            typer.echo(f"{await restored.jobs.release(job_ids or [])} job(s) go on")

    if refund and job_ids:
        raise typer.BadParameter("--refund ends all that are held: name no jobs")
    _run(work)


def _run(work: Callable[[AfterRestore], Awaitable[None]]) -> None:
    async def connected(settings: Settings) -> None:
        async with with_database(settings) as complete:
            await migrate_database(complete)
            async with build_after_restore(complete) as restored:
                await work(restored)

    run(connected, is_quiet=True)
