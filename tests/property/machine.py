"""Everything that users, the payment provider, fal, time and a dying process can do, in any order."""

import base64
from collections import Counter
from io import BytesIO
from typing import Any, ClassVar, TypeAlias
from uuid import UUID, uuid4

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from PIL import Image

from app.application.execution.steps import CANCEL_ORPHANS, FOLLOW_JOB, SUBMIT_JOB, Step
from app.domain.errors import AdjustmentConflict
from app.domain.ledger import Adjustment
from tests.property.model import FINAL, LATER, PATHS, PRICES, PUBLIC, WISHES, Account, JobModel, Payment, Wish
from tests.property.world import BALANCES, JOBS, VIOLATIONS, World

WEBHOOK_SECRET = "development-webhook-secret"
# Both name the payment.
TAKES = ("DEBIT", "REVERSAL")
PAYMENT_ID_HEADERS = ("X-Event-Id", "Idempotency-Key")
ACCOUNTS_MAX = 3
# Few, so that they are repeated, with the same content and with another one, and come before their payments.
REVERSALS = [f"reversal-{number}" for number in range(6)]
LAST_ROUNDS_MAX = 12
PICTURE_FILE = BytesIO()
Image.new("RGB", (400, 400)).save(PICTURE_FILE, "PNG")
PICTURE = "data:image/png;base64," + base64.b64encode(PICTURE_FILE.getvalue()).decode()

Wanted: TypeAlias = tuple[str, Wish, int]
wanted_jobs: st.SearchStrategy[Wanted] = st.tuples(
    st.sampled_from(list(PATHS)), st.sampled_from(WISHES), st.sampled_from((4, 3, 2, 1))
)


def body_of(kind: str, prompt: str, number: int) -> dict[str, Any]:
    size: dict[str, Any] = {"duration": 5 if number % 2 else 10} if "VIDEO" in kind else {"num_images": number}
    sources: dict[str, dict[str, Any]] = {
        "IMAGE_TO_IMAGE": {"image_urls": [PICTURE]},
        "IMAGE_TO_VIDEO": {"image_url": PICTURE},
    }
    return {"prompt": prompt, **size, **sources.get(kind, {})}


