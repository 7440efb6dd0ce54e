"""The same requests beside 10,000, 100,000 and 1,000,000 jobs, each on a database and a service of its own."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from benchmarks.figures import Bar
from benchmarks.load import Load, measure
from benchmarks.measuring import Measure, Options, Run
from benchmarks.rows import accept_requests, get_requests, status_requests, warm_up
from benchmarks.seed import ACCOUNTS, JOBS_OF_EACH_ACCOUNT, User, add_jobs
from benchmarks.stage import Stage
from tests.builders import connect

NAMES = ("growth",)
CALLERS = 32
SAMPLE = 2_000


@dataclass(frozen=True, slots=True)
class Size:
    name: str
    jobs: int
    accounts: int = ACCOUNTS


SIZES = (
    Size("10^4 jobs", 10_000),
    Size("10^5 jobs", 100_000),
    Size("10^6 jobs", 1_000_000),
    Size("10^6 jobs of one user", 1_000_000, accounts=1),
)
BARS = tuple(
    Bar(f"{what} beside 10^6 jobs: of 10^4", f"{what}, 10^6 jobs", f"{what}, 10^4 jobs", ">=", 0.9)
    for what in ("list", "status")
)


def estimate_seconds(options: Options) -> float:
    sizes = 2 if options.is_quick else len(SIZES)
    return (20 if options.is_quick else 200) + options.rounds * sizes * 3 * (options.seconds + 0.5)


async def run_growth(stage: Stage, run: Run) -> None:
    sizes = SIZES[:2] if run.options.is_quick else SIZES
    reads: dict[str, Measure] = {}
    accepts: dict[str, Measure] = {}
    filling = run.progress.add_task("filling", total=len(sizes))
    async with AsyncExitStack() as stack:
        for size in sizes:
            run.progress.update(filling, description=f"filling: {size.name}")
            dsn = await stack.enter_async_context(stage.database())
            users = await _fill(dsn, stage.users, size)
            run.progress.advance(filling)
            port = stack.enter_context(stage.service(dsn)).port
            await warm_up(users, port)

            def ask(requests: list[str], status: int, port: int = port) -> Measure:
                load = Load(port, CALLERS, requests, status, run.options.seconds)
                return lambda: measure(load)

            reads[f"status, {size.name}"] = ask(status_requests(users), 200)
            reads[f"list, {size.name}"] = ask(get_requests("/generations?limit=20")(users), 200)
            accepts[f"accept, {size.name}"] = ask(accept_requests(users), 202)
        await run.in_turn("growth: lookups", reads)
        # Afterwards, because each of them adds jobs.
        await run.in_turn("growth: accept", accepts)


async def _fill(dsn: str, users: Sequence[User], size: Size) -> list[User]:
    """Callers that ask for jobs from all over the table, and not for a few that are in every cache."""
    async with connect(dsn) as connection:
        await add_jobs(connection, size.jobs - ACCOUNTS * JOBS_OF_EACH_ACCOUNT, size.accounts)
        chosen = users[: size.accounts]
        by_id = {user.external_user_id: user for user in chosen}
        found = await connection.fetch(
            "SELECT j.id, a.external_user_id FROM jobs j JOIN accounts a ON a.id = j.account_id"
            " WHERE a.external_user_id = ANY($1) ORDER BY random() LIMIT $2",
            list(by_id),
            SAMPLE,
            timeout=120,
        )
    return [replace(by_id[row["external_user_id"]], job_id=row["id"]) for row in found]
