"""Pauses submissions that would only fail: all of them, those of one model, or those of one account.

What one account sends must not stop another one. So everything pauses only for what cannot be an account's own doing:
fal cannot be reached at all, or several accounts fail and none succeeds. Jobs that wait stay QUEUED, and none fails.
"""

import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

import structlog

from app.application.execution.pauses import QUIET_SECONDS, Pause, Reason, Recent
from app.application.ports.health import EVERY_MODEL, Check
from app.application.ports.provider import NotSubmitted, SubmitOutcomeUnknown
from app.domain.jobs import WaitingFor

log = structlog.get_logger(__name__)

# In a row, whoever they were of: no input can keep a connection from being made.
UNREACHABLE_MAX = 5
# Several accounts, because one alone can make fal answer whatever it likes to its own submissions.
FAILED_ACCOUNTS_MAX = 3
REFUSED_ACCOUNTS_MAX = 2
# fal also refuses a key for single models.
REFUSED_MODELS_MAX = 2
# Of one account in a row. A refused key pauses the account at once: it loses nothing by that.
OWN_FAILURES_MAX = 3

Failure = NotSubmitted | SubmitOutcomeUnknown
Key = TypeVar("Key", bound=Hashable)


class Paused(Exception):
    """The submission has to wait for `seconds`. `reason` is for whoever looks at the job."""

    def __init__(self, reason: str, seconds: float, *, is_own: bool, waiting_for: WaitingFor) -> None:
        """`is_own`: submissions of the account itself pause, whatever else does."""
        super().__init__(reason)
        self.reason = reason
        self.seconds = seconds
        self.is_own = is_own
        self.waiting_for = waiting_for


