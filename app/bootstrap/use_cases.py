from app.application.execution.follow import FollowJob
from app.application.execution.precedence import Precedence
from app.application.execution.provider_events import ReceiveProviderEvent
from app.application.jobs import CancelJob, StartJob, TimeLimits
from app.application.keys import Authenticate, IssueFirstKey, IssueKey, RevokeKey, RotateKey
from app.application.payments import ReceivePayment, TopUp
from app.application.ports.health import HealthChecks
from app.application.use_cases import CustomerJobs, CustomerKeys, CustomerUseCases, OperatorKeys, OperatorUseCases
from app.bootstrap.adapters import Adapters
from app.bootstrap.steps import postgres_steps
from app.infrastructure.settings import Settings


def customer_use_cases(
    settings: Settings, adapters: Adapters, follow: FollowJob, precedence: Precedence, health: HealthChecks
) -> CustomerUseCases:
    keys, desk = adapters.keys, adapters.job_desk
    time_limits = TimeLimits(settings.image_time_limit_seconds, settings.video_time_limit_seconds)
    return CustomerUseCases(
        keys=CustomerKeys(
            authenticate=Authenticate(keys),
            issue=IssueKey(IssueFirstKey(keys), RotateKey(keys), settings.service_secret),
        ),
        jobs=CustomerJobs(
            start=StartJob(desk, settings.token_prices_json, time_limits, precedence),
            cancel=CancelJob(desk, follow),
            reader=desk,
        ),
        ledger=adapters.ledger,
        receive_payment=ReceivePayment(
            TopUp(adapters.payments, settings.is_event_id_required), settings.webhook_secret
        ),
        receive_provider_event=ReceiveProviderEvent(
            adapters.job_execution, adapters.provider, adapters.provider_events
        ),
        health=health,
    )


def operator_use_cases(settings: Settings, adapters: Adapters) -> OperatorUseCases:
    keys = adapters.keys
    return OperatorUseCases(
        keys=OperatorKeys(issue_first=IssueFirstKey(keys), rotate=RotateKey(keys), revoke=RevokeKey(keys)),
        jobs=adapters.job_records,
        steps=postgres_steps(adapters.engine),
        ledger=adapters.ledger,
        top_up=TopUp(adapters.payments, settings.is_event_id_required),
    )
