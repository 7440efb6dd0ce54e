"""Mistakes about what jobs wait for, and for how long."""

from app.application import jobs as starting
from app.application.execution import breaker
from app.domain import waiting as windows
from app.infrastructure.postgres.jobs import waiting
from tests.mutants.changes import Change, Mutant, source_of

STARTING, BREAKER, WINDOWS, WAITING = map(source_of, (starting, breaker, windows, waiting))
TEST_WAITS = "tests/integration/test_waits.py"

WAIT_MUTANTS = (
    Mutant(
        "a job that may have been sent ends for its long wait",
        (
            Change(
                WAITING,
                "    .where(_IS_QUEUED, jobs.c.provider_waiting_since <=",
                "    .where(jobs.c.provider_waiting_since <=",
            ),
        ),
        (f"{TEST_WAITS}::test_what_may_have_been_sent_is_never_ended_so",),
    ),
    Mutant(
        "a wait for fal begins anew with each try",
        (
            Change(
                WAITING,
                "_SINCE = func.coalesce(jobs.c.provider_waiting_since, func.clock_timestamp())",
                "_SINCE = func.clock_timestamp()",
            ),
        ),
        (f"{TEST_WAITS}::test_the_time_counts_from_the_first_wait_for_fal_and_not_through_others",),
    ),
    Mutant(
        "a pause is forgotten while it lasts",
        (Change(WAITING, "            ~is_paused,\n", ""),),
        (f"{TEST_WAITS}::test_what_waits_for_its_turn_again_forgets_that_it_waited_for_fal",),
    ),
    Mutant(
        "the window of a run begins when one of twenty has ended",
        (Change(WINDOWS, "LOW, HIGH = 0.5, 0.9", "LOW, HIGH = 0.05, 0.9"),),
        ("tests/property/test_eta_windows.py",),
    ),
    Mutant(
        "the window of a wait begins when one of twenty has its turn",
        (Change(WINDOWS, "_HIGH_DEVIATIONS = 0.0, 1.2816", "_HIGH_DEVIATIONS = -1.645, 1.2816"),),
        ("tests/property/test_eta_windows.py",),
    ),
    Mutant(
        "the window of a wait ends when half have their turn",
        (Change(WINDOWS, "_HIGH_DEVIATIONS = 0.0, 1.2816", "_HIGH_DEVIATIONS = 0.0, 0.0"),),
        ("tests/property/test_eta_windows.py",),
    ),
    Mutant(
        "a repeat is refused with the new jobs",
        (Change(STARTING, "PriceExceedsMaximum, ProviderLocked):", "PriceExceedsMaximum):"),),
        ("tests/integration/test_waiting.py::test_a_repeat_is_answered_while_new_jobs_are_refused",),
    ),
    Mutant(
        "a refused key is an outage like any other",
        (Change(BREAKER, "Reason(str(failure), is_refusal)", "Reason(str(failure))"),),
        ("tests/unit/test_breaker.py::test_only_a_refused_key_locks_a_model_and_the_newest_reason_counts",),
    ),
)
