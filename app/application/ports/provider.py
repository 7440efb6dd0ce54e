"""fal as the steps of a job need it: one POST, looks, a cancel, signed events, and a place for input files."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from app.domain.terms import ResultShape


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """A request that fal accepted. The URLs are fal's own, checked against the allowed hosts."""

    id: str
    status_url: str
    response_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True)
class InQueue:
    position: int | None


@dataclass(frozen=True, slots=True)
class InProgress:
    pass


@dataclass(frozen=True, slots=True)
class Succeeded:
    result: Mapping[str, Any]
    billed_units: Decimal | None = None
    """What fal says that it bills, in units of the model's own; None where it says nothing, as in its events."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """fal's verdict that there will be no result. `reason` is our sentence, never fal's words."""

    code: str
    reason: str
    billed_units: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """fal confirms that the request was canceled."""


Observation = InQueue | InProgress | Succeeded | Rejected | Stopped


class ProviderError(Exception):
    """Says something about the conversation with fal, never about the job."""


class ProviderUnavailable(ProviderError):
    """No usable answer. Asking again later is safe."""


class NotSubmitted(ProviderError):
    """What was answered counts as proof that the attempt never entered fal's queue: another one is safe."""

    def __init__(
        self,
        reason: str,
        retry_after_seconds: float | None = None,
        *,
        is_operators_matter: bool = False,
        is_unreachable: bool = False,
    ) -> None:
        """`is_operators_matter`: fal refuses the key or the operator's account, at least for this model.
        `is_unreachable`: no connection was made, which no input can be the reason of.
        """
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds
        self.is_operators_matter = is_operators_matter
        self.is_unreachable = is_unreachable


class SubmitRefused(ProviderError):
    """fal refused this input for good; nothing was queued."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class SubmitOutcomeUnknown(ProviderError):
    """Bytes may have left and no usable answer came: fal may or may not run it."""


class Provider(Protocol):
    async def submit(
        self,
        model_id: str,
        parameters: Mapping[str, Any],
        *,
        webhook_url: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ProviderRequest:
        """Exactly one POST; fal shows the tags in its billing.

        Raises NotSubmitted, SubmitRefused, SubmitOutcomeUnknown.
        """
        ...

    def input_digest(self, parameters: Mapping[str, Any]) -> bytes:
        """SHA-256 of the bytes that `submit` sends for these parameters, had they a mark for each large data: URI.

        So it is the same once these were forgotten.
        """
        ...

    def request_of(self, model_id: str, request_id: str) -> ProviderRequest:
        """Rebuild the request of which only the id is known."""
        ...

    async def observe(self, request: ProviderRequest, shape: ResultShape) -> Observation:
        """Ask for the status and, at the end, the result. Raises ProviderUnavailable."""
        ...

    async def cancel(self, request: ProviderRequest) -> None:
        """Ask fal to stop; the end is seen by `observe`. Raises ProviderUnavailable."""
        ...


class ProviderStorage(Protocol):
    async def upload(
        self, *, name: str, content_type: str, size_bytes: int, chunks: AsyncIterator[bytes], lifetime_seconds: int
    ) -> str:
        """The URL that fal gives the file, which whoever knows it can read until `lifetime_seconds` have passed.

        Raises ProviderUnavailable; ValueError where the chunks are not `size_bytes` long; and what the chunks raise. In
        none of these cases has a whole file of another length arrived. Another try needs the chunks from the beginning.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """An incoming webhook that fal signed. `payload` is the result, or None if only the queue can tell the end."""

    request_id: str
    payload: Mapping[str, Any] | None


class ProviderEvents(Protocol):
    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Whether a signature may follow from them; it is checked once there is a body. Raises InvalidProviderEvent."""
        ...

    async def verify(self, headers: Mapping[str, str], body: bytes) -> ProviderEvent:
        """Header names are lower case. Raises InvalidProviderEvent, ProviderKeysUnavailable."""
        ...

    def observation(self, event: ProviderEvent, shape: ResultShape) -> Observation | None: ...
