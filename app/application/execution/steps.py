"""The steps that the queue's items ask for. Each is short, can run twice, and decides from what the database says.

A step raises RetryLater if its subject needs another look; returning means that nothing is left for this step.
"""

import random
from dataclasses import dataclass
from uuid import UUID

LEFT_TO_NEWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Lane:
    """Steps of one lane take turns with each other, and never wait for those of another lane."""

    name: str
    concurrent_steps_max: int
    provider_calls_max: int = 0
    """So many of the steps may be under way at fal. Others only learn that they have to come back, which takes no time:
    while fal lets calls hang, the steps that it would answer must not wait behind those.
    """
    takes_places: bool = False
    """Its steps are only begun in a place at fal, where those are bounded."""
    yields_to_accepts: bool = False
    """In a rush of accepts (see Precedence) the lane pauses after each batch."""
    steps_may_take_long: bool = False
    """A lane whose places are all taken for long is busy, and not stuck."""


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    """Names the step in the queue and in the logs. It stays as it is: items written by other releases have it."""
    subject: str
    """What the step looks after: the noun of the id in its items."""
    lane: Lane

    def context(self, subject_id: UUID) -> dict[str, str]:
        """What a log event says of the step and its subject."""
        return {"step": self.name, f"{self.subject}_id": str(subject_id)}

    @property
    def area(self) -> str:
        """The first part of the name, by which the logs speak of what the step belongs to."""
        return self.name.partition(".")[0]


# Submissions share their statements and commits: 48 at once cost a fifth less of the service for each job than 16.
SUBMISSIONS = Lane(
    "submissions", concurrent_steps_max=96, provider_calls_max=64, takes_places=True, yields_to_accepts=True
)
LOOKS = Lane("looks", concurrent_steps_max=112, provider_calls_max=112)
# Each unpacks and digests megabytes in PostgreSQL, and thousands may wait: no look waits behind them.
INPUTS = Lane("inputs", concurrent_steps_max=2)
# A film may take minutes, and nothing else waits for a copy.
COPIES = Lane("copies", concurrent_steps_max=16, steps_may_take_long=True)
# What was deleted does not wait behind copies that trickle.
ERASURES = Lane("erasures", concurrent_steps_max=4, steps_may_take_long=True)

SUBMIT_JOB = Step("generation.submit", subject="job", lane=SUBMISSIONS)
FOLLOW_JOB = Step("generation.follow", subject="job", lane=LOOKS)
FORGET_INPUT = Step("input.forget", subject="job", lane=INPUTS)
# The subject is the job, so that no log has a token of an attempt.
CANCEL_ORPHANS = Step("attempt.cancel", subject="job", lane=LOOKS)
COPY_OUTPUTS = Step("output.copy", subject="job", lane=COPIES)
ERASE_MEDIA = Step("media.erase", subject="job", lane=ERASURES)
ERASE_FILE = Step("file.erase", subject="file", lane=ERASURES)


class RetryLater(Exception):
    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"retry in {delay_seconds:.1f} s")
        self.delay_seconds = delay_seconds


class LeftToNewerRelease(RetryLater):
    """The job's kind, model or status is one that only a newer release knows: its processes will take the step."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(LEFT_TO_NEWER_SECONDS * random.uniform(0.5, 1.5))
        self.job_id = job_id
