import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from uuid import UUID, uuid4

import pytest

from app.application.execution.large_inputs import LARGE_INPUTS_MAX
from app.application.execution.limits import PROVIDER_CONNECTIONS_MAX
from app.application.execution.places import MOMENT_SECONDS, STUCK_SECONDS, Place, Places
from app.application.execution.steps import LOOKS, SUBMISSIONS
from tests.unit.clock import Clock

A, B = uuid4(), uuid4()
TOTALS = [LARGE_INPUTS_MAX, SUBMISSIONS.provider_calls_max, LOOKS.provider_calls_max]


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def take_all(places: Places, held: ExitStack, account_id: UUID | None) -> list[Place]:
    taken = []
    while (place := places.take(account_id)) is not None:
        taken.append(held.enter_context(place))
    return taken


@pytest.mark.parametrize("total", TOTALS)
def test_one_account_gets_two_thirds_and_leaves_the_rest(total: int, held: ExitStack) -> None:
    places = Places(total)
    taken = len(take_all(places, held, A))

    assert total * 0.6 <= taken <= total * 0.7
    assert len(take_all(places, held, B)) >= (total - taken) * 0.5
    assert places.take(uuid4()) is not None


@pytest.mark.parametrize("total", TOTALS)
def test_two_accounts_together_leave_a_place_for_another_one(total: int, held: ExitStack) -> None:
    places = Places(total)
    for account_id in (A, B):
        take_all(places, held, account_id)

    assert places.take(uuid4()) is not None


def test_a_single_place_can_be_had(held: ExitStack) -> None:
    assert len(take_all(Places(1), held, A)) == 1


def test_steps_of_unknown_accounts_may_all_be_of_one(held: ExitStack) -> None:
    places = Places(64)
    unknown = take_all(places, held, None)
    for place in unknown:
        place.belongs_to(A)

    assert len(unknown) == len(take_all(Places(64), held, A))
    assert places.take(A) is None
    assert places.take(None) is None
    assert places.take(B) is not None


def test_whatever_is_taken_comes_back() -> None:
    """In any order, and also by steps that fail."""
    places, rng = Places(64), Random(1)
    accounts = [uuid4() for _ in range(5)]
    taken: list[Place] = []
    for _ in range(5000):
        if taken and rng.random() < 0.5:
            place = taken.pop(rng.randrange(len(taken)))
            if rng.random() < 0.5:
                place.belongs_to(rng.choice(accounts))
            with pytest.raises(RuntimeError), place:
                raise RuntimeError
        elif (place := places.take(rng.choice([None, *accounts]))) is not None:  # type: ignore[assignment]
            taken.append(place)
    for place in taken:
        with place:
            pass

    assert not places._held


async def test_those_that_wait_get_the_places_that_come_free_in_turn() -> None:
    # A clock that stands still, because a busy machine may take longer than a moment for this.
    clock = Clock()
    places = Places(64, clock)
    with ExitStack() as held:
        ending = [places.take(A) for _ in range(2)]
        take_all(places, held, A)
        waiting = [asyncio.create_task(places.take_soon()) for _ in range(3)]
        await asyncio.sleep(0.01)
        are_done = [[task.done() for task in waiting]]
        for place in ending:
            assert place is not None
            with place:
                pass
            await asyncio.sleep(0.01)
            are_done.append([task.done() for task in waiting])
        clock.seconds += MOMENT_SECONDS
        last = await waiting[2]

    assert are_done == [[False, False, False], [True, False, False], [True, True, False]]
    assert last is None


async def test_does_not_wait_where_no_place_comes_free(held: ExitStack) -> None:
    """What hangs must not hold up those that could go on."""
    clock = Clock()
    places = Places(64, clock)
    take_all(places, held, A)
    clock.seconds += MOMENT_SECONDS

    for _ in range(3):
        # Others come and go.
        place = places.take(B)
        assert place is not None
        with place:
            pass
        taking = asyncio.create_task(places.take_soon())
        await asyncio.sleep(0)
        assert taking.done()
        assert taking.result() is None


def test_says_whose_places_do_not_come_free(held: ExitStack) -> None:
    clock = Clock()
    places = Places(64, clock)
    take_all(places, held, A)
    stays, comes_and_goes = places.take(B), places.take(B)
    assert stays is not None
    assert comes_and_goes is not None
    clock.seconds += STUCK_SECONDS
    with comes_and_goes:
        pass

    assert (places.are_stuck(A), places.are_stuck(B), places.are_stuck(uuid4())) == (True, False, False)


def test_no_step_needs_a_connection_more_than_there_are() -> None:
    """A cancel looks at its job too, outside of the lanes: it needs a place among the looks."""
    assert SUBMISSIONS.provider_calls_max + LOOKS.concurrent_steps_max <= PROVIDER_CONNECTIONS_MAX
