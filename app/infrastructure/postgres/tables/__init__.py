"""The tables as queries see them. The migrations are the source; a test compares the two.

Constraint names that mean something to a caller are constants.
"""

from app.infrastructure.postgres.tables.accounts import (
    BALANCE_LIMIT,
    accounts,
    api_keys,
    key_windows,
    keys,
)
from app.infrastructure.postgres.tables.events import budget_notices, event_inbox, event_log, events, forgotten_events
from app.infrastructure.postgres.tables.jobs import (
    REQUEST_OF_ONE_ATTEMPT,
    REQUEST_OF_ONE_JOB,
    attempts,
    idempotency_keys,
    jobs,
)
from app.infrastructure.postgres.tables.media import files, outputs
from app.infrastructure.postgres.tables.money import (
    adjustments,
    ledger_entries,
    payment_events,
    refused_payments,
    reversal_events,
)
from app.infrastructure.postgres.tables.service import heartbeats, installation
from app.infrastructure.postgres.tables.shared import metadata
from app.infrastructure.postgres.tables.turns import fair_clock, fair_turns, model_paces, places
from app.infrastructure.postgres.tables.webhooks import deliveries, due_endpoints, webhook_endpoints, webhook_secrets

__all__ = [
    "BALANCE_LIMIT",
    "REQUEST_OF_ONE_ATTEMPT",
    "REQUEST_OF_ONE_JOB",
    "accounts",
    "adjustments",
    "api_keys",
    "attempts",
    "budget_notices",
    "deliveries",
    "due_endpoints",
    "event_inbox",
    "event_log",
    "events",
    "fair_clock",
    "fair_turns",
    "files",
    "forgotten_events",
    "heartbeats",
    "idempotency_keys",
    "installation",
    "jobs",
    "key_windows",
    "keys",
    "ledger_entries",
    "metadata",
    "model_paces",
    "outputs",
    "payment_events",
    "places",
    "refused_payments",
    "reversal_events",
    "webhook_endpoints",
    "webhook_secrets",
]
