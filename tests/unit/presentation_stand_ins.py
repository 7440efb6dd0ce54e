"""The ports in memory, as far as the web layer can tell the difference: no database, no fal, no races."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Never, cast
from uuid import UUID, uuid4

import httpx

from app.application.cancel import CancelJob
from app.application.execution.follow import FollowJob
from app.application.execution.provider_events import ReceiveProviderEvent
from app.application.files import CustomerFiles
from app.application.inputs import ReadInputs
from app.application.jobs import QuoteJob, StartJob, TimeLimits
from app.application.key_management import CustomerKeyManagement
from app.application.keys import Authenticate, IssueFirstKey, IssueKey, RotateKey
from app.application.media import CustomerMedia, DeleteMedia, OpenMedia
from app.application.payments import ReceivePayment, TopUp
from app.application.ports.accounts import AccountSettings
from app.application.ports.events import EventFeed, EventLog
from app.application.ports.execution import JobFollowing
from app.application.ports.files import FileRecords
from app.application.ports.health import Check
from app.application.ports.jobs import JobCancellation, StoredInput
from app.application.ports.ledger import LedgerReader
from app.application.ports.media import OutputReader, ProviderMedia
from app.application.ports.payments import Payments
from app.application.ports.provider import Provider
from app.application.reversals import ReceiveReversal, ReversePayment
from app.application.use_cases import CustomerJobs, CustomerKeys, CustomerUseCases
from app.application.webhooks import CustomerWebhooks
from app.domain.accounts import ALL_SCOPES, Account, AccountOverview, ApiKey, Caller
from app.domain.catalogue import Catalogue
from app.domain.errors import (
    BalanceLimitExceeded,
    DatabaseUnavailable,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InsufficientBalance,
    JobFinished,
    JobNotFound,
    PaymentEventConflict,
    ReversalEventConflict,
)
from app.domain.events import EventPage
from app.domain.files import KeptReference
from app.domain.job_filters import FoundJobs, JobFilter
from app.domain.jobs import Job, JobStatus, NewJob
from app.domain.keys import StoredKey
from app.domain.kinds import GenerationKind
from app.domain.ledger import BALANCE_TOKENS_MAX
from app.domain.orders import Accepted, IdempotencyKey
from app.domain.payments import EventName, PaymentEvent
from app.domain.reversals import ReversalEvent, Reversed
from app.domain.waiting import Outlook, outlook
from app.infrastructure.quotes import SignedQuotes
from app.presentation.http.api import create_api
from tests.builders import BUILT_IN
from tests.media import LINKS

WEBHOOK_SECRET = "the payment provider's secret"
SOURCE_SECRET = "the secret of one source"
QUOTE_SECRET = "the secret that signs quotes"
NOW = datetime(2026, 11, 23, 10, 15, 30, 123456, tzinfo=UTC)

FULL_KEY = ApiKey(id=uuid4(), scopes=ALL_SCOPES, has_budget=False, expires=False, version=0)


@dataclass
class AccountsInMemory:
    accounts: dict[UUID, Account] = field(default_factory=dict)
    keys: dict[UUID, bytes] = field(default_factory=dict)
    key: ApiKey = FULL_KEY
    """What each of the keys may do."""
    failure: Exception | None = None
    lookups: int = 0
    remembers: bool = False

    def get_or_add(self, external_user_id: UUID) -> Account:
        return self.accounts.setdefault(
            external_user_id, Account(id=uuid4(), external_user_id=external_user_id, balance_tokens=0)
        )

    def add_tokens(self, account_id: UUID, amount: int) -> None:
        account = next(account for account in self.accounts.values() if account.id == account_id)
        changed = replace(account, balance_tokens=account.balance_tokens + amount)
        self.accounts[account.external_user_id] = changed

    async def find_by_key(self, digest: bytes) -> Caller | None:
        self.lookups += 1
        if self.failure:
            raise self.failure
        users = [user for user, known in self.keys.items() if known == digest]
        return Caller(self.accounts[users[0]], self.key) if users else None

    def remembered(self, digest: bytes) -> Caller | None:
        users = [user for user, known in self.keys.items() if known == digest and self.remembers]
        return Caller(self.accounts[users[0]], self.key, is_remembered=True) if users else None

    def forget(self, digest: bytes) -> None: ...

    async def versions(self, account_ids: Collection[UUID]) -> Mapping[UUID, int]:
        return dict.fromkeys(account_ids, self.key.version)

    async def add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        self.get_or_add(external_user_id)
        return self.keys.setdefault(external_user_id, key.digest) == key.digest

    async def replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        if current is not None and self.keys.get(external_user_id) != current:
            return False
        self.keys[external_user_id] = key.digest
        return True

    async def revoke_keys(self, external_user_id: UUID) -> int:
        return 0 if self.keys.pop(external_user_id, None) is None else 1


@dataclass
class PaymentsInMemory:
    """What a request can reach of the port."""

    accounts: AccountsInMemory
    events: dict[EventName, PaymentEvent] = field(default_factory=dict)
    refusals: Counter[tuple[PaymentEvent, str]] = field(default_factory=Counter)

    async def credit(self, event: PaymentEvent) -> bool:
        account = self.accounts.get_or_add(event.external_user_id)
        if account.balance_tokens + event.amount > BALANCE_TOKENS_MAX:
            raise BalanceLimitExceeded
        known = self.events.setdefault(event.name, event)
        if known is event:
            self.accounts.add_tokens(account.id, event.amount)
        elif known != event:
            raise PaymentEventConflict
        return known is event

    async def record_refusal(self, event: PaymentEvent, reason: str) -> int | None:
        self.refusals[event, reason] += 1
        return self.refusals[event, reason]


@dataclass
class ReversalsInMemory:
    """What a request can reach of the port; withdrawals that come before their reversal are the database's matter."""

    payments: PaymentsInMemory
    events: dict[EventName, ReversalEvent] = field(default_factory=dict)

    async def record(self, event: ReversalEvent) -> Reversed | None:
        name, payment = EventName(event.source, event.event_id), self.payments.events.get(event.payment)
        before = self._reversed(payment)
        if self.events.setdefault(name, event) != event:
            raise ReversalEventConflict
        if payment is None:
            return None
        account = self.payments.accounts.get_or_add(payment.external_user_id)
        self.payments.accounts.add_tokens(account.id, before - self._reversed(payment))
        account = self.payments.accounts.get_or_add(payment.external_user_id)
        return Reversed(reversed_tokens=self._reversed(payment), balance_tokens=account.balance_tokens)

    def _reversed(self, payment: PaymentEvent | None) -> int:
        if payment is None:
            return 0
        events = [event for event in self.events.values() if event.payment == payment.name]
        withdrawn = {event.withdraws for event in events}
        return min(payment.amount, sum(event.amount or 0 for event in events if event.event_id not in withdrawn))


