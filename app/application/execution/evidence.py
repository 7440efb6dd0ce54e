"""What fal's request history can tell of a submission whose answer nobody has.

A match must be ours beyond doubt: an adopted request is delivered and charged. Where the user left the seed to us it is
derived from the attempt token, so no other submission has this input; where the user chose it, or the model has none,
anybody who asks for the same has the same input.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from app.application.execution.limits import SUBMIT_LEASE_SECONDS
from app.application.ports.evidence import LostSubmission, LostSubmissions, RequestHistory
from app.application.ports.execution import JobState
from app.application.ports.provider import ProviderUnavailable
from app.domain.attempts import JobInput
from app.domain.errors import DatabaseUnavailable
from app.domain.given_media import without_media

log = structlog.get_logger(__name__)

# When to search, counted from the claim. fal seems to list a request once it has ended: soon for an image, after
# minutes for a video.
SEARCH_SECONDS = (120, 300, 600, 1200)
# So much may fal's clock differ from the database's.
CLOCK_SLACK = timedelta(seconds=60)
POST_TIME_MAX = timedelta(seconds=SUBMIT_LEASE_SECONDS)


def seed_of(attempt_token: UUID) -> int:
    """The seed that marks an attempt: 31 bits, as fal's models take them.

    It is made of a digest, because users see the seed and nobody may see the token.
    """
    return int.from_bytes(hashlib.sha256(attempt_token.bytes).digest()[:4], "big") >> 1


def with_seed(given: JobInput, attempt_token: UUID) -> Mapping[str, Any]:
    """The input as it is sent to fal, with the seed of the attempt where the model has one and the user chose none."""
    return {**given.parameters, "seed": seed_of(attempt_token)} if given.can_be_marked else given.parameters


def is_search_due(age_seconds: float, every_seconds: float) -> bool:
    """Whether a search belongs to this look: once for each moment, if looks come after `seconds_to_next_look`."""
    return any(moment <= age_seconds < moment + every_seconds for moment in SEARCH_SECONDS)


def seconds_to_next_look(age_seconds: float, every_seconds: float) -> float:
    """Come back after `every_seconds`, or earlier if a search is due by then."""
    return min([every_seconds, *(moment - age_seconds for moment in SEARCH_SECONDS if moment > age_seconds)])


@dataclass(frozen=True, slots=True)
class SearchHistory:
    """Search fal's request history for a lost submission.

    It raises nothing: a search that cannot be made is one without evidence, and must not keep a job from its end.
    """

    submissions: LostSubmissions
    history: RequestHistory
    digest_of: Callable[[Mapping[str, Any]], bytes]
    """Of an input as it is sent, but with marks in place of large data: URIs."""
    former_digest_of: Callable[[Mapping[str, Any]], bytes] | None = None
    """As the release before records it: of the whole input, which the row has until the job ends."""

    async def __call__(self, state: JobState) -> str | None:
        """The id of the request that can only be this job's. None: there is no evidence, or too much."""
        try:
            lost = await self.submissions.load(state.id)
            return None if lost is None else await self._search(lost)
        except (ProviderUnavailable, DatabaseUnavailable) as error:
            log.warning("history_search_failed", job_id=str(state.id), reason=str(error))
            return None

    async def _search(self, lost: LostSubmission) -> str | None:
        # A thread, for the input may hold megabytes of pictures.
        sent = await asyncio.to_thread(self._sent, lost)
        if sent is None:
            # The input was taken away since, or another release spelled it otherwise.
            log.info("generation_evidence_missing", job_id=str(lost.job_id), found=0)
            return None
        found = await self.history.find(
            lost.model_id,
            sent,
            sent_from=lost.claimed_at - CLOCK_SLACK,
            sent_until=lost.claimed_at + POST_TIME_MAX + CLOCK_SLACK,
        )
        candidates = sorted(set(found) - await self.submissions.known(found))
        if not candidates:
            log.info("generation_evidence_missing", job_id=str(lost.job_id), found=len(found))
            return None
        if len(candidates) > 1 or await self._has_rival(lost, sent):
            log.error("generation_evidence_ambiguous", job_id=str(lost.job_id), fal_request_ids=candidates[:10])
            return None
        return candidates[0]

    def _sent(self, lost: LostSubmission) -> Mapping[str, Any] | None:
        """What the attempt sent, without media: a process that has no history to search marks nothing by a seed."""
        kept = replace(lost.input, parameters=without_media(lost.input.parameters))
        marked = with_seed(kept, lost.attempt_token)
        if lost.input_digest is None:
            return marked
        for form in (marked, kept.parameters):
            if self.digest_of(form) == lost.input_digest:
                return form
        if self.former_digest_of is not None:
            if self.former_digest_of(with_seed(lost.input, lost.attempt_token)) == lost.input_digest:
                return marked
            if self.former_digest_of(lost.input.parameters) == lost.input_digest:
                return kept.parameters
        return None

    async def _has_rival(self, lost: LostSubmission, sent: Mapping[str, Any]) -> bool:
        """Whether another job may have caused the run that was found."""
        is_marked = lost.input.can_be_marked and "seed" in sent
        # The run is within the time of both jobs.
        within = POST_TIME_MAX + 2 * CLOCK_SLACK
        return not is_marked and await self.submissions.has_rival(lost.job_id, within)
