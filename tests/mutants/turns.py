"""Known ways to get fair turns and the places at fal wrong."""

from app.infrastructure.background import queries
from app.infrastructure.postgres import places, queue
from app.infrastructure.postgres.jobs import claiming, turns
from tests.mutants.changes import Change, Mutant, source_of

CLAIMING, PLACES, QUERIES, QUEUE, TURNS = map(source_of, (claiming, places, queries, queue, turns))
TEST_TURNS = "tests/integration/test_fair_turns.py"
TEST_PLACES = "tests/integration/test_places_at_fal.py"

TURN_MUTANTS = (
    Mutant(
        "whoever has waited longest is not next",
        (Change(QUEUE, "-source.c.fair_tag if step is SUBMIT_JOB", "source.c.fair_tag if step is SUBMIT_JOB"),),
        (f"{TEST_TURNS}::test_a_newcomer_goes_before_the_backlog_and_not_before_what_was_let_go",),
    ),
    Mutant(
        "whoever was away has saved turns up",
        (Change(TURNS, "func.greatest(fair_turns.c.next_tag, _VIRTUAL_TIME)", "fair_turns.c.next_tag"),),
        (f"{TEST_TURNS}::test_the_database_gives_the_tags_of_the_rule",),
    ),
    Mutant(
        "a newcomer goes to the end",
        (Change(CLAIMING, ', advanced_clock(claimed).cte("clock")', ""),),
        (f"{TEST_TURNS}::test_a_newcomer_goes_before_the_backlog_and_not_before_what_was_let_go",),
    ),
    Mutant(
        "each canceled job gives its turn back",
        (Change(TURNS, "        .where(_ends_at(fair_turns.c.next_tag, jobs, accounts.c.weight))\n", ""),),
        (f"{TEST_TURNS}::test_turns_in_front_of_jobs_that_wait_are_lost_with_their_jobs",),
    ),
    Mutant(
        "a job that had its turn gives it back",
        (Change(TURNS, ", jobs.c.attempts == constant(0))", ")"),),
        (f"{TEST_TURNS}::test_a_turn_that_was_used_is_not_given_back",),
    ),
    Mutant(
        "a job is claimed without a place",
        (Change(CLAIMING, "claim = _CLAIM_IN_PLACE if needs_place else _CLAIM", "claim = _CLAIM"),),
        (f"{TEST_PLACES}::test_a_place_that_was_given_and_not_claimed_comes_free",),
    ),
    Mutant(
        "a place that is held is given back",
        (Change(PLACES, ", places.c.claimed_at.is_(None)).values(_FREE)", ").values(_FREE)"),),
        (f"{TEST_PLACES}::test_a_place_that_was_given_and_not_claimed_comes_free",),
    ),
    Mutant(
        "items are taken beyond the free places",
        (Change(QUERIES, "query(batch_size=len(numbers))", "query(batch_size=len(numbers) + 1)"),),
        (f"{TEST_PLACES}::test_an_item_goes_with_a_place",),
    ),
    Mutant(
        "the item of a dead process waits for a second place",
        (Change(QUERIES, "rows += await self.places.retake(", "await self.places.retake("),),
        (f"{TEST_PLACES}::test_the_item_of_a_job_that_has_its_place_does_not_wait_for_another_one",),
    ),
    Mutant(
        "a lower bound does not count what is beyond it",
        (Change(PLACES, "places.c.number <= _PLACES_MAX - _BEYOND", "places.c.number <= _PLACES_MAX"),),
        (f"{TEST_PLACES}::test_a_lower_bound_lets_nobody_go_until_fewer_are_there",),
    ),
)
