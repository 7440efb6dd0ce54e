"""The form: JSON that is wrong in several ways, and one's own pictures to choose from."""

import httpx
import pytest
from playwright.async_api import Route, expect

from tests.browser.studio import Studio

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]


async def test_all_that_is_wrong_with_json_is_said_above_it_and_by_the_button(studio: Studio) -> None:
    # The service refuses to price it.
    studio.may_fail = True
    await studio.begin()
    await studio.page.get_by_role("radio", name="JSON").check()
    field = studio.page.get_by_label("Parameters as JSON")

    await field.fill('{"prompt": 5, "num_images": 22, "wings": 2}')

    errors = studio.page.locator("#json-errors p")
    await expect(errors).to_have_text(
        [
            "/prompt This must be a string.",
            "/num_images This must be at most 4.",
            "/wings This model has no parameter of this name.",
        ]
    )
    await expect(studio.page.get_by_text("3 parameters are wrong: see above the JSON.")).to_be_visible()
    await expect(studio.generate).to_be_disabled()
    await expect(field).to_have_attribute("aria-invalid", "true")
    await field.fill('{"prompt": "a bird", "num_images": 2}')
    await expect(errors).to_have_count(0)
    await expect(studio.generate).to_have_text("Generate for 10 tokens")


async def test_the_gallery_to_choose_from_goes_on_to_older_pictures(studio: Studio) -> None:
    async def two_at_once(route: Route) -> None:
        await route.continue_(url=route.request.url.replace("limit=50", "limit=2"))

    await studio.begin()
    async with httpx.AsyncClient(headers={"X-API-Key": await studio.key()}, trust_env=False, timeout=30) as http:
        for prompt in ("a red kite", "a heron", "a crane"):
            answer = await http.post(f"{studio.url}/generations/images/text-to-image", json={"prompt": prompt})
            answer.raise_for_status()
    await expect(studio.pictures).to_have_count(3)
    await studio.page.route("**/generations?limit=50*", two_at_once)
    await studio.page.reload()
    await expect(studio.pictures).to_have_count(2)
    await studio.page.get_by_role("radio", name="Edit image").check()

    await studio.page.get_by_role("button", name="From gallery").click()

    dialog = studio.page.get_by_role("dialog")
    offered = dialog.locator(".picker button")
    await expect(offered).to_have_text(["a crane", "a heron"])
    await dialog.get_by_role("button", name="Load more").click()
    await expect(offered).to_have_text(["a crane", "a heron", "a red kite"])
    await dialog.get_by_label("Search prompts").fill("KITE")
    await offered.click()
    await expect(dialog).to_have_count(0)
    await expect(studio.page.locator(".inputs img")).to_be_visible()
