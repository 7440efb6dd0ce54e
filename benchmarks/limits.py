"""Accepts with everything in force that may refuse them: a budget of the key, and the limits of the account."""

from contextlib import ExitStack

from benchmarks.figures import Bar
from benchmarks.load import Load, measure
from benchmarks.measuring import Measure, Options, Run
from benchmarks.rows import accept_requests, real_answers, warm_up
from benchmarks.stage import Stage
from tests.builders import connect

NAMES = ("limited",)
CALLERS = 32
ROW, FLOOR, FREE = f"limited c={CALLERS}", f"nothing/limited c={CALLERS}", f"unlimited c={CALLERS}"
BARS = (Bar("accept with everything in force: of doing nothing", ROW, FLOOR, ">=", 0.35),)
# More than is asked for, so that nothing is refused.
PLENTY = 2_000_000_000
GIVE_BUDGETS = "UPDATE keys SET budget_tokens = $1, budget_per = 'day'"


def estimate_seconds(options: Options) -> float:
    return 15 + options.rounds * 3 * (options.seconds + 1)


async def run_limited(stage: Stage, run: Run) -> None:
    limits = {"JOBS_UNFINISHED_MAX": str(PLENTY), "WRITES_PER_MINUTE": str(PLENTY), "READS_PER_SECOND": str(PLENTY)}
    async with stage.database() as limited_dsn, stage.database() as dsn:
        async with connect(limited_dsn) as connection:
            await connection.execute(GIVE_BUDGETS, PLENTY)
        with ExitStack() as stack:
            limited = stack.enter_context(stage.service(limited_dsn, **limits)).port
            free = stack.enter_context(stage.service(dsn)).port
            nothing = stack.enter_context(stage.nothing(await real_answers(limited, stage.users[0])))
            await warm_up(stage.users, limited, free, nothing)

            def measured(port: int) -> Measure:
                load = Load(port, CALLERS, accept_requests(stage.users), 202, run.options.seconds)
                return lambda: measure(load)

            measures = {ROW: measured(limited), FREE: measured(free), FLOOR: measured(nothing)}
            await run.in_turn("limited", measures)
