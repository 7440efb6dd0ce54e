"""A hundred requests at once on each account that can pay for ten."""

import asyncio
import time
from collections import Counter

from torture.callers import START, Book, Callers, calling
from torture.evidence import ledger_violations
from torture.fleet import running_fleet
from torture.report import Check, Outcome, Plan
from torture.wishes import PRICE_TOKENS

ACCOUNTS = 100
REQUESTS_EACH = 100
AFFORDABLE = 10


async def debits(plan: Plan) -> Outcome:
    directory = plan.directory / "debits"
    directory.mkdir()
    began = time.monotonic()
    # No worker: a refund would pay for an eleventh job.
    async with running_fleet(directory, workers=0) as fleet, calling(fleet.url, connections=REQUESTS_EACH) as callers:
        answers: list[Counter[int]] = []
        left: list[int] = []
        for _ in range(plan.count(ACCOUNTS)):
            book = await callers.register(AFFORDABLE * PRICE_TOKENS)
            answers.append(await _storm(callers, book))
            left.append(await callers.balance_tokens(book))
        checks = [
            Check("no other answer than 202 and 402", callers.answers.total(), callers.not_served),
            exactly_what_is_affordable(answers),
            Check("nothing is left", len(left), [f"{tokens} tokens are left" for tokens in left if tokens]),
            Check("the ledger has no violation", len(left), await ledger_violations(fleet.postgres.dsn)),
        ]
    total = sum(answers, Counter[int]())
    counts = {"accounts": len(answers), "requests": total.total(), "answers": {str(k): v for k, v in total.items()}}
    return Outcome("debits", checks, counts, seconds=time.monotonic() - began)


async def _storm(callers: Callers, book: Book) -> Counter[int]:
    """0 stands for a request that got no answer, or was asked to come back."""

    async def one(number: int) -> int:
        body = {"prompt": f"request {number}"}
        answer = await callers.ask("POST", START, frozenset({202, 402}), headers=book.headers, json=body)
        return 0 if answer is None else answer.status

    return Counter(await asyncio.gather(*(one(number) for number in range(REQUESTS_EACH))))


def exactly_what_is_affordable(answers: list[Counter[int]]) -> Check:
    expected = {202: AFFORDABLE, 402: REQUESTS_EACH - AFFORDABLE}
    violations = [f"account {number} got {dict(got)}" for number, got in enumerate(answers) if got != expected]
    return Check("each account gets exactly what it can pay for", sum(map(Counter.total, answers)), violations)
