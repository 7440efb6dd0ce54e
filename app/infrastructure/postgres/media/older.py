"""Outputs of jobs that were completed before each output had a row, and what came for jobs that have none."""

from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.tables import jobs

JOBS_AT_ONCE = 2_000
LATE_RESULTS_AT_ONCE = 100
_NEXT = select(jobs.c.id).where(jobs.c.id > bindparam("after", type_=jobs.c.id.type)).order_by(jobs.c.id)
# As the trigger of the end does, which these jobs had not.
_KEEP = text("""
INSERT INTO outputs (job_id, number, expires_at)
SELECT job.id, number,
       greatest(job.updated_at + make_interval(days => :media_days), now() + interval '3 days')
  FROM jobs AS job, generate_series(0, least(jsonb_array_length(outputs_in(job)), 1000) - 1) AS number
 WHERE job.id BETWEEN :first AND :last AND job.status = 'COMPLETED'
   AND NOT EXISTS (SELECT FROM outputs WHERE outputs.job_id = job.id)
ON CONFLICT DO NOTHING
""")


@dataclass(slots=True)
class PostgresOlderMedia:
    engine: AsyncEngine
    media_days: int
    _after: UUID = field(default=UUID(int=0), init=False)
    _is_over: bool = field(default=False, init=False)

    async def keep(self) -> int:
        if self._is_over:
            return 0
        async with transaction(self.engine, "keep_older_outputs") as connection:
            ids = (await connection.scalars(_NEXT.limit(JOBS_AT_ONCE), {"after": self._after})).all()
            if not ids:
                self._is_over = True
                return 0
            values = {"media_days": self.media_days, "first": ids[0], "last": ids[-1]}
            kept = (await connection.execute(_KEEP, values)).rowcount
        self._after = ids[-1]
        return kept

    async def forget_late_results(self) -> int:
        late = jobs.c.late_result
        is_old = jobs.c.updated_at < func.now() - func.make_interval(0, 0, 0, self.media_days)
        some = select(jobs.c.id).where(late.is_not(None), is_old, late.is_distinct_from(func.without_urls(late)))
        async with transaction(self.engine, "forget_late_results") as connection:
            ids = (await connection.scalars(some.order_by(jobs.c.id).limit(LATE_RESULTS_AT_ONCE))).all()
            forgotten = update(jobs).where(jobs.c.id.in_(ids)).values(late_result=func.without_urls(late))
            return (await connection.execute(forgotten)).rowcount if ids else 0
