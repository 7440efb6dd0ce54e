"""The only place where adapters meet use cases."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from app.application.accounts import Authenticate, IssueFirstKey, IssueKey, RevokeKey, RotateKey
from app.application.backstop import Backstop
from app.application.breaker import Breaker
from app.application.evidence import SearchHistory
from app.application.execution import FollowGeneration, ReceiveProviderEvent, Step, SubmitGeneration, SweepGenerations
from app.application.generations import (
    CancelGeneration,
    GetGeneration,
    ListGenerations,
    StartGeneration,
    TimeLimits,
)
from app.application.ports import Check, Provider
from app.application.precedence import Precedence
from app.application.reconciliation import InspectJob, InspectJobs, RequeueJob, VerifyLedger
from app.application.tokens import AuthenticatePaymentProvider, ListLedgerEntries, TopUp
from app.application.use_cases import UseCases
from app.infrastructure.background.runner import Runner
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.history import FalHistory
from app.infrastructure.fal.webhooks import FalWebhooks
from app.infrastructure.postgres.accounts import PostgresAccounts
from app.infrastructure.postgres.database import open_engine, plain_dsn
from app.infrastructure.postgres.health import backlog_check, database_check, migrations_check
from app.infrastructure.postgres.jobs import PostgresJobs
from app.infrastructure.postgres.ledger import PostgresTokens
from app.infrastructure.postgres.lost_submissions import PostgresLostSubmissions
from app.infrastructure.settings import RunnerHome, Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    use_cases: UseCases
    runner: Runner


@dataclass(frozen=True, slots=True)
class Health:
    checks: Sequence[Callable[[], Awaitable[Check]]]

    async def run(self) -> Sequence[Check]:
        return [await check() for check in self.checks]


@asynccontextmanager
async def build(settings: Settings, *, provider: Provider | None = None) -> AsyncIterator[Runtime]:
    """Everything connected, nothing running yet: the caller starts the runner where it belongs.

    `provider` replaces the fal client in tests.
    """
    assert settings.database_url is not None, "the command line sees to a database before it builds"
    if settings.public_url is not None and settings.fal_user_id is None and settings.is_production:
        # Every customer of fal can have a webhook signed; only the token in its URL then tells ours.
        log.warning("fal_user_id_not_set")
    dsn = settings.database_url.get_secret_value()
    async with (
        open_engine(dsn) as engine,
        FalClient.open(queue_url=settings.fal_queue_url, key=_fal_key(settings)) as fal,
        FalWebhooks.open(jwks_url=settings.jwks_url, user_id=settings.fal_user_id) as events,
        _request_history(settings) as history,
    ):
        accounts = PostgresAccounts(engine)
        tokens = PostgresTokens(engine)
        jobs = PostgresJobs(engine)
        search = None if history is None else SearchHistory(PostgresLostSubmissions(engine), history)
        backstop = None if settings.public_url is None else Backstop(jobs)
        follow = FollowGeneration(jobs, provider or fal, backstop, search)
        breaker = Breaker()
        precedence = Precedence()
        submit = SubmitGeneration(
            jobs, provider or fal, breaker, settings.webhooks_url, backstop, has_history=history is not None
        )
        sweep = SweepGenerations(jobs)
        runner = Runner(
            plain_dsn(dsn),
            {Step.SUBMIT: submit, Step.FOLLOW: follow},
            sweep,
            precedence,
        )
        checks = [database_check(engine), migrations_check(engine)]
        if settings.runner is RunnerHome.EMBEDDED:
            checks += [runner.check, breaker.check]
        else:
            checks.append(backlog_check(engine))
        issue_first_key = IssueFirstKey(accounts)
        rotate_key = RotateKey(accounts)
        use_cases = UseCases(
            authenticate=Authenticate(accounts),
            issue_key=IssueKey(issue_first_key, rotate_key, settings.service_secret),
            issue_first_key=issue_first_key,
            rotate_key=rotate_key,
            revoke_key=RevokeKey(accounts),
            authenticate_payment_provider=AuthenticatePaymentProvider(settings.webhook_secret),
            top_up=TopUp(tokens, settings.is_event_id_required),
            start_generation=StartGeneration(
                jobs,
                settings.token_prices_json,
                TimeLimits(settings.image_time_limit_seconds, settings.video_time_limit_seconds),
                precedence,
            ),
            get_generation=GetGeneration(jobs),
            list_generations=ListGenerations(jobs),
            cancel_generation=CancelGeneration(jobs, follow),
            receive_provider_event=ReceiveProviderEvent(jobs, provider or fal, events),
            inspect_jobs=InspectJobs(jobs),
            inspect_job=InspectJob(jobs),
            requeue_job=RequeueJob(jobs),
            list_ledger_entries=ListLedgerEntries(tokens),
            verify_ledger=VerifyLedger(tokens),
            health=Health(checks),
        )
        yield Runtime(use_cases, runner)


@asynccontextmanager
async def _request_history(settings: Settings) -> AsyncIterator[FalHistory | None]:
    if settings.fal_admin_key is None:
        yield None
        return
    key = settings.fal_admin_key.get_secret_value()
    async with FalHistory.open(api_url=settings.fal_api_url, key=key) as history:
        yield history


def _fal_key(settings: Settings) -> str:
    """One-off commands such as `keys issue` never talk to fal and need no key."""
    return settings.fal_key.get_secret_value() if settings.fal_key else "none:none"
