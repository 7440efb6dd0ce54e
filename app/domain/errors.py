"""The errors that several nouns have, and those of accounts, payments, generations and the database.

Each is something that the caller can understand, and a DomainError. Those of one noun are beside it: of keys in
key_errors.py, of files in file_errors.py, of media and links in media_errors.py, of budgets, limits and a provider that
is locked in limits.py, of the log in events.py, of endpoints and deliveries in webhooks.py.

InvalidPrices and InvalidCatalogue are none of them: both are read before the service starts, and no request can cause
them.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

from app.domain.kinds import GenerationKind

Figures: TypeAlias = Mapping[str, int | str | None]


class DomainError(Exception):
    """`code` is stable and goes over the wire; `detail` is one sentence for a person, `figures` what it counts."""

    code: ClassVar[str] = "error"
    default_detail: ClassVar[str] = "The request cannot be served."
    example_figures: ClassVar[Figures] = {}
    """For the document."""

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.default_detail
        self.figures: Figures = {}
        super().__init__(self.detail)


class Unauthenticated(DomainError):
    code = "unauthenticated"


class InvalidApiKey(Unauthenticated):
    """None was sent, or a mistyped, an unknown or a revoked one."""

    code = "invalid_api_key"
    default_detail = "Send a valid API key in the X-API-Key header."


class ProofRequired(Unauthenticated):
    code = "proof_required"
    default_detail = (
        "Replacing a key needs proof: send the user's current key in X-API-Key, or the service secret in X-Auth-Secret."
    )


class InvalidWebhookSecret(Unauthenticated):
    code = "invalid_webhook_secret"
    default_detail = "Send the payment provider's secret in the X-Webhook-Secret header."


class InvalidProviderEvent(Unauthenticated):
    """`reason` and `facts` are for the log of the operator alone; the sender hears neither."""

    code = "invalid_provider_event"
    default_detail = "This is no event of fal about a job of this service."

    def __init__(self, reason: str = "unknown_token", **facts: object) -> None:
        super().__init__()
        self.reason = reason
        self.facts = facts


_PRICE_UNREAD = (
    "insufficient balance: no generation of this type costs less, and so large a body is not read for what it may cost."
    " POST /quotes tells it."
)


class InsufficientBalance(DomainError):
    code = "insufficient_balance"
    default_detail = "insufficient balance"
    example_figures: ClassVar[Figures] = {
        "required_tokens": 30,
        "balance_tokens": 18,
        "missing_tokens": 12,
    }

    def __init__(self, *, required_tokens: int, balance_tokens: int, is_at_least: bool = False) -> None:
        """`is_at_least`: what is asked for was not read, and may cost more."""
        super().__init__(_PRICE_UNREAD if is_at_least else None)
        self.figures = {
            "required_tokens": required_tokens,
            "balance_tokens": balance_tokens,
            "missing_tokens": required_tokens - balance_tokens,
            **({"is_at_least": True} if is_at_least else {}),
        }


class NotFound(DomainError):
    code = "not_found"
    default_detail = "There is nothing here."


class JobNotFound(NotFound):
    """Also of a job of another account."""

    code = "job_not_found"
    default_detail = "There is no job with this id in your account."


class ModelNotFound(NotFound):
    code = "model_not_found"
    default_detail = "There is no model with this id. GET /models lists them."


class AccountNotFound(NotFound):
    code = "account_not_found"
    default_detail = "There is no account for this user."


class JobFinished(DomainError):
    code = "cannot_cancel_finished_job"
    default_detail = "cannot cancel finished job"


class Conflict(DomainError):
    code = "conflict"


class KeyAlreadyIssued(Conflict):
    code = "key_already_issued"
    default_detail = (
        'This user already has a key. To replace it, send "rotate": true with the current key in X-API-Key, '
        "or with the service secret in X-Auth-Secret."
    )


class PaymentEventConflict(Conflict):
    code = "payment_event_conflict"
    default_detail = "This event id was already used for another user or amount. Nothing was credited."


class ReversalEventConflict(Conflict):
    code = "reversal_event_conflict"
    default_detail = "This event id was already used for another refund, dispute or withdrawal. Nothing was done."


class AdjustmentConflict(Conflict):
    code = "adjustment_conflict"
    default_detail = "This id was already used for another adjustment. Nothing was done."


class IdempotencyKeyInUse(Conflict):
    code = "idempotency_key_in_use"
    default_detail = "A request with this Idempotency-Key is being served right now. Ask again in a second."


class IdempotencyKeyReused(DomainError):
    code = "idempotency_key_reused"
    default_detail = "This Idempotency-Key was already used for another request. Nothing was done."


class QuoteNotValid(Conflict):
    """The same words for a forged quote and for that of another account: neither tells what is in one."""

    code = "quote_not_valid"
    default_detail = "This is no quote for this account. Nothing was done. Ask for a new one, or leave it out."


class PriceExceedsMaximum(Conflict):
    code = "price_exceeds_maximum"
    default_detail = (
        "This costs 30 tokens, which is more than max_cost_tokens. Nothing was done. "
        "Raise max_cost_tokens, or ask for something cheaper."
    )
    example_figures: ClassVar[Figures] = {"cost_tokens": 30}

    def __init__(self, cost_tokens: int) -> None:
        super().__init__(
            f"This costs {cost_tokens} tokens, which is more than max_cost_tokens. Nothing was done. "
            "Raise max_cost_tokens, or ask for something cheaper."
        )
        self.figures = {"cost_tokens": cost_tokens}


class BalanceLimitExceeded(Conflict):
    code = "balance_limit_exceeded"
    default_detail = "The balance would exceed the largest possible one. Nothing was credited."


class PaymentEventIdRequired(DomainError):
    code = "payment_event_id_required"
    default_detail = "Send the payment provider's event id in the X-Event-Id header. Nothing was credited."


class ReversalEventIdRequired(PaymentEventIdRequired):
    code = "reversal_event_id_required"
    default_detail = "Send the id of the refund, dispute or withdrawal in the X-Event-Id header. Nothing was done."


class FieldRefused(DomainError):
    """`field` is the one to change, and `advice` what is said at it."""

    code = "field_refused"
    default_detail = "Change the field that errors names."

    def __init__(self, field: str, detail: str | None = None, *, advice: str | None = None) -> None:
        super().__init__(detail)
        self.field = field
        self.advice = advice or self.detail


class UnknownModel(FieldRefused):
    """`fitting` are the models of the type that was asked for; `sold_as` is the type of this one, if it is sold."""

    code = "unknown_model"
    default_detail = "There is no such model of this type."

    def __init__(self, fitting: Sequence[str] = (), sold_as: GenerationKind | None = None) -> None:
        detail = self.default_detail
        if sold_as is not None:
            detail = f"This model is of another type, {sold_as.value}, which POST {sold_as.route} makes."
        super().__init__("model", detail, advice=f"{detail} Of this type there are {', '.join(fitting)}.")
        self.fitting = fitting
        self.sold_as = sold_as


class CombinationNotAllowed(FieldRefused):
    """Each value is one that the model takes, but not together."""

    code = "combination_not_allowed"
    default_detail = "With resolution 1080p the duration must be 8."


class TooManyRequests(DomainError):
    code = "too_many_requests"
    default_detail = "Too many requests. Nothing was done. Ask again when Retry-After says."

    def __init__(self, detail: str | None = None, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class TooManyLargeInputs(TooManyRequests):
    code = "too_many_large_inputs"
    default_detail = (
        "This account has just sent many large pictures or sounds. Nothing was done. "
        "Ask again when Retry-After says, or send URLs."
    )


class Unavailable(DomainError):
    code = "unavailable"
    default_detail = "The service cannot answer right now. Try again in a few seconds."


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    default_detail = "The database does not answer right now. Try again in a few seconds."


class CommitUnknown(DatabaseUnavailable):
    """The answer to a COMMIT was lost: only a look by id tells whether it happened."""

    code = "outcome_unknown"
    default_detail = (
        "The database went away while this was being written. Where you sent an Idempotency-Key or an event id, "
        "ask again with the same one: nothing is done twice. Else look first whether it was done."
    )


class Overloaded(Unavailable):
    code = "overloaded"
    default_detail = "More requests wait than can be answered soon. Nothing was done. Try again in a few seconds."


class ProviderKeysUnavailable(Unavailable):
    code = "provider_keys_unavailable"
    default_detail = "The keys that sign fal's webhooks cannot be fetched right now. Deliver it again later."


class InvalidPrices(ValueError):
    """The price list that the operator gave cannot be used. The message says why, for the operator."""


class InvalidCatalogue(ValueError):
    """What the files say cannot be sold. Each problem is a sentence for the operator, with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
