"""Claims, many of them in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from app.application.ports.execution import Claim, LargeInput
from app.domain.catalogue import GenerationKind
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.locks import LOCKED_JOBS

# As stored, which is compressed: nothing is unpacked to see this. What gets through is a few megabytes at the most, of
# one byte repeated.
_IS_SMALL = "pg_column_size(jobs.parameters) <= 8192"
_LARGE = f"SELECT id FROM jobs WHERE id = ANY($1::uuid[]) AND NOT {_IS_SMALL}"  # noqa: S608 - our own text
# The same claim again is granted: the answer to the first one was lost.
_CLAIM = f"""
    WITH {LOCKED_JOBS}
    UPDATE jobs SET
           status = 'SUBMITTING',
           attempts = jobs.attempts + CASE jobs.status WHEN 'QUEUED' THEN 1 ELSE 0 END,
           attempt_token = wish.attempt_token,
           claimed_at = clock_timestamp(),
           deadline_at = clock_timestamp() + make_interval(secs => jobs.time_limit_seconds),
           status_reason = NULL
      FROM locked
      JOIN unnest($1::uuid[], $2::uuid[], $3::bool[]) AS wish (job_id, attempt_token, may_be_large)
           ON wish.job_id = locked.id
     WHERE jobs.id = locked.id
       AND (wish.may_be_large OR {_IS_SMALL})
       AND (jobs.status = 'QUEUED' OR (jobs.status = 'SUBMITTING' AND jobs.attempt_token = wish.attempt_token
                                       AND jobs.submit_unknown_at IS NULL))
    RETURNING jobs.id, jobs.attempt_token, jobs.kind, jobs.model_id, jobs.parameters, jobs.attempts,
              jobs.time_limit_seconds
"""  # noqa: S608 - our own text


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """To claim a job."""

    job_id: UUID
    attempt_token: UUID
    may_be_large: bool

    @property
    def attempt(self) -> tuple[UUID, UUID]:
        return (self.job_id, self.attempt_token)


async def claim_all(
    driver: DriverConnection, wishes: Sequence[ClaimRequest], *, is_repeated: bool = False
) -> Sequence[Claim | LargeInput | None]:
    """One of those that want the same job gets it. A repeated try is granted what the first one was."""
    async with driver_transaction(driver, "claim"):
        rows = await driver.fetch(
            _CLAIM,
            [wish.job_id for wish in wishes],
            [wish.attempt_token for wish in wishes],
            [wish.may_be_large for wish in wishes],
        )
        claims = {(row[0], row[1]): Claim(GenerationKind(row[2]), *row[3:]) for row in rows}
        refused = [wish.job_id for wish in wishes if wish.attempt not in claims and not wish.may_be_large]
        large = {row[0] for row in await driver.fetch(_LARGE, refused)} if refused else set()
    return [
        claims.get(wish.attempt) or (LargeInput() if wish.job_id in large and not wish.may_be_large else None)
        for wish in wishes
    ]
