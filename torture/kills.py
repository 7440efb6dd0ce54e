"""kill -9 of API and workers, at any moment, also while they start."""

import asyncio
from collections import Counter

from torture.report import Outcome, Plan
from torture.under_load import Trouble, suffer

KILLS = 200
JOBS = 6_600
# A start takes about as long as the shortest of these: every other victim or so dies before it is ready.
PAUSE_SECONDS = (0.5, 7.0)
# The shortest pauses are drawn out by the restarts, which take both cores.
KILL_SECONDS = sum(PAUSE_SECONDS) / 2 + 0.2


async def kills(plan: Plan) -> Outcome:
    count = plan.count(KILLS)

    async def kill(trouble: Trouble) -> None:
        await kill_members(trouble, count)

    return await suffer(plan, "kills", jobs=JOBS, seconds=KILLS * KILL_SECONDS, trouble=kill, may_end=True)


async def kill_members(trouble: Trouble, count: int) -> None:
    """One after another, whoever it is, each started again at once."""
    tally: Counter[str] = Counter()
    for _ in range(count):
        await asyncio.sleep(trouble.rng.uniform(*PAUSE_SECONDS))
        await kill_one(trouble, tally)
    trouble.counts |= {"kills": count, "victims": dict(tally)}


async def kill_one(trouble: Trouble, tally: Counter[str]) -> None:
    victim = trouble.rng.choice(trouble.fleet.members)
    phase = "working" if victim.is_ready() else "starting"
    await asyncio.to_thread(victim.process.kill)
    victim.start()
    trouble.timeline.mark(f"kill {victim.name}")
    tally[victim.name.partition(" ")[0]] += 1
    tally[phase] += 1
