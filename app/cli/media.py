from collections import Counter

import typer

from app.application.media_audit import MediaAudit, Verdict
from app.application.ports.media_store import StoreUnavailable
from app.application.use_cases import OperatorUseCases
from app.cli.running import fail, run_for_operator

commands = typer.Typer(no_args_is_help=True, help="The files that jobs delivered.")
_TOLD = frozenset({Verdict.ORPHAN, Verdict.UNKNOWN, Verdict.DAMAGED})
_REMOVED = frozenset({Verdict.ORPHAN, Verdict.UNKNOWN})


@commands.command()
def verify(*, remove: bool = typer.Option(False, help="Delete objects that are orphans or unknown.")) -> None:
    """Compare the store and the rows both ways, and exit with 1 where they differ.

    An orphan is what was deleted or given up more than a day ago; the service removes those by itself. Unknown is what
    no row of this database stands for, and may be of another installation: look before you remove it.
    """

    async def work(operator: OperatorUseCases) -> None:
        media = operator.open_media()
        if media is None:
            fail("MEDIA_URL is none: there is no store to verify")
        try:
            is_sound = await _verify(media, remove=remove)
        except StoreUnavailable as error:
            fail(error)
        if not is_sound:
            raise typer.Exit(1)

    run_for_operator(work)


async def _verify(media: MediaAudit, *, remove: bool) -> bool:
    counts: Counter[Verdict] = Counter()
    async for judged in media.objects():
        counts[judged.verdict] += 1
        if judged.verdict in _TOLD:
            typer.echo(f"{judged.verdict.value}  {judged.object.key}  {judged.object.size_bytes} bytes")
        if remove and judged.verdict in _REMOVED:
            await media.remove(judged)
    rows = missing = 0
    async for media_id, is_missing in media.missing():
        rows += 1
        if is_missing:
            missing += 1
            typer.echo(f"missing  {media_id.store_key}")
    miscounted = await media.miscounted()
    for account in miscounted:
        typer.echo(f"miscounted  {account.account_id}  {account.counted_bytes} bytes, and its files {account.bytes}")
    typer.echo(
        f"{counts.total()} objects: {counts[Verdict.ORPHAN]} orphans, {counts[Verdict.UNKNOWN]} unknown, "
        f"{counts[Verdict.DAMAGED]} damaged. {rows} stored outputs and files: {missing} missing. "
        f"{len(miscounted)} accounts miscounted."
    )
    is_right = not missing and not counts[Verdict.DAMAGED] and not miscounted
    return is_right and (remove or not counts.keys() & _REMOVED)
