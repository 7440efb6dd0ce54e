"""Known ways to get the protocol of a job wrong, as changes of the source, and the tests that must see them."""

from app.application.execution import evidence, follow, orphans, submit, sweep
from app.domain import models, pricing
from app.infrastructure.fal import verdicts
from app.infrastructure.postgres import database
from app.infrastructure.postgres.jobs import (
    acceptance,
    claiming,
    desk,
    execution,
    inputs,
    recording,
    rows,
    settling,
    states,
    writing_orders,
)
from tests.mutants.budgets import BUDGET_MUTANTS
from tests.mutants.changes import Change, Mutant, source_of
from tests.mutants.deliveries import DELIVERY_MUTANTS
from tests.mutants.events import EVENT_MUTANTS
from tests.mutants.keys import KEY_MUTANTS
from tests.mutants.media import MEDIA_MUTANTS
from tests.mutants.turns import TURN_MUTANTS
from tests.mutants.waits import WAIT_MUTANTS

SUBMIT, FOLLOW, SWEEP, DATABASE, DESK, EXECUTION, SETTLING = map(
    source_of, (submit, follow, sweep, database, desk, execution, settling)
)
ORPHANS, VERDICTS, RECORDING, STATES = map(source_of, (orphans, verdicts, recording, states))
ACCEPTANCE, CLAIMING, INPUTS, ROWS, WRITING = map(source_of, (acceptance, claiming, inputs, rows, writing_orders))
EVIDENCE, MODELS, PRICING = map(source_of, (evidence, models, pricing))
REVERSALS = "app/infrastructure/postgres/reversals.py"
TAKEN_BACK = "alembic/versions/0014_tokens_taken_back.py"
TEST_JOBS = "tests/integration/test_jobs.py"
TEST_STEPS = "tests/integration/test_execution_steps.py"
TEST_LINES = "tests/integration/test_lines.py"
TEST_TERMS = "tests/integration/test_terms.py"
TEST_LOST = "tests/integration/test_lost_submissions.py"
TEST_ATTEMPTS = "tests/integration/test_attempts.py"
TEST_REVERSALS = "tests/integration/test_reversals.py"
TEST_KILLS = "tests/fault/test_kill_points.py::test_what_dies_at_a_point_loses_nothing"


NO_COMPARE_AND_SET = Change(
    SETTLING,
    "        IS_UNFINISHED,\n",
    "",
)
CANCEL_AT_ONCE = Change(DESK, "            if job.status == JobStatus.QUEUED:\n", "            if job.status:\n")
# As `acceptance` has them, and what would come before the lock.
LOCK = "    purses = await locked_purses(driver.fetch, orders if is_repeated else paying, limits)\n"
LARGE = "    large = list({order.job.account_id for order in paying if order.input_bytes is not None})\n"
RECENT = "    recent = await recent_large_inputs(driver, large) if large else {}\n"
# The last that a claim does before its commit. The first claim of a step may not be large, one after the POST may be.
FOUND_LARGE = "        rows = await _REFUSED(driver.fetch, job_ids=refused) if refused else []\n"
ROLLBACK_FIRST = (
    "        if not any(request.may_be_large for request in requests):\n"
    '            await driver.execute("ROLLBACK; BEGIN")\n'
)

