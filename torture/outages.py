"""PostgreSQL goes away: crashed and started again many times, away for a minute, and its connections cut one by one."""

import asyncio
import time
from contextlib import suppress

import asyncpg
import httpx

from torture.report import Check, Outcome, Plan
from torture.under_load import Trouble, suffer

RESTARTS = 30
RESTART_JOBS = 5_400
PAUSE_SECONDS = (3.0, 12.0)
DOWN_SECONDS = (0.0, 2.0)
OUTAGE_SECONDS = 60.0
OUTAGE_AFTER_SECONDS = 15.0
HEALTHY_SECONDS_MAX = 5.0
RECOVERY_SECONDS_MAX = 60.0

CUTS = 2_000
CUT_JOBS = 5_400
# A storm, and a calm in which the runners connect again: without it nothing would be cut at work.
CUTS_EACH_STORM = (5, 40)
CALM_SECONDS = (0.5, 5.0)
CUT_PAUSE_SECONDS = 0.05
SERVICE = "application_name IN ('tollgate', 'tollgate-runner')"


async def restarts(plan: Plan) -> Outcome:
    count = plan.count(RESTARTS)

    async def restart(trouble: Trouble) -> None:
        recoveries: list[float] = []
        for _ in range(count):
            await asyncio.sleep(trouble.rng.uniform(*PAUSE_SECONDS))
            recoveries.append(await _away(trouble, "restart", trouble.rng.uniform(*DOWN_SECONDS)))
        await asyncio.sleep(OUTAGE_AFTER_SECONDS * plan.scale)
        recoveries.append(await _away(trouble, "outage", OUTAGE_SECONDS * plan.scale))
        trouble.counts |= {
            "restarts": count,
            "outage_seconds": OUTAGE_SECONDS * plan.scale,
            "seconds_to_healthy_max": max(recoveries),
            "seconds_to_healthy_median": sorted(recoveries)[len(recoveries) // 2],
        }
        trouble.checks += [
            Check(
                f"healthy within {HEALTHY_SECONDS_MAX:.0f} s after the database is back",
                len(recoveries),
                [f"{seconds:.1f} s" for seconds in recoveries if seconds > HEALTHY_SECONDS_MAX],
            ),
            _nobody_ended(trouble),
        ]

    # A restart takes about two seconds by itself.
    seconds = RESTARTS * (sum(PAUSE_SECONDS) / 2 + sum(DOWN_SECONDS) / 2 + 2) + OUTAGE_AFTER_SECONDS + OUTAGE_SECONDS
    return await suffer(plan, "restarts", jobs=RESTART_JOBS, seconds=seconds, trouble=restart)


async def _away(trouble: Trouble, kind: str, seconds: float) -> float:
    """How many seconds after its return the service says that it is ready."""
    postgres = trouble.fleet.postgres
    trouble.timeline.mark(f"{kind} begins")
    await asyncio.to_thread(postgres.crash)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(postgres.start)
    trouble.timeline.mark(f"{kind} ends")
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=trouble.fleet.url, trust_env=False, timeout=10) as client:
        while time.monotonic() - began < RECOVERY_SECONDS_MAX:
            with suppress(httpx.TransportError):
                if (await client.get("/readyz")).status_code == 200:
                    break
            await asyncio.sleep(0.1)
    return time.monotonic() - began


def _nobody_ended(trouble: Trouble) -> Check:
    members = trouble.fleet.members
    return Check("no process ended", len(members), [member.name for member in members if member.has_ended()])


async def cuts(plan: Plan) -> Outcome:
    count = plan.count(CUTS)

    async def cut(trouble: Trouble) -> None:
        done = at_work = 0
        connection = await asyncpg.connect(trouble.fleet.postgres.dsn, server_settings={"application_name": "torture"})
        try:
            while done < count:
                await asyncio.sleep(trouble.rng.uniform(*CALM_SECONDS))
                trouble.timeline.mark("storm of cuts")
                for _ in range(min(trouble.rng.randint(*CUTS_EACH_STORM), count - done)):
                    was_at_work = await _cut_one(connection, prefers_work=trouble.rng.random() < 0.7)
                    done += was_at_work is not None
                    at_work += was_at_work is True
                    await asyncio.sleep(CUT_PAUSE_SECONDS)
        finally:
            await connection.close()
        trouble.counts |= {"cuts": done, "in_the_middle_of_a_transaction_or_statement": at_work}
        trouble.checks.append(_nobody_ended(trouble))

    storms = CUTS / (sum(CUTS_EACH_STORM) / 2)
    seconds = storms * sum(CALM_SECONDS) / 2 + CUTS * (CUT_PAUSE_SECONDS + 0.02)
    return await suffer(plan, "cuts", jobs=CUT_JOBS, seconds=seconds, trouble=cut)


async def _cut_one(connection: "asyncpg.Connection[asyncpg.Record]", *, prefers_work: bool) -> bool | None:
    """Whether the backend was at work; None: there was none to cut."""
    order = "state <> 'idle' DESC, random()" if prefers_work else "random()"
    row = await connection.fetchrow(
        f"SELECT pid, state <> 'idle' AS is_at_work FROM pg_stat_activity WHERE {SERVICE} ORDER BY {order} LIMIT 1"
    )
    if row is None or not await connection.fetchval("SELECT pg_terminate_backend($1)", row["pid"]):
        return None
    return bool(row["is_at_work"])