class Breaker:
    """One for each process: what one of them learns, the others learn by themselves."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all: Pause | None = None
        self._of_models: Recent[str, Pause] = Recent(clock)
        self._of_accounts: Recent[UUID, Pause] = Recent(clock)
        self._own_failures: Recent[UUID, int] = Recent(clock)
        self._unreachable = 0
        self._failed_at = clock()
        # Accounts, and models that refused the key, since fal last took a submission.
        self._failed: set[UUID] = set()
        self._refused_everywhere: set[UUID] = set()
        self._refusing_models: set[str] = set()
        # Accounts since fal last took a submission of the model.
        self._refused: dict[str, set[UUID]] = {}

    @property
    def is_calm(self) -> bool:
        """Nothing pauses: a submission need not say whose it is."""
        return self._all is None and not self._of_models and not self._of_accounts

    @contextmanager
    def turn(self, account_id: UUID, model_id: str) -> Iterator[None]:
        """Go on with a submission, where something pauses as the one that tries whether that is over.

        A try that no outcome was recorded of is given back. Raises Paused.
        """
        now = self._clock()
        self._forget_what_is_long_ago()
        pauses = self._pauses(account_id, model_id)
        seconds = max((pause.seconds_for(account_id, now) for pause, _ in pauses), default=0.0)
        for pause, of_what in pauses:
            if pause.seconds_for(account_id, now):
                own = self._of_accounts.get(account_id)
                is_own = own is not None and own.seconds_for(account_id, now) > 0
                waiting_for = WaitingFor.YOUR_LIMIT if pause is own else WaitingFor.PROVIDER
                if pause.reason.is_operators_matter:
                    waiting_for = WaitingFor.PROVIDER_LOCKED
                raise Paused(f"{pause.reason.text}{of_what}", seconds, is_own=is_own, waiting_for=waiting_for)
        for pause, _ in pauses:
            pause.begin_try(account_id, now)
        try:
            yield
        finally:
            for pause, _ in pauses:
                pause.give_back(account_id)

    def record_success(self, account_id: UUID, model_id: str) -> None:
        """fal answered a submission, whatever it said about the job."""
        self._clear_what_all_share()
        self._refused.pop(model_id, None)
        self._own_failures.pop(account_id)
        if self._of_models.pop(model_id) is not None:
            log.warning("submissions_resumed", model_id=model_id)
        if self._of_accounts.pop(account_id) is not None:
            log.info("account_submissions_resumed", account_id=str(account_id))

    def record_answer(self) -> None:
        """fal answered a look. That tells nothing of submissions, but that fal can be reached."""
        self._unreachable = 0
        if self._all is not None and self._all.is_nobodys:
            self._resume()

    def record_failure(self, account_id: UUID, model_id: str, failure: Failure) -> None:
        self._forget_what_is_long_ago()
        self._failed_at = self._clock()
        is_refusal = isinstance(failure, NotSubmitted) and failure.is_operators_matter
        reason = Reason(str(failure), is_refusal)
        if isinstance(failure, NotSubmitted) and failure.is_unreachable:
            self._unreachable += 1
            self._fail_all(account_id, reason, () if self._unreachable >= UNREACHABLE_MAX else None, is_its_own=False)
            return
        self._unreachable = 0
        # That an account fails once more which pauses already is no news of fal.
        is_news = self._of_accounts.get(account_id) is None
        self._fail_account(account_id, reason, at_once=is_refusal)
        if is_refusal:
            self._fail_model(account_id, model_id, reason, is_news=is_news)
        elif is_news:
            _add(self._failed, account_id, FAILED_ACCOUNTS_MAX)
        self._fail_all(account_id, reason, self._accounts_that_tell_of_an_outage())

    async def check(self) -> Check:
        """Report the state. It never makes the service unready: accepting, answering and following go on."""
        self._forget_what_is_long_ago()
        if self._all is not None:
            return Check("fal", True, f"submissions pause: {self._all.reason.text}")
        paused = [f"those of {model_id} pause: {pause.reason.text}" for model_id, pause in self._of_models.items()]
        reasons = [pause.reason.text for _, pause in self._of_accounts.items()]
        if reasons:
            paused.append(f"those of {len(reasons)} account(s) pause, of the last one because: {reasons[-1]}")
        return Check("fal", True, "; ".join(["submissions go on", *paused]))

    @property
    def paused_models(self) -> Sequence[str]:
        """Those whose submissions pause for every account."""
        self._forget_what_is_long_ago()
        return [model_id for model_id, _ in self._shared_pauses()]

    @property
    def locked_models(self) -> Sequence[str]:
        """Those of them for which fal refuses the key or the operator's account."""
        self._forget_what_is_long_ago()
        return [model_id for model_id, pause in self._shared_pauses() if pause.reason.is_operators_matter]

    def _shared_pauses(self) -> Sequence[tuple[str, Pause]]:
        return [(EVERY_MODEL, self._all)] if self._all is not None else self._of_models.items()

    def _pauses(self, account_id: UUID, model_id: str) -> Sequence[tuple[Pause, str]]:
        """Those that the submission meets, the widest first, each with what is said of it behind its reason."""
        found = (
            (self._all, ""),
            (self._of_models.get(model_id), " (submissions of this model pause)"),
            (self._of_accounts.get(account_id), " (submissions of this account pause)"),
        )
        return [(pause, of_what) for pause, of_what in found if pause is not None]

    def _fail_all(
        self, account_id: UUID, reason: Reason, because_of: Collection[UUID] | None, *, is_its_own: bool = True
    ) -> None:
        """`because_of`: the accounts whose failures let everything pause; None, if nothing does yet."""
        if self._all is not None:
            self._all.record_failure(account_id, self._clock(), reason, is_its_own=is_its_own)
        elif because_of is not None:
            self._all = Pause(reason, self._clock(), because_of)
            log.error("submissions_paused", reason=reason.text)

    def _accounts_that_tell_of_an_outage(self) -> Collection[UUID] | None:
        if len(self._failed) == FAILED_ACCOUNTS_MAX:
            return self._failed
        is_refused_everywhere = len(self._refusing_models) == REFUSED_MODELS_MAX
        if is_refused_everywhere and len(self._refused_everywhere) == REFUSED_ACCOUNTS_MAX:
            return self._refused_everywhere
        return None

    def _fail_model(self, account_id: UUID, model_id: str, reason: Reason, *, is_news: bool) -> None:
        refused = self._refused.setdefault(model_id, set())
        if is_news:
            _add(refused, account_id, REFUSED_ACCOUNTS_MAX)
            _add(self._refused_everywhere, account_id, REFUSED_ACCOUNTS_MAX)
            _add(self._refusing_models, model_id, REFUSED_MODELS_MAX)
        pause = self._of_models.get(model_id)
        if pause is not None:
            pause.record_failure(account_id, self._clock(), reason)
        elif len(refused) == REFUSED_ACCOUNTS_MAX:
            self._of_models.put(model_id, Pause(reason, self._clock(), refused))
            log.error("submissions_paused", reason=reason.text, model_id=model_id)

    def _fail_account(self, account_id: UUID, reason: Reason, *, at_once: bool = False) -> None:
        failures = (self._own_failures.get(account_id) or 0) + 1
        self._own_failures.put(account_id, failures)
        pause = self._of_accounts.get(account_id)
        if pause is None:
            if not at_once and failures < OWN_FAILURES_MAX:
                return
            pause = Pause(reason, self._clock(), [account_id], is_shared=False)
            self._of_accounts.put(account_id, pause)
        elif not pause.record_failure(account_id, self._clock(), reason):
            return
        seconds = pause.seconds_for(account_id, self._clock())
        log.warning("account_submissions_paused", account_id=str(account_id), reason=reason.text, seconds=seconds)

    def _forget_what_is_long_ago(self) -> None:
        """While anything waits, one tries in each pause: where nothing has failed for so long, nothing waits."""
        if self._clock() > self._failed_at + QUIET_SECONDS:
            self._clear_what_all_share()
            self._refused.clear()

    def _clear_what_all_share(self) -> None:
        self._unreachable = 0
        self._failed.clear()
        self._refused_everywhere.clear()
        self._refusing_models.clear()
        self._resume()

    def _resume(self) -> None:
        if self._all is not None:
            log.warning("submissions_resumed")
            self._all = None


def _add(found: set[Key], new: Key, enough: int) -> None:
    """More than enough of them would say no more, and there may be any number."""
    if len(found) < enough:
        found.add(new)
