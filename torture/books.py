"""The claims, held against three witnesses: the callers' own books, the database, and the simulator."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torture.callers import FINAL, Book, Order
from torture.report import Check


@dataclass(frozen=True, slots=True)
class Row:
    """A job as the database has it."""

    id: str
    user_id: str
    prompt: str
    status: str
    cost_tokens: int
    refunded_tokens: int
    has_result: bool
    error_code: str | None
    fal_request_id: str | None


@dataclass(frozen=True, slots=True)
class Post:
    """A submission that the simulator accepted."""

    request_id: str
    prompt: str
    attempt_token: str | None
    has_succeeded: bool
    is_canceled: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    books: Sequence[Book]
    views: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Per user, what the API says of each job."""

    balances: Mapping[str, int]
    """Per user, by the API."""

    rows: Mapping[str, Row]
    keys: Mapping[str, str]
    """Idempotency keys and the jobs they led to."""

    posts: Sequence[Post]
    windows_over_budget: Sequence[str]
    ledger_violations: Sequence[str]
    has_webhooks: bool = True
    """Whether fal knows where to call."""

    def orders(self) -> Iterator[tuple[Book, Order]]:
        for book in self.books:
            for order in book.orders:
                yield book, order


def checks_of(evidence: Evidence) -> list[Check]:
    return [
        _every_job_is_final(evidence),
        _no_accepted_job_is_lost(evidence),
        _one_job_for_each_order(evidence),
        _one_submission(evidence),
        _ends_are_right(evidence),
        _charges_are_right(evidence),
        _result_or_refund(evidence),
        _results_are_the_jobs_own(evidence),
        _final_stays_final(evidence),
        _lost_submissions_were_lost(evidence),
        _callers_books(evidence),
        _budgets_hold(evidence),
        Check("the ledger has no violation", len(evidence.rows), evidence.ledger_violations),
    ]


def _every_job_is_final(evidence: Evidence) -> Check:
    return Check(
        "every job is final",
        len(evidence.rows),
        [f"{row.id} is {row.status}: {row.prompt}" for row in evidence.rows.values() if row.status not in FINAL],
    )


def _no_accepted_job_is_lost(evidence: Evidence) -> Check:
    accepted = [(book, order, job_id) for book, order in evidence.orders() for job_id in order.job_ids]
    violations = []
    for book, order, job_id in accepted:
        row = evidence.rows.get(job_id)
        if row is None:
            violations.append(f"{job_id} was answered 202 and is gone: {order.prompt}")
        elif (row.user_id, row.prompt) != (book.user_id, order.prompt):
            violations.append(f"{job_id} was answered to {order.prompt} and is another job: {row.prompt}")
        elif job_id not in evidence.views[book.user_id]:
            violations.append(f"{job_id} is not listed to its user")
    return Check("every 202 is a job", len(accepted), violations)


def _one_job_for_each_order(evidence: Evidence) -> Check:
    jobs = defaultdict(list)
    for row in evidence.rows.values():
        jobs[row.prompt].append(row.id)
    violations = []
    for _, order in evidence.orders():
        found = jobs.pop(order.prompt, [])
        if len(found) > 1 or len(order.job_ids) > 1:
            violations.append(f"{order.prompt} made {found}, answers said {sorted(order.job_ids)}")
        elif order.key is not None and found != ([] if order.is_refused else [evidence.keys.get(order.key)]):
            violations.append(f"{order.prompt}: its key leads to {evidence.keys.get(order.key)}, its jobs are {found}")
    violations += [f"nobody asked for {prompt}: {found}" for prompt, found in jobs.items()]
    orders = sum(len(book.orders) for book in evidence.books)
    return Check("an order is at most one job, with a key exactly one", orders, violations)


def _one_submission(evidence: Evidence) -> Check:
    violations = []
    for name, found in (
        ("job", Counter(post.prompt for post in evidence.posts)),
        ("attempt", Counter(post.attempt_token for post in evidence.posts)),
    ):
        violations += [f"{count} submissions of the {name} {key}" for key, count in found.items() if count > 1]
    known = {row.prompt for row in evidence.rows.values()}
    violations += [f"no job, but submitted: {post.prompt}" for post in evidence.posts if post.prompt not in known]
    return Check("a job is submitted once", len(evidence.posts), violations)


def _ends_are_right(evidence: Evidence) -> Check:
    orders = {order.prompt: order for _, order in evidence.orders()}
    violations = []
    for row in evidence.rows.values():
        order = orders.get(row.prompt)
        # Whether a submission may have been lost is a claim of its own.
        if order is None or row.error_code == "submit_unknown" or row.status not in FINAL:
            continue
        # Nobody cancels a job that its caller was never told of. It ends at its time limit, if not before.
        is_forgotten = order.wish.is_canceled and not order.job_ids and row.error_code == "timed_out"
        if row.status not in order.wish.ends and not is_forgotten:
            violations.append(f"{row.id} {row.prompt} ended {row.status} {row.error_code}")
    return Check("a job ends as it was asked to", len(evidence.rows), violations)


