"""`python -m tests.browser.screenshots` makes docs/images anew, of the page as it is now."""

import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import httpx
from PIL import Image
from playwright.async_api import Browser, ViewportSize, expect

from tests.browser.studio import Studio, a_user, running_chromium, running_service
from tests.service_process import PROJECT_DIR

IMAGES = PROJECT_DIR / "docs" / "images"
DESKTOP = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=390, height=844)
BYTES_MAX = 300_000
PROMPTS = ("a lighthouse in fog", "two herons at dusk", "a harbour, seen from above", "a fox asleep in the snow")

Theme = Literal["light", "dark"]


async def welcome(studio: Studio) -> None:
    await studio.visit()
    await expect(studio.page.get_by_label("API key")).to_be_visible()


async def empty(studio: Studio) -> None:
    await studio.begin()
    await expect(studio.generate).to_contain_text("for")


async def made(studio: Studio) -> None:
    await empty(studio)
    for count, prompt in enumerate(PROMPTS, 1):
        await studio.make(prompt)
        await expect(studio.pictures).to_have_count(count)
        await are_drawn(studio)


async def running(studio: Studio) -> None:
    await made(studio)
    await studio.make("[slow:60] a train through the night")
    await expect(studio.page.get_by_role("button", name="Cancel")).to_be_visible()
    await studio.prompt.fill("a train through the night, in the rain")
    await studio.page.wait_for_timeout(3000)


async def result(studio: Studio) -> None:
    await made(studio)
    await studio.pictures.first.click()
    await are_drawn(studio)


async def failed(studio: Studio) -> None:
    await made(studio)
    await studio.make("[fail:content_policy_violation] something else")
    await expect(studio.page.get_by_text("Nothing was charged").first).to_be_visible()


async def history(studio: Studio) -> None:
    await failed(studio)
    await go_to(studio, "History")
    await are_drawn(studio)


async def balance(studio: Studio) -> None:
    await failed(studio)
    await go_to(studio, "Balance")
    await expect(studio.page.locator("tbody tr").first).to_be_visible()


async def keys(studio: Studio) -> None:
    key = a_user(studio.url, 500)
    for name, budget in (("a shop", {"tokens": 200, "per": "month"}), ("a bot", {"tokens": 50, "per": "day"})):
        body = {"name": name, "scopes": ["generate", "read"], "budget": budget}
        made = httpx.post(f"{studio.url}/keys", json=body, headers={"X-API-Key": key}, trust_env=False, timeout=30)
        made.raise_for_status()
    await studio.sign_in(key)
    await go_to(studio, "Keys")
    await studio.page.get_by_label("API key").fill(key)
    await studio.page.get_by_role("button", name="Open").click()
    await expect(studio.page.get_by_text("a bot")).to_be_visible()


async def results(studio: Studio) -> None:
    """As far down as a phone shows them."""
    await made(studio)
    await studio.page.locator("#results").scroll_into_view_if_needed()
    await studio.page.evaluate("document.getElementById('results').scrollIntoView()")


async def go_to(studio: Studio, view: str) -> None:
    await studio.page.locator("nav").get_by_role("link", name=view).click()


async def are_drawn(studio: Studio) -> None:
    await studio.page.evaluate("Promise.all([...document.images].map((image) => image.decode().catch(() => {})))")


State = tuple[Callable[[Studio], Awaitable[None]], ViewportSize, Theme]
STATES: Mapping[str, State] = {
    "welcome-light": (welcome, DESKTOP, "light"),
    "empty-light": (empty, DESKTOP, "light"),
    "studio-light": (made, DESKTOP, "light"),
    "running-light": (running, DESKTOP, "light"),
    "running-dark": (running, DESKTOP, "dark"),
    "result-light": (result, DESKTOP, "light"),
    "result-dark": (result, DESKTOP, "dark"),
    "failed-light": (failed, DESKTOP, "light"),
    "history-dark": (history, DESKTOP, "dark"),
    "balance-dark": (balance, DESKTOP, "dark"),
    "keys-light": (keys, DESKTOP, "light"),
    "create-phone-light": (empty, PHONE, "light"),
    "create-phone-dark": (empty, PHONE, "dark"),
    "results-phone-light": (results, PHONE, "light"),
    "results-phone-dark": (results, PHONE, "dark"),
}


async def take(browser: Browser, url: str, name: str) -> int:
    """Returns its size in bytes."""
    state, viewport, theme = STATES[name]
    options: dict[str, Any] = {"viewport": viewport, "color_scheme": theme, "is_mobile": viewport is PHONE}
    async with Studio.opened(browser, url, **options) as studio:
        await state(studio)
        # Sentences that go by themselves are no part of the state.
        await studio.page.wait_for_timeout(500)
        await studio.page.mouse.move(0, 0)
        # A press by Playwright scrolls what it presses into view.
        await studio.page.evaluate("document.querySelector('.form')?.scrollTo(0, 0)")
        content = await studio.page.screenshot(animations="disabled")
    with Image.open(io.BytesIO(content)) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)
    return (IMAGES / f"{name}.png").stat().st_size


async def main(names: list[str]) -> None:
    with running_service({}) as service:
        async with running_chromium() as browser:
            sizes = {name: await take(browser, service.url, name) for name in names or STATES}
    sys.stdout.write(json.dumps(sizes, indent=1) + "\n")
    if max(sizes.values()) > BYTES_MAX:
        raise SystemExit(f"Too large: at most {BYTES_MAX} bytes each.")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
