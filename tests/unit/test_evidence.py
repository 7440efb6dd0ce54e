import base64
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.application.execution.evidence import (
    SEARCH_SECONDS,
    SearchHistory,
    is_search_due,
    seconds_to_next_look,
    seed_of,
    with_seed,
)
from app.application.ports.evidence import LostSubmission, Name
from app.application.ports.execution import JobState
from app.domain.attempts import JobInput
from app.domain.given_media import without_media

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


GIVEN = {"prompt": "a boat", "image_url": f"data:image/png;base64,{base64.b64encode(bytes(5_000)).decode()}"}
TOKEN = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
MARKED = {**GIVEN, "seed": seed_of(TOKEN)}


def whole_digest(sent: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(sent).encode()).digest()


def digest(sent: Mapping[str, Any]) -> bytes:
    return whole_digest(without_media(sent))


@dataclass
class Lost:
    """One lost submission, and a history that has nothing."""

    submission: LostSubmission
    searched: list[Mapping[str, Any]] = field(default_factory=list)

    async def load(self, job_id: UUID) -> LostSubmission:
        return self.submission

    async def known(self, request_ids: Sequence[str]) -> set[str]:
        return set()

    async def has_rival(self, job_id: UUID, within: timedelta) -> bool:
        return False

    async def find_each(
        self, model_id: str, inputs: Mapping[Name, Mapping[str, Any]], *, sent_from: datetime, sent_until: datetime
    ) -> Mapping[Name, Sequence[str]]:
        raise NotImplementedError

    async def find(
        self, model_id: str, parameters: Mapping[str, Any], *, sent_from: datetime, sent_until: datetime
    ) -> Sequence[str]:
        self.searched.append(parameters)
        return []


async def searched_for(input_digest: bytes | None, given: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What fal's history is searched for, where this digest is recorded and the row has these parameters."""
    submission = LostSubmission(
        job_id=uuid4(),
        model_id="model",
        input=JobInput(parameters=given),
        attempt_token=TOKEN,
        claimed_at=datetime.now(UTC),
        input_digest=input_digest,
    )
    lost = Lost(submission)
    search = SearchHistory(lost, lost, digest, former_digest_of=whole_digest)
    assert await search(cast(JobState, SimpleNamespace(id=submission.job_id))) is None
    return lost.searched


@pytest.mark.parametrize("given", [GIVEN, without_media(GIVEN)], ids=["given", "forgotten"])
@pytest.mark.parametrize("sent", [GIVEN, MARKED], ids=["no mark", "seed"])
async def test_the_digest_tells_what_was_sent_also_once_it_was_forgotten(
    given: Mapping[str, Any], sent: Mapping[str, Any]
) -> None:
    assert await searched_for(digest(sent), given) == [without_media(sent)]


@pytest.mark.parametrize("sent", [GIVEN, MARKED], ids=["no mark", "seed"])
async def test_the_digest_of_the_release_before_is_understood_while_the_input_is_there(sent: Mapping[str, Any]) -> None:
    assert await searched_for(whole_digest(sent), GIVEN) == [without_media(sent)]
    assert await searched_for(whole_digest(sent), without_media(GIVEN)) == []


@pytest.mark.parametrize("given", [GIVEN, without_media(GIVEN)], ids=["given", "forgotten"])
async def test_an_input_of_which_no_digest_tells_is_not_searched_for(given: Mapping[str, Any]) -> None:
    others = [{**MARKED, "prompt": "a ship"}, {**MARKED, "image_url": GIVEN["image_url"].replace("AAAA", "AAAB", 1)}]

    assert [await searched_for(digest(other), given) for other in others] == [[], []]


@pytest.mark.parametrize("given", [GIVEN, without_media(GIVEN)], ids=["given", "forgotten"])
async def test_without_a_digest_the_seed_is_searched_for(given: Mapping[str, Any]) -> None:
    assert await searched_for(None, given) == [without_media(MARKED)]
