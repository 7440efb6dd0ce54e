"""The registry of the steps: each is one row, which says everything about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.breaker import Breaker
from app.application.execution.copy_outputs import CopyOutputs
from app.application.execution.duties import duties_of
from app.application.execution.erase import EraseFile, EraseMedia
from app.application.execution.evidence import SearchHistory
from app.application.execution.follow import FollowJob
from app.application.execution.forget import ForgetInput
from app.application.execution.hand_over import HandOverFiles
from app.application.execution.orphans import CancelOrphans
from app.application.execution.pacing import Backstop
from app.application.execution.steps import (
    CANCEL_ORPHANS,
    COPY_OUTPUTS,
    ERASE_FILE,
    ERASE_MEDIA,
    FOLLOW_JOB,
    FORGET_INPUT,
    SUBMIT_JOB,
    Step,
)
from app.application.execution.submit import SubmitJob
from app.application.execution.waits import ProviderWaits
from app.bootstrap.adapters import Adapters
from app.infrastructure.background.items import StepHandler
from app.infrastructure.fal import wire
from app.infrastructure.media_links import SignedMediaLinks
from app.infrastructure.postgres.crowds import PostgresCrowds
from app.infrastructure.postgres.files.records import FILES_TO_ERASE, PostgresFiles
from app.infrastructure.postgres.files.sending import PostgresFilesToSend
from app.infrastructure.postgres.jobs.attempts import JOBS_WITH_ORPHANS
from app.infrastructure.postgres.jobs.inputs import INPUTS_TO_FORGET
from app.infrastructure.postgres.jobs.records import JOBS_TO_FOLLOW, JOBS_TO_SUBMIT
from app.infrastructure.postgres.lost_steps import PostgresLostSteps, WaitingSubjects
from app.infrastructure.postgres.media.copies import OUTPUTS_TO_COPY, OUTPUTS_TO_ERASE, PostgresOutputCopies
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from app.infrastructure.settings import Settings
from app.infrastructure.settings.kept_secrets import signing_secrets


@dataclass(frozen=True, slots=True)
class StepHandlers:
    submit: SubmitJob
    follow: FollowJob
    forget: ForgetInput
    cancel_orphans: CancelOrphans
    copy_outputs: CopyOutputs
    erase_media: EraseMedia
    erase_file: EraseFile


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """The step with its name, subject and lane, the subjects that wait for it, and who carries it out."""

    step: Step
    waiting: WaitingSubjects
    handler: Callable[[StepHandlers], StepHandler]


STEPS: Sequence[StepDefinition] = (
    StepDefinition(SUBMIT_JOB, waiting=JOBS_TO_SUBMIT, handler=lambda handlers: handlers.submit),
    StepDefinition(FOLLOW_JOB, waiting=JOBS_TO_FOLLOW, handler=lambda handlers: handlers.follow),
    StepDefinition(FORGET_INPUT, waiting=INPUTS_TO_FORGET, handler=lambda handlers: handlers.forget),
    StepDefinition(CANCEL_ORPHANS, waiting=JOBS_WITH_ORPHANS, handler=lambda handlers: handlers.cancel_orphans),
    StepDefinition(COPY_OUTPUTS, waiting=OUTPUTS_TO_COPY, handler=lambda handlers: handlers.copy_outputs),
    StepDefinition(ERASE_MEDIA, waiting=OUTPUTS_TO_ERASE, handler=lambda handlers: handlers.erase_media),
    StepDefinition(ERASE_FILE, waiting=FILES_TO_ERASE, handler=lambda handlers: handlers.erase_file),
)


_OF_MEDIA = frozenset({COPY_OUTPUTS, ERASE_MEDIA, ERASE_FILE})


def handlers_by_step(handlers: StepHandlers) -> Mapping[Step, StepHandler]:
    return {row.step: row.handler(handlers) for row in STEPS}


def runner_duties() -> Sequence[str]:
    return duties_of(row.step for row in STEPS)


def lost_steps(engine: AsyncEngine) -> PostgresLostSteps:
    return PostgresLostSteps(engine, {row.step: row.waiting for row in STEPS})


def lost_steps_of_jobs(engine: AsyncEngine) -> PostgresLostSteps:
    """Those that no step may begin without a look at."""
    return PostgresLostSteps(engine, {row.step: row.waiting for row in STEPS if row.step not in _OF_MEDIA})


def lost_steps_of_media(engine: AsyncEngine) -> PostgresLostSteps:
    return PostgresLostSteps(engine, {row.step: row.waiting for row in STEPS if row.step in _OF_MEDIA})


def step_handlers(settings: Settings, adapters: Adapters, breaker: Breaker) -> StepHandlers:
    history = adapters.request_history
    search = (
        None
        if history is None
        else SearchHistory(
            adapters.postgres.lost_submissions, history, adapters.provider.input_digest, former_digest_of=wire.digest
        )
    )
    backstop = None if settings.public_url is None else Backstop(adapters.postgres.job_records)
    engine = adapters.postgres.engine
    copies = PostgresOutputCopies(engine, settings.media_days)
    follow = FollowJob(adapters.postgres.job_execution, adapters.provider, backstop, search, breaker)
    return StepHandlers(
        submit=SubmitJob(
            adapters.postgres.job_execution,
            adapters.provider,
            breaker,
            settings.webhooks_url,
            backstop,
            hand_over=_hand_over(settings, adapters, copies),
            crowds=PostgresCrowds(engine),
            places_at_fal=adapters.postgres.places,
            has_history=history is not None,
            wait_seconds_max=settings.queue_time_limit_seconds or None,
        ),
        follow=follow,
        forget=ForgetInput(adapters.postgres.job_inputs),
        cancel_orphans=CancelOrphans(adapters.postgres.job_execution, adapters.provider, follow.places),
        copy_outputs=CopyOutputs(copies, PostgresMediaDeletion(engine), adapters.media_to_copy, adapters.media_store),
        erase_media=EraseMedia(copies, adapters.media_store),
        erase_file=EraseFile(PostgresFiles(engine, settings.media_days), adapters.media_store),
    )


def _hand_over(settings: Settings, adapters: Adapters, outputs: PostgresOutputCopies) -> HandOverFiles:
    return HandOverFiles(
        jobs=adapters.postgres.job_execution,
        files=PostgresFilesToSend(adapters.postgres.engine, outputs),
        store=adapters.media_store,
        storage=adapters.provider_storage,
        links=SignedMediaLinks(signing_secrets(settings)),
        public_url=settings.public_url,
        waits=ProviderWaits(settings.queue_time_limit_seconds or None),
    )
