"""What is said to whoever asks for more than a limit, or fal, allows. Nothing is done, and nothing is counted."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from app.domain.budgets import Spending
from app.domain.errors import DomainError, Figures, TooManyRequests, Unavailable


class BudgetExceeded(DomainError):
    code = "budget_exceeded"
    default_detail = (
        "This key's budget does not suffice. Nothing was done. "
        "Wait until it renews, use another key, or raise the budget with PATCH /keys/{id}."
    )
    example_figures: ClassVar[Figures] = {
        "required_tokens": 30,
        "budget_tokens": 500,
        "spent_tokens": 480,
        "renews_at": "2026-12-01T00:00:00Z",
    }

    def __init__(self, spending: Spending, required_tokens: int) -> None:
        super().__init__()
        self.spending = spending
        self.figures = {
            "required_tokens": required_tokens,
            "budget_tokens": spending.budget.tokens,
            "spent_tokens": spending.spent_tokens,
            "renews_at": _text(spending.renews_at),
        }


class ProviderLocked(Unavailable):
    """`retry_after_seconds`: a person has to put it right, so it takes a while."""

    code = "provider_unavailable"
    default_detail = (
        "fal does not let this service generate right now, and earlier jobs wait for it already. Nothing was done. "
        "Ask again when Retry-After says, or choose another model."
    )
    retry_after_seconds: ClassVar[int] = 60


@dataclass(frozen=True, slots=True)
class Quota:
    """What a client may plan by: so much in each window, if it has one."""

    name: str
    amount: int
    window_seconds: int | None = None


class LimitReached(TooManyRequests):
    code = "limit_reached"

    def __init__(self, detail: str, quota: Quota, *, retry_after_seconds: int) -> None:
        super().__init__(detail, retry_after_seconds=retry_after_seconds)
        self.quota = quota


class TooManyJobs(LimitReached):
    code = "too_many_jobs"
    default_detail = "1000 generations of your account are unfinished, which is the most. Nothing was done."
    # Nobody knows when one of them ends. Asked more often, the answer would hardly be another.
    RETRY_AFTER_SECONDS: ClassVar[int] = 5

    def __init__(self, unfinished_jobs_max: int = 1000) -> None:
        super().__init__(
            f"{unfinished_jobs_max} generations of your account are unfinished, which is the most. Nothing was done. "
            "Wait until one of them ends, or cancel one.",
            Quota("jobs", unfinished_jobs_max),
            retry_after_seconds=self.RETRY_AFTER_SECONDS,
        )


class TooManyWrites(LimitReached):
    code = "too_many_writes"
    default_detail = "Your account has made 600 changes in this minute, which is the most. Nothing was done."

    def __init__(self, writes_per_minute: int = 600, retry_after_seconds: int = 60) -> None:
        super().__init__(
            f"Your account has made {writes_per_minute} changes in this minute, which is the most. Nothing was done. "
            "Ask again when Retry-After says.",
            Quota("writes", writes_per_minute, 60),
            retry_after_seconds=retry_after_seconds,
        )


class TooManyNewSecrets(LimitReached):
    """Secrets that have ended stay as rows."""

    code = "too_many_new_keys"
    default_detail = "Your account has made or rotated 1000 keys today, which is the most. Nothing was done."

    def __init__(self, secrets_a_day: int = 1000, retry_after_seconds: int = 86_400) -> None:
        super().__init__(
            f"Your account has made or rotated {secrets_a_day} keys today, which is the most. Nothing was done. "
            "Ask again when Retry-After says.",
            Quota("new_keys", secrets_a_day, 86_400),
            retry_after_seconds=retry_after_seconds,
        )


class TooManyReads(LimitReached):
    code = "too_many_reads"
    default_detail = "This key has asked 100 times in this second, which is the most. Ask again in a second."

    def __init__(self, reads_per_second: int = 100) -> None:
        super().__init__(
            f"This key has asked {reads_per_second} times in this second, which is the most. Ask again in a second.",
            Quota("reads", reads_per_second, 1),
            retry_after_seconds=1,
        )


class TooManyStreams(LimitReached):
    code = "too_many_streams"
    default_detail = "100 streams and waits of your account are open in this process, which is the most."

    def __init__(self, streams_max: int = 100) -> None:
        super().__init__(
            f"{streams_max} streams and waits of your account are open in this process, which is the most. Close one: "
            "a single stream of all events tells of every generation.",
            Quota("streams", streams_max),
            retry_after_seconds=5,
        )


class TooManyFailedAuthentications(TooManyRequests):
    code = "too_many_failed_authentications"
    default_detail = (
        "Too many requests from your address carry a wrong key or secret. A valid one is answered at any time."
    )

    def __init__(self, retry_after_seconds: int = 60) -> None:
        super().__init__(retry_after_seconds=retry_after_seconds)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
