"""The registry of the steps: each is one row, which says everything about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.application.execution.breaker import Breaker
from app.application.execution.evidence import SearchHistory
from app.application.execution.follow import FollowJob
from app.application.execution.pacing import Backstop
from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB, Step
from app.application.execution.submit import SubmitJob
from app.bootstrap.adapters import Adapters
from app.infrastructure.background.items import StepHandler
from app.infrastructure.postgres.jobs.records import JOBS_TO_FOLLOW, JOBS_TO_SUBMIT
from app.infrastructure.postgres.steps import WaitingSubjects
from app.infrastructure.settings import Settings


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """The step with its name, subject and lane, the code that carries it out, and the subjects that wait for it."""

    step: Step
    handler: StepHandler
    waiting: WaitingSubjects


@dataclass(frozen=True, slots=True)
class StepRegistry:
    rows: Sequence[StepDefinition]

    @property
    def handlers(self) -> Mapping[Step, StepHandler]:
        return {row.step: row.handler for row in self.rows}

    @property
    def waiting(self) -> Mapping[Step, WaitingSubjects]:
        return {row.step: row.waiting for row in self.rows}


@dataclass(frozen=True, slots=True)
class StepHandlers:
    submit: SubmitJob
    follow: FollowJob


def step_handlers(settings: Settings, adapters: Adapters, breaker: Breaker) -> StepHandlers:
    history = adapters.request_history
    search = None if history is None else SearchHistory(adapters.lost_submissions, history)
    backstop = None if settings.public_url is None else Backstop(adapters.job_records)
    return StepHandlers(
        submit=SubmitJob(
            adapters.job_execution,
            adapters.provider,
            breaker,
            settings.webhooks_url,
            backstop,
            has_history=history is not None,
        ),
        follow=FollowJob(adapters.job_execution, adapters.provider, backstop, search),
    )


def step_registry(handlers: StepHandlers) -> StepRegistry:
    return StepRegistry(
        (
            StepDefinition(SUBMIT_JOB, handlers.submit, JOBS_TO_SUBMIT),
            StepDefinition(FOLLOW_JOB, handlers.follow, JOBS_TO_FOLLOW),
        )
    )
