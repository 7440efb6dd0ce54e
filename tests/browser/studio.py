"""The page as a test uses it: by what is written on it."""

import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    async_playwright,
    expect,
)

from tests.service_process import WITHOUT_LIMITS, ServiceProcess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
# Drawing and a run of the simulator, on a machine that is busy with other tests.
expect.set_options(timeout=30_000)


class Studio:
    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context, self.page, self.url = context, page, url
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.may_fail = False
        """Chromium writes each answer of 400 and more, and each lost connection, to its console."""
        self._watch(page)

    @classmethod
    @asynccontextmanager
    async def opened(cls, browser: Browser, url: str, **options: Any) -> AsyncIterator[Self]:
        options = {"locale": "en-US", "viewport": {"width": 1280, "height": 900}, **options}
        context = await browser.new_context(**options)
        try:
            yield cls(context, await context.new_page(), url)
        finally:
            await context.close()

    def _watch(self, page: Page) -> None:
        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.errors.append(message.text)

        def on_request(request: Request) -> None:
            self.requests.append(request.url)

        page.on("console", on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", on_request)

    async def another_tab(self) -> Page:
        page = await self.context.new_page()
        self._watch(page)
        await page.goto(self.url)
        return page

    def check_quiet(self) -> None:
        errors = [text for text in self.errors if not (self.may_fail and text.startswith("Failed to load resource"))]
        elsewhere = [url for url in self.requests if not url.startswith((self.url, "data:", "blob:"))]

        assert errors == []
        assert elsewhere == []
        assert not [url for url in self.requests if "tgk_" in url], "a key is in a URL"

    async def visit(self, place: str = "") -> None:
        await self.page.goto(f"{self.url}/{place}")

    async def begin(self) -> None:
        """As a newcomer."""
        await self.visit()
        await self.page.get_by_role("button", name="Make me a key with tokens").click()
        await self.save_the_secret()
        await expect(self.prompt).to_be_visible()

    async def save_the_secret(self) -> str:
        """It is shown once."""
        secret = await self.page.locator("dialog .secret code").inner_text()
        await self.page.get_by_role("button", name="I have saved it").click()
        return secret

    async def open_keys(self, full: str) -> None:
        await self.page.get_by_role("link", name="Keys").click()
        await self.page.get_by_label("API key").fill(full)
        await self.page.get_by_role("button", name="Open").click()

    async def sign_in(self, key: str, *, remember: bool = False) -> None:
        await self.visit()
        await self.page.get_by_label("API key").fill(key)
        if remember:
            await self.page.get_by_label("Stay signed in").check()
        await self.page.get_by_role("button", name="Sign in", exact=True).click()

    @property
    def prompt(self) -> Locator:
        return self.page.get_by_label("Prompt", exact=True)

    @property
    def generate(self) -> Locator:
        return self.page.get_by_role("button", name=re.compile("^Generate"))

    @property
    def balance(self) -> Locator:
        return self.page.locator(".balance a")

    @property
    def tiles(self) -> Locator:
        return self.page.locator(".runs .tile")

    @property
    def pictures(self) -> Locator:
        """Each once: of several that came together one is large, and small again below it."""
        return self.page.locator(".runs :is(.thumb, .frame[aria-pressed=false]) img")

    async def make(self, prompt: str) -> None:
        await self.prompt.fill(prompt)
        await expect(self.generate).to_have_text(re.compile("for"))
        await self.generate.click()

    async def stored(self) -> dict[str, str]:
        stored: dict[str, str] = await self.page.evaluate("({...localStorage, ...sessionStorage})")
        return stored

    async def jobs(self) -> list[dict[str, Any]]:
        """What the service knows of, the newest first."""
        async with httpx.AsyncClient(headers={"X-API-Key": await self.key()}, trust_env=False, timeout=30) as http:
            items: list[dict[str, Any]] = (await http.get(f"{self.url}/generations")).json()["items"]
        return items

    def card(self, prompt: str) -> Locator:
        return self.page.locator(".runs .tile", has_text=prompt)

    async def key(self) -> str:
        found = re.search(r"tgk_\w+", (await self.stored())["tollgate.session"])
        assert found is not None
        return found.group()

    async def findings(self) -> list[str]:
        """What axe-core finds, in one line each."""
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = await self.page.evaluate("axe.run({resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    async def is_as_wide_as_the_screen(self) -> bool:
        wide: bool = await self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        return wide


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Chromium has no sandbox for root, as whom tests run in a container.
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@contextmanager
def running_service(settings: Mapping[str, str]) -> Iterator[ServiceProcess]:
    # Short and open to the user as whom PostgreSQL runs for root, which pytest's own directory is not.
    with tempfile.TemporaryDirectory(prefix="tollgate-studio-", dir="/tmp") as directory:
        settings = {"DATA_DIR": f"{directory}/data", **WITHOUT_LIMITS, **settings}
        with ServiceProcess(Path(directory) / "service.log", settings) as service:
            yield service.wait_until_ready()


def a_user(url: str, tokens: int, user: str | None = None) -> str:
    """The full key of a user with so many tokens."""
    user = user or str(uuid4())
    answer = httpx.post(f"{url}/auth", json={"external_user_id": user}, trust_env=False, timeout=30)
    key: str = answer.raise_for_status().json()["api_key"]
    top_up(url, user, tokens)
    return key


def top_up(url: str, user: str, tokens: int) -> None:
    httpx.post(
        f"{url}/webhook/topup",
        json={"external_user_id": user, "amount": tokens},
        headers={"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": str(uuid4())},
        trust_env=False,
        timeout=30,
    ).raise_for_status()
