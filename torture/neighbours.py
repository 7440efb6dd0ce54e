"""One account after the other does its worst; another account's picture takes at most twice its time beside it."""

import asyncio
import base64
import os
import statistics
import time
import uuid
from dataclasses import dataclass

from torture.callers import FINAL, START, Book, Callers, calling
from torture.evidence import ledger_violations
from torture.fleet import running_fleet
from torture.report import Check, Outcome, Plan

JOBS = 300
TOKENS = 1_000_000
ALONE = 5
AFTER_SECONDS = (0.0, 1.0, 5.0)
PICTURE_SECONDS_MAX = 120
LOOK_SECONDS = 0.05
# About as long as pictures take.
PICTURE = "[slow:3]"
# Bytes that do not pack.
PICTURE_BYTES = 12_000
PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
IMAGE_TO_IMAGE = "/generations/images/image-to-image"
SUBMIT_FAULTS = (
    *("500", "page-502", "503", "401", "402", "403", "429", "425", "408", "hang", "slow"),
    *("drop", "cut", "not-json", "redirect", "large:2", "without:request_id"),
)
STATUS_FAULTS = ("hang", "slow", "500", "401", "large:2")
# In turn for the jobs of the account.
WORDS: dict[str, tuple[str, ...]] = {
    **{f"submit {fault}": (f"[submit:{fault}]",) for fault in SUBMIT_FAULTS},
    "submit refused": ("[submit:422]",),
    "every other submit 500": ("", "[submit:500]"),
    "submits in turn": ("[submit:401]", "[submit:hang]", "[submit:500]", "[submit:429]"),
    **{f"status {fault}": (f"[slow:600] [status:{fault}]",) for fault in STATUS_FAULTS},
    **{f"result {fault}": (f"[result:{fault}]",) for fault in ("hang", "500", "not-json")},
    "cancel hang": ("[stuck] [cancel:hang]",),
    "large inputs, submit hang": ("[submit:hang]",),
}


async def neighbours(plan: Plan) -> Outcome:
    directory = plan.directory / "neighbours"
    directory.mkdir()
    began = time.monotonic()
    # One worker: what hangs in it has nowhere else to go.
    # Connections of their own: the neighbour must not wait in our pool behind what the account asks for.
    async with (
        running_fleet(directory, workers=1) as fleet,
        calling(fleet.url) as callers,
        calling(fleet.url) as others,
    ):
        neighbour = _Neighbour(others, await others.register(TOKENS))
        # The first one makes connections and plans.
        await neighbour.picture_seconds()
        alone = statistics.median([await neighbour.picture_seconds() for _ in range(ALONE)])
        beside = {name: await _beside(callers, neighbour, name, plan) for name in WORDS}
        violations = await ledger_violations(fleet.postgres.dsn)
    checks = [
        Check(
            "a picture beside them takes at most twice the time that it takes alone",
            len(beside) * len(AFTER_SECONDS),
            [f"{name}: {took:.1f} s, alone {alone:.1f} s" for name, took in beside.items() if took > 2 * alone],
        ),
        Check(
            "no other answer than what was asked for",
            callers.answers.total() + others.answers.total(),
            callers.not_served + others.not_served,
        ),
        Check("the books agree", 1, violations),
    ]
    slowest = max(beside, key=lambda name: beside[name])
    counts = {"accounts": len(beside), "seconds_alone": alone, "slowest": slowest, "seconds_slowest": beside[slowest]}
    return Outcome("neighbours", checks, counts, seconds=time.monotonic() - began)


async def _beside(callers: Callers, neighbour: "_Neighbour", name: str, plan: Plan) -> float:
    """How long the slowest of the neighbour's pictures takes that are asked for while the account is at work."""
    attacker = await callers.register(TOKENS)
    job_ids = await asyncio.gather(
        *(
            _start(callers, attacker, WORDS[name][number % len(WORDS[name])], is_large=name.startswith("large"))
            for number in range(plan.count(JOBS))
        )
    )
    cancels = []
    if name.startswith("cancel"):
        headers = attacker.headers
        cancels = [
            asyncio.create_task(
                callers.ask("POST", f"/generations/{job_id}/cancel", frozenset({200, 400}), headers=headers)
            )
            for job_id in job_ids
        ]
    took = await asyncio.gather(*map(neighbour.picture_seconds, AFTER_SECONDS))
    await asyncio.gather(*cancels)
    plan.console.print(f"{name}: {', '.join(f'{seconds:.1f}' for seconds in took)} s")
    return max(took)


async def _start(callers: Callers, book: Book, words: str, *, is_large: bool = False) -> str:
    # fal counts faults by prompt.
    body: dict[str, object] = {"prompt": f"{uuid.uuid4()} {words}"}
    if is_large:
        picture = base64.b64encode(PNG_BEGINS + os.urandom(PICTURE_BYTES)).decode()
        body["image_urls"] = [f"data:image/png;base64,{picture}"]
    path = IMAGE_TO_IMAGE if is_large else START
    answer = await callers.ask("POST", path, frozenset({202}), headers=book.headers, json=body)
    assert answer is not None, callers.not_served[-1:]
    return str(answer.body["job_id"])


@dataclass(frozen=True, slots=True)
class _Neighbour:
    callers: Callers
    book: Book

    async def picture_seconds(self, after_seconds: float = 0) -> float:
        await asyncio.sleep(after_seconds)
        began = time.monotonic()
        job_id = await _start(self.callers, self.book, PICTURE)
        path = f"/generations/{job_id}"
        async with asyncio.timeout(PICTURE_SECONDS_MAX):
            while True:
                answer = await self.callers.ask("GET", path, frozenset({200}), headers=self.book.headers)
                if answer is not None and answer.body["status"] in FINAL:
                    break
                await asyncio.sleep(LOOK_SECONDS)
        assert answer.body["status"] == "COMPLETED", answer.body
        return time.monotonic() - began
