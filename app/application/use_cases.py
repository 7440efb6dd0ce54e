"""Everything the service does, one field each: all that the web layer and the command line can see."""

from dataclasses import dataclass

from app.application.accounts import Authenticate, IssueFirstKey, IssueKey, RevokeKey, RotateKey
from app.application.execution import ReceiveProviderEvent
from app.application.generations import CancelGeneration, GetGeneration, ListGenerations, StartGeneration
from app.application.ports import HealthChecks
from app.application.reconciliation import InspectJob, InspectJobs, RequeueJob, VerifyLedger
from app.application.tokens import AuthenticatePaymentProvider, ListLedgerEntries, TopUp


@dataclass(frozen=True, slots=True)
class UseCases:
    authenticate: Authenticate
    issue_key: IssueKey
    issue_first_key: IssueFirstKey
    rotate_key: RotateKey
    revoke_key: RevokeKey
    authenticate_payment_provider: AuthenticatePaymentProvider
    top_up: TopUp
    start_generation: StartGeneration
    get_generation: GetGeneration
    list_generations: ListGenerations
    cancel_generation: CancelGeneration
    receive_provider_event: ReceiveProviderEvent
    inspect_jobs: InspectJobs
    inspect_job: InspectJob
    requeue_job: RequeueJob
    list_ledger_entries: ListLedgerEntries
    verify_ledger: VerifyLedger
    health: HealthChecks
