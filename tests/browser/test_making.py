"""From the first visit to a finished picture, and what may come in between."""

import json
import re
import subprocess
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from PIL import Image
from playwright.async_api import Route, expect

from tests.browser.studio import Studio, a_user, top_up
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]


async def test_a_newcomer_gets_a_picture(studio: Studio) -> None:
    await studio.begin()
    await expect(studio.balance).to_have_text("1,000 tokens")

    await studio.page.get_by_role("button", name="A lighthouse on a cliff").click()
    await expect(studio.generate).to_have_text("Generate for 5 tokens")
    await studio.generate.click()

    await expect(studio.pictures).to_have_count(1)
    await expect(studio.balance).to_have_text("995 tokens")
    assert await studio.pictures.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1024


async def test_the_key_of_the_page_is_a_narrow_one(studio: Studio) -> None:
    full = a_user(studio.url, 100)
    await studio.sign_in(full)
    await expect(studio.prompt).to_be_visible()

    kept = await studio.key()
    own = httpx.get(f"{studio.url}/keys/current", headers={"X-API-Key": kept}, trust_env=False).json()
    assert kept != full
    assert full not in str(await studio.stored())
    assert (own["scopes"], own["name"].startswith("studio, ")) == (["generate", "read"], True)
    assert own["expires_at"] is not None


async def test_the_price_follows_the_form(studio: Studio) -> None:
    await studio.begin()
    await expect(studio.generate).to_have_text("Generate for 5 tokens")

    await studio.page.get_by_label("Number of images").fill("3")
    await expect(studio.generate).to_have_text("Generate for 15 tokens")
    await expect(studio.page.locator(".pay .lines")).to_contain_text("3 images × 5 tokens")

    await studio.page.get_by_role("radio", name="Text to video").check()
    await expect(studio.generate).to_have_text("Generate for 30 tokens")
    await studio.page.get_by_role("radio", name="10", exact=True).check()
    await expect(studio.generate).to_have_text("Generate for 55 tokens")


async def test_what_is_missing_is_said_at_its_field(studio: Studio) -> None:
    await studio.begin()
    await studio.page.get_by_role("radio", name="Image to video").check()

    await studio.generate.click()

    await expect(studio.page.get_by_text("This is needed.")).to_have_count(2)
    await expect(studio.page.get_by_role("button", name="Choose file").first).to_be_focused()


async def test_a_balance_that_is_too_low_is_said_before_the_press(studio: Studio) -> None:
    user = str(uuid4())
    await studio.sign_in(a_user(studio.url, 3, user))

    await expect(studio.page.get_by_text("2 tokens are missing; your balance is 3 tokens.")).to_be_visible()
    await expect(studio.generate).to_be_disabled()

    # What is paid meanwhile arrives without a reload.
    top_up(studio.url, user, 10)
    await expect(studio.page.locator(".arrival")).to_have_text("+10 tokens")
    await expect(studio.generate).to_be_enabled()


async def test_a_balance_that_was_spent_elsewhere_is_said_by_the_service(studio: Studio) -> None:
    """By a tab that has not heard of it yet: nothing is charged, and the sentence has the numbers."""
    studio.may_fail = True
    await studio.begin()
    await expect(studio.generate).to_have_text("Generate for 5 tokens")

    async def refuse(route: Route) -> None:
        figures = {"required_tokens": 5, "balance_tokens": 1, "missing_tokens": 4}
        problem = {"status": 402, "code": "insufficient_balance", "detail": "No.", **figures}
        await route.fulfill(status=402, body=json.dumps(problem), content_type="application/problem+json")

    await studio.page.route("**/generations/images/text-to-image", refuse)
    await studio.make("a yacht")

    await expect(studio.page.get_by_role("alert")).to_have_text(re.compile("costs 5 tokens, and 1 are there"))
    await expect(studio.balance).to_have_text("1,000 tokens")


