"""The rule by which payments are credited: a pure function of what the database says under its locks."""

from uuid import UUID

from app.domain.errors import BalanceLimitExceeded, PaymentEventConflict
from app.domain.ledger import BALANCE_TOKENS_MAX
from app.domain.payments import PaymentEvent, decide_credits

USER, OTHER = UUID(int=1), UUID(int=2)


def event(amount: int, *, event_id: str = "a", user: UUID = USER, source: str = "webhook") -> PaymentEvent:
    return PaymentEvent(source=source, event_id=event_id, external_user_id=user, amount=amount)


def said(decision: object) -> object:
    return decision if isinstance(decision, bool) else type(decision)


def decide(*events: PaymentEvent, known: tuple[PaymentEvent, ...] = (), balance_tokens: int = 0) -> list[object]:
    return [said(one) for one in decide_credits(events, known=known, balances_tokens={USER: balance_tokens})]


def test_an_event_is_credited_once_in_a_batch() -> None:
    assert decide(event(5), event(5), event(7, event_id="b")) == [True, False, True]


def test_an_event_that_was_credited_before_is_not_credited_again() -> None:
    assert decide(event(5), known=(event(5),)) == [False]


def test_the_first_content_of_an_event_counts() -> None:
    assert decide(event(5), event(6), event(5, user=OTHER)) == [True, PaymentEventConflict, PaymentEventConflict]


def test_the_same_id_of_two_sources_names_two_events() -> None:
    assert decide(event(5), event(6, source="operator")) == [True, True]


def test_an_id_that_once_named_two_payments_goes_on_naming_both_and_no_third() -> None:
    """Before both headers had one name space."""
    former = (event(5), event(6, user=OTHER))

    assert decide(event(6, user=OTHER), event(5), event(7), known=former) == [False, False, PaymentEventConflict]


def test_a_balance_never_exceeds_the_limit_and_what_still_fits_is_credited() -> None:
    deliveries = (event(2), event(1, event_id="b"), event(1, event_id="c"))

    assert decide(*deliveries, balance_tokens=BALANCE_TOKENS_MAX - 1) == [
        BalanceLimitExceeded,
        True,
        BalanceLimitExceeded,
    ]


def test_the_id_of_an_event_that_was_refused_is_free() -> None:
    deliveries = (event(2), event(1))

    assert decide(*deliveries, balance_tokens=BALANCE_TOKENS_MAX - 1) == [BalanceLimitExceeded, True]


def test_a_user_without_an_account_begins_with_nothing() -> None:
    assert decide(event(BALANCE_TOKENS_MAX, user=OTHER), event(1, event_id="b", user=OTHER)) == [
        True,
        BalanceLimitExceeded,
    ]
