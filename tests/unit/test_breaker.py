from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from app.application.execution.breaker import (
    FAILED_ACCOUNTS_MAX,
    OWN_FAILURES_MAX,
    REFUSED_ACCOUNTS_MAX,
    UNREACHABLE_MAX,
    Breaker,
    Failure,
    Paused,
)
from app.application.execution.pauses import (
    KEPT_MAX,
    NEWCOMER_SECONDS_MIN,
    PAUSE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    QUIET_SECONDS,
)
from app.application.ports.provider import NotSubmitted, SubmitOutcomeUnknown
from app.domain.jobs import WaitingFor
from tests.unit.clock import Clock

MODEL, OTHER_MODEL = "model", "other model"
NO_CONNECTION = NotSubmitted("no connection", is_unreachable=True)
NO_ANSWER = SubmitOutcomeUnknown("no answer")
SLOW_DOWN = NotSubmitted("slow down")
REFUSED = NotSubmitted("the key is refused", is_operators_matter=True)


class Bench:
    """A breaker, and submissions that end as they are told to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.breaker = Breaker(self.clock)

    def wait_seconds(self, account_id: UUID, model_id: str = MODEL) -> float:
        """How long a submission has to wait. One that need not is given up before its POST."""
        try:
            with self.breaker.turn(account_id, model_id):
                return 0
        except Paused as paused:
            return paused.seconds

    def reason(self, account_id: UUID, model_id: str = MODEL) -> str:
        with pytest.raises(Paused) as paused, self.breaker.turn(account_id, model_id):
            pass
        return paused.value.reason

    def submit(self, account_id: UUID, end: Failure | None = None, model_id: str = MODEL) -> bool:
        """False: it had to wait."""
        try:
            with self.breaker.turn(account_id, model_id):
                if end is None:
                    self.breaker.record_success(account_id, model_id)
                else:
                    self.breaker.record_failure(account_id, model_id, end)
        except Paused:
            return False
        return True

    def fail_together(self, accounts: int, end: Failure, model_id: str = MODEL) -> list[UUID]:
        failed = [uuid4() for _ in range(accounts)]
        for account_id in failed:
            self.breaker.record_failure(account_id, model_id, end)
        return failed


@pytest.fixture
def bench() -> Bench:
    return Bench()


every_failure = pytest.mark.parametrize("failure", [NO_ANSWER, SLOW_DOWN, REFUSED], ids=str)
every_shared_pause = pytest.mark.parametrize(
    ("accounts", "failure"),
    [(UNREACHABLE_MAX, NO_CONNECTION), (FAILED_ACCOUNTS_MAX, NO_ANSWER), (REFUSED_ACCOUNTS_MAX, REFUSED)],
    ids=["unreachable", "unanswered", "refused"],
)


@every_failure
def test_what_one_account_sends_never_holds_up_another(bench: Bench, failure: Failure) -> None:
    attacker, posts = uuid4(), 0
    for _ in range(1000):
        posts += bench.submit(attacker, failure)
        assert bench.wait_seconds(uuid4()) == 0
        bench.clock.seconds += 1

    assert posts <= OWN_FAILURES_MAX + 3 + 1000 / PAUSE_SECONDS_MAX


@every_failure
def test_an_account_whose_submissions_fail_tries_once_in_a_pause_that_doubles(bench: Bench, failure: Failure) -> None:
    account_id = uuid4()
    tries = []
    for _ in range(4000):
        if bench.submit(account_id, failure):
            tries.append(bench.clock.seconds - 1000)
        bench.clock.seconds += 0.1

    at_once = 1 if failure is REFUSED else OWN_FAILURES_MAX
    pauses = [round(later - earlier) for earlier, later in pairwise(tries)]
    assert pauses[: at_once - 1] == [0] * (at_once - 1)
    assert pauses[at_once - 1 :] == [PAUSE_SECONDS_MIN, 20, 40, PAUSE_SECONDS_MAX] + [PAUSE_SECONDS_MAX] * (
        len(pauses) - at_once - 3
    )


def test_failures_of_an_account_that_also_succeeds_pause_nothing(bench: Bench) -> None:
    account_id = uuid4()

    submitted = [bench.submit(account_id, end) for _ in range(100) for end in (NO_ANSWER, NO_ANSWER, None)]

    assert all(submitted)
    assert bench.breaker.is_calm


def test_an_account_goes_on_when_its_try_succeeds(bench: Bench) -> None:
    account_id = uuid4()
    bench.submit(account_id, REFUSED)
    bench.clock.seconds += PAUSE_SECONDS_MIN

    assert bench.submit(account_id)
    assert [bench.submit(account_id) for _ in range(3)] == [True] * 3
    assert bench.breaker.is_calm


def test_everything_pauses_if_fal_cannot_be_reached_whoever_tries(bench: Bench) -> None:
    account_id = uuid4()
    tried = [bench.submit(account_id, NO_CONNECTION) for _ in range(UNREACHABLE_MAX + 3)]

    assert tried == [True] * UNREACHABLE_MAX + [False] * 3
    assert bench.reason(uuid4()) == "no connection"
    # No input can be the reason, so nobody waits longer than the others.
    assert bench.wait_seconds(account_id) == bench.wait_seconds(uuid4()) == NEWCOMER_SECONDS_MIN


@pytest.mark.parametrize("answer", ["submission", "look"])
def test_an_answer_in_between_tells_that_fal_can_be_reached(bench: Bench, answer: str) -> None:
    for _ in range(10):
        bench.fail_together(UNREACHABLE_MAX - 1, NO_CONNECTION)
        if answer == "look":
            bench.breaker.record_answer()
        else:
            bench.submit(uuid4())

    assert bench.breaker.is_calm


def test_a_look_that_is_answered_ends_the_pause_of_an_unreachable_fal_alone(bench: Bench) -> None:
    bench.fail_together(UNREACHABLE_MAX, NO_CONNECTION)
    bench.breaker.record_answer()
    assert bench.breaker.is_calm

    bench.fail_together(FAILED_ACCOUNTS_MAX, NO_ANSWER)
    bench.breaker.record_answer()
    assert not bench.breaker.is_calm


def test_everything_pauses_if_several_accounts_fail_and_none_succeeds(bench: Bench) -> None:
    bench.fail_together(FAILED_ACCOUNTS_MAX - 1, NO_ANSWER)
    bench.submit(uuid4())
    bench.fail_together(FAILED_ACCOUNTS_MAX - 1, SLOW_DOWN)
    assert bench.wait_seconds(uuid4()) == 0

    bench.fail_together(1, NO_ANSWER)

    assert bench.reason(uuid4()) == "no answer"
    assert bench.wait_seconds(uuid4(), OTHER_MODEL) > 0


def test_a_refused_key_pauses_its_model_and_then_everything(bench: Bench) -> None:
    bench.fail_together(REFUSED_ACCOUNTS_MAX, REFUSED)
    assert bench.reason(uuid4()) == "the key is refused (submissions of this model pause)"
    assert bench.wait_seconds(uuid4(), OTHER_MODEL) == 0

    bench.fail_together(1, REFUSED, OTHER_MODEL)

    assert bench.reason(uuid4(), "a third model") == "the key is refused"


def test_a_model_that_is_refused_stays_refused_while_another_one_works(bench: Bench) -> None:
    for _ in range(REFUSED_ACCOUNTS_MAX):
        bench.submit(uuid4(), REFUSED)
        bench.submit(uuid4(), None, OTHER_MODEL)

    assert bench.wait_seconds(uuid4()) > 0
    assert bench.wait_seconds(uuid4(), OTHER_MODEL) == 0


@every_shared_pause
def test_a_newcomer_tries_soon_and_ends_the_pause(bench: Bench, accounts: int, failure: Failure) -> None:
    """Several accounts of one attacker must not hold up everybody."""
    bench.fail_together(accounts, failure)
    bench.clock.seconds += NEWCOMER_SECONDS_MIN

    assert bench.submit(uuid4())
    assert [bench.submit(uuid4()) for _ in range(3)] == [True] * 3


def test_accounts_that_fail_again_and_again_do_not_put_off_newcomers(bench: Bench) -> None:
    """Several accounts of one attacker, for hours, and somebody else now and then."""
    attackers = bench.fail_together(FAILED_ACCOUNTS_MAX, NO_ANSWER)
    for second in range(4000):
        bench.clock.seconds += 1
        for attacker in attackers:
            bench.submit(attacker, NO_ANSWER)
        if second > NEWCOMER_SECONDS_MIN:
            assert bench.wait_seconds(uuid4()) == 0


@every_shared_pause
def test_whose_try_is_under_way_leaves_the_next_ones_to_others(bench: Bench, accounts: int, failure: Failure) -> None:
    """Its tries may hang, and thousands of its jobs may wait for the next one."""
    bench.fail_together(accounts, failure)
    hanging, other = uuid4(), uuid4()
    bench.clock.seconds += NEWCOMER_SECONDS_MIN
    with bench.breaker.turn(hanging, MODEL):
        for _ in range(3):
            bench.clock.seconds += NEWCOMER_SECONDS_MIN
            # Its other jobs ask again soon: once the try succeeds, they may go.
            assert bench.wait_seconds(hanging) == NEWCOMER_SECONDS_MIN
            assert bench.wait_seconds(other) == 0
        bench.clock.seconds += PAUSE_SECONDS_MIN
        assert bench.wait_seconds(hanging) == NEWCOMER_SECONDS_MIN

        assert bench.submit(other)
        assert bench.wait_seconds(hanging) == 0


def test_accounts_that_pause_already_say_nothing_new(bench: Bench) -> None:
    """Others have succeeded since, and need not wait again because these still fail."""
    attackers = bench.fail_together(FAILED_ACCOUNTS_MAX + 3, REFUSED)
    bench.clock.seconds += PAUSE_SECONDS_MIN
    assert bench.submit(uuid4())
    for attacker in attackers:
        assert bench.submit(attacker, REFUSED)

    assert bench.wait_seconds(uuid4()) == 0


@every_shared_pause
def test_one_in_each_pause_tries_and_the_pause_doubles(bench: Bench, accounts: int, failure: Failure) -> None:
    """In ten minutes without fal it is asked as seldom as by a breaker that knows no accounts."""
    bench.fail_together(accounts, failure)
    tries = []
    for _ in range(6000):
        tries += [bench.clock.seconds - 1000 for _ in range(5) if bench.submit(uuid4(), failure)]
        bench.clock.seconds += 0.1

    assert [round(later - earlier) for earlier, later in pairwise(tries)] == (
        [2, 4, 8, 16, 32] + [PAUSE_SECONDS_MAX] * (len(tries) - 6)
    )
    assert len(tries) <= 6 + 600 / PAUSE_SECONDS_MAX


def test_accounts_that_failed_leave_the_first_tries_to_others(bench: Bench) -> None:
    failed = bench.fail_together(FAILED_ACCOUNTS_MAX, NO_ANSWER)
    for _ in range(8):
        newcomer = uuid4()
        assert bench.wait_seconds(failed[0]) >= max(PAUSE_SECONDS_MIN, 2 * bench.wait_seconds(newcomer))
        bench.clock.seconds += bench.wait_seconds(newcomer)
        assert bench.submit(newcomer, NO_ANSWER)


@pytest.mark.parametrize(
    ("accounts", "failure"), [(FAILED_ACCOUNTS_MAX, NO_ANSWER), (REFUSED_ACCOUNTS_MAX, REFUSED)], ids=str
)
def test_accounts_that_failed_end_the_pause_where_there_are_no_others(
    bench: Bench, accounts: int, failure: Failure
) -> None:
    failed = bench.fail_together(accounts, failure)
    for _ in range(20):
        bench.clock.seconds += bench.wait_seconds(failed[0])
        assert bench.wait_seconds(failed[0]) == 0
        bench.submit(failed[0], failure)
        assert bench.wait_seconds(failed[0]) <= 2 * PAUSE_SECONDS_MAX
    bench.clock.seconds += 2 * PAUSE_SECONDS_MAX

    assert bench.submit(failed[0])
    assert bench.wait_seconds(uuid4()) == 0


@every_shared_pause
def test_a_try_without_a_post_is_given_back(bench: Bench, accounts: int, failure: Failure) -> None:
    """Its job was canceled just before, or claimed by another process."""
    bench.fail_together(accounts, failure)
    bench.clock.seconds += NEWCOMER_SECONDS_MIN

    assert [bench.wait_seconds(uuid4()) for _ in range(5)] == [0] * 5
    with bench.breaker.turn(uuid4(), MODEL):
        assert bench.wait_seconds(uuid4()) == NEWCOMER_SECONDS_MIN


def test_a_failure_that_was_under_way_when_the_pause_began_does_not_make_it_longer(bench: Bench) -> None:
    bench.fail_together(FAILED_ACCOUNTS_MAX + 60, NO_ANSWER)

    assert bench.wait_seconds(uuid4()) == NEWCOMER_SECONDS_MIN


def test_what_all_share_is_forgotten_when_nothing_has_failed_for_long(bench: Bench) -> None:
    bench.fail_together(FAILED_ACCOUNTS_MAX, NO_ANSWER)
    bench.clock.seconds += QUIET_SECONDS + 1

    assert [bench.wait_seconds(uuid4()) for _ in range(3)] == [0] * 3
    assert bench.breaker.is_calm
    # So are failures that were too few.
    bench.fail_together(FAILED_ACCOUNTS_MAX - 1, NO_ANSWER)
    bench.clock.seconds += QUIET_SECONDS + 1
    bench.fail_together(1, NO_ANSWER)
    assert bench.wait_seconds(uuid4()) == 0


def test_tells_whether_the_accounts_own_submissions_pause(bench: Bench) -> None:
    failed = bench.fail_together(FAILED_ACCOUNTS_MAX, NO_ANSWER)
    for _ in range(OWN_FAILURES_MAX):
        bench.breaker.record_failure(failed[0], MODEL, NO_ANSWER)
    of_whom = {}
    for account_id in (failed[0], uuid4()):
        with pytest.raises(Paused) as paused, bench.breaker.turn(account_id, MODEL):
            pass
        of_whom[account_id] = paused.value.is_own

    assert list(of_whom.values()) == [True, False]


async def test_says_what_pauses_and_leaves_the_service_ready(bench: Bench) -> None:
    details = [(await bench.breaker.check()).detail]
    bench.submit(uuid4(), REFUSED)
    details.append((await bench.breaker.check()).detail)
    bench.fail_together(1, REFUSED)
    details.append((await bench.breaker.check()).detail)
    bench.fail_together(UNREACHABLE_MAX, NO_CONNECTION)
    details.append((await bench.breaker.check()).detail)

    assert (await bench.breaker.check()).ok
    assert details == [
        "submissions go on",
        "submissions go on; those of 1 account(s) pause, of the last one because: the key is refused",
        (
            "submissions go on; those of model pause: the key is refused; "
            "those of 2 account(s) pause, of the last one because: the key is refused"
        ),
        "submissions pause: no connection",
    ]


def test_forgets_accounts_and_models_that_nobody_asks_for(bench: Bench) -> None:
    bench.fail_together(REFUSED_ACCOUNTS_MAX, REFUSED)
    bench.clock.seconds += QUIET_SECONDS + 1

    assert bench.breaker.is_calm


def test_remembers_a_bounded_number_of_accounts(bench: Bench) -> None:
    bench.fail_together(KEPT_MAX + 500, REFUSED)

    assert len(bench.breaker._of_accounts) == len(bench.breaker._own_failures) == KEPT_MAX


@pytest.mark.parametrize(
    ("failure", "accounts", "of_whom", "waiting_for"),
    [
        (NO_ANSWER, 1, "its own", WaitingFor.YOUR_LIMIT),
        (NO_ANSWER, FAILED_ACCOUNTS_MAX, "another", WaitingFor.PROVIDER),
        (NO_ANSWER, FAILED_ACCOUNTS_MAX, "its own", WaitingFor.PROVIDER),
        (REFUSED, 1, "its own", WaitingFor.PROVIDER_LOCKED),
        (REFUSED, REFUSED_ACCOUNTS_MAX, "another", WaitingFor.PROVIDER_LOCKED),
    ],
    ids=str,
)
def test_what_pauses_is_what_is_waited_for(
    bench: Bench, failure: Failure, accounts: int, of_whom: str, waiting_for: WaitingFor
) -> None:
    failed = [uuid4() for _ in range(accounts)]
    for account_id in failed:
        for _ in range(OWN_FAILURES_MAX):
            bench.breaker.record_failure(account_id, MODEL, failure)

    with pytest.raises(Paused) as paused, bench.breaker.turn(failed[0] if of_whom == "its own" else uuid4(), MODEL):
        pass

    assert paused.value.waiting_for is waiting_for


def test_only_a_refused_key_locks_a_model_and_the_newest_reason_counts(bench: Bench) -> None:
    bench.fail_together(REFUSED_ACCOUNTS_MAX, REFUSED)
    assert bench.breaker.locked_models == bench.breaker.paused_models == [MODEL]

    bench.clock.seconds += PAUSE_SECONDS_MAX
    tries = uuid4()
    with bench.breaker.turn(tries, MODEL):
        bench.breaker.record_failure(tries, MODEL, REFUSED)
    assert bench.breaker.locked_models == [MODEL]

    bench.breaker.record_success(uuid4(), MODEL)
    assert bench.breaker.locked_models == []


def test_an_outage_locks_nothing(bench: Bench) -> None:
    bench.fail_together(FAILED_ACCOUNTS_MAX, NO_ANSWER)

    assert bench.breaker.paused_models != []
    assert bench.breaker.locked_models == []
