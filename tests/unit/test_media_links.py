"""Nobody but us makes a link, and none can be bent to lead to anything else."""

from datetime import UTC, datetime, timedelta
from typing import cast
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import pytest

from app.application.media import OpenMedia
from app.application.ports.files import FileRecords
from app.application.ports.media import OutputReader, ProviderMedia
from app.domain.media_errors import LinkExpired, LinkNotValid, MediaDeleted, MediaNotFound
from app.domain.outputs import KeptOutput, Output, OutputId
from app.infrastructure.media_links import SignedMediaLinks
from app.infrastructure.quotes import SignedQuotes

OLD, NEW = "the secret before, which is long", "the secret of today, long as well"
MEDIA_ID = "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61-0"
UNTIL = datetime(2026, 12, 23, 10, 15, 41, 654321, tzinfo=UTC)
LINKS = SignedMediaLinks([NEW, OLD])


def parts_of(query: str) -> tuple[int, str]:
    parts = parse_qs(query, strict_parsing=True)
    assert parts.keys() == {"expires", "signature"}
    (expires,), (signature,) = parts["expires"], parts["signature"]
    return int(expires), signature


EXPIRES, SIGNATURE = parts_of(LINKS.query_for(MEDIA_ID, UNTIL))


def test_a_link_of_ours_is_good_until_the_second_in_which_it_ends() -> None:
    assert LINKS.is_signed(MEDIA_ID, EXPIRES, SIGNATURE)
    assert int(UNTIL.timestamp()) == EXPIRES


def test_the_same_output_has_the_same_link() -> None:
    assert LINKS.query_for(MEDIA_ID, UNTIL) == LINKS.query_for(MEDIA_ID, UNTIL.replace(microsecond=0))


@pytest.mark.parametrize(
    "media_id", [MEDIA_ID[:-1] + "1", MEDIA_ID + "0", MEDIA_ID[1:], MEDIA_ID.upper(), f" {MEDIA_ID}", ""]
)
def test_it_leads_to_nothing_else(media_id: str) -> None:
    assert media_id != MEDIA_ID
    assert not LINKS.is_signed(media_id, EXPIRES, SIGNATURE)


@pytest.mark.parametrize("expires", [EXPIRES + 1, EXPIRES - 1, 0, -EXPIRES, EXPIRES * 10, 10**12 - 1])
def test_it_cannot_be_made_to_last(expires: int) -> None:
    assert not LINKS.is_signed(MEDIA_ID, expires, SIGNATURE)


def test_no_part_flows_into_another() -> None:
    # The id's last digit at the front of the time, and the other way round.
    assert not LINKS.is_signed(MEDIA_ID[:-1], int(f"{MEDIA_ID[-1]}{EXPIRES}"), SIGNATURE)
    assert not LINKS.is_signed(f"{MEDIA_ID}\n{str(EXPIRES)[0]}", int(str(EXPIRES)[1:]), SIGNATURE)


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("place", range(len(SIGNATURE)))
def test_no_letter_of_the_signature_may_be_another_one(place: int) -> None:
    """Also of the last one, two bits of which say nothing."""
    others = {SIGNATURE[:place] + letter + SIGNATURE[place + 1 :] for letter in ALPHABET} - {SIGNATURE}

    assert len(others) == len(ALPHABET) - 1
    assert not any(LINKS.is_signed(MEDIA_ID, EXPIRES, other) for other in others)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        SIGNATURE[:-1],
        SIGNATURE + "=",
        SIGNATURE + "A",
        SIGNATURE.replace("-", "+").replace("_", "/") + "=",
        f" {SIGNATURE}",
        f"{SIGNATURE}\n",
        SIGNATURE.lower(),
        "\u00e4" * 43,
        "\u0416",
        "\ud800",
        "\x00",
    ],
    ids=lambda signature: ascii(signature)[:16] if len(signature) < 40 else f"{len(signature)} {signature[-2:]!a}",
)
def test_no_other_spelling_of_the_signature_is_taken(signature: str) -> None:
    assert not LINKS.is_signed(MEDIA_ID, EXPIRES, signature)


