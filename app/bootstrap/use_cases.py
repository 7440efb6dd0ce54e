from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.cancel import CancelJob
from app.application.execution.follow import FollowJob
from app.application.execution.precedence import CountedAcceptance, Precedence
from app.application.execution.provider_events import ReceiveProviderEvent
from app.application.files import CustomerFiles, KeepFile
from app.application.inputs import ReadInputs, ResolveInputs
from app.application.jobs import QuoteJob, StartJob, TimeLimits
from app.application.key_management import (
    ChangeKey,
    CreateKey,
    CustomerKeyManagement,
    DeleteKey,
    KeysOfUsers,
    RotateSecret,
)
from app.application.keys import Authenticate, IssueFirstKey, IssueKey, RevokeKeys, RotateKey
from app.application.media import CustomerMedia, DeleteMedia, OpenMedia
from app.application.media_audit import MediaAudit
from app.application.payments import ReceivePayment, TopUp
from app.application.ports.health import HealthChecks
from app.application.ports.key_management import KeyManagement, KeyReader
from app.application.ports.media_store import MediaStore
from app.application.reversals import ReceiveReversal, ReversePayment
from app.application.use_cases import CustomerJobs, CustomerKeys, CustomerUseCases, OperatorKeys, OperatorUseCases
from app.application.webhooks import CustomerWebhooks, OperatorWebhooks
from app.application.welcome import Welcome
from app.bootstrap.adapters import Adapters, PostgresAdapters, media_store
from app.bootstrap.steps import lost_steps
from app.domain.catalogue import Catalogue
from app.infrastructure.media_links import SignedMediaLinks
from app.infrastructure.postgres.accounts import PostgresAccountSettings
from app.infrastructure.postgres.admission import PostgresAdmission
from app.infrastructure.postgres.budget_notices import PostgresBudgetNotices
from app.infrastructure.postgres.files.own_outputs import PostgresOwnOutputs
from app.infrastructure.postgres.files.records import PostgresFiles
from app.infrastructure.postgres.heartbeats import PostgresPausedModels
from app.infrastructure.postgres.jobs.outlooks import PostgresOutlooks
from app.infrastructure.postgres.jobs.stored_inputs import PostgresStoredInputs
from app.infrastructure.postgres.media.copies import PostgresOutputCopies
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from app.infrastructure.postgres.media.records import PostgresMediaRecords
from app.infrastructure.postgres.webhooks.deliveries import PostgresDeliveries
from app.infrastructure.postgres.webhooks.endpoints import PostgresWebhookEndpoints
from app.infrastructure.postgres.webhooks.secrets import PostgresWebhookSecrets
from app.infrastructure.quotes import SignedQuotes
from app.infrastructure.settings import Settings
from app.infrastructure.settings.kept_secrets import signing_secrets
from app.infrastructure.spool import DirectorySpool


def customer_use_cases(
    settings: Settings,
    adapters: Adapters,
    catalogue: Catalogue,
    *,
    follow: FollowJob,
    precedence: Precedence,
    health: HealthChecks,
) -> CustomerUseCases:
    postgres = adapters.postgres
    keys, desk = postgres.keys, postgres.job_desk
    quotes = SignedQuotes(signing_secrets(settings))
    receive_payment = _receive_payment(settings, postgres)
    return CustomerUseCases(
        keys=CustomerKeys(
            authenticate=Authenticate(keys),
            issue=IssueKey(IssueFirstKey(keys), RotateKey(keys), settings.auth_secrets),
            management=customer_key_management(postgres.key_reader, postgres.key_management),
        ),
        jobs=CustomerJobs(
            start=_start_job(settings, adapters, catalogue, quotes, precedence),
            quote=QuoteJob(quotes),
            cancel=CancelJob(desk, follow),
            reader=desk,
            outlooks=PostgresOutlooks(postgres.engine, settings.fal_concurrency),
            inputs=ReadInputs(PostgresStoredInputs(postgres.engine), catalogue),
        ),
        account=PostgresAccountSettings(postgres.engine, settings.account_limits),
        ledger=postgres.ledger,
        events=postgres.events,
        event_feed=postgres.event_feed,
        webhooks=_webhooks(settings, postgres),
        media=_media(settings, adapters),
        files=CustomerFiles(_keep_file(settings, adapters)),
        receive_payment=receive_payment,
        receive_reversal=ReceiveReversal(ReversePayment(postgres.reversals), receive_payment.check_secret),
        receive_provider_event=ReceiveProviderEvent(
            postgres.job_execution, adapters.provider, adapters.provider_events
        ),
        health=health,
        paused_models=PostgresPausedModels(postgres.engine),
    )


