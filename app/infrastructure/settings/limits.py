"""What accounts may ask for, where they have no limits of their own. 0 is none."""

from typing import Annotated

from pydantic import BaseModel, Field

from app.domain.budgets import AccountLimits

# What a column of the database holds.
LIMIT_MAX = 2**31 - 1

Limit = Annotated[int, Field(ge=0, le=LIMIT_MAX)]


class LimitSettings(BaseModel):
    jobs_unfinished_max: Limit = 1000
    writes_per_minute: Limit = 600
    reads_per_second: Limit = 100
    streams_max: Limit = 100

    @property
    def account_limits(self) -> AccountLimits:
        return AccountLimits(self.jobs_unfinished_max, self.writes_per_minute)
