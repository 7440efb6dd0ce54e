"""The bound on bodies in memory: never exceeded, shared, and given back whatever happens."""

import asyncio
import random

import pytest

from app.presentation.http import body_room
from app.presentation.http.body_room import (
    LARGE_BODY_BYTES_MAX,
    LARGE_ROOM_BYTES,
    LARGE_SHARE_BYTES,
    SMALL_BODY_BYTES_MAX,
    SMALL_SHARE_BYTES,
    BodyRoom,
    Room,
    give_back,
    hold_body,
)
from app.presentation.http.errors import NoRoomForBody, TooManyLargeBodies

MB = 2**20


def test_one_caller_gets_its_share_and_others_the_rest() -> None:
    room = Room(100, 30)
    for _ in range(3):
        room.take("greedy", 10)
    with pytest.raises(TooManyLargeBodies):
        room.take("greedy", 1)
    for caller in "abcdefg":
        room.take(caller, 10)
    with pytest.raises(NoRoomForBody):
        room.take("late", 1)
    room.give_back("a", 10)
    room.take("late", 10)
    assert room.used_bytes == 100


async def test_who_waits_is_admitted_in_turn_unless_its_share_is_used_up() -> None:
    room = Room(40, 20, waiting_max=8)
    room.take("a", 20)
    room.take("b", 20)
    order: list[str] = []

    async def wait(caller: str, size_bytes: int) -> None:
        await room.wait_and_take(caller, size_bytes)
        order.append(caller)

    waiting = [asyncio.create_task(wait(caller, 10)) for caller in ("a", "c", "d")]
    await asyncio.sleep(0)
    room.give_back("b", 20)
    await asyncio.sleep(0.01)
    assert order == ["c", "d"]
    room.give_back("a", 20)
    await asyncio.gather(*waiting)
    assert order == ["c", "d", "a"]


async def test_waits_for_a_while_and_then_says_which_bound_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "WAIT_SECONDS_MAX", 0.05)
    room = Room(40, 20, waiting_max=8)
    room.take("a", 20)
    with pytest.raises(TooManyLargeBodies):
        await room.wait_and_take("a", 10)
    room.take("b", 20)
    with pytest.raises(NoRoomForBody):
        await room.wait_and_take("c", 10)
    assert not room._waiting


async def test_only_so_many_wait_and_of_one_caller_fewer() -> None:
    room = Room(10, 10, waiting_max=8)
    room.take("a", 10)
    waiting = [asyncio.create_task(room.wait_and_take("b", 1)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NoRoomForBody):
        await room.wait_and_take("b", 1)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not room._waiting


async def test_who_goes_away_in_the_moment_of_its_admission_leaves_nothing_behind() -> None:
    room = Room(10, 10, waiting_max=8)
    room.take("a", 10)
    waiting = asyncio.create_task(room.wait_and_take("b", 10))
    await asyncio.sleep(0)
    room.give_back("a", 10)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert (room.used_bytes, room._used_by_caller) == (0, {})


async def test_nothing_is_lost_however_callers_come_and_go() -> None:
    chance = random.Random(4)
    room = Room(100, 50, waiting_max=64)

    async def visit(caller: int) -> None:
        size_bytes = chance.randint(1, 40)
        try:
            await room.wait_and_take(caller, size_bytes)
        except (NoRoomForBody, TooManyLargeBodies):
            return
        try:
            assert room.used_bytes <= 100
            await asyncio.sleep(chance.random() / 100)
        finally:
            room.give_back(caller, size_bytes)

    visits = [asyncio.create_task(visit(number % 7)) for number in range(400)]
    for _ in range(150):
        await asyncio.sleep(0.0005)
        chance.choice(visits).cancel()
    await asyncio.gather(*visits, return_exceptions=True)
    assert (room.used_bytes, room._used_by_caller, [*room._waiting]) == (0, {}, [])


async def test_a_body_that_grows_moves_from_the_small_room_to_the_large_one() -> None:
    room = BodyRoom()
    state: dict[str, object] = {}
    held = hold_body(state, room, "a")
    for size_bytes in (10, SMALL_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX + 1, MB):
        held.grow_to(size_bytes)
    assert (room.small.used_bytes, room.large.used_bytes) == (0, MB)
    assert hold_body(state, room, "a") is held
    await held.take_turn()
    give_back(state)
    give_back(state)
    assert (room.small.used_bytes, room.large.used_bytes) == (0, 0)
    assert not room.parsing.locked()


async def test_however_small_its_large_bodies_are_one_caller_has_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "WAIT_SECONDS_MAX", 0.01)
    room = BodyRoom()
    bodies: list[dict[str, object]] = [{} for _ in range(100)]
    small = SMALL_BODY_BYTES_MAX + 1

    async def begin(state: dict[str, object], caller: str) -> bool:
        try:
            await hold_body(state, room, caller).expect(small)
        except TooManyLargeBodies:
            return False
        return True

    declared = sum(await asyncio.gather(*[begin(state, "a") for state in bodies]))
    other: dict[str, object] = {}
    assert await begin(other, "b")
    with pytest.raises(TooManyLargeBodies):
        hold_body({}, room, "a").grow_to(small)
    for state in [*bodies, other]:
        give_back(state)

    assert declared == LARGE_SHARE_BYTES // body_room.LARGE_CHARGE_BYTES_MIN
    assert room.large.used_bytes == room.small.used_bytes == 0


async def test_a_large_body_without_a_length_is_charged_as_much() -> None:
    room = BodyRoom()
    states: list[dict[str, object]] = [{} for _ in range(LARGE_SHARE_BYTES // body_room.LARGE_CHARGE_BYTES_MIN)]
    for state in states:
        hold_body(state, room, "a").grow_to(SMALL_BODY_BYTES_MAX + 1)

    with pytest.raises(TooManyLargeBodies):
        hold_body({}, room, "a").grow_to(SMALL_BODY_BYTES_MAX + 1)
    hold_body({}, room, "b").grow_to(SMALL_BODY_BYTES_MAX + 1)


async def test_small_bodies_have_a_room_of_their_own() -> None:
    room = BodyRoom()
    for caller in range(LARGE_ROOM_BYTES // LARGE_SHARE_BYTES):
        for _ in range(LARGE_SHARE_BYTES // LARGE_BODY_BYTES_MAX):
            await hold_body({}, room, caller).expect(LARGE_BODY_BYTES_MAX)
    hold_body({}, room, "payment").grow_to(SMALL_BODY_BYTES_MAX)
    for _ in range(SMALL_SHARE_BYTES // SMALL_BODY_BYTES_MAX):
        hold_body({}, room, "slow").grow_to(SMALL_BODY_BYTES_MAX)
    with pytest.raises(TooManyLargeBodies):
        hold_body({}, room, "slow").grow_to(1)
    hold_body({}, room, "other").grow_to(1)


async def test_the_turn_to_be_parsed_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "WAIT_SECONDS_MAX", 0.05)
    room = BodyRoom()
    for caller in range(body_room.PARSED_AT_ONCE_MAX):
        await hold_body({}, room, caller).take_turn()

    state: dict[str, object] = {}
    with pytest.raises(NoRoomForBody):
        await hold_body(state, room, "late").take_turn()

    give_back(state)
    assert room.parsing.locked()