MUTANTS = (
    Mutant(
        "no compare-and-set",
        (NO_COMPARE_AND_SET,),
        (f"{TEST_JOBS}::test_one_of_40_racing_finishers_wins", "tests/fault/test_races.py"),
    ),
    Mutant(
        "a look overwrites a final status",
        (
            Change(
                EXECUTION,
                ".where(jobs.c.id == job_id, IS_UNFINISHED, jobs.c.fal_request_id.is_not(None))",
                ".where(jobs.c.id == job_id, jobs.c.fal_request_id.is_not(None))",
            ),
        ),
        (f"{TEST_JOBS}::test_a_late_look_changes_nothing",),
    ),
    Mutant(
        "a cancel refunds at once, without compare-and-set",
        (
            NO_COMPARE_AND_SET,
            CANCEL_AT_ONCE,
            Change(DESK, "            if job.is_final:\n                raise JobFinished\n", ""),
        ),
        (
            f"{TEST_JOBS}::test_refunds_once_when_8_cancels_meet",
            f"{TEST_JOBS}::test_does_not_cancel_what_is_finished",
            f"{TEST_JOBS}::test_a_cancel_of_what_may_run_only_notes_the_wish",
        ),
    ),
    Mutant(
        "a cancel refunds at once, with compare-and-set",
        (CANCEL_AT_ONCE,),
        (
            f"{TEST_JOBS}::test_a_cancel_of_what_may_run_only_notes_the_wish",
            f"{TEST_STEPS}::test_a_cancel_while_the_post_runs_is_sent_to_fal_and_refunded_once_fal_confirms",
        ),
    ),
    Mutant(
        "a failed look refunds, without compare-and-set",
        (
            NO_COMPARE_AND_SET,
            Change(
                FOLLOW,
                "await self._wait_or_give_up(state, state.status, is_answered=False)\n",
                'await settle(self.jobs, state, given_up(state, "unanswered", "fal did not answer."))\n',
            ),
        ),
        (f"{TEST_STEPS}::test_a_failed_look_changes_nothing",),
    ),
    Mutant(
        "an ambiguous submission is posted again",
        (
            Change(
                SUBMIT,
                "            await self._record_unknown(job_id, attempt_token, str(error), self",
                "            await self._release(\n"
                "                job_id, attempt_token, claim, NotSubmitted(str(error)), self",
            ),
        ),
        (f"{TEST_STEPS}::test_an_unknown_outcome_is_never_posted_again_and_refunded_after_its_time_limit_only",),
    ),
    Mutant(
        "no sweep",
        (Change(SWEEP, "        requeued = await self.steps.requeue_lost()\n", "        requeued = {}\n"),),
        (f"{TEST_KILLS}[requeue_lost.before_commit]",),
    ),
    Mutant(
        "a lost claim is never noticed",
        (
            Change(
                SUBMIT,
                "        if state is None or state.status is not JobStatus.SUBMITTING or state.is_submit_unknown:\n",
                "        if state is None or state.id == job_id:\n",
            ),
        ),
        (f"{TEST_STEPS}::test_a_claim_of_a_process_that_is_gone_becomes_unknown_after_the_lease",),
    ),
    Mutant(
        "the POST comes before the claim is committed",
        (
            Change(CLAIMING, FOUND_LARGE, f"{FOUND_LARGE}{ROLLBACK_FIRST}"),
            Change(
                SUBMIT,
                '            reach("submit.after_post")\n',
                '            reach("submit.after_post")\n            await self.jobs.claim(job_id, attempt_token)\n',
            ),
        ),
        (
            f"{TEST_STEPS}::test_two_workers_with_the_same_job_post_it_once",
            f"{TEST_KILLS}[submit.after_post an event adopts it]",
            f"{TEST_KILLS}[submit.before_post]",
        ),
    ),
    Mutant(
        "an event is heard for the newest attempt alone",
        (Change(STATES, "    if others:\n", "    if others and not tokens:\n"),),
        (
            f"{TEST_ATTEMPTS}::test_an_earlier_attempt_that_delivers_wins_while_the_newer_post_is_under_way",
            f"{TEST_ATTEMPTS}::test_a_failure_of_an_earlier_attempt_is_only_noted",
        ),
    ),
    Mutant(
        "the failure of an earlier attempt ends the job",
        (
            Change(
                ORPHANS,
                "    if outcome is None or outcome.result is None or state.status.is_final:\n",
                "    if outcome is None or state.status.is_final:\n",
            ),
        ),
        (f"{TEST_ATTEMPTS}::test_a_failure_of_an_earlier_attempt_is_only_noted",),
    ),
    Mutant(
        "an answer that comes too late leaves no orphan",
        (Change(RECORDING, "    .where(_NOTED.c.is_orphan)\n", "    .where(~_NOTED.c.is_orphan)\n"),),
        (f"{TEST_ATTEMPTS}::test_an_earlier_attempt_that_delivers_wins_while_the_newer_post_is_under_way",),
    ),
    Mutant(
        "an orphan is not told to stop",
        (Change(ORPHANS, "            if not orphan.is_cancel_sent:\n", "            if orphan.is_cancel_sent:\n"),),
        (f"{TEST_ATTEMPTS}::test_an_earlier_attempt_that_delivers_wins_over_the_run_that_is_followed",),
    ),
    Mutant(
        "a page with the id of the request is a verdict",
        (
            Change(
                VERDICTS,
                "    if failure.status < 400 or not failure.has_words_of_fal:\n",
                "    if failure.status < 400 or not (failure.has_words_of_fal or failure.has_header_of_fal):\n",
            ),
        ),
        ("tests/unit/test_fal_verdicts.py::test_takes_no_verdict_from_trouble_on_the_way",),
    ),
    Mutant(
        "a commit that failed is taken for a good one",
        (Change(DATABASE, "                raise\n            _tell", "            _tell"),),
        ("tests/fault/test_commits.py::test_what_fails_at_its_commit_is_not_acknowledged[first key]",),
    ),
    Mutant(
        "a batch's commit that failed is taken for a good one",
        (
            Change(
                DATABASE,
                "        await own.commit()\n    except Exception as error:\n        if is_unavailable(error):\n"
                "            raise CommitUnknown from error\n        raise\n",
                "        await own.commit()\n    except Exception as error:\n        if is_unavailable(error):\n"
                "            raise CommitUnknown from error\n",
            ),
        ),
        ("tests/fault/test_commits.py::test_what_fails_at_its_commit_is_not_acknowledged[top-up]",),
    ),
    Mutant(
        "an order whose answer was lost is taken for refused",
        (Change(ACCEPTANCE, "    if is_one_statement and is_repeated:\n", "    if False:\n"),),
        ("tests/integration/test_acceptance.py::test_what_a_repeat_refuses_may_still_be_accepted_by_the_first_try",),
    ),
    Mutant(
        "a job of a restored backup is submitted",
        (Change(CLAIMING, "(_IS_QUEUED & jobs.c.held_at.is_(None))", "_IS_QUEUED"),),
        ("tests/integration/test_restores.py::test_another_identity_holds_what_waits_and_nothing_else",),
    ),
    Mutant(
        "what an account brings along is counted without a lock",
        (
            Change(ACCEPTANCE, f"{LOCK}{LARGE}", f"{LARGE}{RECENT}{LOCK}"),
            Change(
                ACCEPTANCE,
                "large_inputs=await recent_large_inputs(driver, large) if large else {},",
                "large_inputs=recent,",
            ),
        ),
        ("tests/integration/test_large_inputs.py::test_an_account_brings_along_so_much_and_no_more_whoever_asks",),
    ),
    Mutant(
        "a job is stored with the lines of another one",
        (Change(WRITING, "terms=[one.terms for one in storable]", "terms=[storable[0].terms for _ in storable]"),),
        (f"{TEST_LINES}::test_jobs_of_many_models_that_share_a_transaction_keep_their_own_lines[one price]",),
    ),
    Mutant(
        "the balance that is told is the one before the batch",
        (
            Change(
                "app/domain/orders.py",
                "            draw(draws, left)\n",
                "            draw({}, left)\n",
            ),
        ),
        (f"{TEST_LINES}::test_the_balances_that_racing_accepts_tell_are_those_of_the_ledger",),
    ),
    Mutant(
        "the lines that go back are not stored",
        (Change(SETTLING, "        refunded_lines=_ENDED.c.refunded_lines,\n", ""),),
        (
            f"{TEST_TERMS}::test_a_job_keeps_its_terms_and_says_which_lines_it_gave_back",
            f"{TEST_LINES}::test_of_many_processes_that_end_a_job_one_books_its_lines",
        ),
    ),
    Mutant(
        "a completed job gives everything back",
        (
            Change(
                SETTLING,
                "(_ENDED.c.status == constant(JobStatus.COMPLETED), _ENDED.c.refunded_tokens), else_",
                "(_ENDED.c.status != constant(JobStatus.COMPLETED), _ENDED.c.refunded_tokens), else_",
            ),
        ),
        (f"{TEST_LINES}::test_of_many_processes_that_end_a_job_one_books_its_lines",),
    ),
    Mutant(
        "a line gives back what was delivered",
        (
            Change(
                PRICING, "line.tokens - line.delivered(quantities).tokens for", "line.delivered(quantities).tokens for"
            ),
        ),
        (f"{TEST_LINES}::test_of_many_processes_that_end_a_job_one_books_its_lines",),
    ),
    Mutant(
        "a film of the release before is sent as it is stored",
        (Change(ROWS, "        and_(jobs.c.terms.is_(None), func", "        and_(jobs.c.terms.is_not(None), func"),),
        (f"{TEST_LINES}::test_sends_a_film_that_the_release_before_accepted_as_that_one_would",),
    ),
    Mutant(
        "every number is sent as a text",
        (Change(ROWS, "        and_(jobs.c.terms.is_(None), func", "        and_(constant(True), func"),),
        (f"{TEST_LINES}::test_what_a_model_has_as_a_number_stays_one",),
    ),
    Mutant(
        "terms of a newer form are read",
        (Change(ROWS, 'constant("form")).in_(constants(map(str, FORMS)))', 'constant("form")) != constant("")'),),
        ("tests/integration/test_newer_release.py",),
    ),
    Mutant(
        "a model without a seed gets one",
        (Change(ROWS, 'takes_seed=row["takes_seed"]', "takes_seed=True"),),
        (
            f"{TEST_LOST}::test_a_model_without_a_seed_is_sent_what_was_asked_for_and_found_by_it",
            f"{TEST_LINES}::test_marks_an_attempt_with_a_seed_only_where_that_changes_nothing_else",
        ),
    ),
    Mutant(
        "all images of a request get one seed",
        (
            Change(
                MODELS,
                "self._takes_seed and (not self.constraints or self.violated({**parameters, SEED: SEED_MAX}) is None)",
                "self._takes_seed",
            ),
        ),
        (f"{TEST_LINES}::test_marks_an_attempt_with_a_seed_only_where_that_changes_nothing_else",),
    ),
    Mutant(
        "a run of a model without a seed is taken although it may be somebody else's",
        (Change(EVIDENCE, "return not is_marked and", 'return "seed" in lost.input.parameters and'),),
        (f"{TEST_LOST}::test_no_run_of_a_model_without_a_seed_is_taken_that_may_be_somebody_elses",),
    ),
    Mutant(
        "the input of an unfinished job is forgotten",
        (Change(INPUTS, "    jobs.c.is_final & jobs.c.input_bytes", "    jobs.c.input_bytes"),),
        ("tests/integration/test_large_inputs.py::test_an_unfinished_job_keeps_what_it_was_given",),
    ),
    Mutant(
        "a credit forgets the reversals that came before it",
        (Change(TAKEN_BACK, "WHEN (NEW.kind = 'CREDIT') EXECUTE", "WHEN (NEW.kind = 'GRANT') EXECUTE"),),
        (
            f"{TEST_REVERSALS}::test_whatever_comes_first_the_end_is_the_same",
            "tests/property/test_reversal_sets.py",
        ),
    ),
    Mutant(
        "a credit does not wait for reversals that are under way",
        (Change(TAKEN_BACK, "    PERFORM lock_payment(NEW.source, NEW.event_id);\n", ""),),
        (f"{TEST_REVERSALS}::test_a_reversal_waits_for_a_credit_that_is_under_way",),
    ),
    Mutant(
        "reversals of one payment do not wait for each other",
        (
            Change(TAKEN_BACK, "    PERFORM FROM accounts WHERE id = credit.account_id FOR NO KEY UPDATE;\n", ""),
            Change(
                REVERSALS,
                '        await _LOCK_ACCOUNT(driver.fetch, id=found[0]["account_id"])\n',
                "        pass\n",
            ),
        ),
        (f"{TEST_REVERSALS}::test_an_event_waits_for_another_one_of_its_payment_that_is_under_way",),
    ),
    Mutant(
        "a withdrawn reversal stands",
        (Change(TAKEN_BACK, "SELECT withdraws FROM", "SELECT event_id FROM"),),
        (
            f"{TEST_REVERSALS}::test_whatever_comes_first_the_end_is_the_same",
            "tests/property/test_reversal_sets.py",
        ),
    ),
    Mutant(
        "more reversals are booked than was paid",
        (
            Change(
                TAKEN_BACK,
                "    change := least(credit.amount, standing_reversals(of_source, of_payment, '{}'))\n"
                "            - least(credit.amount, standing_reversals(of_source, of_payment, new_events));\n",
                "    change := standing_reversals(of_source, of_payment, '{}')\n"
                "            - standing_reversals(of_source, of_payment, new_events);\n",
            ),
        ),
        (
            f"{TEST_REVERSALS}::test_a_payment_is_taken_back_once_and_given_again",
            "tests/property/test_reversal_sets.py",
        ),
    ),
    Mutant(
        "a source reaches the payments of another one by reversals",
        (
            Change(
                TAKEN_BACK,
                "       AND payment_source IN (of_source, CASE of_source WHEN 'webhook' THEN 'idempotency-key' END)\n",
                "",
            ),
        ),
        (f"{TEST_REVERSALS}::test_a_source_reaches_its_own_payments_only",),
    ),
    Mutant(
        "a known id of a reversal is a repeat whatever it says",
        (Change(REVERSALS, "is_there = known == event or", "is_there = known is not None or"),),
        (
            f"{TEST_REVERSALS}::test_an_id_with_another_content_is_refused_and_changes_nothing",
            "tests/property/test_reversal_sets.py",
        ),
    ),
    Mutant(
        "a reversal waits for the account while it holds the name",
        (
            Change(
                REVERSALS,
                "        if await _ACCOUNT_OF_PAYMENT(driver.fetch, **_payment_of(event)):\n            return False\n",
                "",
            ),
        ),
        (f"{TEST_REVERSALS}::test_a_reversal_lets_the_name_go_before_it_waits_for_the_account",),
    ),
    Mutant(
        "a reversal looks for its payment before the lock alone",
        (
            Change(
                TAKEN_BACK,
                "        SELECT * INTO credit FROM credit_of_payment(of_source, of_payment);\n"
                "        IF NOT FOUND THEN\n",
                "        IF true THEN\n",
            ),
        ),
        (f"{TEST_REVERSALS}::test_a_statement_past_the_service_waits_for_a_credit_that_is_under_way",),
    ),
    Mutant(
        "an adjustment gives whatever its sign",
        (Change(TAKEN_BACK, "'ADJUSTMENT', NEW.amount, NEW.id", "'ADJUSTMENT', abs(NEW.amount), NEW.id"),),
        ("tests/integration/test_adjustments.py::test_gives_and_takes_also_to_below_zero",),
    ),
    *BUDGET_MUTANTS,
    *DELIVERY_MUTANTS,
    *EVENT_MUTANTS,
    *KEY_MUTANTS,
    *MEDIA_MUTANTS,
    *TURN_MUTANTS,
    *WAIT_MUTANTS,
)