@dataclass
class JobsInMemory:
    """What a request can reach of the port; the rest belongs to the runner and the operator."""

    accounts: AccountsInMemory
    jobs: dict[UUID, Job] = field(default_factory=dict)
    owners: dict[UUID, UUID] = field(default_factory=dict)
    accepted: list[NewJob] = field(default_factory=list)
    looked_up: list[UUID] = field(default_factory=list)
    # Whose key it is, and what it says: the fingerprint and the job.
    keys: dict[tuple[UUID, str], tuple[bytes, UUID]] = field(default_factory=dict)
    keys_in_use: set[str] = field(default_factory=set)
    looked_at_max: int = 5
    wanted: list[JobFilter] = field(default_factory=list)
    inputs_asked_for: list[Sequence[UUID]] = field(default_factory=list)
    references: dict[str, KeptReference] = field(default_factory=dict)
    """What names the kept files."""

    async def accept(
        self, job: NewJob, idempotency: IdempotencyKey | None = None, key: ApiKey | None = None
    ) -> Accepted:
        if idempotency is not None:
            if idempotency.key in self.keys_in_use:
                raise IdempotencyKeyInUse
            fingerprint, job_id = self.keys.get((job.account_id, idempotency.key), (idempotency.fingerprint, job.id))
            if fingerprint != idempotency.fingerprint:
                raise IdempotencyKeyReused
            if job_id != job.id:
                return Accepted(self.jobs[job_id], is_replay=True)
        account = next(account for account in self.accounts.accounts.values() if account.id == job.account_id)
        if account.balance_tokens < job.cost_tokens:
            raise InsufficientBalance(required_tokens=job.cost_tokens, balance_tokens=account.balance_tokens)
        self.accounts.add_tokens(account.id, -job.cost_tokens)
        self.accepted.append(job)
        if idempotency is not None:
            self.keys[job.account_id, idempotency.key] = (idempotency.fingerprint, job.id)
        stored = self.add(
            account.id, id=job.id, kind=job.kind, model_id=job.model_id, cost_tokens=job.cost_tokens, terms=job.terms
        )
        return Accepted(stored, is_replay=False, balance_tokens=account.balance_tokens - job.cost_tokens)

    async def find_by_idempotency_key(self, account_id: UUID, idempotency: IdempotencyKey) -> Job | None:
        known = self.keys.get((account_id, idempotency.key))
        if known is None:
            return None
        fingerprint, job_id = known
        if fingerprint != idempotency.fingerprint:
            raise IdempotencyKeyReused
        return self.jobs[job_id]

    def add(self, account_id: UUID, **changes: Any) -> Job:
        job = a_job(**changes)
        self.jobs[job.id] = job
        self.owners[job.id] = account_id
        return job

    async def get(self, account_id: UUID, job_id: UUID, *, keys_version: int | None = None) -> Job:
        self.looked_up.append(job_id)
        if self.owners.get(job_id) != account_id:
            raise JobNotFound
        return self.jobs[job_id]

    async def page(self, account_id: UUID, *, limit: int, offset: int = 0, after: UUID | None = None) -> Sequence[Job]:
        mine = [job for job in reversed(self.jobs.values()) if self.owners[job.id] == account_id]
        if after is not None:
            mine = mine[[job.id for job in mine].index(after) + 1 :]
        return mine[offset : offset + limit]

    async def find(self, account_id: UUID, wanted: JobFilter, *, limit: int, after: UUID | None = None) -> FoundJobs:
        """Looks at `looked_at_max` jobs."""
        self.wanted.append(wanted)
        looked_at = await self.page(account_id, limit=self.looked_at_max + 1, after=after)
        fitting = [
            job
            for job in looked_at[: self.looked_at_max]
            if (not wanted.statuses or job.public_status in wanted.statuses)
            and (not wanted.kinds or job.kind in wanted.kinds)
            and wanted.model_id in (None, job.model_id)
        ]
        if len(fitting) > limit:
            return FoundJobs(fitting[:limit], fitting[limit - 1].id)
        has_more = len(looked_at) > self.looked_at_max
        return FoundJobs(fitting, looked_at[self.looked_at_max - 1].id if has_more else None)

    async def of_jobs(self, account_id: UUID, job_ids: Sequence[UUID]) -> Mapping[UUID, StoredInput | None]:
        self.inputs_asked_for.append(job_ids)
        told = {job.id: StoredInput(job.parameters, self.references) for job in self.accepted}
        return {job_id: told.get(job_id) for job_id in job_ids if self.owners.get(job_id) == account_id}

    async def request_cancel(self, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey | None = None) -> Job:
        job = await self.get(account_id, job_id)
        if job.is_final:
            raise JobFinished
        self.accounts.add_tokens(account_id, job.cost_tokens)
        self.jobs[job_id] = replace(job, status=JobStatus.CANCELED, is_final=True, refunded_tokens=job.cost_tokens)
        return self.jobs[job_id]