def test_a_secret_before_is_still_good_and_signs_nothing_new() -> None:
    query = SignedMediaLinks([OLD]).query_for(MEDIA_ID, UNTIL)

    assert LINKS.is_signed(MEDIA_ID, *parts_of(query))
    assert LINKS.query_for(MEDIA_ID, UNTIL) == SignedMediaLinks([NEW]).query_for(MEDIA_ID, UNTIL) != query
    assert not SignedMediaLinks([NEW]).is_signed(MEDIA_ID, *parts_of(query))


def test_what_the_same_secret_signed_as_a_quote_is_no_link() -> None:
    quotes = SignedQuotes([NEW])._texts
    signature = quotes.make_signer(quotes.salt).get_signature(f"{MEDIA_ID}\n{EXPIRES}").decode()

    assert len(signature) == len(SIGNATURE)
    assert not LINKS.is_signed(MEDIA_ID, EXPIRES, signature)


class Shelf:
    """One output, which is kept as the test says."""

    def __init__(self, kept: KeptOutput) -> None:
        output_id = OutputId.parse(MEDIA_ID)
        assert output_id is not None
        self.output = Output(id=output_id, kept=kept, told={}, is_blanked=False, is_picture=True)
        self.owner = uuid4()

    async def find(self, output_id: OutputId) -> tuple[UUID, Output] | None:
        return (self.owner, self.output) if output_id == self.output.id else None


def opening(**kept: object) -> OpenMedia:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    shelf: OutputReader = Shelf(KeptOutput(**{"number": 0, "expires_at": in_an_hour} | kept))  # type: ignore[arg-type]
    nowhere: ProviderMedia = None  # type: ignore[assignment]
    return OpenMedia(LINKS, shelf, cast(FileRecords, None), nowhere, None)


async def follow(media: OpenMedia, *, media_id: str = MEDIA_ID, seconds: float = 3600, spelling: str = "{}") -> None:
    expires, signature = parts_of(LINKS.query_for(media_id, datetime.now(UTC) + timedelta(seconds=seconds)))
    await media.find(media_id, spelling.format(expires), signature)


async def test_a_link_leads_to_its_output_and_to_no_other() -> None:
    await follow(opening())
    with pytest.raises(MediaNotFound):
        await follow(opening(), media_id=MEDIA_ID[:-1] + "1")


async def test_a_link_that_is_not_signed_leads_nowhere() -> None:
    for signature in ("", "A" * 43, SIGNATURE):
        with pytest.raises(LinkNotValid):
            await opening().find(MEDIA_ID, str(EXPIRES + 1), signature)


@pytest.mark.parametrize(
    "spelling", ["0{}", "+{}", " {}", "{} ", "{}.0", "{}\n", "-{}", "{}_0", "", "\u0661", "9" * 13], ids=ascii
)
async def test_its_time_has_one_spelling(spelling: str) -> None:
    with pytest.raises(LinkNotValid):
        await follow(opening(), spelling=spelling)


@pytest.mark.parametrize("media_id", ["x", f"{MEDIA_ID}0000", MEDIA_ID.upper(), f"{MEDIA_ID}\n"])
async def test_a_signed_text_that_is_no_id_is_no_link(media_id: str) -> None:
    with pytest.raises(LinkNotValid):
        await follow(opening(), media_id=media_id)


async def test_a_link_ends_before_its_output_does() -> None:
    with pytest.raises(LinkExpired):
        await follow(opening(), seconds=-1)


async def test_an_output_that_is_over_is_told_of_as_one_that_was_deleted() -> None:
    a_moment_ago = datetime.now(UTC) - timedelta(seconds=1)

    with pytest.raises(MediaDeleted, match="when the time was over"):
        await follow(opening(expires_at=a_moment_ago))
    with pytest.raises(MediaDeleted, match="as its owner asked"):
        await follow(opening(deleted_at=a_moment_ago, deleted_because="requested"))
    with pytest.raises(MediaDeleted, match="did not have it any more"):
        await follow(opening(deleted_at=a_moment_ago, deleted_because="lost"))
    with pytest.raises(MediaDeleted, match="It cannot be had again"):
        await follow(opening(deleted_at=a_moment_ago, deleted_because="a reason of a newer release"))
