"""Pictures for a model: dropped, pasted, several at once, and what is said of those that are not taken."""

import io
import re
from base64 import b64encode
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.async_api import JSHandle, expect

from tests.browser.studio import Studio
from tests.media_samples import SERIAL_NUMBER, phone_exif, saved, sounds

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

# As a browser holds what is dragged over it, or copied.
TRANSFER = """files => {
    const transfer = new DataTransfer();
    for (const [name, type, content] of files) {
        const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type }));
    }
    return transfer;
}"""
TOO_MANY_BYTES = 101 * 1024 * 1024


def a_picture(side: int = 600) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(written, "PNG")
    return written.getvalue()


async def transfer_of(studio: Studio, *files: tuple[str, str, bytes]) -> JSHandle:
    given = [[name, kind, b64encode(content).decode()] for name, kind, content in files]
    return await studio.page.evaluate_handle(TRANSFER, given)


async def drop(studio: Studio, selector: str, *files: tuple[str, str, bytes]) -> None:
    await studio.page.dispatch_event(selector, "drop", {"dataTransfer": await transfer_of(studio, *files)})


async def begin_to_edit(studio: Studio) -> None:
    await studio.begin()
    await studio.page.get_by_role("radio", name="Edit image").check()
    await expect(studio.page.locator(".media")).to_have_count(1)


@pytest.mark.parametrize("place", [".media", ".pay"], ids=["on its field", "beside it"])
async def test_a_picture_is_dropped_on_the_form(studio: Studio, place: str) -> None:
    await begin_to_edit(studio)

    await drop(studio, place, ("a bay.png", "image/png", a_picture()))

    await expect(studio.page.locator(".inputs img")).to_have_count(1)
    await studio.make("at night")
    await expect(studio.pictures).to_have_count(1)


async def test_a_photograph_from_a_phone_becomes_a_film(studio: Studio, tmp_path: Path) -> None:
    """Taken sideways, in a format that no provider takes, with the place where it was taken."""
    photograph = tmp_path / "IMG_0001.HEIC"
    photograph.write_bytes(saved(Image.effect_noise((1600, 1200), 60).convert("RGB"), "HEIF", exif=phone_exif(6)))
    await studio.begin()
    await studio.page.get_by_role("radio", name="Image to video").check()
    async with studio.page.expect_file_chooser() as chooser:
        await studio.page.get_by_role("group", name="Image").get_by_role("button", name="Choose file").click()
    await (await chooser.value).set_files(photograph)
    shown = studio.page.locator(".inputs img")
    await expect(shown).to_have_count(1)

    assert await shown.evaluate("shown => shown.decode().then(() => [shown.naturalWidth, shown.naturalHeight])") == [
        1200,
        1600,
    ]
    link = await shown.get_attribute("src")
    kept = httpx.get(str(link), trust_env=False, timeout=30).content
    assert kept.startswith(b"\xff\xd8\xff")
    assert SERIAL_NUMBER.encode() not in kept
    await studio.make("it waves")
    await expect(studio.page.locator(".runs .thumb video")).not_to_have_js_property("videoWidth", 0)


