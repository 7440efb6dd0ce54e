import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.application.inputs import ResolveInputs
from app.application.ports.events import BudgetNotices
from app.application.ports.health import Admission
from app.application.ports.jobs import JobAcceptance
from app.application.ports.quotes import Quotes
from app.domain.accounts import Account, ApiKey
from app.domain.errors import (
    CombinationNotAllowed,
    DatabaseUnavailable,
    InsufficientBalance,
    PriceExceedsMaximum,
    QuoteNotValid,
)
from app.domain.jobs import NewJob, is_large
from app.domain.kinds import GenerationKind
from app.domain.limits import BudgetExceeded, ProviderLocked
from app.domain.models import Model
from app.domain.orders import Accepted, IdempotencyKey
from app.domain.quotes import Quote, check_maximum
from app.domain.terms import Terms

log = structlog.get_logger(__name__)

# By whether it is a film. Part of every fingerprint since the first release, so that a repeat of what one of them has
# accepted is still known.
_FILLED_IN: Mapping[bool, Mapping[str, Any]] = {False: {"num_images": 1}, True: {"duration": 5}}


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long a job may take from its submission to its end before it is given up and refunded."""

    image_seconds: int = 20 * 60
    video_seconds: int = 60 * 60

    def seconds_for(self, model: Model) -> int:
        return self.video_seconds if model.is_bounded_as_video else self.image_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFor:
    """What a repeat must be the same in: the body as it came, whatever the catalogue says of it by then."""

    kind: GenerationKind
    parameters: Mapping[str, Any]
    model_id: str | None
    """None: the caller left the choice to us."""
    webhook_url: str | None = None

    def fingerprint(self) -> bytes:
        parameters = {**_FILLED_IN[self.kind.is_video], **self.parameters}
        # Each further part is left out where it was not given, as it was before there was such a part.
        named = [] if self.model_id is None else [self.model_id]
        told = [] if self.webhook_url is None else [{"webhook_url": self.webhook_url}]
        return fingerprint_of([self.kind.value, parameters, *named, *told])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller asks for: a generation by a model of the catalogue."""

    model: Model
    parameters: Mapping[str, Any]
    """Each of them is one that the model takes."""
    is_model_named: bool = False
    """False: the caller left the choice to us."""
    quote: str | None = None
    max_cost_tokens: int | None = None
    webhook_url: str | None = None

    def completed(self) -> Mapping[str, Any]:
        """Everything that the price and fal shall see. Raises CombinationNotAllowed."""
        completed = self.model.completed(self.parameters)
        self.model.check_combination(completed)
        return completed

    def asked_for(self) -> AskedFor:
        model_id = self.model.id if self.is_model_named else None
        return AskedFor(
            kind=self.model.kind, parameters=self.parameters, model_id=model_id, webhook_url=self.webhook_url
        )


@dataclass(frozen=True, slots=True)
class QuoteJob:
    """Promise what a generation costs. Nothing is stored."""

    _quotes: Quotes

    def __call__(self, account_id: UUID, wish: Wish) -> tuple[Quote, str]:
        """The quote, and as a text. Raises CombinationNotAllowed."""
        quote = Quote.of(account_id, wish.model, wish.completed(), datetime.now(UTC))
        return quote, self._quotes.text_of(quote)


