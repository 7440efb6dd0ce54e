"""The steps of a job. Each is short, can run twice, and decides from what the database says.

A step raises RetryLater if the job needs another look; returning means that nothing is left for this step.
"""

import random
from enum import StrEnum
from uuid import UUID

LEFT_TO_NEWER_SECONDS = 5.0


class Step(StrEnum):
    """The names under which the queue knows the steps."""

    SUBMIT = "generation.submit"
    FOLLOW = "generation.follow"


class RetryLater(Exception):
    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"retry in {delay_seconds:.1f} s")
        self.delay_seconds = delay_seconds


class LeftToNewerRelease(RetryLater):
    """The job's kind, model or status is one that only a newer release knows: its processes will take the step."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(LEFT_TO_NEWER_SECONDS * random.uniform(0.5, 1.5))
        self.job_id = job_id
