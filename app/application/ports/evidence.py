"""What tells the request of a submission whose answer was lost."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from app.domain.attempts import JobInput


@dataclass(frozen=True, slots=True, kw_only=True)
class LostSubmission:
    """A job whose POST left, or may have left, and what is known of it."""

    job_id: UUID
    model_id: str
    input: JobInput
    """With marks in place of large data: URIs, if these were forgotten."""
    attempt_token: UUID
    claimed_at: datetime
    input_digest: bytes | None
    """Of what was sent. None for an attempt of a release that kept none."""


class LostSubmissions(Protocol):
    async def load(self, job_id: UUID) -> LostSubmission | None:
        """None if fal's request is known, or if nothing was lost."""
        ...

    async def known(self, request_ids: Sequence[str]) -> set[str]:
        """Those of the requests that belong to an attempt already, also to one that its job does not follow."""
        ...

    async def has_rival(self, job_id: UUID, within: timedelta) -> bool:
        """Whether another job without a request has the same input, and was claimed at about the same time."""
        ...


Name = TypeVar("Name", bound=Hashable)


class RequestHistory(Protocol):
    """What fal says of the requests of our account, whoever sent them."""

    async def find_each(
        self, model_id: str, inputs: Mapping[Name, Mapping[str, Any]], *, sent_from: datetime, sent_until: datetime
    ) -> Mapping[Name, Sequence[str]]:
        """Do for several inputs what `find` does for one, and ask fal once. Raises ProviderUnavailable."""
        ...

    async def find(
        self, model_id: str, parameters: Mapping[str, Any], *, sent_from: datetime, sent_until: datetime
    ) -> Sequence[str]:
        """The ids of all requests of the model with this input, sent within the window. fal may have added defaults.

        A data: URI, or the mark that is left of one, fits whatever data: URI has the same bytes.
        Raises ProviderUnavailable where fal does not answer, or not to the end.
        """
        ...