async def test_a_failure_says_that_nothing_was_charged(studio: Studio) -> None:
    await studio.begin()

    await studio.make("[fail] a thing")

    await expect(studio.page.get_by_text("Nothing was charged: 5 tokens are back.")).to_be_visible()
    await expect(studio.page.locator(".arrival")).to_have_text("+5 tokens back")
    await expect(studio.balance).to_have_text("1,000 tokens")


async def test_a_run_can_be_canceled(studio: Studio) -> None:
    await studio.begin()
    await studio.make("[slow:60] a snail")
    await expect(studio.balance).to_have_text("995 tokens")

    await studio.page.get_by_role("button", name="Cancel").click()

    await expect(studio.card("a snail").locator(".state")).to_have_text("Canceled")
    await expect(studio.balance).to_have_text("1,000 tokens")


async def test_a_result_is_the_next_input(studio: Studio) -> None:
    await studio.begin()
    await studio.make("a fox")
    await expect(studio.pictures).to_have_count(1)

    await studio.pictures.first.click()
    await studio.page.get_by_role("dialog").get_by_role("button", name="Make a video of this").click()

    await expect(studio.page.locator(".inputs img")).to_be_visible()
    await expect(studio.generate).to_have_text("Generate for 35 tokens")
    await studio.make("it runs")
    await expect(studio.page.locator(".runs .thumb video")).to_have_count(1)


async def test_arrows_lead_through_the_files_and_on_to_the_other_jobs(studio: Studio) -> None:
    await studio.begin()
    await studio.make("a lake")
    await expect(studio.pictures).to_have_count(1)
    await studio.page.get_by_label("Number of images").fill("2")
    await studio.make("two birds")
    await expect(studio.pictures).to_have_count(3)
    await studio.pictures.first.click()
    shown, places = studio.page.locator(".zoom img"), studio.page.locator(".turn .number")
    await expect(shown).to_have_attribute("alt", "two birds")

    for key, alt, place in (
        ("ArrowLeft", "two birds", "1 of 2"),
        ("ArrowRight", "two birds", "2 of 2"),
        ("ArrowRight", "a lake", None),
        ("ArrowRight", "a lake", None),
        ("ArrowLeft", "two birds", "2 of 2"),
    ):
        await studio.page.keyboard.press(key)
        await expect(shown).to_have_attribute("alt", alt)
        await (expect(places).to_have_text(place) if place else expect(places).to_have_count(0))


async def test_an_example_leaves_the_picture_to_the_user(studio: Studio) -> None:
    """That of the catalogue is nobody's, and no provider could fetch it."""
    await studio.begin()

    await studio.page.locator(".examples button", has_text="with a picture of yours").first.click()

    await expect(studio.prompt).not_to_have_value("")
    await expect(studio.page.locator(".inputs li")).to_have_count(0)
    await expect(studio.page.get_by_role("button", name="Choose file")).to_be_focused()


