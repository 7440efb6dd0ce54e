from enum import StrEnum


class AttemptOutcome(StrEnum):
    """What came of the POST of an attempt. Not of its run: a request that fal seemed to refuse may run all the same."""

    ACCEPTED = "accepted"
    NOT_QUEUED = "not_queued"
    REFUSED = "refused"
    UNKNOWN = "unknown"