@pytest.mark.parametrize("kind", ["Edit image", "Text to image"])
async def test_a_picture_is_pasted(studio: Studio, kind: str) -> None:
    """Where nothing takes it, that chooses a type that does."""
    await studio.begin()
    await studio.page.get_by_role("radio", name=kind).check()
    await studio.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copied = b64encode(a_picture()).decode()
    await studio.page.evaluate(
        """async (content) => {
            const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
            const picture = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        copied,
    )

    await studio.prompt.focus()
    await studio.page.keyboard.press("Control+V")

    await expect(studio.page.locator(".inputs img")).to_have_count(1)
    await expect(studio.prompt).to_have_value("")


async def test_several_are_given_at_once_as_far_as_there_is_room(studio: Studio) -> None:
    await begin_to_edit(studio)
    names = ("one.png", "two.png", "three.png")

    await drop(studio, ".media", *((name, "image/png", a_picture(600 + at)) for at, name in enumerate(names)))

    await expect(studio.page.locator(".inputs img")).to_have_count(2)
    await expect(studio.page.locator(".media .field-error")).to_have_text(
        "three.png: There is no room for it. Remove another one first."
    )
    await expect(studio.page.get_by_text("2 pictures are all that fit.")).to_be_visible()
    await studio.make("side by side")
    await expect(studio.pictures).to_have_count(1)


async def test_what_is_no_picture_is_said_at_its_field(studio: Studio) -> None:
    # The refusal of an upload is in the console.
    studio.may_fail = True
    await begin_to_edit(studio)
    refused = studio.page.locator(".field-media-list .field-error")

    for name, kind, content in (
        ("notes.txt", "text/plain", b"Buy milk."),
        # By its content, whatever it calls itself.
        ("notes.png", "image/png", b"Buy milk."),
        ("sound.png", "image/png", next(iter(sounds().values()))),
    ):
        await drop(studio, ".pay", (name, kind, content))
        await expect(refused).to_have_text(
            f"{name}: This is no picture. Choose a PNG, JPEG, WebP, GIF, AVIF or HEIC file."
        )
    await expect(studio.page.locator(".inputs")).to_have_count(0)


async def test_a_field_that_is_full_says_first_what_is_wrong_with_a_file(studio: Studio) -> None:
    await begin_to_edit(studio)
    await drop(studio, ".media", *((f"{side}.png", "image/png", a_picture(side)) for side in (600, 601)))
    await expect(studio.page.locator(".inputs img")).to_have_count(2)

    notes, third = ("notes.txt", "text/plain", b"Buy milk."), ("602.png", "image/png", a_picture(602))
    await drop(studio, ".media", notes, third)

    await expect(studio.page.locator(".media .field-error")).to_have_text(
        [
            "notes.txt: This is no picture. Choose a PNG, JPEG, WebP, GIF, AVIF or HEIC file.",
            "602.png: There is no room for it. Remove another one first.",
        ]
    )


async def test_what_is_too_large_is_said_at_its_field_and_not_sent(studio: Studio, tmp_path: Path) -> None:
    await begin_to_edit(studio)
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(TOO_MANY_BYTES)

    async with studio.page.expect_file_chooser() as chooser:
        await studio.page.get_by_role("button", name="Choose file").click()
    await (await chooser.value).set_files(large)

    await expect(studio.page.locator(".field-media-list .field-error")).to_have_text(
        "large.png: This file has 105.9 MB, and 104.9 MB are taken. Choose a smaller one, or save it smaller first."
    )
    assert not [url for url in studio.requests if url.endswith("/files")]


async def test_what_the_model_does_not_take_is_said_at_its_field_at_once(studio: Studio) -> None:
    await begin_to_edit(studio)
    refused = studio.page.locator(".field-media-list .field-error")

    await drop(studio, ".media", ("small.png", "image/png", a_picture(50)))

    sentence = "This picture has 50 × 50 pixels: each side must have at least 384."
    await expect(refused).to_have_text(sentence)
    await studio.make("larger")
    await expect(refused).to_have_text(sentence)
    await expect(studio.page.get_by_role("button", name="Choose file")).to_be_focused()
    assert await studio.jobs() == []
    # Another model takes it.
    await studio.page.locator(".model-button").click()
    await studio.page.get_by_role("combobox", name="Search models").fill("FLUX.2 dev edit")
    await studio.page.keyboard.press("Enter")
    await expect(refused).to_have_count(0)
    await studio.make("larger")
    await expect(studio.pictures).to_have_count(1)


async def drag(studio: Studio, *files: tuple[str, str, bytes]) -> None:
    await studio.page.dispatch_event("#results", "dragover", {"dataTransfer": await transfer_of(studio, *files)})


@pytest.mark.parametrize(
    ("target", "chosen"), [("Edit this", "Edit image"), ("Make a video of this", "Image to video")]
)
async def test_what_is_dragged_over_the_page_says_what_to_make_of_it(studio: Studio, target: str, chosen: str) -> None:
    await studio.begin()
    await studio.prompt.fill("at night")
    picture = ("a bay.png", "image/png", a_picture())
    targets = studio.page.locator(".drop-target")
    await drag(studio, picture)
    await expect(targets).to_have_text(["Edit this", "Make a video of this"])
    await targets.filter(has_text=target).dispatch_event("drop", {"dataTransfer": await transfer_of(studio, picture)})

    await expect(targets).to_have_count(0)
    await expect(studio.page.get_by_role("radio", name=chosen)).to_be_checked()
    await expect(studio.page.locator(".inputs img")).to_have_count(1)
    await expect(studio.prompt).to_have_value("at night")


@pytest.mark.parametrize("place", [".pay", ".examples"], ids=["the form", "the results"])
async def test_a_picture_for_which_there_is_no_field_chooses_a_type(studio: Studio, place: str) -> None:
    await studio.begin()
    await expect(studio.page.locator(".examples button").first).to_be_visible()
    picture = ("a bay.png", "image/png", a_picture())

    await drop(studio, place, ("notes.txt", "text/plain", b"Buy milk."))
    await expect(studio.page.locator(".note")).to_have_text(re.compile("^notes.txt: This is no picture."))
    await expect(studio.page.get_by_role("radio", name="Text to image")).to_be_checked()
    await drop(studio, place, picture)

    await expect(studio.page.get_by_role("radio", name="Edit image")).to_be_checked()
    await expect(studio.page.locator(".inputs img")).to_have_count(1)