def _charges_are_right(evidence: Evidence) -> Check:
    orders = {order.prompt: order for _, order in evidence.orders()}
    violations = []
    for row in evidence.rows.values():
        order = orders.get(row.prompt)
        if order is None or row.status not in FINAL:
            continue
        wish = order.wish
        expected = 0 if row.status != "COMPLETED" else wish.charge_tokens(row.status)
        if row.cost_tokens != wish.cost_tokens or row.cost_tokens - row.refunded_tokens != expected:
            violations.append(f"{row.id} {row.prompt}: {row.cost_tokens} - {row.refunded_tokens} is not {expected}")
    return Check("a job is charged for what it delivered", len(evidence.rows), violations)


def _result_or_refund(evidence: Evidence) -> Check:
    """Asked of the API and of the database: what the user sees and what is stored."""
    violations = []
    for jobs in evidence.views.values():
        for job_id, job in jobs.items():
            row, billing = evidence.rows.get(job_id), job["billing"] or {}
            has_result = job["result"] is not None
            is_charged = billing.get("charged_tokens", 0) > 0
            if has_result != is_charged:
                violations.append(f"{job_id}: a result: {has_result}, charged: {billing}")
            if row is not None and (row.has_result, row.status) != (has_result, job["status"]):
                violations.append(f"{job_id}: the API says {job['status']}, the database {row.status}")
    return Check("a result or the whole refund, never both", sum(map(len, evidence.views.values())), violations)


def _results_are_the_jobs_own(evidence: Evidence) -> Check:
    posts = {post.request_id: post for post in evidence.posts}
    violations = []
    completed = [
        (job_id, job) for jobs in evidence.views.values() for job_id, job in jobs.items() if job["result"] is not None
    ]
    for job_id, job in completed:
        post, row = posts.get(job["fal_request_id"] or ""), evidence.rows.get(job_id)
        urls = [image["url"] for image in job["result"].get("images", [])]
        if post is None or row is None or post.prompt != row.prompt or not post.has_succeeded:
            violations.append(f"{job_id} has a result that fal did not make for it: {post}")
        elif not _is_deleted(job) and (not urls or not all(post.request_id in url for url in urls)):
            violations.append(f"{job_id} shows pictures of another request: {urls}")
    return Check("a result is the job's own", len(completed), violations)


def _is_deleted(job: Mapping[str, Any]) -> bool:
    """Whether all its files are: its result has no URL then."""
    outputs = job.get("outputs", [])
    return bool(outputs) and all(output["deleted_at"] is not None for output in outputs)


def _final_stays_final(evidence: Evidence) -> Check:
    seen = [(order, job_id) for _, order in evidence.orders() if order.final_statuses_seen for job_id in order.job_ids]
    violations = []
    for order, job_id in seen:
        row = evidence.rows.get(job_id)
        if row is None or order.final_statuses_seen != {row.status}:
            violations.append(f"{job_id} was {sorted(order.final_statuses_seen)} and is {row and row.status}")
    return Check("a final job never changes", len(seen), violations)


def _lost_submissions_were_lost(evidence: Evidence) -> Check:
    """Refunded for want of evidence, while fal ran it and its webhook was sent: that evidence was thrown away."""
    posts = {post.prompt: post for post in evidence.posts}
    wishes = {order.prompt: order.wish for _, order in evidence.orders()}
    refunded = [row for row in evidence.rows.values() if row.status in ("FAILED", "CANCELED")]
    violations = []
    for row in refunded:
        post, wish = posts.get(row.prompt), wishes.get(row.prompt)
        if post is None or wish is None or not post.has_succeeded or post.is_canceled or "[nsfw]" in wish.words:
            continue
        if (evidence.has_webhooks and wish.is_webhook_usable) or row.error_code != "submit_unknown":
            violations.append(f"{row.id} {row.prompt} was refunded ({row.error_code}) and fal delivered")
    return Check("nothing that fal delivered is refunded", len(refunded), violations)


def _callers_books(evidence: Evidence) -> Check:
    violations = []
    for book in evidence.books:
        billings = [job["billing"] or {} for job in evidence.views[book.user_id].values()]
        charged = sum(billing.get("charged_tokens", 0) for billing in billings)
        expected, balance = book.topped_up_tokens - charged, evidence.balances[book.user_id]
        if balance != expected:
            violations.append(f"{book.user_id} has {balance}, but {book.topped_up_tokens} - {charged} = {expected}")
    return Check("balance = top-ups - charges, by each caller's own book", len(evidence.books), violations)


def _budgets_hold(evidence: Evidence) -> Check:
    violations = [f"{window} is overspent" for window in evidence.windows_over_budget]
    for book in evidence.books:
        billings = [job["billing"] or {} for job in evidence.views[book.user_id].values()]
        charged = sum(billing.get("charged_tokens", 0) for billing in billings)
        if book.budget_tokens is not None and charged > book.budget_tokens:
            violations.append(f"{book.user_id} spent {charged} of {book.budget_tokens}")
    return Check("no budget is exceeded", sum(book.budget_tokens is not None for book in evidence.books), violations)
