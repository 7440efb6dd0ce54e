"""Everything that is opened, once and for all use cases."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import COPIES
from app.application.media import PASSED_AT_ONCE_MAX
from app.application.ports.evidence import RequestHistory
from app.application.ports.media import ProviderMedia
from app.application.ports.media_decoder import MediaDecoder
from app.application.ports.media_store import MediaStore, StoreUnavailable
from app.application.ports.provider import Provider, ProviderEvents, ProviderStorage
from app.infrastructure.background.deliverer import ATTEMPTS_AT_ONCE_MAX
from app.infrastructure.decoding.decoder import ConfinedDecoder
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.history import FalHistory
from app.infrastructure.fal.media import FalMedia
from app.infrastructure.fal.storage import FalStorage
from app.infrastructure.fal.webhooks import FalWebhooks
from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.media_store.opening import open_store
from app.infrastructure.postgres.accounts import PostgresAccountRecords
from app.infrastructure.postgres.adjustments import PostgresAdjustments
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.event_feed import PostgresEventFeed
from app.infrastructure.postgres.events import PostgresEventLog
from app.infrastructure.postgres.evidence import PostgresLostSubmissions
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.jobs.execution import PostgresJobExecution
from app.infrastructure.postgres.jobs.inputs import PostgresJobInputs
from app.infrastructure.postgres.jobs.records import PostgresJobRecords
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.keys.management import PostgresKeyManagement
from app.infrastructure.postgres.keys.reader import PostgresKeyReader
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.places import PostgresPlaces
from app.infrastructure.postgres.refused_payments import PostgresRefusedPayments
from app.infrastructure.postgres.restores import PostgresRestoredJobs
from app.infrastructure.postgres.reversals import PostgresPendingReversals, PostgresReversals
from app.infrastructure.settings import Settings, SettingsError
from app.infrastructure.webhooks.sender import GuardedWebhookSender


@dataclass(frozen=True, slots=True)
class PostgresAdapters:
    engine: AsyncEngine
    keys: PostgresKeys
    key_reader: PostgresKeyReader
    key_management: PostgresKeyManagement
    account_records: PostgresAccountRecords
    ledger: PostgresLedger
    events: PostgresEventLog
    event_feed: PostgresEventFeed
    payments: PostgresPayments
    refused_payments: PostgresRefusedPayments
    reversals: PostgresReversals
    pending_reversals: PostgresPendingReversals
    adjustments: PostgresAdjustments
    job_desk: PostgresJobDesk
    job_execution: PostgresJobExecution
    job_records: PostgresJobRecords
    job_inputs: PostgresJobInputs
    lost_submissions: PostgresLostSubmissions
    restored_jobs: PostgresRestoredJobs
    places: PostgresPlaces | None
    """None: as many jobs may be at fal at once as there are."""


@dataclass(frozen=True, slots=True)
class Adapters:
    postgres: PostgresAdapters
    provider: Provider
    provider_events: ProviderEvents
    request_history: RequestHistory | None
    webhook_sender: GuardedWebhookSender
    media_to_copy: ProviderMedia
    media_to_pass: ProviderMedia
    """The same, over connections of its own: callers who read slowly hold these, and no copy waits for them."""
    media_store: MediaStore | None
    """None: fal keeps what it made for as long as we promise."""
    provider_storage: ProviderStorage
    decoder: MediaDecoder


@asynccontextmanager
async def open_postgres(settings: Settings) -> AsyncIterator[PostgresAdapters]:
    assert settings.database_url is not None, "the command line sees to a database before it builds"
    url = settings.database_url.get_secret_value()
    async with open_engine(url, pool_size=settings.pool_connections_max) as engine:
        job_execution = PostgresJobExecution(engine, needs_place=bool(settings.fal_concurrency))
        yield PostgresAdapters(
            engine=engine,
            keys=PostgresKeys(engine, settings.account_limits),
            key_reader=PostgresKeyReader(engine),
            key_management=PostgresKeyManagement(engine, settings.account_limits),
            account_records=PostgresAccountRecords(engine, settings.account_limits, settings.reads_per_second),
            ledger=PostgresLedger(engine),
            events=PostgresEventLog(engine, settings.event_days),
            event_feed=PostgresEventFeed(engine),
            payments=PostgresPayments(engine),
            refused_payments=PostgresRefusedPayments(engine),
            reversals=PostgresReversals(engine),
            pending_reversals=PostgresPendingReversals(engine),
            adjustments=PostgresAdjustments(engine),
            job_desk=PostgresJobDesk(engine, settings.account_limits),
            job_execution=job_execution,
            job_records=PostgresJobRecords(engine),
            job_inputs=PostgresJobInputs(engine),
            lost_submissions=PostgresLostSubmissions(engine),
            restored_jobs=PostgresRestoredJobs(engine, job_execution),
            places=PostgresPlaces(engine, settings.fal_concurrency) if settings.fal_concurrency else None,
        )


@asynccontextmanager
async def open_adapters(settings: Settings, provider: Provider | None = None) -> AsyncIterator[Adapters]:
    """`provider` replaces the fal client in tests."""
    assert settings.fal_key is not None, "the command line sees to a key before it builds"
    key = settings.fal_key.get_secret_value()
    async with (
        open_postgres(settings) as postgres,
        FalClient.open(
            queue_url=settings.fal_queue_url,
            key=key,
            egress=settings.egress,
            media_seconds=settings.provider_keeps_seconds,
        ) as fal,
        FalWebhooks.open(jwks_url=settings.jwks_url, user_id=settings.fal_user_id, egress=settings.egress) as events,
        open_request_history(settings) as history,
        GuardedClient.open(
            egress=settings.egress,
            allows_loopback=not settings.is_production,
            proxy=settings.webhook_proxy,
            connections_max=ATTEMPTS_AT_ONCE_MAX,
        ) as guarded,
        open_fal_media(settings, COPIES.concurrent_steps_max) as media_to_copy,
        open_fal_media(settings, PASSED_AT_ONCE_MAX) as media_to_pass,
        FalStorage.open(rest_url=settings.fal_rest_url, key=key, egress=settings.egress) as storage,
        ConfinedDecoder.open() as decoder,
    ):
        yield Adapters(
            postgres=postgres,
            provider=provider or fal,
            provider_events=events,
            request_history=history,
            webhook_sender=GuardedWebhookSender(guarded),
            media_to_copy=media_to_copy,
            media_to_pass=media_to_pass,
            media_store=media_store(settings),
            provider_storage=storage,
            decoder=decoder,
        )


@asynccontextmanager
async def open_fal_media(settings: Settings, connections_max: int) -> AsyncIterator[FalMedia]:
    async with GuardedClient.open(
        egress=settings.egress,
        allows_loopback=not settings.is_production,
        proxy=settings.webhook_proxy,
        listed_by_egress=True,
        connections_max=connections_max,
    ) as http:
        yield FalMedia(http, settings.media_hosts)


def media_store(settings: Settings) -> MediaStore | None:
    """None: there is none. Raises SettingsError."""
    if settings.store_url is None:
        return None
    try:
        return open_store(settings.store_url)
    except StoreUnavailable as error:
        raise SettingsError(f"MEDIA_URL: {error.reason}") from None


@asynccontextmanager
async def open_request_history(settings: Settings) -> AsyncIterator[FalHistory | None]:
    if settings.fal_admin_key is None:
        yield None
        return
    key = settings.fal_admin_key.get_secret_value()
    async with FalHistory.open(api_url=settings.fal_api_url, key=key, egress=settings.egress) as history:
        yield history
