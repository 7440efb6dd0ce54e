"""The torture's checks must be able to fail: each kind of broken book is held before them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from torture.books import Evidence, Post, Row, checks_of
from torture.callers import Book, Order
from torture.wishes import Wish

PLAIN = Wish("", {"COMPLETED": 1})
FAILING = Wish("[fail]", {"FAILED": 0})


@dataclass
class Case:
    """A whole, right story of two jobs, for a test to spoil."""

    book: Book = field(default_factory=lambda: Book("user", topped_up_tokens=100, budget_tokens=5))
    rows: dict[str, Row] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    posts: list[Post] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    balance: int = 95
    windows_over_budget: list[str] = field(default_factory=list)
    ledger_violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.add("made", PLAIN, "COMPLETED")
        self.add("refused", FAILING, "FAILED")

    def add(self, job: str, wish: Wish, status: str) -> None:
        has_result = status == "COMPLETED"
        request = f"fal-{job}"
        self.book.orders.append(Order(f"order {job}", wish, f"key-{job}", job_ids={job}, final_statuses_seen={status}))
        self.rows[job] = Row(job, "user", f"order {job}", status, 5, 0 if has_result else 5, has_result, None, request)
        self.views[job] = {
            "job_id": job,
            "status": status,
            "result": {"images": [{"url": f"http://fal/{request}-1.png"}]} if has_result else None,
            "billing": {"charged_tokens": 5 if has_result else 0},
            "fal_request_id": request,
        }
        self.posts.append(Post(request, f"order {job}", f"token-{job}", has_result, is_canceled=False))
        self.keys[f"key-{job}"] = job

    def change(self, job: str, **columns: Any) -> None:
        self.rows[job] = replace(self.rows[job], **columns)

    @property
    def evidence(self) -> Evidence:
        return Evidence(
            books=[self.book],
            views={"user": self.views},
            balances={"user": self.balance},
            rows=self.rows,
            keys=self.keys,
            posts=self.posts,
            windows_over_budget=self.windows_over_budget,
            ledger_violations=self.ledger_violations,
        )

    def broken_claims(self) -> set[str]:
        return {check.claim for check in checks_of(self.evidence) if check.violations}


def lose_the_job(case: Case) -> None:
    del case.rows["made"], case.views["made"]
    case.balance = 100


def answer_another_job(case: Case) -> None:
    case.book.orders[0].job_ids, case.book.orders[1].job_ids = {"refused"}, {"made"}


def hide_from_the_list(case: Case) -> None:
    del case.views["refused"]


def leave_unfinished(case: Case) -> None:
    case.change("refused", status="IN_PROGRESS", refunded_tokens=0)


def make_two_jobs(case: Case) -> None:
    case.rows["second"] = replace(case.rows["made"], id="second")


def answer_two_jobs(case: Case) -> None:
    case.book.orders[0].job_ids.add("refused")


def forget_the_key(case: Case) -> None:
    del case.keys["key-made"]


def make_a_job_of_nothing(case: Case) -> None:
    case.change("made", prompt="nobody wrote this")


def submit_twice(case: Case) -> None:
    case.posts.append(replace(case.posts[0], request_id="fal-again", attempt_token="token-again"))


def submit_with_one_token(case: Case) -> None:
    case.posts[1] = replace(case.posts[1], attempt_token=case.posts[0].attempt_token)


def end_wrongly(case: Case) -> None:
    case.change("made", status="CANCELED", refunded_tokens=5, has_result=False)


def charge_the_refused(case: Case) -> None:
    case.change("refused", refunded_tokens=0)


def charge_too_little(case: Case) -> None:
    case.change("made", refunded_tokens=4)


def give_result_and_refund(case: Case) -> None:
    case.views["made"]["billing"] = {"charged_tokens": 0}


def charge_without_result(case: Case) -> None:
    case.views["made"]["result"] = None


def differ_from_the_database(case: Case) -> None:
    case.views["refused"]["status"] = "CANCELED"


def deliver_a_foreign_result(case: Case) -> None:
    case.views["made"]["fal_request_id"] = "fal-refused"


def show_foreign_pictures(case: Case) -> None:
    case.views["made"]["result"] = {"images": [{"url": "http://fal/fal-refused-1.png"}]}


def show_no_picture(case: Case) -> None:
    case.views["made"]["result"] = {"images": []}


def change_its_mind(case: Case) -> None:
    case.book.orders[0].final_statuses_seen.add("FAILED")


def refund_what_was_delivered(case: Case) -> None:
    case.change("made", status="FAILED", error_code="submit_unknown", refunded_tokens=5, has_result=False)


def lose_a_token(case: Case) -> None:
    case.balance -= 1


def mint_a_token(case: Case) -> None:
    case.balance += 1


def accept_what_was_refused(case: Case) -> None:
    case.book.orders[0].is_over_budget = True
    case.book.orders[0].job_ids.clear()


def overspend_a_window(case: Case) -> None:
    case.windows_over_budget.append("2026-11-01 of some key")


def spend_more_than_the_budget(case: Case) -> None:
    case.book.budget_tokens = 4


def break_the_ledger(case: Case) -> None:
    case.ledger_violations.append("balance is the sum of its entries: user")


BREAKS: dict[Callable[[Case], None], str] = {
    lose_the_job: "every 202 is a job",
    answer_another_job: "every 202 is a job",
    hide_from_the_list: "every 202 is a job",
    leave_unfinished: "every job is final",
    make_two_jobs: "an order is at most one job, with a key exactly one",
    answer_two_jobs: "an order is at most one job, with a key exactly one",
    forget_the_key: "an order is at most one job, with a key exactly one",
    make_a_job_of_nothing: "an order is at most one job, with a key exactly one",
    submit_twice: "a job is submitted once",
    submit_with_one_token: "a job is submitted once",
    end_wrongly: "a job ends as it was asked to",
    charge_the_refused: "a job is charged for what it delivered",
    charge_too_little: "a job is charged for what it delivered",
    give_result_and_refund: "a result or the whole refund, never both",
    charge_without_result: "a result or the whole refund, never both",
    differ_from_the_database: "a result or the whole refund, never both",
    deliver_a_foreign_result: "a result is the job's own",
    show_foreign_pictures: "a result is the job's own",
    show_no_picture: "a result is the job's own",
    change_its_mind: "a final job never changes",
    refund_what_was_delivered: "nothing that fal delivered is refunded",
    lose_a_token: "balance = top-ups - charges, by each caller's own book",
    mint_a_token: "balance = top-ups - charges, by each caller's own book",
    accept_what_was_refused: "an order is at most one job, with a key exactly one",
    overspend_a_window: "no budget is exceeded",
    spend_more_than_the_budget: "no budget is exceeded",
    break_the_ledger: "the ledger has no violation",
}


def test_a_right_story_breaks_no_claim() -> None:
    assert Case().broken_claims() == set()


@pytest.mark.parametrize(("spoil", "claim"), BREAKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_book_is_noticed(spoil: Callable[[Case], None], claim: str) -> None:
    case = Case()

    spoil(case)

    assert claim in case.broken_claims()


def test_every_claim_can_be_broken() -> None:
    checks = checks_of(Case().evidence)

    assert {check.claim for check in checks} == set(BREAKS.values())
    assert all(check.holds for check in checks)


@pytest.mark.parametrize("error_code", ["timed_out", "submit_unknown"])
def test_only_a_run_that_nobody_told_of_may_be_given_up(error_code: str) -> None:
    case = Case()
    case.add("silent", Wish("[submit:drop] [webhook:never]", {"FAILED": 0, "COMPLETED": 1}), "FAILED")
    case.change("silent", error_code=error_code)
    case.posts[-1] = replace(case.posts[-1], has_succeeded=True)

    claims = case.broken_claims()

    assert ("nothing that fal delivered is refunded" in claims) == (error_code == "timed_out")


@pytest.mark.parametrize("is_told", [True, False])
def test_only_a_job_that_its_caller_was_not_told_of_may_run_into_its_time_limit(is_told: bool) -> None:
    case = Case()
    case.add("stuck", Wish("[stuck]", {"CANCELED": 0}, is_canceled=True), "FAILED")
    case.change("stuck", error_code="timed_out")
    if not is_told:
        case.book.orders[-1].job_ids.clear()

    assert ("a job ends as it was asked to" in case.broken_claims()) == is_told


@pytest.mark.parametrize("deleted_at", ["2026-11-30T02:00:00Z", None])
def test_only_a_job_whose_files_are_deleted_may_show_no_url(deleted_at: str | None) -> None:
    case = Case()
    case.views["made"]["result"] = {"images": []}
    case.views["made"]["outputs"] = [{"deleted_at": deleted_at}]

    assert ("a result is the job's own" in case.broken_claims()) == (deleted_at is None)
