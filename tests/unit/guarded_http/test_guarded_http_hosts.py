"""Media are fetched from the hosts of a list alone, however a URL or a redirect spells another one."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from yarl import URL

from app.infrastructure.egress import Egress
from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.guarded_http.hosts import Hosts
from tests.certificates import self_signed, serving_tls
from tests.fal_stub import FalStub, reply, running_stub
from tests.unit.guarded_http.stand_ins import NOT_PUBLIC, PUBLIC, NameServer, Ways, fetched, port_of, unfetched

MEDIA = Hosts.of("v3.fal.media", "*.cdn.fal.media", "127.0.0.1:9000", "[::1]:9000")
NOT_LISTED = "The host of the URL is not one of those that are fetched from."


@pytest.mark.parametrize(
    "url",
    [
        "https://v3.fal.media/files/b/1/a.png",
        "https://V3.FAL.Media/",
        "https://v3.fal.media:443/",
        "https://a.cdn.fal.media/",
        "https://a.b.cdn.fal.media/",
        "http://127.0.0.1:9000/",
        "https://127.0.0.1:9000/",
        "http://[::1]:9000/",
    ],
)
def test_permits(url: str) -> None:
    assert MEDIA.permits(URL(url))


@pytest.mark.parametrize(
    "url",
    [
        "https://v3.fal.media./",
        "https://fal.media/",
        "https://cdn.fal.media/",
        "https://.cdn.fal.media/",
        "https://v4.fal.media/",
        "https://v3.fal.media.evil.com/",
        "https://a.cdn.fal.media.evil.com/",
        "https://evilcdn.fal.media/",
        "https://evil-v3.fal.media/",
        "https://evilv3.fal.media/",
        "https://xv3.fal.media/",
        "https://v3.fal.media@evil.com/",
        "https://evil.com/v3.fal.media",
        "https://evil.com#v3.fal.media",
        "https://v3.fal.med\N{CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I}a/",
        "https://v3%2efal.media/",
        "https://v3.fal.media:8443/",
        "http://v3.fal.media/",
        "http://v3.fal.media:443/",
        "https://*.cdn.fal.media.evil.com/",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]/",
        "http://127.0.0.1/",
        "http://127.0.0.1:9001/",
        "http://127.0.0.2:9000/",
        "http://2130706433:9000/",
        "http://localhost:9000/",
        "https://127.0.0.1/",
        "https:v3.fal.media",
        "//v3.fal.media/",
        "/v3.fal.media",
        "ftp://v3.fal.media/",
    ],
)
def test_does_not_permit(url: str) -> None:
    assert not MEDIA.permits(URL(url))


@pytest.mark.parametrize(
    "entry", ["", "*", "*.", "https://v3.fal.media", "v3.fal.media/", "a*.fal.media", "*.a:443", "a b"]
)
def test_takes_no_other_entry(entry: str) -> None:
    with pytest.raises(ValueError, match="must be a name"):
        Hosts.of("v3.fal.media", entry)


@pytest.fixture
async def media(tmp_path: Path, names: NameServer, ways: Ways) -> AsyncIterator[FalStub]:
    """Where every connection to a public address arrives."""
    names.answers["v3.fal.media"] = itertools.repeat([PUBLIC])
    names.answers["evil.example"] = itertools.repeat([PUBLIC])
    async with running_stub(serving_tls(self_signed(tmp_path / "media.pem", "v3.fal.media"))) as stub:
        ways.public_port = port_of(stub)
        yield stub


@pytest.fixture
async def outside(tmp_path: Path, media: FalStub) -> AsyncIterator[GuardedClient]:
    async with GuardedClient.open(egress=Egress(certificates_file=tmp_path / "media.pem")) as client:
        yield client


@pytest.mark.parametrize(
    ("location", "status"),
    [("/files/c", 301), ("https://v3.fal.media/files/c", 302), ("//V3.fal.media:443/files/c", 308), ("c", 307)],
)
async def test_follows_a_redirect_to_a_host_of_the_list(
    media: FalStub, outside: GuardedClient, location: str, status: int
) -> None:
    media.then(reply(status, b"there", {"Location": location}), reply(200, b"here"))

    assert await fetched(outside, "https://v3.fal.media/files/b", MEDIA) == (200, b"here")

    assert media.calls == [("GET", "/files/b"), ("GET", "/files/c")]
    assert [seen.headers["host"] for seen in media.seen] == ["v3.fal.media"] * 2


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://evil.example/", NOT_LISTED),
        ("//evil.example/", NOT_LISTED),
        ("https://v3.fal.media.evil.example/", NOT_LISTED),
        ("https://v3.fal.media:8443/", NOT_LISTED),
        ("https://127.0.0.1/", NOT_LISTED),
        ("https://127.0.0.1:9000/", NOT_PUBLIC),
        ("https://169.254.169.254/latest/meta-data/", NOT_LISTED),
        ("http://169.254.169.254/latest/meta-data/", "The URL does not begin with https://."),
        ("http://v3.fal.media/", "The URL does not begin with https://."),
        ("http://127.0.0.1:9000/", "The URL does not begin with https://."),
        ("file:///etc/passwd", "The URL does not begin with https://."),
        ("https://user:pass@v3.fal.media/", "The URL holds a user name or a password."),
        ("https://v3.fal.media./", "The host of the URL is neither a name nor an address."),
        ("https://[", "The redirect does not say where to."),
    ],
)
async def test_follows_no_redirect_to_elsewhere(
    media: FalStub, outside: GuardedClient, ways: Ways, location: str, said: str
) -> None:
    media.then(reply(302, b"", {"Location": location}))

    assert await unfetched(outside, "https://v3.fal.media/", MEDIA) == said

    assert ways.taken == [PUBLIC]
    assert len(media.seen) == 1


async def test_a_redirect_without_a_place_is_no_answer(media: FalStub, outside: GuardedClient) -> None:
    media.then(reply(302))

    assert await unfetched(outside, "https://v3.fal.media/", MEDIA) == "The redirect does not say where to."


async def test_follows_two_redirects_and_not_three(media: FalStub, outside: GuardedClient) -> None:
    media.then(*(reply(302, b"", {"Location": f"/{number}"}) for number in (1, 2)), reply(200, b"here"))
    assert await fetched(outside, "https://v3.fal.media/0", MEDIA) == (200, b"here")

    media.then(*(reply(302, b"", {"Location": f"/{number}"}) for number in (1, 2, 3)))
    assert await unfetched(outside, "https://v3.fal.media/0", MEDIA) == "There were more than 2 redirects."

    assert len(media.seen) == 6


async def test_a_host_of_the_list_that_leads_inside_is_refused(
    outside: GuardedClient, names: NameServer, ways: Ways
) -> None:
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"):
        names.answers["v3.fal.media"] = itertools.repeat([address])
        assert await unfetched(outside, "https://v3.fal.media/", MEDIA) == NOT_PUBLIC

    assert ways.taken == []


async def test_a_redirect_whose_host_leads_inside_by_then_is_refused(
    media: FalStub, outside: GuardedClient, names: NameServer, ways: Ways
) -> None:
    names.answers["a.cdn.fal.media"] = itertools.repeat(["10.0.0.1"])
    media.then(reply(302, b"", {"Location": "https://a.cdn.fal.media/"}))

    assert await unfetched(outside, "https://v3.fal.media/", MEDIA) == NOT_PUBLIC
    assert ways.taken == [PUBLIC]


async def test_nothing_is_looked_up_for_a_host_outside_of_the_list(
    outside: GuardedClient, names: NameServer, ways: Ways
) -> None:
    for url in (
        "https://evil.example/",
        "https://v3.fal.media.evil.example/",
        "https://127.0.0.1/",
        "https://1.1.1.1/",
    ):
        assert await unfetched(outside, url, MEDIA) == NOT_LISTED

    assert (names.asked, ways.taken) == ([], [])


async def test_development_fetches_from_the_listed_port_of_this_machine_alone(
    plain_stub: FalStub, local: GuardedClient
) -> None:
    listed = Hosts.of(f"127.0.0.1:{port_of(plain_stub)}", "v3.fal.media")
    async with running_stub() as other:
        plain_stub.then(reply(200, b"here"), reply(302, b"", {"Location": other.url}))

        assert await fetched(local, plain_stub.url, listed) == (200, b"here")
        assert await unfetched(local, plain_stub.url, listed) == NOT_LISTED
        assert await unfetched(local, other.url, listed) == NOT_LISTED
        assert other.seen == []
