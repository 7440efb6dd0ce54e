"""The steps of a job. Each is short, can run twice, and decides from what the database says.

A step raises RetryLater if the job needs another look; returning means that nothing is left for this step.
"""

from enum import StrEnum


class Step(StrEnum):
    """The names under which the queue knows the steps."""

    SUBMIT = "generation.submit"
    FOLLOW = "generation.follow"


class RetryLater(Exception):
    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"retry in {delay_seconds:.1f} s")
        self.delay_seconds = delay_seconds
