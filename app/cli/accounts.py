from enum import StrEnum
from typing import Annotated

import typer

from app.application.use_cases import OperatorUseCases
from app.cli.running import User, fail, print_table, run_for_operator
from app.domain.accounts import AccountUsage, Limit, LimitChanges

commands = typer.Typer(no_args_is_help=True, help="Look at what an account may ask for, and change it.")

# What a column of the database holds.
LIMIT_MAX = 2**31 - 1
WEIGHT_MAX = 1000


class LimitName(StrEnum):
    JOBS = "jobs"
    WRITES = "writes"
    READS = "reads"
    WEIGHT = "weight"


@commands.command()
def limits(
    user: User,
    *,
    jobs: Annotated[int | None, typer.Option(min=0, max=LIMIT_MAX, help="Unfinished generations. 0: no limit.")] = None,
    writes: Annotated[
        int | None, typer.Option(min=0, max=LIMIT_MAX, help="Changes in a minute, over all processes. 0: no limit.")
    ] = None,
    reads: Annotated[
        int | None,
        typer.Option(min=0, max=LIMIT_MAX, help="Reads in a second with each key, in each process. 0: no limit."),
    ] = None,
    weight: Annotated[
        int | None, typer.Option(min=1, max=WEIGHT_MAX, help="Turns at fal where another account has one.")
    ] = None,
    default: Annotated[
        list[LimitName] | None, typer.Option(help="Give this one back to the settings; several times for several.")
    ] = None,
) -> None:
    """Show the account's limits and what is used of them, and set those that are given. They hold at once."""
    given = {
        LimitName.JOBS: jobs,
        LimitName.WRITES: writes,
        LimitName.READS: reads,
        LimitName.WEIGHT: weight,
    }
    for name in default or ():
        if given[name] is not None:
            fail(f"--{name} and --default {name} contradict each other: leave one of them out")
    changes = _changes({name: it for name, it in given.items() if it is not None} | dict.fromkeys(default or ()))

    async def work(operator: OperatorUseCases) -> None:
        print_usage(await operator.accounts.set_limits(user, changes))

    async def look(operator: OperatorUseCases) -> None:
        print_usage(await operator.accounts.usage(user))

    run_for_operator(work if changes else look)


def _changes(given: dict[LimitName, int | None]) -> LimitChanges:
    changes = LimitChanges()
    if LimitName.JOBS in given:
        changes["unfinished_jobs_max"] = given[LimitName.JOBS]
    if LimitName.WRITES in given:
        changes["writes_per_minute"] = given[LimitName.WRITES]
    if LimitName.READS in given:
        changes["reads_per_second"] = given[LimitName.READS]
    if LimitName.WEIGHT in given:
        changes["weight"] = given[LimitName.WEIGHT]
    return changes


def print_usage(usage: AccountUsage) -> None:
    rows: list[tuple[str, str, Limit, str]] = [
        ("jobs", "unfinished generations", usage.unfinished_jobs_max, str(usage.unfinished_jobs)),
        ("writes", "changes in a minute", usage.writes_per_minute, f"{usage.writes_in_this_minute} in this minute"),
        ("reads", "reads in a second, with each key", usage.reads_per_second, ""),
        ("weight", "turns at fal", usage.weight, ""),
    ]
    print_table(
        ("limit", "of", "at most", "from", "used"),
        [
            (name, what, limit.amount or "no limit", "the account" if limit.is_own else "the settings", used)
            for name, what, limit, used in rows
        ],
    )