async def test_a_file_is_uploaded(studio: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "a picture.png"
    Image.new("RGB", (600, 600), "teal").save(picture)
    await studio.begin()
    await studio.page.get_by_role("radio", name="Edit image").check()

    async with studio.page.expect_file_chooser() as chooser:
        await studio.page.get_by_role("button", name="Choose file").click()
    await (await chooser.value).set_files(picture)

    await expect(studio.page.locator(".inputs img")).to_be_visible()
    await studio.make("in winter")
    await expect(studio.pictures).to_have_count(1)


async def test_again_brings_the_request_back(studio: Studio) -> None:
    await studio.begin()
    await studio.page.get_by_label("Number of images").fill("2")
    await studio.make("two birds")
    await expect(studio.pictures).to_have_count(2)
    await studio.page.get_by_role("button", name="Reset").click()
    await expect(studio.prompt).to_have_value("")

    await studio.pictures.first.click()
    await studio.page.get_by_role("dialog").get_by_role("button", name="Again with changes").click()

    await expect(studio.prompt).to_have_value("two birds")
    await expect(studio.page.get_by_label("Number of images")).to_have_value("2")


async def test_what_is_copied_runs_in_a_shell(studio: Studio, service: ServiceProcess) -> None:
    await studio.begin()
    await studio.prompt.fill('it\'s "the" $HOME; `id` \\ а')
    await studio.page.get_by_role("radio", name="Code").check()
    curl, python = await studio.page.locator(".code-lines pre").all_inner_texts()
    key = await studio.key()

    assert key not in curl + python
    for command in (["sh", "-c", curl], ["python3", "-c", python]):
        ran = subprocess.run(
            command, env={"TOLLGATE_KEY": key, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
        )
        assert ("job_id" in ran.stdout) or ran.stdout.startswith(service.url)
    headers = {"X-API-Key": key}
    jobs = httpx.get(f"{studio.url}/generations", headers=headers, trust_env=False).json()["items"]
    assert len(jobs) == 2


async def test_a_prompt_as_json(studio: Studio) -> None:
    await studio.begin()
    await studio.page.get_by_role("radio", name="JSON").check()

    await studio.page.get_by_label("Parameters as JSON").fill('{"prompt": "a boat", "num_images": 2}')

    await expect(studio.generate).to_have_text("Generate for 10 tokens")
    await studio.page.get_by_role("radio", name="Form").check()
    await expect(studio.prompt).to_have_value("a boat")


async def test_json_that_the_form_cannot_show_breaks_nothing(studio: Studio) -> None:
    await studio.begin()
    field = studio.page.get_by_label("Parameters as JSON")
    form, as_json = (studio.page.get_by_role("radio", name=name, exact=True) for name in ("Form", "JSON"))
    await as_json.check()
    for text in ("null", "5", "[]"):
        await field.fill(text)
        await form.click()
        await expect(studio.page.get_by_text("This is not JSON yet.")).to_be_visible()
    await field.fill('{"prompt": ["a boat"], "image_size": 5, "num_images": null, "seed": "x"}')
    await studio.page.reload()
    await form.check()

    await expect(studio.prompt).to_have_value("")
    await studio.make("a boat")
    await expect(studio.pictures).to_have_count(1)


async def test_a_press_that_is_one_too_many_makes_nothing_more(studio: Studio) -> None:
    await studio.begin()
    await studio.prompt.fill("a single owl")
    await expect(studio.generate).to_have_text(re.compile("for"))

    await studio.generate.dblclick()
    await studio.prompt.focus()
    for _ in range(5):
        await studio.page.keyboard.press("Control+Enter")

    await expect(studio.pictures).to_have_count(1)
    await expect(studio.balance).to_have_text("995 tokens")


async def test_a_price_that_has_changed_is_shown_before_the_next_press(studio: Studio) -> None:
    studio.may_fail = True
    await studio.begin()
    sent: list[int] = []

    async def dearer(route: Route) -> None:
        sent.append((route.request.post_data_json or {})["max_cost_tokens"])
        problem = {"code": "price_exceeds_maximum", "status": 409, "detail": "dearer", "cost_tokens": 7}
        await route.fulfill(status=409, json=problem, content_type="application/problem+json")

    await studio.page.route("**/generations/images/text-to-image", dearer, times=1)
    await studio.prompt.fill("a kite")
    await expect(studio.generate).to_have_text(re.compile("for"))
    before = quotes_asked_for(studio)
    await studio.generate.click()
    await expect(studio.page.get_by_text("press again to accept it").first).to_be_visible()
    await expect(studio.generate).to_have_text(re.compile("for"))
    assert quotes_asked_for(studio) == before + 1
    await studio.generate.click()

    await expect(studio.pictures).to_have_count(1)
    assert sent == [5]


def quotes_asked_for(studio: Studio) -> int:
    return sum(url.endswith("/quotes") for url in studio.requests)


async def test_models_are_searched(studio: Studio) -> None:
    await studio.begin()

    await studio.page.locator(".model-button").click()
    await studio.page.get_by_role("combobox", name="Search models").fill("schnell")
    await expect(studio.page.locator("#models").get_by_role("option")).to_have_count(1)
    await studio.page.keyboard.press("Enter")

    await expect(studio.page.locator(".model-button")).to_contain_text(re.compile("schnell"))
    await expect(studio.page.get_by_role("dialog")).to_have_count(0)
