import random
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.application.execution.evidence import SEARCH_SECONDS, is_search_due, seconds_to_next_look, seed_of, with_seed
from app.domain.attempts import JobInput

EVERY_SECONDS = 10


def test_the_seed_of_a_token_never_changes() -> None:
    """What an older release has sent must be found by this one."""
    assert seed_of(UUID("0f8fad5b-d9cb-469f-a165-70867728950e")) == 1_725_598_518


@settings(deadline=None)
@given(st.uuids())
def test_a_seed_has_31_bits(attempt_token: UUID) -> None:
    assert 0 <= seed_of(attempt_token) < 2**31


def test_seeds_differ() -> None:
    assert len({seed_of(uuid4()) for _ in range(1000)}) > 990


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_keeps_the_users_own_seed(seed: int) -> None:
    parameters = {"prompt": "a boat", "seed": seed}

    assert with_seed(JobInput(parameters=parameters), uuid4()) == parameters


def test_adds_a_seed_and_leaves_what_was_given_alone() -> None:
    parameters, attempt_token = {"prompt": "a boat"}, uuid4()

    sent = with_seed(JobInput(parameters=parameters), attempt_token)

    assert sent == {"prompt": "a boat", "seed": seed_of(attempt_token)}
    assert parameters == {"prompt": "a boat"}


def test_sends_no_seed_to_a_model_that_has_none() -> None:
    parameters = {"prompt": "a boat"}

    assert with_seed(JobInput(parameters=parameters, takes_seed=False), uuid4()) == parameters


@settings(deadline=None)
@given(st.floats(0, 300), st.integers())
def test_searches_once_at_each_moment_although_the_looks_come_late(first_seconds: float, seed: int) -> None:
    late_seconds = random.Random(seed)
    looks = [first_seconds]
    while looks[-1] < 1.1 * max(SEARCH_SECONDS):
        looks.append(looks[-1] + seconds_to_next_look(looks[-1], EVERY_SECONDS) + late_seconds.uniform(0, 0.5))

    searches = [look for look in looks if is_search_due(look, EVERY_SECONDS)]

    assert all(later - earlier <= EVERY_SECONDS + 0.5 for earlier, later in pairwise(looks))
    moments = [max(moment for moment in SEARCH_SECONDS if moment <= search) for search in searches]
    assert moments == [moment for moment in SEARCH_SECONDS if first_seconds < moment + EVERY_SECONDS]
