"""Which keys of open streams are looked at, and how many at a time."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import cast
from uuid import UUID, uuid4

import pytest

from app.application.keys import Authenticate
from app.domain.accounts import ALL_SCOPES, Account, ApiKey, Caller
from app.domain.errors import InvalidApiKey
from app.presentation.http import streams
from app.presentation.http.streams import LOOK_ACCOUNTS_MAX, OpenStream, OpenStreams


class Keys:
    """Of accounts whose first key has version 1."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.revoked: set[UUID] = set()
        self.looks: list[frozenset[UUID]] = []

    async def __call__(self, presented: str | None) -> Caller:
        raise InvalidApiKey

    async def versions(self, account_ids: Collection[UUID]) -> Mapping[UUID, int]:
        self.looks.append(frozenset(account_ids))
        await asyncio.sleep(self.seconds)
        return {account_id: 2 if account_id in self.revoked else 1 for account_id in account_ids}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no asyncio.Event
            await asyncio.sleep(0.005)


def open_one(opened: OpenStreams, keys: Keys) -> OpenStream:
    account = Account(id=uuid4(), external_user_id=uuid4(), balance_tokens=0)
    key = ApiKey(id=uuid4(), scopes=ALL_SCOPES, has_budget=False, expires=False, version=1)
    return opened.open(Caller(account, key), str(account.id), cast(Authenticate, keys))


@pytest.mark.alone
async def test_each_is_looked_at_in_each_round_and_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOOK_SECONDS", 1.0)
    opened, keys = OpenStreams(), Keys()
    some = [open_one(opened, keys) for _ in range(2 * LOOK_ACCOUNTS_MAX + 1)]
    late: list[OpenStream] = []

    await until(lambda: len(keys.looks) >= 3)
    late.append(open_one(opened, keys))
    await until(lambda: len(keys.looks) >= 9)

    assert [len(look) for look in keys.looks[:3]] == [LOOK_ACCOUNTS_MAX, LOOK_ACCOUNTS_MAX, 1]
    assert frozenset.union(*keys.looks[:3]) == {stream.account_id for stream in some}
    assert late[0].account_id in frozenset.union(*keys.looks)

    keys.revoked |= {some[0].account_id, some[-1].account_id, late[0].account_id}
    await until(lambda: sum(stream.is_ended for stream in (*some, *late)) == 3)

    assert {stream.account_id for stream in (*some, *late) if stream.is_locked_out} == keys.revoked
    for stream in (*some, *late):
        stream.leave()
        stream.leave()
    assert len(opened) == 0
    await until(lambda: opened._watch is None)


async def test_a_slow_database_is_asked_for_more_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOOK_SECONDS", 0.1)
    opened, keys = OpenStreams(), Keys(seconds=0.2)
    some = [open_one(opened, keys) for _ in range(10 * LOOK_ACCOUNTS_MAX)]

    await until(lambda: len(keys.looks) >= 2)

    # The first one was over when all were due.
    assert keys.looks[0] | keys.looks[1] == {stream.account_id for stream in some}
    for stream in some:
        stream.leave()
    await until(lambda: opened._watch is None)


async def test_who_has_most_makes_room() -> None:
    opened, keys = OpenStreams(), Keys()
    opened.streams_max = 3
    one, many = open_one(opened, keys), [open_one(opened, keys)]
    many.append(opened.open(caller_of(many[0]), None, cast(Authenticate, keys)))

    other = open_one(opened, keys)

    assert [stream.is_ended for stream in (one, other)] == [False, False]
    assert sum(stream.is_ended for stream in many) == 1
    assert len(opened) == 3
    for stream in (one, other, *many):
        stream.leave()


def caller_of(stream: OpenStream) -> Caller:
    account = Account(id=stream.account_id, external_user_id=uuid4(), balance_tokens=0)
    return Caller(account, ApiKey(id=uuid4(), scopes=ALL_SCOPES, has_budget=False, expires=False, version=1))


async def test_the_process_ends_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOOK_SECONDS", 0.1)
    opened, keys = OpenStreams(), Keys(seconds=60)
    some = [open_one(opened, keys) for _ in range(3)]
    await until(lambda: bool(keys.looks))
    watch = opened._watch
    assert watch is not None

    opened.end_all()

    assert all(stream.is_ended for stream in some)
    assert open_one(opened, keys).is_ended
    # Whoever looked at the keys would hold a connection of a process that ends.
    await asyncio.wait({watch}, timeout=20)
    assert watch.cancelled()
    assert opened._watch is None
