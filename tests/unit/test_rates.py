import asyncio
from uuid import uuid4

import pytest

from app.domain.accounts import ALL_SCOPES, Account, ApiKey, Caller
from app.domain.limits import TooManyFailedAuthentications, TooManyReads
from app.presentation.http import rates
from app.presentation.http.rates import FAILURES_PER_MINUTE, SLOWED_OF_ONE_MAX, FailedAuthentications, Reads


class Clock:
    now = 600.0

    def __call__(self) -> float:
        return self.now


def caller(reads_per_second: int | None = None) -> Caller:
    return Caller(
        Account(id=uuid4(), external_user_id=uuid4(), balance_tokens=0, reads_per_second=reads_per_second),
        ApiKey(id=uuid4(), scopes=ALL_SCOPES, has_budget=False, expires=False, version=0),
    )


def test_a_key_reads_so_often_in_a_second() -> None:
    clock, one, other = Clock(), caller(), caller()
    reads = Reads(3, clock)
    for _ in range(3):
        reads.count(one)
    with pytest.raises(TooManyReads) as refused:
        reads.count(one)
    assert (refused.value.quota.amount, refused.value.quota.window_seconds) == (3, 1)
    reads.count(other)
    clock.now += 1
    reads.count(one)


@pytest.mark.parametrize(("own", "setting"), [(0, 1), (None, 0)])
def test_nought_is_no_limit(own: int | None, setting: int) -> None:
    reads, one = Reads(setting, Clock()), caller(own)
    for _ in range(1000):
        reads.count(one)


def test_the_accounts_own_limit_takes_the_place_of_the_setting() -> None:
    reads, one = Reads(100, Clock()), caller(1)
    reads.count(one)
    with pytest.raises(TooManyReads):
        reads.count(one)


async def is_slowed(failures: FailedAuthentications, address: str | None) -> bool:
    """Whether it waits at all."""
    slowing = asyncio.create_task(failures.slow(address))
    await asyncio.sleep(0)
    is_waiting = not slowing.done()
    await slowing
    return is_waiting


async def test_failures_are_slowed_down_after_many_in_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SLOWED_SECONDS", 0.05)
    clock = Clock()
    failures = FailedAuthentications(clock)
    are_slowed = [await is_slowed(failures, "192.0.2.1") for _ in range(FAILURES_PER_MINUTE)]
    began = asyncio.get_running_loop().time()

    assert not any(are_slowed)
    assert await is_slowed(failures, "192.0.2.1")
    assert asyncio.get_running_loop().time() - began >= 0.05
    assert not await is_slowed(failures, "192.0.2.2")
    clock.now += 60
    assert not await is_slowed(failures, "192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        (None, None, True),
        ("made up", "made up anew", True),
    ],
)
async def test_an_address_is_a_place(
    monkeypatch: pytest.MonkeyPatch, one: str | None, other: str | None, *, is_same: bool
) -> None:
    monkeypatch.setattr(rates, "SLOWED_SECONDS", 0.05)
    failures = FailedAuthentications(Clock())
    for _ in range(FAILURES_PER_MINUTE):
        await failures.slow(one)

    assert await is_slowed(failures, other) is is_same


async def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SLOWED_SECONDS", 0.05)
    failures = FailedAuthentications(Clock())
    outcomes = await asyncio.gather(
        *(failures.slow("192.0.2.1") for _ in range(FAILURES_PER_MINUTE + SLOWED_OF_ONE_MAX + 5)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert len(refused) == 5
    assert all(isinstance(each, TooManyFailedAuthentications) and each.retry_after_seconds == 60 for each in refused)
    assert await is_slowed(failures, "192.0.2.1")