class TollgateMachine(RuleBasedStateMachine):
    world: ClassVar[World]
    # How often what happened, to see that a run went everywhere.
    seen: ClassVar[Counter[str]] = Counter()

    accounts = Bundle("accounts")
    jobs = Bundle("jobs")
    events = Bundle("events")

    def __init__(self) -> None:
        super().__init__()
        self.world.start_over()
        self.all_accounts: list[Account] = []
        self.all_jobs: dict[UUID, JobModel] = {}
        self.owners: dict[UUID, Account] = {}
        self.credited: dict[str, tuple[Account, int]] = {}
        self.payments: dict[str, Payment] = {}
        self.reversals: dict[str, dict[str, Any]] = {}
        self.prompts: set[str] = set()
        self.checks_made = 0

    # Accounts

    @initialize(target=accounts)
    def first_account(self) -> Account:
        account = self.new_account()
        self.issue_key(account, 201)
        self.pay(account, "event-0", 2000, 200)
        return account

    @precondition(lambda self: len(self.all_accounts) < ACCOUNTS_MAX)
    @rule(target=accounts, tokens=st.sampled_from([0, 7, 300]), is_paid_first=st.booleans())
    def new_user(self, tokens: int, is_paid_first: bool) -> Account:
        account = self.new_account()
        if tokens and is_paid_first:
            self.pay(account, f"event-{len(self.credited)}", tokens, 200)
        self.issue_key(account, 201)
        self.issue_key(account, 409)
        if tokens and not is_paid_first:
            self.pay(account, f"event-{len(self.credited)}", tokens, 200)
        return account

    @rule(account=accounts, witness=accounts, is_old=st.booleans())
    def rotate(self, account: Account, witness: Account, is_old: bool) -> None:
        """With the account's own key, with another account's, or with one that was replaced."""
        proof = witness.old_keys[-1] if is_old and witness.old_keys else witness.api_key
        is_proof = proof == account.api_key
        body = {"external_user_id": str(account.user_id), "rotate": True}
        answer = self.world.call("POST", "/auth", proof, json=body)
        assert answer.status_code == (201 if is_proof else 401), answer.text
        if is_proof:
            account.old_keys.append(account.api_key)
            account.api_key = answer.json()["api_key"]
        for key in account.old_keys:
            assert self.world.call("GET", "/balance", key).status_code == 401

    # Payments

    @rule(target=events, account=accounts, amount=st.sampled_from([1, 29, 60, 500]))
    def top_up(self, account: Account, amount: int) -> str:
        event_id = f"event-{len(self.credited)}"
        self.pay(account, event_id, amount, 200)
        return event_id

    @rule(event_id=events, account=accounts, more=st.integers(0, 1), header=st.sampled_from(PAYMENT_ID_HEADERS))
    def deliver_event_again(self, event_id: str, account: Account, more: int, header: str) -> None:
        known = self.credited[event_id]
        is_same = known == (account, known[1] + more)
        self.pay(account, event_id, known[1] + more, 200 if is_same else 409, header)

    @rule(
        number=st.integers(0, 4),
        name=st.sampled_from(REVERSALS),
        taken=st.sampled_from([1, 40, 700, *REVERSALS]),
    )
    def reverse(self, number: int, name: str, taken: int | str) -> None:
        """Of a payment that was credited, or will be; an amount, or the withdrawal of another event."""
        payment_id = f"event-{number}"
        body = {"payment_event_id": payment_id, "withdraws" if isinstance(taken, str) else "amount": taken}
        headers = {"X-Webhook-Secret": WEBHOOK_SECRET, "X-Event-Id": name}
        answer = self.world.call("POST", "/webhook/reversal", json=body, headers=headers)
        if self.reversals.setdefault(name, body) != body:
            assert (answer.status_code, answer.json()["code"]) == (409, "reversal_event_conflict")
            return
        payment = self.payments.setdefault(payment_id, Payment())
        before = payment.reversed
        if isinstance(taken, str):
            payment.withdrawn.add(taken)
        else:
            payment.reversals[name] = taken
        owner = self.credited.get(payment_id)
        if owner is not None:
            owner[0].reversal_entries += payment.reversed != before
        if owner is None or (isinstance(taken, str) and taken not in payment.reversals):
            assert (answer.status_code, answer.json()) == (202, {"ok": True, "pending": True})
        else:
            told = {"ok": True, "reversed_tokens": payment.reversed, "balance_tokens": owner[0].balance}
            assert (answer.status_code, answer.json()) == (200, told)
            self.seen["reversal that leaves a debt"] += owner[0].balance < 0

    @rule(account=accounts, name=st.sampled_from(["a", "b", "c"]), amount=st.sampled_from([-200, -3, 50]))
    def adjust(self, account: Account, name: str, amount: int) -> None:
        adjustment = Adjustment(id=name, external_user_id=account.user_id, amount=amount, reason="why", actor="who")
        known = {key: (one, tokens) for one in self.all_accounts for key, tokens in one.adjustments.items()}
        is_new = known.get(name, (account, amount)) == (account, amount)
        try:
            balance = self.world.run(self.world.adjustments.adjust(adjustment))
        except AdjustmentConflict:
            assert not is_new
            return
        assert is_new
        account.adjustments[name] = amount
        assert balance == account.balance

    # Generations

    @initialize(target=jobs, account=accounts, wanted=st.lists(wanted_jobs, min_size=4, max_size=4))
    def first_jobs(self, account: Account, wanted: list[Wanted]) -> Any:
        return multiple(*(job for want in wanted for job in self.start_one(account, *want, key=None)))

    @rule(
        target=jobs,
        account=accounts,
        wanted=st.lists(wanted_jobs, min_size=1, max_size=3),
        key=st.sampled_from([None, "a", "b"]),
    )
    def start(self, account: Account, wanted: list[Wanted], key: str | None) -> Any:
        """Keys are few, so that a key is often known: to this account with another body, or to another account."""
        return multiple(*(job for want in wanted for job in self.start_one(account, *want, key=key)))

    @rule(account=accounts, key=st.sampled_from(["a", "b"]))
    def repeat_start(self, account: Account, key: str) -> None:
        if key not in account.keys:
            return
        kind, body, job = account.keys[key]
        answer = self.post_generation(account, kind, body, key)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert UUID(answer.json()["job_id"]) == job.id

    @rule(job=jobs, stranger=st.none() | accounts)
    def look_at_job(self, job: JobModel, stranger: Account | None) -> None:
        account = stranger or self.owners[job.id]
        answer = self.world.call("GET", f"/generations/{job.id}", account.api_key)
        if account is not self.owners[job.id]:
            self.assert_unknown(account, answer)
            return
        assert answer.status_code == 200
        self.assert_shown(job, answer.json())

    @rule(account=accounts)
    def list_jobs_and_ledger(self, account: Account) -> None:
        shown = self.world.call("GET", "/generations?limit=100", account.api_key).json()["items"]
        assert [UUID(item["job_id"]) for item in shown] == [job.id for job in reversed(account.jobs)]
        for item in shown:
            self.assert_shown(self.all_jobs[UUID(item["job_id"])], item)
        entries = self.world.call("GET", "/ledger?limit=100", account.api_key).json()["items"]
        assert len(entries) == account.entry_count
        balance = 0
        for entry in reversed(entries):
            balance += -entry["amount"] if entry["kind"] in TAKES else entry["amount"]
            assert entry["balance_after"] == balance
        assert balance == account.balance

    @rule(job=jobs, stranger=st.none() | accounts)
    def cancel(self, job: JobModel, stranger: Account | None) -> None:
        account = stranger or self.owners[job.id]
        before = job.status
        self.seen[f"cancel of a job that is {before}"] += account is self.owners[job.id]
        if account is self.owners[job.id] and not job.is_final:
            job.is_cancel_wanted = True
        answer = self.world.call("POST", f"/generations/{job.id}/cancel", account.api_key)
        if account is not self.owners[job.id]:
            self.assert_unknown(account, answer)
        elif job.is_final:
            assert (answer.status_code, answer.json()["detail"]) == (400, "cannot cancel finished job")
        else:
            assert answer.status_code == 200, answer.text
            now = answer.json()["status"]
            assert now in {"CANCELING", *job.may_end}
            assert before != "QUEUED" or now == "CANCELED"

    # The runner, fal and time

    @rule(job=jobs, step=st.sampled_from((SUBMIT_JOB, FOLLOW_JOB, CANCEL_ORPHANS)))
    def run_step(self, job: JobModel, step: Step) -> None:
        self.world.run_step(step, job.id)

    @rule()
    def run_every_queue_item_once(self) -> None:
        for step, job_id in self.world.queue_items():
            self.world.run_step(step, job_id)

    @rule(job=jobs)
    def run_to_its_end(self, job: JobModel) -> None:
        """As far as fal lets it come."""
        self.world.run_step(SUBMIT_JOB, job.id)
        self.world.let_fal_work(11)
        self.world.run_step(FOLLOW_JOB, job.id)
        self.world.let_fal_work(11)
        for flaw in ("forged", "stale", "unknown"):
            self.fal_calls(job, job, flaw)
        self.world.run_step(FOLLOW_JOB, job.id)

    @rule(job=jobs, is_posted=st.booleans())
    def die_while_submitting(self, job: JobModel, is_posted: bool) -> None:
        is_lost = self.world.die_while_submitting(job.id, is_posted=is_posted) and not is_posted
        # Nobody can know that it was never sent, so it is never sent again. Only an earlier attempt may run.
        if is_lost and not self.requests_of(job):
            job.delivered = None

    @rule(seconds=st.sampled_from([11, 21]))
    def fal_works(self, seconds: int) -> None:
        self.world.let_fal_work(seconds)

    @rule(seconds=st.sampled_from([31, 121, 601, 3601]))
    def time_passes(self, seconds: int) -> None:
        self.world.let_time_pass(seconds)
        for job in self.all_jobs.values():
            job.age_seconds += seconds if job.status != "QUEUED" else 0

    @rule(
        job=jobs,
        other=jobs,
        flaw=st.sampled_from(["", "", "twice", "forged", "stale", "other", "unknown"]),
        is_of_newest=st.booleans(),
    )
    def fal_calls(self, job: JobModel, other: JobModel, flaw: str, is_of_newest: bool = True) -> None:
        row = self.world.rows(f"{JOBS} WHERE id = $1", job.id)[0]
        requests = self.requests_of(other if flaw == "other" else job)
        named = requests[0 if is_of_newest else -1] if requests else None
        event = None if named is None else self.world.event_of(named)
        if event is None or named is None or row["attempt_token"] is None:
            return
        token = row["attempt_token"] if flaw == "other" else self.world.token_of(job.id, named)
        assert token is not None
        self.seen["webhook of an earlier attempt"] += len(requests) > 1 and not is_of_newest
        if flaw == "other" and (other is job or row["fal_request_id"] is None):
            return
        self.seen[f"webhook {flaw or 'as it should be'} for a job that is {row['status']}"] += 1
        answer = self.world.deliver(
            uuid4() if flaw == "unknown" else token,
            named["request_id"],
            event,
            signed=b"{}" if flaw == "forged" else None,
            age_seconds=600 if flaw == "stale" else 0,
        )
        if flaw in ("", "twice"):
            assert answer.status_code == 200, answer.text
            if flaw == "twice":
                assert self.world.deliver(token, named["request_id"], event).status_code == 200
        else:
            assert answer.status_code == 401, answer.text
            assert self.world.rows(f"{JOBS} WHERE id = $1", job.id)[0] == row

    # What holds after every step

    @invariant()
    def everything_holds(self) -> None:
        self.seen["steps"] += 1
        self.jobs_moved_as_they_may()
        self.books_close()
        self.fal_ran_each_job_once_at_most()

    def jobs_moved_as_they_may(self) -> None:
        rows = {row["id"]: row for row in self.world.rows(JOBS)}
        assert rows.keys() == self.all_jobs.keys()
        for job in self.all_jobs.values():
            row = rows[job.id]
            if row["status"] != job.status:
                self.seen[f"{job.status} to {row['status']}"] += 1
                self.seen["partly refunded"] += 0 < row["refunded_tokens"] < row["cost_tokens"]
                assert row["status"] in LATER[job.status], f"{job}: {job.status} -> {row['status']}"
                assert row["status"] not in FINAL or row["status"] in job.may_end, (
                    f"{job}: ended {row['status']}, may end {set(job.may_end)}"
                )
            assert job.identity in ("", row["identity"]), f"{job}: what it is has changed"
            is_taken_over = job.runs_twice and row["status"] == "COMPLETED" != job.status
            self.seen["taken over by an earlier attempt"] += is_taken_over and job.request_id is not None
            assert is_taken_over or job.request_id in (None, row["fal_request_id"]), f"{job}: another request id"
            assert not job.is_final or job.ending == row["ending"], f"{job}: changed after its end"
            assert row["attempts"] >= job.attempts
            if row["status"] == "QUEUED" != job.status:
                job.age_seconds = 0
            job.status, job.identity, job.ending = row["status"], row["identity"], row["ending"]
            job.request_id, job.attempts = row["fal_request_id"], row["attempts"]
            assert row["cost_tokens"] - row["refunded_tokens"] == job.charged, f"{job}: charged otherwise"

    def books_close(self) -> None:
        assert self.world.rows(VIOLATIONS) == []
        balances = {row["external_user_id"]: row["balance_tokens"] for row in self.world.rows(BALANCES)}
        assert balances == {account.user_id: account.balance for account in self.all_accounts}
        # One account's turn at each step: a request costs more than all the rest of this.
        account = self.all_accounts[self.checks_made % len(self.all_accounts)]
        self.checks_made += 1
        answer = self.world.call("GET", "/balance", account.api_key)
        assert answer.json() == {"external_user_id": str(account.user_id), "balance_tokens": account.balance}

    def fal_ran_each_job_once_at_most(self) -> None:
        requests = self.world.fal_requests()
        paid = {job.prompt: job for job in self.all_jobs.values()}
        runs = Counter(request["input"]["prompt"] for request in requests)
        for prompt, count in runs.items():
            assert count <= 1 + paid[prompt].runs_twice, f"a job was posted too often: {prompt}"
        for request in requests:
            job = paid[request["input"]["prompt"]]
            assert job.runs_twice or job.request_id in (None, request["request_id"])
            if job.request_id == request["request_id"] and job.status in ("FAILED", "CANCELED"):
                assert request["state"] == "COMPLETED" or request["cancel_requested_at"], (
                    f"{job}: refunded while fal runs it and was never asked to stop"
                )

    def teardown(self) -> None:
        """Whatever happened: time brings every job to its end, and the books close."""
        self.seen["jobs"] += len(self.all_jobs)
        for _ in range(LAST_ROUNDS_MAX):
            if all(job.is_final for job in self.all_jobs.values()):
                break
            self.fal_works(21)
            self.run_every_queue_item_once()
            self.everything_holds()
            self.time_passes(3601)
            self.everything_holds()
        unfinished = [f"{job}: {job.status}" for job in self.all_jobs.values() if not job.is_final]
        assert not unfinished, f"jobs that never end: {unfinished}"
        for job in self.all_jobs.values():
            self.cancel(job, None)
            for step in (SUBMIT_JOB, FOLLOW_JOB, CANCEL_ORPHANS):
                self.world.run_step(step, job.id)
        # What is left in the queue changes nothing any more, and each item goes away.
        for step, job_id in self.world.queue_items():
            self.world.run_step(step, job_id)
        assert self.world.queue_items() == []
        self.everything_holds()
        for account in self.all_accounts:
            self.list_jobs_and_ledger(account)

    def requests_of(self, job: JobModel) -> list[dict[str, Any]]:
        """What fal runs for a job, the newest first."""
        return [request for request in self.world.fal_requests() if request["input"]["prompt"] == job.prompt]

    def new_account(self) -> Account:
        account = Account(f"account-{len(self.all_accounts)}", uuid4())
        self.all_accounts.append(account)
        return account

    def issue_key(self, account: Account, status: int) -> None:
        answer = self.world.call("POST", "/auth", json={"external_user_id": str(account.user_id)})
        assert answer.status_code == status, answer.text
        if status == 201:
            account.api_key = answer.json()["api_key"]

    def pay(
        self, account: Account, event_id: str, amount: int, status: int, header: str = PAYMENT_ID_HEADERS[0]
    ) -> None:
        body = {"external_user_id": str(account.user_id), "amount": amount}
        headers = {"X-Webhook-Secret": WEBHOOK_SECRET, header: event_id}
        answer = self.world.call("POST", "/webhook/topup", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        if status == 200 and event_id not in self.credited:
            self.credited[event_id] = (account, amount)
            payment = self.payments.setdefault(event_id, Payment())
            payment.amount = amount
            account.payments.append(payment)
            account.reversal_entries += payment.reversed > 0

    def post_generation(self, account: Account, kind: str, body: dict[str, Any], key: str | None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.world.call("POST", PATHS[kind], account.api_key, json=body, headers=headers)

    def start_one(self, account: Account, kind: str, wish: Wish, number: int, *, key: str | None) -> list[JobModel]:
        """The job, where there must be one."""
        prompt = f"{len(self.prompts)} {wish.words}"
        self.prompts.add(prompt)
        body = body_of(kind, prompt, number)
        price, outputs = PRICES[kind, body.get("duration")], body.get("num_images", 1)
        balance = account.balance
        answer = self.post_generation(account, kind, body, key)
        if key in account.keys:
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        elif price * outputs > balance:
            assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_balance")
        else:
            assert answer.status_code == 202, answer.text
            assert answer.json()["cost_tokens"] == price * outputs
            delivered = None if wish.delivered is None else wish.delivered[outputs]
            job = JobModel(
                UUID(answer.json()["job_id"]), kind, prompt, outputs, price, delivered, runs_twice=wish.runs_twice
            )
            assert job.id not in self.all_jobs
            account.jobs.append(job)
            self.all_jobs[job.id], self.owners[job.id] = job, account
            if key is not None:
                account.keys[key] = (kind, body, job)
            return [job]
        self.seen[f"start answered {answer.status_code}"] += 1
        return []

    def assert_unknown(self, account: Account, answer: httpx.Response) -> None:
        """Another tenant's job looks like one that does not exist."""
        unknown = self.world.call("GET", f"/generations/{uuid4()}", account.api_key)
        assert answer.status_code == unknown.status_code == 404
        assert answer.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}

    def assert_shown(self, job: JobModel, shown: dict[str, Any]) -> None:
        status = PUBLIC.get(job.status, job.status)
        assert shown["status"] == ("CANCELING" if job.is_cancel_wanted and not job.is_final else status)
        assert shown["cost_tokens"] == job.cost
        assert (shown["result"] is not None) == (job.status == "COMPLETED")
        assert (shown["billing"] or {}).get("charged_tokens") == (job.charged if job.is_final else None)
