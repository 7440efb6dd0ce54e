"""Endpoints of customers and the deliveries to them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from app.domain.webhooks import (
    Attempt,
    ClaimedDelivery,
    Delivery,
    DeliveryState,
    Endpoint,
    EndpointChanges,
    NewEndpoint,
    Verdict,
    WebhookSecret,
)


class WebhookEndpoints(Protocol):
    """Each change may raise TooManyWrites, DatabaseUnavailable or CommitUnknown; whatever names one EndpointNotFound.

    An `account_id` of None is the operator, whose endpoints hear of all accounts.
    """

    async def create(self, account_id: UUID | None, new: NewEndpoint) -> Endpoint:
        """Raises TooManyEndpoints. The same one again is the first one."""
        ...

    async def live(self, account_id: UUID | None) -> Sequence[Endpoint]:
        """The oldest first."""
        ...

    async def get(self, account_id: UUID | None, endpoint_id: UUID) -> Endpoint: ...

    async def change(self, account_id: UUID | None, endpoint_id: UUID, changes: EndpointChanges) -> Endpoint:
        """One that is enabled begins anew: what waited for it is due at once."""
        ...

    async def rotate_secret(
        self, account_id: UUID | None, endpoint_id: UUID, secret: str, *, overlap_seconds: int
    ) -> Endpoint: ...

    async def delete(self, account_id: UUID | None, endpoint_id: UUID) -> None: ...

    async def test(self, account_id: UUID, endpoint_id: UUID) -> None:
        """Make an event for this endpoint alone. Raises EndpointDisabled."""
        ...

    async def replay(self, account_id: UUID, endpoint_id: UUID, after: int) -> Endpoint:
        """Deliver again, in the background, what the log has after this place. Raises EndpointDisabled,
        EventsForgotten.
        """
        ...


class WebhookSecrets(Protocol):
    async def get(self, account_id: UUID) -> WebhookSecret:
        """It is made where there is none yet."""
        ...

    async def rotate(self, account_id: UUID, secret: str, *, overlap_seconds: int) -> WebhookSecret:
        """Raises TooManyWrites."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPage:
    deliveries: Sequence[Delivery]
    """The newest first."""
    next_before: int | None
    """None: these are the last ones."""


class Deliveries(Protocol):
    async def page(
        self, account_id: UUID | None, endpoint_id: UUID, *, state: DeliveryState | None, before: int | None, limit: int
    ) -> DeliveryPage:
        """Raises EndpointNotFound."""
        ...

    async def redeliver(self, account_id: UUID | None, endpoint_id: UUID, event_seq: int) -> Delivery:
        """Begin anew, at once. Raises EndpointNotFound, EndpointDisabled, DeliveryNotFound, TooManyWrites."""
        ...


class DeliveryQueue(Protocol):
    async def claim(self, endpoints_max: int, *, leave_out: Collection[UUID]) -> Sequence[ClaimedDelivery]:
        """Of those that are due, a few for each endpoint, but for the endpoints of the accounts to leave out."""
        ...

    async def record(self, delivery: ClaimedDelivery, attempt: Attempt, verdict: Verdict) -> None:
        """Nothing is written where the claim has passed to somebody else."""
        ...

    async def give_back(self, delivery: ClaimedDelivery) -> None:
        """As if it had not been claimed."""
        ...


class Replays(Protocol):
    async def advance(self) -> bool:
        """Make the next deliveries of one replay that is under way. False: there is none that may go on."""
        ...


class DeliveryUpkeep(Protocol):
    async def requeue_lost(self) -> int:
        """Look for what nobody would: a net under what should not happen. Returns of how many endpoints."""
        ...

    async def forget(self) -> int:
        """Some deliveries of old events and of deleted endpoints, and then the endpoints. Returns how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    status: int
    headers: Mapping[str, str]
    body: bytes
    """How it begins."""


class NotReached(Exception):
    """No answer came. `reason` is one sentence for whoever owns the endpoint, whose fault it may not be."""

    def __init__(self, reason: str, *, is_own_fault: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_own_fault = is_own_fault


class WebhookSender(Protocol):
    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, seconds_max: float, owner: UUID | None
    ) -> Received:
        """To a public address alone, and no redirect is followed. `owner` is the account whose URL it is.

        Raises NotReached.
        """
        ...