class Outlooks:
    """Of a queue that nobody has looked at."""

    async def of(self, job: Job) -> Outlook:
        return outlook(job, None, {}, 0)

    async def each_of(self, page: Sequence[Job]) -> Sequence[Outlook]:
        return [await self.of(job) for job in page]


@dataclass
class Paused:
    models: Collection[str] = ()

    async def ids(self) -> Collection[str]:
        return self.models


@dataclass
class Health:
    checks: Sequence[Check] = (Check("database", True, "answers"),)

    async def run(self) -> Sequence[Check]:
        return self.checks


class OneAccount:
    async def overview(self, account_id: UUID) -> AccountOverview:
        return AccountOverview(external_user_id=account_id, balance_tokens=0, balance_low_tokens=None)

    async def set_balance_low(self, account_id: UUID, tokens: int | None) -> AccountOverview:
        return AccountOverview(external_user_id=account_id, balance_tokens=0, balance_low_tokens=tokens)


class EmptyLog:
    async def page(self, account_id: UUID, **_: object) -> EventPage:
        return EventPage(events=(), next_after=0, has_more=False)


class NoFeed:
    def follow(self, account_id: UUID, job_id: UUID | None = None) -> Never:
        raise DatabaseUnavailable


@dataclass
class World:
    """Everything behind the use cases that a test may want to arrange or look at."""

    auth_secrets: Sequence[str] = ()
    webhook_secrets: Sequence[str] = (WEBHOOK_SECRET,)
    secrets_by_source: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"x": (SOURCE_SECRET,)})
    is_event_id_required: bool = False
    is_safety_checker_required: bool = False
    catalogue: Catalogue = BUILT_IN
    accounts: AccountsInMemory = field(default_factory=AccountsInMemory)
    health: Health = field(default_factory=Health)
    paused_models: Paused = field(default_factory=Paused)

    def __post_init__(self) -> None:
        self.payments = PaymentsInMemory(self.accounts)
        self.reversals = ReversalsInMemory(self.payments)
        self.jobs = JobsInMemory(self.accounts)
        self.quotes = SignedQuotes([QUOTE_SECRET])

    def use_cases(self) -> CustomerUseCases:
        payments = cast(Payments, self.payments)
        follow = FollowJob(cast(JobFollowing, None), cast(Provider, None))
        receive_payment = ReceivePayment(
            TopUp(payments, self.is_event_id_required), self.webhook_secrets, self.secrets_by_source
        )
        # A link that is not signed leads to none of what is missing here.
        media_behind_links = OpenMedia(
            LINKS, cast(OutputReader, None), cast(FileRecords, None), cast(ProviderMedia, None), None
        )
        return CustomerUseCases(
            keys=CustomerKeys(
                authenticate=Authenticate(self.accounts),
                issue=IssueKey(IssueFirstKey(self.accounts), RotateKey(self.accounts), self.auth_secrets),
                management=cast(CustomerKeyManagement, None),
            ),
            jobs=CustomerJobs(
                start=StartJob(
                    self.jobs,
                    self.quotes,
                    TimeLimits(),
                    self.catalogue.cheapest_tokens,
                    self.is_safety_checker_required,
                ),
                quote=QuoteJob(self.quotes),
                cancel=CancelJob(cast(JobCancellation, self.jobs), follow),
                reader=self.jobs,
                outlooks=Outlooks(),
                inputs=ReadInputs(self.jobs, self.catalogue),
            ),
            account=cast(AccountSettings, OneAccount()),
            ledger=cast(LedgerReader, None),
            events=cast(EventLog, EmptyLog()),
            event_feed=cast(EventFeed, NoFeed()),
            webhooks=cast(CustomerWebhooks, None),
            media=CustomerMedia(LINKS, media_behind_links, cast(DeleteMedia, None)),
            files=cast(CustomerFiles, None),
            receive_payment=receive_payment,
            receive_reversal=ReceiveReversal(ReversePayment(self.reversals), receive_payment.check_secret),
            receive_provider_event=cast(ReceiveProviderEvent, None),
            health=self.health,
            paused_models=self.paused_models,
        )

    def client(self, *, allow_private_media_urls: bool = False) -> httpx.AsyncClient:
        api = create_api(
            self.catalogue,
            version="1.2.3",
            allow_private_media_urls=allow_private_media_urls,
            is_safety_checker_required=self.is_safety_checker_required,
        )
        api.state.use_cases = self.use_cases()
        return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://tollgate")

    async def a_user(self, tokens: int = 0) -> tuple[Account, dict[str, str]]:
        """The account, and the header that a request of its user carries."""
        user = uuid4()
        key = await self.use_cases().keys.issue(
            user, rotate=False, current_key=None, auth_secret=next(iter(self.auth_secrets), None)
        )
        self.accounts.add_tokens(self.accounts.accounts[user].id, tokens)
        return self.accounts.accounts[user], {"X-API-Key": key}


def problem_of(response: httpx.Response, *figures: str) -> dict[str, Any]:
    """The body of an error, after a look at what every error must be."""
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    expected = {"type", "title", "status", "detail", "code", "request_id", *figures}
    assert set(problem) == expected | ({"errors"} if response.status_code == 422 else set())
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"]
    assert isinstance(problem["detail"], str)
    return problem


def a_job(*, status: JobStatus | str = JobStatus.QUEUED, **changes: Any) -> Job:
    job = Job(
        id=uuid4(),
        account_id=uuid4(),
        kind=GenerationKind.TEXT_TO_IMAGE,
        model_id="fal-ai/wan-25-preview/text-to-image",
        status=status,
        is_final=isinstance(status, JobStatus) and status.is_final,
        cost_tokens=5,
        refunded_tokens=0,
        fal_request_id=None,
        result=None,
        error_code=None,
        error_message=None,
        status_reason=None,
        cancel_requested_at=None,
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(job, **changes)