@dataclass(frozen=True, slots=True)
class StartJob:
    """Price the job, debit the tokens, store and queue it: all or nothing.

    The same idempotency key with the same request leads to the same job, and debits once.
    Raises CombinationNotAllowed, QuoteNotValid, PriceExceedsMaximum, ProviderLocked, InsufficientBalance,
    BudgetExceeded, TooManyJobs, TooManyWrites, IdempotencyKeyReused, IdempotencyKeyInUse; InvalidApiKey or
    ScopeMissing for a `key` that has changed since it was looked up; and what ResolveInputs raises.
    """

    _jobs: JobAcceptance
    _quotes: Quotes
    _time_limits: TimeLimits
    _cheapest_tokens: Mapping[GenerationKind, int] = field(default_factory=dict)
    """No generation of the type costs less."""
    _is_safety_checker_required: bool = False
    """fal is then told in so many words to filter its results, where the model has a switch for it."""
    _admission: Admission | None = None
    """None: jobs are accepted whatever fal does."""
    _budget_notices: BudgetNotices | None = None
    _inputs: ResolveInputs | None = None
    """None: nothing that is sent along is kept apart from the jobs."""

    @property
    def keeps_inputs(self) -> bool:
        """Whether pictures and sounds that are sent along are kept apart from the jobs."""
        return self._inputs is not None and self._inputs.keep.store is not None

    def check_balance(self, account: Account, kind: GenerationKind) -> None:
        """Raises InsufficientBalance if the balance is below the cheapest price of the type: nothing fits."""
        cheapest_tokens = self._cheapest_tokens.get(kind, 1)
        if account.balance_tokens < cheapest_tokens:
            raise InsufficientBalance(
                required_tokens=cheapest_tokens, balance_tokens=account.balance_tokens, is_at_least=True
            )

    async def __call__(
        self, account_id: UUID, wish: Wish, *, idempotency_key: str | None = None, key: ApiKey | None = None
    ) -> Accepted:
        idempotency = await _idempotency_of_wish(wish, idempotency_key)
        try:
            completed = wish.completed()
            terms = self._terms(account_id, wish, completed)
            if self._admission is not None and await self._admission.is_closed_to(wish.model.id):
                raise ProviderLocked
        except (CombinationNotAllowed, QuoteNotValid, PriceExceedsMaximum, ProviderLocked):
            # The repeat of a request whose answer was lost is answered, whatever would be said of it by now.
            accepted = await self._known(account_id, idempotency) if idempotency else None
            if accepted is None:
                raise
        else:
            job = self._job(account_id, wish, completed, terms)
            try:
                accepted = await self._accepted(job, wish.model, completed, idempotency, key)
            except BudgetExceeded as refused:
                if key is not None and self._budget_notices is not None:
                    with suppress(DatabaseUnavailable):
                        await self._budget_notices.note(account_id, key.id, refused)
                raise
        return _logged(accepted)

    async def _accepted(
        self,
        job: NewJob,
        model: Model,
        completed: Mapping[str, Any],
        idempotency: IdempotencyKey | None,
        key: ApiKey | None,
    ) -> Accepted:
        if self._inputs is None or not self._inputs.are_in(model, completed):
            return await self._jobs.accept(job, idempotency, key)
        if idempotency is not None:
            # A repeat makes no files, and is answered also where those of the first request are gone.
            known = await self._known(job.account_id, idempotency)
            if known is not None:
                return known
        async with self._inputs(job, model, completed) as resolved:
            parameters = model.fal_input(resolved.parameters, is_checked=self._is_safety_checker_required)
            accepted = await self._jobs.accept(
                replace(job, parameters=parameters, file_ids=resolved.file_ids), idempotency, key
            )
            if accepted.is_replay:
                # The same request was accepted meanwhile, with files of its own.
                await self._inputs.forget(job.account_id, resolved.made_ids)
            return accepted

    async def repeated(self, account_id: UUID, asked_for: AskedFor, idempotency_key: str) -> Accepted | None:
        """The job of a request that the catalogue no longer takes, if it is the repeat of one that was accepted.

        Raises IdempotencyKeyReused, IdempotencyKeyInUse.
        """
        # Nobody has judged how much is in it, so always in a thread.
        fingerprint = await asyncio.to_thread(asked_for.fingerprint)
        accepted = await self._known(account_id, IdempotencyKey(idempotency_key, fingerprint))
        return None if accepted is None else _logged(accepted)

    async def _known(self, account_id: UUID, idempotency: IdempotencyKey) -> Accepted | None:
        first = await self._jobs.find_by_idempotency_key(account_id, idempotency)
        return None if first is None else Accepted(first, is_replay=True)

    def _terms(self, account_id: UUID, wish: Wish, completed: Mapping[str, Any]) -> Terms:
        """Raises QuoteNotValid, PriceExceedsMaximum."""
        if wish.quote is None:
            terms = wish.model.terms(completed)
        else:
            quote = self._quotes.quote_of(wish.quote)
            terms = quote.terms_for(account_id, wish.model, completed, datetime.now(UTC))
        check_maximum(terms.cost_tokens, wish.max_cost_tokens)
        return terms

    def _job(self, account_id: UUID, wish: Wish, completed: Mapping[str, Any], terms: Terms) -> NewJob:
        model = wish.model
        # Not what a repeat is compared by: the operator may change it between a request and its repeat.
        return NewJob(
            id=uuid7(),
            account_id=account_id,
            kind=model.kind,
            model_id=model.id,
            parameters=model.fal_input(completed, is_checked=self._is_safety_checker_required),
            cost_tokens=terms.cost_tokens,
            outputs_requested=terms.outputs_max,
            time_limit_seconds=self._time_limits.seconds_for(model),
            expected_seconds=model.expected_seconds,
            terms=terms,
            webhook_url=wish.webhook_url,
        )


def _logged(accepted: Accepted) -> Accepted:
    log.info(
        "generation_replayed" if accepted.is_replay else "generation_accepted",
        job_id=str(accepted.job.id),
        kind=str(accepted.job.kind),
        model_id=accepted.job.model_id,
        cost_tokens=accepted.job.cost_tokens,
    )
    return accepted


async def _idempotency_of_wish(wish: Wish, key: str | None) -> IdempotencyKey | None:
    """Where there are whole pictures in the parameters, in a thread: 14 MB take 50 ms."""
    if key is None:
        return None
    asked_for = wish.asked_for()
    if not is_large(wish.parameters):
        return IdempotencyKey(key, asked_for.fingerprint())
    return IdempotencyKey(key, await asyncio.to_thread(asked_for.fingerprint))


def fingerprint_of(asked_for: Sequence[Any]) -> bytes:
    return hashlib.sha256(json.dumps(asked_for, sort_keys=True).encode()).digest()
