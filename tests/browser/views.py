"""All that the page can show, one view after another, each with something in it."""

from collections.abc import AsyncIterator

from playwright.async_api import expect

from tests.browser.studio import Studio, a_user


async def each_view(studio: Studio) -> AsyncIterator[str]:
    """Yields the name of each, once it is there as a whole."""
    page = studio.page
    await studio.visit()
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    yield "welcome"
    full = a_user(studio.url, 1000)
    await studio.sign_in(full)
    await expect(page.locator(".examples button").first).to_be_visible()
    yield "nothing made yet"
    await studio.make("[fail] a thing of which nothing comes")
    await expect(page.locator(".failed")).to_be_visible()
    await studio.make("a hill")
    await expect(studio.pictures).to_have_count(1)
    await studio.make("[slow:600] a mountain")
    await expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    await page.get_by_role("radio", name="Image to video").check()
    await page.locator(".more summary").click()
    yield "create"
    for name in ("JSON", "Code"):
        await page.get_by_role("radio", name=name, exact=True).check()
        yield f"create, {name}"
    await page.get_by_role("radio", name="Form", exact=True).check()
    await page.locator(".model-button").click()
    await expect(page.locator("#models li").first).to_be_visible()
    yield "models"
    await page.keyboard.press("Escape")
    await page.get_by_label("Your key and sign-out").click()
    yield "menu"
    await page.keyboard.press("Escape")
    await studio.pictures.click()
    await expect(page.locator(".zoom img")).to_be_visible()
    await page.locator(".code-box summary").click()
    await page.locator(".answer-box summary").click()
    await expect(page.locator(".answer-box pre")).to_contain_text('"status": "COMPLETED"')
    yield "result"
    await page.keyboard.press("Escape")
    await studio.card("a thing").locator("button.stage").click()
    await expect(page.locator(".state-box")).to_be_visible()
    yield "failure"
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="History").click()
    await expect(page.locator(".rows li")).to_have_count(3)
    yield "history"
    await page.get_by_role("radio", name="Grid").check()
    await expect(page.locator(".tiles li")).to_have_count(3)
    yield "history, grid"
    await page.locator("nav").get_by_role("link", name="Balance").click()
    await expect(page.locator("tbody tr")).to_have_count(4)
    yield "ledger"
    await page.get_by_role("link", name="Keys").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    yield "keys, asked for"
    await page.get_by_label("API key").fill(full)
    await page.get_by_role("button", name="Open").click()
    await expect(page.locator(".entries li")).to_have_count(2)
    for summary in ("Make a key", "Add an endpoint"):
        await page.get_by_text(summary, exact=True).click()
    yield "keys"