def _start_job(
    settings: Settings, adapters: Adapters, catalogue: Catalogue, quotes: SignedQuotes, precedence: Precedence
) -> StartJob:
    postgres = adapters.postgres
    return StartJob(
        CountedAcceptance(postgres.job_desk, precedence),
        quotes,
        TimeLimits(settings.image_time_limit_seconds, settings.video_time_limit_seconds),
        catalogue.cheapest_tokens,
        settings.is_safety_checker_required,
        PostgresAdmission(postgres.engine, settings.admit_while_locked_seconds),
        PostgresBudgetNotices(postgres.engine),
        _resolve_inputs(settings, adapters),
    )


def _receive_payment(settings: Settings, postgres: PostgresAdapters) -> ReceivePayment:
    return ReceivePayment(
        TopUp(postgres.payments, settings.is_event_id_required),
        settings.webhook_secrets,
        settings.secrets_by_source,
    )


def customer_key_management(reader: KeyReader, keys: KeyManagement) -> CustomerKeyManagement:
    return CustomerKeyManagement(
        reader=reader,
        create=CreateKey(keys),
        change=ChangeKey(keys),
        rotate=RotateSecret(keys),
        delete=DeleteKey(keys),
    )


def operator_use_cases(settings: Settings, postgres: PostgresAdapters) -> OperatorUseCases:
    keys = postgres.keys
    issue_first, top_up = IssueFirstKey(keys), TopUp(postgres.payments, settings.is_event_id_required)
    return OperatorUseCases(
        keys=OperatorKeys(
            issue_first=issue_first,
            rotate=RotateKey(keys),
            revoke=RevokeKeys(keys),
            of_users=KeysOfUsers(postgres.account_records, postgres.key_management),
        ),
        accounts=postgres.account_records,
        jobs=postgres.job_records,
        steps=lost_steps(postgres.engine),
        ledger=postgres.ledger,
        top_up=top_up,
        welcome=Welcome(issue_first, top_up),
        refused_payments=postgres.refused_payments,
        reverse_payment=ReversePayment(postgres.reversals),
        pending_reversals=postgres.pending_reversals,
        adjustments=postgres.adjustments,
        webhooks=OperatorWebhooks(PostgresWebhookEndpoints(postgres.engine)),
        open_media=lambda: media_audit(postgres.engine, media_store(settings)),
    )


def _media(settings: Settings, adapters: Adapters) -> CustomerMedia:
    links = SignedMediaLinks(signing_secrets(settings))
    engine = adapters.postgres.engine
    copies = PostgresOutputCopies(engine, settings.media_days)
    return CustomerMedia(
        links=links,
        open=OpenMedia(
            links,
            copies,
            PostgresFiles(engine, settings.media_days),
            adapters.media_to_pass,
            adapters.media_store,
            settings.media_redirect,
        ),
        delete=DeleteMedia(PostgresMediaDeletion(engine)),
    )


def _keep_file(settings: Settings, adapters: Adapters) -> KeepFile:
    return KeepFile(
        _postgres_files(settings, adapters),
        adapters.decoder,
        adapters.media_store,
        DirectorySpool(settings.spool_dir),
        settings.files_bytes_max,
    )


def _resolve_inputs(settings: Settings, adapters: Adapters) -> ResolveInputs:
    engine = adapters.postgres.engine
    outputs = PostgresOwnOutputs(engine, PostgresOutputCopies(engine, settings.media_days))
    return ResolveInputs(_keep_file(settings, adapters), _postgres_files(settings, adapters), outputs)


def _postgres_files(settings: Settings, adapters: Adapters) -> PostgresFiles:
    return PostgresFiles(adapters.postgres.engine, settings.media_days, settings.account_limits)


def media_audit(engine: AsyncEngine, store: MediaStore | None) -> MediaAudit | None:
    return None if store is None else MediaAudit(PostgresMediaRecords(engine), store)


def _webhooks(settings: Settings, postgres: PostgresAdapters) -> CustomerWebhooks:
    engine, limits = postgres.engine, settings.account_limits
    return CustomerWebhooks(
        PostgresWebhookEndpoints(engine, limits),
        PostgresDeliveries(engine, limits),
        PostgresWebhookSecrets(engine, limits),
    )
