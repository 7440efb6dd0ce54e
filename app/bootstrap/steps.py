"""What carries out each step."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.application.execution.breaker import Breaker
from app.application.execution.evidence import SearchHistory
from app.application.execution.follow import FollowJob
from app.application.execution.pacing import Backstop
from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB, Step
from app.application.execution.submit import SubmitJob
from app.bootstrap.adapters import Adapters
from app.infrastructure.background.runner import StepHandler
from app.infrastructure.settings import Settings


@dataclass(frozen=True, slots=True)
class StepHandlers:
    submit: SubmitJob
    follow: FollowJob

    @property
    def by_step(self) -> Mapping[Step, StepHandler]:
        return {SUBMIT_JOB: self.submit, FOLLOW_JOB: self.follow}


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
