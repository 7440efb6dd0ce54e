"""Everything that the service does, by who may ask for it and then by noun.

Routers get the customers' object: whatever it holds belongs to an account that was authenticated, or checks a proof by
itself. The operator's object needs no proof, and only the command line gets it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.application.cancel import CancelJob
from app.application.execution.provider_events import ReceiveProviderEvent
from app.application.files import CustomerFiles
from app.application.inputs import ReadInputs
from app.application.jobs import QuoteJob, StartJob
from app.application.key_management import CustomerKeyManagement, KeysOfUsers
from app.application.keys import Authenticate, IssueFirstKey, IssueKey, RevokeKeys, RotateKey
from app.application.media import CustomerMedia
from app.application.media_audit import MediaAudit
from app.application.payments import ReceivePayment, TopUp
from app.application.ports.accounts import AccountRecords, AccountSettings
from app.application.ports.events import EventFeed, EventLog
from app.application.ports.execution import StepUpkeep
from app.application.ports.health import HealthChecks, PausedModels
from app.application.ports.jobs import JobOutlooks, JobReader, JobRecords
from app.application.ports.ledger import Adjustments, LedgerReader, LedgerRecords
from app.application.ports.payments import RefusedPayments
from app.application.ports.reversals import PendingReversals
from app.application.reversals import ReceiveReversal, ReversePayment
from app.application.webhooks import CustomerWebhooks, OperatorWebhooks
from app.application.welcome import Welcome


@dataclass(frozen=True, slots=True)
class CustomerKeys:
    authenticate: Authenticate
    issue: IssueKey
    management: CustomerKeyManagement


@dataclass(frozen=True, slots=True)
class CustomerJobs:
    start: StartJob
    quote: QuoteJob
    cancel: CancelJob
    reader: JobReader
    outlooks: JobOutlooks
    inputs: ReadInputs


@dataclass(frozen=True, slots=True)
class CustomerUseCases:
    """`receive_payment`, `receive_reversal` and `receive_provider_event` are for those who prove to be the payment
    provider, or fal.
    """

    keys: CustomerKeys
    jobs: CustomerJobs
    account: AccountSettings
    ledger: LedgerReader
    events: EventLog
    event_feed: EventFeed
    webhooks: CustomerWebhooks
    media: CustomerMedia
    files: CustomerFiles
    receive_payment: ReceivePayment
    receive_reversal: ReceiveReversal
    receive_provider_event: ReceiveProviderEvent
    health: HealthChecks
    paused_models: PausedModels


@dataclass(frozen=True, slots=True)
class OperatorKeys:
    issue_first: IssueFirstKey
    rotate: RotateKey
    revoke: RevokeKeys
    of_users: KeysOfUsers


@dataclass(frozen=True, slots=True)
class OperatorUseCases:
    keys: OperatorKeys
    accounts: AccountRecords
    jobs: JobRecords
    steps: StepUpkeep
    ledger: LedgerRecords
    top_up: TopUp
    welcome: Welcome
    refused_payments: RefusedPayments
    reverse_payment: ReversePayment
    pending_reversals: PendingReversals
    adjustments: Adjustments
    webhooks: OperatorWebhooks
    open_media: Callable[[], MediaAudit | None]
    """None: there is no store. Whoever does not ask needs none, nor what opens it."""
