"""What is kept of what people send."""

import hashlib
import io
import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import av
import pytest
import pytest_asyncio
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from app.infrastructure.decoding.decoder import ConfinedDecoder
from tests.hostile_media import _wav_of as wav_of
from tests.media_decoding import Desk, check_kept, opened
from tests.media_samples import (
    PLACE,
    SERIAL_NUMBER,
    box,
    corner_order,
    film,
    films,
    four_corners,
    inserted_into_moov,
    phone_exif,
    png,
    png_chunk,
    samples,
    saved,
    sounds,
    wide_profile,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEPT_AS = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/png",
    "avif": "image/jpeg",
    "heic": "image/jpeg",
    "mp4": "video/mp4",
    "mov": "video/mp4",
    "webm": "video/webm",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
}
PRIVATE = (PLACE.encode(), SERIAL_NUMBER.encode(), b"Owner Name", b"2026:01:02", b"Phone", b"thumbnail-of-it")
UPRIGHT = [0, 1, 2, 3]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One for all: it takes a second to start."""
    async with ConfinedDecoder.open() as decoder:
        yield Desk(decoder, tmp_path_factory.mktemp("media"))


def is_private(data: bytes) -> bool:
    return any(each in data for each in PRIVATE)


@pytest.mark.parametrize("suffix", KEPT_AS)
async def test_each_type_is_kept_as_one_that_browsers_show(desk: Desk, suffix: str) -> None:
    examined, kept = await desk.examine(samples()[suffix])

    assert examined.content_type == KEPT_AS[suffix]
    assert (examined.size_bytes, examined.sha256) == (len(kept), hashlib.sha256(kept).hexdigest())
    is_sound, is_film = suffix in ("mp3", "wav"), suffix in ("mp4", "mov", "webm")
    size = (96, 64) if is_film else (64, 48)
    assert (examined.width, examined.height) == ((None, None) if is_sound else size)
    assert (examined.duration_seconds is None) == (not is_sound and not is_film)
    if examined.duration_seconds is not None:
        assert examined.duration_seconds == pytest.approx(1.0, abs=0.1)
    check_kept(examined, kept)


async def test_the_content_counts_and_no_name(desk: Desk) -> None:
    assert "is of no type that is taken" in await desk.refusal(b"GIF is what I am")
    assert "begins like PNG but is damaged" in await desk.refusal(samples()["png"][:60])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
async def test_a_picture_is_kept_upright(desk: Desk, form: str, orientation: int) -> None:
    exif = phone_exif(orientation)
    data = saved(four_corners(), form, exif=exif, **({"speed": 10} if form == "AVIF" else {}))
    with Image.open(io.BytesIO(data)) as picture:
        expected = ImageOps.exif_transpose(picture)

    kept = await desk.picture(data)

    assert kept.size == expected.size == ((64, 48) if orientation < 5 else (48, 64))
    assert corner_order(kept) == corner_order(expected)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF", "HEIF"])
async def test_who_made_a_picture_and_where_is_removed(desk: Desk, form: str) -> None:
    xmp = f"<x:xmpmeta><aux:SerialNumber>{SERIAL_NUMBER}</aux:SerialNumber></x:xmpmeta>".encode()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "Owner Name", zip=False)
    by_form: dict[str, dict[str, Any]] = {"PNG": {"pnginfo": texts}, "JPEG": {"comment": b"Owner Name"}}
    extra = by_form.get(form, {})
    data = saved(four_corners(), form, exif=phone_exif(), **extra, **({} if form == "PNG" else {"xmp": xmp}))
    assert is_private(data)

    examined, kept = await desk.examine(data)

    check_kept(examined, kept)
    assert not is_private(kept)


async def test_a_thumbnail_is_removed_which_may_show_more_than_the_picture(desk: Desk) -> None:
    exif = phone_exif().tobytes()
    plain = samples()["jpg"]
    thumbnail = exif + saved(Image.new("RGB", (32, 24)), "JPEG") + b"thumbnail-of-it"
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + plain[2:]

    _, kept = await desk.examine(data + b"thumbnail-of-it" + plain)

    assert not is_private(kept)
    assert kept.count(b"\xff\xd8\xff") == 1


@pytest.mark.parametrize("is_said_twice", [True, False])
async def test_a_heic_of_a_phone_becomes_an_upright_jpeg_without_a_place(desk: Desk, is_said_twice: bool) -> None:
    """Phones write the turn into the container and into Exif. Who writes it into Exif alone means it, too."""
    exif = phone_exif(6)
    # pillow-heif does as phones do with the bytes of it, and with the object it does not.
    data = saved(four_corners(), "HEIF", exif=exif.tobytes() if is_said_twice else exif)
    assert (b"irot" in data) == is_said_twice
    assert is_private(data)

    examined, kept = await desk.examine(data)

    assert (examined.content_type, examined.width, examined.height) == ("image/jpeg", 48, 64)
    assert corner_order(opened(examined, kept)) == [2, 0, 3, 1]
    assert not is_private(kept)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF", "HEIF"])
async def test_colours_stay_as_they_were_meant(desk: Desk, form: str) -> None:
    """By the profile: what says how the pixels are seen stays, and the serial number in it does not."""
    profile = wide_profile()
    data = saved(four_corners(), form, icc_profile=profile)
    assert SERIAL_NUMBER.encode() in data or form == "PNG"

    kept = await desk.picture(data)

    kept_profile = kept.info["icc_profile"]
    assert not is_private(kept_profile)
    seen = [_on_a_screen(picture, each) for picture, each in ((kept, kept_profile), (four_corners(), profile))]
    for position in ((16, 12), (48, 12), (16, 36), (48, 36)):
        pair: Any = [picture.getpixel(position) for picture in seen]
        assert pair[0] == pytest.approx(pair[1], abs=12)


def _on_a_screen(picture: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    screen = ImageCms.profileToProfile(picture.convert("RGB"), source, ImageCms.createProfile("sRGB"))
    assert screen is not None
    return screen


@pytest.mark.parametrize(
    "profile", [b"no profile", bytes(200), wide_profile()[:300], b"\0" * 36 + b"acsp" + bytes(5000)]
)
async def test_a_profile_that_is_none_is_left_out(desk: Desk, profile: bytes) -> None:
    kept = await desk.picture(saved(four_corners(), "PNG", icc_profile=profile))

    assert "icc_profile" not in kept.info


def _with_mode(mode: str) -> bytes:
    return saved(four_corners().convert(mode), "JPEG" if mode == "CMYK" else "PNG")


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (_with_mode("1"), "L"),
        (_with_mode("L"), "L"),
        (_with_mode("LA"), "LA"),
        (_with_mode("P"), "RGB"),
        (_with_mode("RGBA"), "RGBA"),
        (_with_mode("CMYK"), "RGB"),
        (png(2, 1, b"\0\xff\xff\x80\x00", depth=16), "L"),
        (png(1, 1, b"\0\x01", png_chunk(b"PLTE", bytes(6)), png_chunk(b"tRNS", b"\xff\0"), colour=3), "RGBA"),
        (png(1, 1, b"\0\1\2\3", png_chunk(b"tRNS", b"\0\1\0\2\0\3"), colour=2), "RGBA"),
        (png(1, 1, b"\0\1", png_chunk(b"tRNS", b"\0\1")), "LA"),
    ],
)
async def test_every_kind_of_pixel_ends_up_with_8_bits_a_channel(desk: Desk, data: bytes, mode: str) -> None:
    assert (await desk.picture(data)).mode == mode


async def test_16_bits_of_grey_are_divided_and_not_cut(desk: Desk) -> None:
    kept = await desk.picture(png(3, 1, b"\0\xff\xff\x80\x00\x00\x00", depth=16))

    assert [kept.getpixel((x, 0)) for x in range(3)] == [255, 128, 0]


@pytest.mark.parametrize(("form", "arguments"), [("PNG", {}), ("WEBP", {"lossless": True})])
async def test_what_was_without_loss_stays_so(desk: Desk, form: str, arguments: dict[str, Any]) -> None:
    noise = Image.frombytes("RGB", (50, 40), random.Random(1).randbytes(6000))

    kept = await desk.picture(saved(noise, form, **arguments))

    assert kept.convert("RGB").tobytes() == noise.tobytes()


async def test_a_lossy_picture_looks_as_before(desk: Desk) -> None:
    for suffix in ("jpg", "webp", "avif", "heic"):
        assert corner_order(await desk.picture(samples()[suffix])) == UPRIGHT


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
async def test_what_is_transparent_becomes_a_png(desk: Desk, form: str) -> None:
    picture = four_corners().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))

    examined, kept = await desk.examine(saved(picture, form))

    assert examined.content_type == "image/png"
    assert opened(examined, kept).mode == "RGBA"


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF"])
async def test_of_what_moves_the_first_frame_is_taken(desk: Desk, form: str) -> None:
    frames = [Image.new("RGB", (64, 48), (0, 0, at * 40)) for at in range(1, 5)]

    kept = await desk.picture(saved(four_corners(), form, save_all=True, append_images=frames))

    assert getattr(kept, "n_frames", 1) == 1
    assert corner_order(kept) == UPRIGHT


@pytest.mark.parametrize(("width", "height"), [(16_385, 1), (1, 16_385), (7072, 7072)])
async def test_what_is_too_large_is_refused_with_its_size(desk: Desk, width: int, height: int) -> None:
    refusal = await desk.refusal(png(width, height, bytes((width + 1) * height)))

    assert f"{width} x {height}" in refusal or "50 megapixels" in refusal


async def test_50_megapixels_are_taken(desk: Desk) -> None:
    """Turned, which takes them twice in memory."""
    examined, _ = await desk.examine(saved(Image.new("RGB", (7070, 7070)), "JPEG", exif=phone_exif(6)))

    assert (examined.width, examined.height) == (7070, 7070)


@pytest.mark.parametrize("form", ["mp4", "mov"])
async def test_a_film_loses_its_place_and_begins_with_its_table(desk: Desk, form: str) -> None:
    movie = films()[form]
    said = box(b"udta", box(b"\xa9xyz", struct.pack(">HH", len(PLACE), 0), PLACE.encode()))
    key = b"com.apple.quicktime.location.ISO6709"
    keys = box(b"keys", bytes(4), struct.pack(">I", 1), box(b"mdta", key))
    values = box(b"ilst", box(b"\0\0\0\1", box(b"data", struct.pack(">II", 1, 0), PLACE.encode())))
    meta = box(b"meta", box(b"hdlr", bytes(8), b"mdta", bytes(12)), keys, values)
    data = inserted_into_moov(movie, [said, meta])
    with av.open(io.BytesIO(data)) as container:
        assert container.metadata[key.decode()] == PLACE

    examined, kept = await desk.examine(data)

    check_kept(examined, kept)
    assert not is_private(kept)
    assert b"location" not in kept
    assert kept.index(b"moov") < kept.index(b"mdat")


async def test_a_webm_and_a_sound_lose_their_titles(desk: Desk) -> None:
    webm = film("webm", "libvpx", "libopus", metadata={"title": SERIAL_NUMBER, "artist": "Owner Name"})
    cover = b"APIC" + struct.pack(">I", 40) + b"\0\0\0image/png\0\3\0" + b"thumbnail-of-it".ljust(26)
    title = b"TPE1" + struct.pack(">I", 11) + b"\0\0\0Owner Name"
    tag = b"ID3\x03\0\0" + bytes((0, 0, 0, len(cover + title))) + cover + title
    for data in (webm, tag + sounds()["mp3"], wav_of(extra=(b"LIST", b"INFOIART\x0a\0\0\0Owner Name"))):
        assert is_private(data)

        examined, kept = await desk.examine(data)

        check_kept(examined, kept)
        assert not is_private(kept)


async def test_a_film_that_is_turned_stays_so_and_says_how_it_is_seen(desk: Desk) -> None:
    movie = films()["mov"]
    at = movie.index(b"tkhd") + 44
    turned = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 2**30)

    examined, kept = await desk.examine(movie[:at] + turned + movie[at + 36 :])

    assert (examined.width, examined.height) == (64, 96)
    with av.open(io.BytesIO(kept), "r") as container:
        assert next(container.decode(video=0)).rotation in (90, -90)


@pytest.mark.parametrize(("codec", "name"), [("libx265", "hevc"), ("libsvtav1", "av1"), ("libvpx-vp9", "vp9")])
async def test_other_codecs_stay_as_they_are(desk: Desk, codec: str, name: str) -> None:
    examined, kept = await desk.examine(film("mp4", codec, None))

    check_kept(examined, kept)
    with av.open(io.BytesIO(kept)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == name


async def test_hevc_of_a_phone_keeps_the_name_by_which_apples_players_know_it(desk: Desk) -> None:
    data = film("mov", "libx265", "aac").replace(b"hev1", b"hvc1")

    _, kept = await desk.examine(data)

    assert b"hvc1" in kept
    assert b"hev1" not in kept


async def test_a_codec_that_is_not_taken_is_named(desk: Desk) -> None:
    assert "is coded as mpeg4, which is not taken" in await desk.refusal(film("mp4", "mpeg4", None))


async def test_what_lasts_too_long_is_refused(desk: Desk) -> None:
    assert "longer than 10 minutes" in await desk.refusal(wav_of(rate=8000, align=1, bits=8, data=bytes(8000 * 601)))


async def test_a_sound_in_the_container_of_films_is_no_film(desk: Desk) -> None:
    assert "no pictures that move" in await desk.refusal(film("mp4", None, "aac"))
