"""Deaths around a price of several lines: what is debited and what goes back stays the sum of its lines."""

from collections.abc import Callable
from typing import Any

from tests.fault.job_cases import POLLED, Act, Case, nothing, start
from tests.fault.world import BALANCE_TOKENS, Story, World

# 11 tokens for each image, and 2 for its search.
ASKED_FOR: dict[str, Any] = {"model": "fal-ai/nano-banana-2", "num_images": 3, "enable_web_search": True}
COST_TOKENS, CHARGED_TOKENS = 39, 13
ONE_OF_THREE = "[partial:1]"
ENTRIES = """
SELECT kind || ' ' || amount FROM ledger_entries AS entry JOIN accounts ON accounts.id = entry.account_id
 WHERE external_user_id = $1 AND job_id IS NOT NULL ORDER BY entry.id
"""


def at_fal(story: Story) -> None:
    story.start_and_reach("SUBMITTED", "IN_QUEUE", "IN_PROGRESS")


def partly_refunded(*words: str, before: Act = at_fal, act: Act = nothing) -> Callable[[World, str], None]:
    def run(world: World, armed: str) -> None:
        story = Story(world, " ".join([ONE_OF_THREE, *words]), asked_for=ASKED_FOR)
        before(story)
        world.process.arm(armed)
        act(story)
        world.die()
        world.run()
        story.start()
        story.until("COMPLETED refunded")
        check_bill(story)
        # Whoever comes late, or once more, changes nothing.
        world.stop()
        world.run()
        check_bill(story)

    return run


def check_bill(story: Story) -> None:
    job = story.world.http.get(f"/generations/{story.job_id}", headers=story.headers).raise_for_status().json()
    billing = job["billing"]
    assert (job["cost_tokens"], sum(line["tokens"] for line in job["price"])) == (COST_TOKENS, COST_TOKENS)
    assert (billing["charged_tokens"], billing["refunded_tokens"]) == (CHARGED_TOKENS, COST_TOKENS - CHARGED_TOKENS)
    assert [(line["charged_tokens"], line["refunded_tokens"]) for line in billing["lines"]] == [(11, 22), (2, 4)]
    entries = story.world.sql(ENTRIES, story.user_id)
    assert entries == [f"DEBIT {COST_TOKENS}", f"REFUND {COST_TOKENS - CHARGED_TOKENS}"]
    assert story.balance() == BALANCE_TOKENS - CHARGED_TOKENS
    assert len(story.requests()) == 1
    story.assert_nothing_is_left()


def case(point: str, note: str, run: Callable[[World, str], None]) -> Case:
    return Case(point, run, f"of several lines, {note}")


LINE_CASES = [
    *(
        case(f"accept.{half}_commit", "accepted", partly_refunded(before=nothing, act=start))
        for half in ("before", "after")
    ),
    *(
        case(f"settle.{half}_commit", note, partly_refunded(words))
        for half in ("before", "after")
        for note, words in (("a part that a look saw", f"{POLLED} [slow:1]"), ("a part that an event told", "[slow:1]"))
    ),
]
