"""What names lead to, and how long it takes to find out."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from app.infrastructure.egress import Egress
from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.guarded_http.lookups import ADDRESSES_TRIED_MAX, LOOKUPS_PER_OWNER_MAX
from app.infrastructure.guarded_http.reasons import NotReached
from tests.builders import until
from tests.fal_stub import FalStub, reply
from tests.unit.guarded_http.stand_ins import (
    HANG_SECONDS,
    NAME,
    NOT_PUBLIC,
    OTHER_PUBLIC,
    PUBLIC,
    PUBLIC_IPV6,
    NameServer,
    Ways,
    port_of,
    reason,
)


@pytest.fixture
def misleading_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {NAME} login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.mark.usefixtures("misleading_environment")
async def test_reaches_a_public_address_by_https_alone(
    stub: FalStub, names: NameServer, ways: Ways, certificate: Path
) -> None:
    names.answers[NAME] = itertools.repeat([PUBLIC, OTHER_PUBLIC])
    ways.public_port = port_of(stub)
    stub.then(reply())

    async with GuardedClient.open(egress=Egress(certificates_file=certificate)) as client:
        assert (await client.post(f"https://{NAME}/hook", b"{}", {}, seconds_max=HANG_SECONDS)).status == 200
        assert await reason(client, f"http://{NAME}/hook") == "The URL does not begin with https://."

    assert stub.seen[0].headers["host"] == NAME
    assert "authorization" not in stub.seen[0].headers
    assert ways.taken == [PUBLIC]
    assert names.asked == [NAME]


async def test_a_name_that_changes_its_address_gains_nothing(names: NameServer, ways: Ways) -> None:
    names.answers[NAME] = itertools.cycle([[PUBLIC], ["127.0.0.1"], [PUBLIC], ["::1"]])

    async with GuardedClient.open(egress=Egress()) as client:
        said = [await reason(client, f"https://{NAME}/") for _ in range(4)]

    assert said == ["The connection was refused.", NOT_PUBLIC] * 2
    assert ways.taken == [PUBLIC, PUBLIC]
    assert len(names.asked) == 4


@pytest.mark.parametrize(
    "answer",
    [
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [PUBLIC, PUBLIC_IPV6, "::1"],
        [PUBLIC, "10.0.0.1"],
        [PUBLIC_IPV6, "fe80::1"],
        [*(f"93.184.216.{last}" for last in range(1, 50)), "127.0.0.1"],
    ],
)
async def test_one_address_that_is_not_public_refuses_all(names: NameServer, ways: Ways, answer: Sequence[str]) -> None:
    names.answers[NAME] = itertools.repeat(answer)

    async with GuardedClient.open(egress=Egress()) as client:
        assert await reason(client, f"https://{NAME}/") == NOT_PUBLIC

    assert ways.taken == []


async def test_tries_a_few_of_many_addresses(names: NameServer, ways: Ways) -> None:
    names.answers[NAME] = itertools.repeat([f"93.184.216.{last}" for last in range(1, 50)])

    async with GuardedClient.open(egress=Egress()) as client:
        assert await reason(client, f"https://{NAME}/") == "The connection was refused."

    assert len(set(ways.taken)) == ADDRESSES_TRIED_MAX
    assert len(ways.taken) <= 10


async def test_nobody_is_told_what_a_url_says_of_users(names: NameServer, ways: Ways) -> None:
    async with GuardedClient.open(egress=Egress()) as client:
        for user in ("user:password", "user", ":password"):
            said = await reason(client, f"https://{user}@{NAME}/")
            assert said == "The URL holds a user name or a password."

    assert (names.asked, ways.taken) == ([], [])


@pytest.fixture
async def waiting(names: NameServer) -> AsyncIterator[set[asyncio.Task[str]]]:
    """Whoever waits is let go at the end, and so are the threads."""
    tasks: set[asyncio.Task[str]] = set()
    yield tasks
    names.hanging.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def reason_for(client: GuardedClient, owner: str, url: str, seconds_max: float = 20) -> str:
    with pytest.raises(NotReached) as caught:
        await client.post(url, b"{}", {}, seconds_max=seconds_max, owner=owner)
    return caught.value.reason


async def test_names_that_hang_hold_up_their_owner_alone(
    names: NameServer, local: GuardedClient, waiting: set[asyncio.Task[str]]
) -> None:
    threads = threading.active_count()
    urls = [f"https://hanging-{number}.example-{number}.com/" for number in range(3 * LOOKUPS_PER_OWNER_MAX)]
    waiting.update(asyncio.create_task(reason_for(local, "hanging", url)) for url in [*urls, *urls])
    await until(lambda: asyncio.sleep(0, len(names.asked) >= LOOKUPS_PER_OWNER_MAX))
    await asyncio.sleep(0.1)

    assert await reason_for(local, "other", "https://unknown.example/") == "The name could not be resolved."
    assert len(names.asked) == LOOKUPS_PER_OWNER_MAX + 1

    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    # Nobody waits any more, but the threads are still there, and their places taken.
    assert await reason_for(local, "hanging", urls[-1], seconds_max=0.2) == "No answer came within 0.2 s."
    assert len(names.asked) == LOOKUPS_PER_OWNER_MAX + 1
    assert threading.active_count() <= threads + LOOKUPS_PER_OWNER_MAX

    names.hanging.set()
    assert await reason_for(local, "hanging", urls[-1]) == "The name could not be resolved."


async def test_a_name_is_looked_up_once_for_all_who_wait(
    names: NameServer, local: GuardedClient, waiting: set[asyncio.Task[str]]
) -> None:
    urls = [f"https://hanging-{number}.example/" for number in range(LOOKUPS_PER_OWNER_MAX)]
    urls += [urls[0], "https://hanging-later.example/", "https://hanging-later.example/"]
    waiting.update(asyncio.create_task(reason_for(local, "owner", url)) for url in urls)
    await until(lambda: asyncio.sleep(0, len(names.asked) >= LOOKUPS_PER_OWNER_MAX))
    await asyncio.sleep(0.1)
    names.hanging.set()

    assert set(await asyncio.gather(*waiting)) == {"The name could not be resolved."}
    assert len(names.asked) == LOOKUPS_PER_OWNER_MAX + 1
