"""What the torture says of the log of events must be able to fail: a broken log and each kind of broken reader."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from torture.event_readers import fields_of
from torture.event_truth import (
    Fact,
    Told,
    Truth,
    crossings_of,
    facts_of_job,
    log_checks,
    reader_checks,
    subject_of,
)

JOBS = "a job has one beginning, one end, and one start where fal began"
MOVES = "a payment and a reversal are told of once"
CROSSINGS = "a balance that crosses its mark is told of once"
BUDGETS = "a key whose budget refused is told of once"
ORDER_OF_JOBS = "a job's events are in their order"
ORDER_OF_MOVES = "a balance's payments and reversals are in their order"
ORDER_OF_CROSSINGS = "a balance's crossings are in their order"
OTHERS = "the log tells of nothing else"
MISSED = "pages: nothing is missed"
FOREIGN = "pages: nothing is told that the log has not, or otherwise"
TWICE = "pages: nothing is told twice"
PLACE = "pages: the place always rises"


def right_log() -> list[Told]:
    facts = [
        ("balance.credited", "first"),
        ("generation.submitted", "job"),
        ("balance.low", "145 below or above 150"),
        ("generation.started", "job"),
        ("balance.credited", "second"),
        ("balance.recovered", "150 below or above 150"),
        ("generation.submitted", "other"),
        ("balance.low", "145 below or above 150"),
        ("generation.completed", "job"),
        ("key.budget_exceeded", "key one"),
    ]
    return [Told(10 * number, *fact) for number, fact in enumerate(facts, start=1)]


@dataclass
class Case:
    """A whole, right story for a test to spoil: one job that has ended, one that has not."""

    log: list[Told] = field(default_factory=right_log)
    read: list[Told] = field(default_factory=right_log)

    @property
    def truth(self) -> Truth:
        ended = {"id": "job", "status": "completed", "is_final": True, "has_started": True}
        waiting = {"id": "other", "status": "queued", "is_final": False, "has_started": False}
        return Truth(
            jobs={"user": [*facts_of_job(ended), *facts_of_job(waiting)]},
            moves={"user": [Fact("balance.credited", "first"), Fact("balance.credited", "second")]},
            crossings={
                "user": [*crossings_of(150, 145, 150), *crossings_of(145, 150, 150), *crossings_of(150, 145, 150)]
            },
            log={"user": self.log},
            refusals={"user": [Fact("key.budget_exceeded", "key one")]},
        )

    def broken_claims(self, *, at_least_once: bool = False) -> set[str]:
        read = reader_checks("pages", [("user", self.read)], self.truth, at_least_once=at_least_once)
        return {check.claim for check in [*log_checks(self.truth), *read] if check.violations}

    def tell(self, number: int, **changed: object) -> None:
        """The log has another event there, and its reader as well."""
        self.log[number] = self.read[number] = self.log[number]._replace(**changed)  # type: ignore[arg-type]

    def swap(self, first: int, second: int) -> None:
        one, other = self.log[first], self.log[second]
        self.tell(first, type=other.type, subject=other.subject)
        self.tell(second, type=one.type, subject=one.subject)


def forget_the_end(case: Case) -> None:
    del case.log[8], case.read[8]


def begin_twice(case: Case) -> None:
    case.log.append(Told(100, "generation.submitted", "job"))
    case.read.append(case.log[-1])


def end_otherwise(case: Case) -> None:
    case.tell(8, type="generation.failed")


def start_what_never_started(case: Case) -> None:
    case.log.append(Told(100, "generation.started", "other"))
    case.read.append(case.log[-1])


def tell_another_user(case: Case) -> None:
    case.tell(1, subject="somebody else's")


def forget_a_payment(case: Case) -> None:
    del case.log[4], case.read[4]


def reverse_a_payment(case: Case) -> None:
    case.tell(4, type="balance.reversed")


def forget_a_crossing(case: Case) -> None:
    del case.log[7], case.read[7]


def forget_a_refusal(case: Case) -> None:
    del case.log[9], case.read[9]


def refuse_another_key(case: Case) -> None:
    case.tell(9, subject="key two")


def start_before_the_beginning(case: Case) -> None:
    case.swap(1, 3)


def pay_in_another_order(case: Case) -> None:
    case.swap(0, 4)


def recover_too_late(case: Case) -> None:
    case.swap(5, 7)


def tell_of_something_new(case: Case) -> None:
    case.log.append(Told(100, "weather.changed", "it rains"))
    case.read.append(case.log[-1])


def miss_one(case: Case) -> None:
    del case.read[3]


def miss_the_last(case: Case) -> None:
    del case.read[-1]


def read_what_is_not_there(case: Case) -> None:
    case.read.append(Told(999, "balance.credited", "third"))


def read_it_otherwise(case: Case) -> None:
    case.read[3] = case.read[3]._replace(subject="other")


def read_twice(case: Case) -> None:
    case.read.insert(4, case.read[3])


def read_backwards(case: Case) -> None:
    case.read[3], case.read[4] = case.read[4], case.read[3]


BREAKS: dict[Callable[[Case], None], str] = {
    forget_the_end: JOBS,
    begin_twice: JOBS,
    end_otherwise: JOBS,
    start_what_never_started: JOBS,
    tell_another_user: JOBS,
    forget_a_payment: MOVES,
    reverse_a_payment: MOVES,
    forget_a_crossing: CROSSINGS,
    forget_a_refusal: BUDGETS,
    refuse_another_key: BUDGETS,
    start_before_the_beginning: ORDER_OF_JOBS,
    pay_in_another_order: ORDER_OF_MOVES,
    recover_too_late: ORDER_OF_CROSSINGS,
    tell_of_something_new: OTHERS,
    miss_one: MISSED,
    miss_the_last: MISSED,
    read_what_is_not_there: FOREIGN,
    read_it_otherwise: FOREIGN,
    read_twice: TWICE,
    read_backwards: PLACE,
}


def test_a_right_story_breaks_no_claim() -> None:
    assert Case().broken_claims() == set()


@pytest.mark.parametrize(("spoil", "claim"), BREAKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_log_or_reader_is_noticed(spoil: Callable[[Case], None], claim: str) -> None:
    case = Case()

    spoil(case)

    assert claim in case.broken_claims()


def test_every_claim_can_be_broken() -> None:
    case = Case()
    checks = [*log_checks(case.truth), *reader_checks("pages", [("user", case.read)], case.truth)]

    assert {check.claim for check in checks} == set(BREAKS.values())
    assert all(check.holds for check in checks)


@pytest.mark.parametrize(
    ("spoil", "claims"),
    [(read_twice, set()), (read_backwards, set()), (miss_one, {MISSED}), (read_what_is_not_there, {FOREIGN})],
)
def test_who_gets_at_least_once_may_get_again_and_in_any_order(spoil: Callable[[Case], None], claims: set[str]) -> None:
    case = Case()

    spoil(case)

    assert case.broken_claims(at_least_once=True) == claims


def test_a_user_without_a_log_has_nothing_to_read() -> None:
    truth = replace(Case().truth, log={})

    checks = reader_checks("pages", [("nobody", [])], truth)

    assert not any(check.holds for check in checks)


@pytest.mark.parametrize(
    ("data", "subject"),
    [
        ({"job_id": "one", "status": "COMPLETED"}, "one"),
        (
            {
                "balance_tokens": 205,
                "entry": {"kind": "CREDIT", "amount": 5, "payment_event_id": "pay", "balance_after": 205},
            },
            "CREDIT 5 of pay, then 205",
        ),
        ({"key_id": "one", "budget_tokens": 4}, "key one"),
        ({"balance_tokens": 145, "balance_low_tokens": 150}, "145 below or above 150"),
    ],
)
def test_what_the_service_tells_is_named_as_the_log_names_it(data: dict[str, object], subject: str) -> None:
    assert subject_of({"data": data}) == subject


def test_a_message_has_its_fields_and_no_comment() -> None:
    assert fields_of(b": listening\nretry: 2000\nid: 7") == {"retry": "2000", "id": "7"}
    assert fields_of(b'id: 8\nevent: balance.low\ndata: {"a": ": "}') == {
        "id": "8",
        "event": "balance.low",
        "data": '{"a": ": "}',
    }
