"""The only place where adapters meet use cases."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.deliver import Deliver
from app.application.execution.breaker import Breaker
from app.application.execution.media_upkeep import MediaUpkeep
from app.application.execution.precedence import Precedence
from app.application.execution.sweep import Sweep
from app.application.media_audit import RemoveOrphans
from app.application.ports.health import Check
from app.application.ports.provider import Provider
from app.application.ports.restores import RestoredJobs
from app.application.restores import CheckRestored, EndRestored
from app.application.use_cases import CustomerUseCases, OperatorUseCases
from app.bootstrap.adapters import Adapters, PostgresAdapters, open_adapters, open_postgres, open_request_history
from app.bootstrap.steps import (
    handlers_by_step,
    lost_steps_of_jobs,
    lost_steps_of_media,
    runner_duties,
    step_handlers,
)
from app.bootstrap.use_cases import customer_use_cases, media_audit, operator_use_cases
from app.domain.catalogue import Catalogue
from app.infrastructure.background.deliverer import Deliverer
from app.infrastructure.background.runner import Runner
from app.infrastructure.fal.urls import QueueUrls
from app.infrastructure.media_links import SignedMediaLinks
from app.infrastructure.postgres.dsn import plain_dsn
from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.infrastructure.postgres.files.records import PostgresFiles
from app.infrastructure.postgres.health import database_check, migrations_check, workers_check
from app.infrastructure.postgres.heartbeats import Heartbeats
from app.infrastructure.postgres.keys.uses import KeyUses
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from app.infrastructure.postgres.media.older import PostgresOlderMedia
from app.infrastructure.postgres.tidying import Tidying
from app.infrastructure.postgres.webhooks.delivery_queue import PostgresDeliveryQueue
from app.infrastructure.postgres.webhooks.replays import PostgresReplays
from app.infrastructure.postgres.webhooks.upkeep import PostgresDeliveryUpkeep
from app.infrastructure.settings import RunnerHome, Settings
from app.infrastructure.settings.kept_secrets import signing_secrets
from app.infrastructure.spool import DirectorySpool
from app.presentation.http.output_links import OutputLinks
from app.presentation.schemas.events import message_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    customers: Callable[[Catalogue], CustomerUseCases]
    """For the process that accepts. Whoever works alone asks for none, and needs no catalogue and no SIGNING_SECRET."""
    operator: OperatorUseCases
    runner: Runner
    heartbeats: Heartbeats
    """For the process that serves or works: `beating` for as long as it does."""
    key_uses: KeyUses
    """For the process that serves: `writing` for as long as it does."""
    sequencer: EventSequencer
    """For the process that serves or works: `working` for as long as it does."""
    deliverer: Deliverer
    """For the process that has the runner: `working` for as long as it does."""


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
    async with open_adapters(settings, provider) as adapters:
        breaker, precedence = Breaker(), Precedence()
        handlers = step_handlers(settings, adapters, breaker)
        dsn = plain_dsn(settings.database_url.get_secret_value())
        postgres = adapters.postgres
        runner = Runner(
            dsn,
            handlers_by_step(handlers),
            _sweep_of(settings, postgres),
            precedence,
            connections_max=settings.runner_connections_max,
            tidy=Tidying(postgres.engine),
            upkeep=_media_upkeep_of(settings, adapters),
            places=postgres.places,
        )
        heartbeats = Heartbeats(
            postgres.engine,
            lambda: runner.duties.alive,
            lambda: breaker.paused_models,
            lambda: breaker.locked_models,
        )
        health = Health(_checks(settings, postgres.engine, heartbeats, runner, breaker))
        yield Runtime(
            customers=partial(
                customer_use_cases,
                settings,
                adapters,
                follow=handlers.follow,
                precedence=precedence,
                health=health,
            ),
            operator=operator_use_cases(settings, adapters.postgres),
            runner=runner,
            heartbeats=heartbeats,
            key_uses=postgres.keys.uses,
            sequencer=EventSequencer(postgres.engine),
            deliverer=_deliverer_of(settings, adapters),
        )


@asynccontextmanager
async def build_operator(settings: Settings) -> AsyncIterator[OperatorUseCases]:
    """What an operator does by hand: it needs the database, and no key of fal."""
    async with open_postgres(settings) as postgres:
        yield operator_use_cases(settings, postgres)


@dataclass(frozen=True, slots=True)
class AfterRestore:
    jobs: RestoredJobs
    check: CheckRestored
    end: EndRestored


@asynccontextmanager
async def build_after_restore(settings: Settings) -> AsyncIterator[AfterRestore]:
    """What an operator does once a backup was restored: it may ask fal's request history, and submits nothing."""
    async with open_postgres(settings) as postgres, open_request_history(settings) as history:
        jobs = postgres.restored_jobs
        yield AfterRestore(
            jobs=jobs,
            check=CheckRestored(jobs, postgres.lost_submissions, history, QueueUrls(settings.fal_queue_url).rebuild),
            end=EndRestored(jobs),
        )


def _deliverer_of(settings: Settings, adapters: Adapters) -> Deliverer:
    engine = adapters.postgres.engine
    queue = PostgresDeliveryQueue(engine)
    links = OutputLinks(SignedMediaLinks(signing_secrets(settings)), lambda: settings.links_url)
    deliver = Deliver(queue, adapters.webhook_sender, partial(message_of, link_to=links))
    return Deliverer(queue, PostgresReplays(engine), deliver, adapters.postgres.event_feed.waking)


def _sweep_of(settings: Settings, postgres: PostgresAdapters) -> Sweep:
    return Sweep(
        lost_steps_of_jobs(postgres.engine),
        postgres.job_records,
        postgres.job_inputs,
        postgres.restored_jobs,
        postgres.events,
        PostgresDeliveryUpkeep(postgres.engine, settings.event_days),
    )


def _media_upkeep_of(settings: Settings, adapters: Adapters) -> MediaUpkeep:
    engine = adapters.postgres.engine
    audit = media_audit(engine, adapters.media_store)
    return MediaUpkeep(
        lost_steps_of_media(engine),
        PostgresMediaDeletion(engine),
        PostgresOlderMedia(engine, settings.media_days),
        None if audit is None else RemoveOrphans(audit),
        PostgresFiles(engine, settings.media_days),
        DirectorySpool(settings.spool_dir).remove_left,
    )


def _checks(
    settings: Settings, engine: AsyncEngine, heartbeats: Heartbeats, runner: Runner, breaker: Breaker
) -> Sequence[Callable[[], Awaitable[Check]]]:
    checks = [database_check(engine, heartbeats), migrations_check(engine)]
    if settings.runner is RunnerHome.EMBEDDED:
        return [*checks, runner.check, breaker.check]
    return [*checks, workers_check(engine, runner_duties())]
