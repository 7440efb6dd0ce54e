"""Whoever comes in: a newcomer with a way back, a page that replaces its key, a budget, each place at its top."""

from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.studio import Studio, a_user

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

DEPTH = "window.scrollY"


def make_key(studio: Studio, full: str, **body: Any) -> str:
    answer = httpx.post(
        f"{studio.url}/keys",
        json={"name": "a bot", "scopes": ["generate", "read"], **body},
        headers={"X-API-Key": full},
        trust_env=False,
        timeout=30,
    )
    key: str = answer.raise_for_status().json()["api_key"]
    return key


def names_of(studio: Studio, full: str) -> list[str]:
    headers = {"X-API-Key": full}
    return [key["name"] for key in httpx.get(f"{studio.url}/keys", headers=headers, trust_env=False).json()["items"]]


async def test_a_newcomer_sees_the_full_key_once_and_comes_back_with_it(studio: Studio) -> None:
    await studio.visit()
    await studio.page.get_by_role("button", name="Make me a key with tokens").click()
    dialog = studio.page.get_by_role("dialog", name="Your full key")
    await expect(dialog.get_by_role("button", name="Copy")).to_be_focused()
    full = await studio.save_the_secret()

    await expect(studio.page.locator("main")).to_be_focused()
    assert full not in str(await studio.stored())
    assert full not in await studio.page.content()
    await studio.open_keys(full)
    await expect(studio.page.locator(".entries li")).to_have_count(2)
    await studio.page.get_by_label("Your key and sign-out").click()
    await studio.page.get_by_role("button", name="Sign out").click()
    await expect(studio.page.get_by_text("You are signed out.")).to_be_visible()
    assert await studio.stored() == {}
    await studio.sign_in(full)
    await expect(studio.balance).to_have_text("1,000 tokens")


async def test_a_newcomer_has_the_key_also_where_the_sign_in_fails(studio: Studio) -> None:
    studio.may_fail = True
    await studio.visit()
    await studio.page.route("**/keys/current", lambda route: route.abort(), times=1)

    await studio.page.get_by_role("button", name="Make me a key with tokens").click()
    full = await studio.save_the_secret()

    await expect(studio.page.get_by_role("alert")).to_contain_text("cannot be reached")
    await studio.sign_in(full)
    await expect(studio.balance).to_have_text("1,000 tokens")


async def test_a_page_that_was_closed_leaves_no_key_behind_the_next_one(studio: Studio) -> None:
    full = a_user(studio.url, 100)
    for _ in range(3):
        await studio.sign_in(full)
        await expect(studio.balance).to_have_text("100 tokens")
        # As a tab that is closed.
        await studio.page.evaluate("sessionStorage.clear()")
        await studio.page.goto("about:blank")

    assert len([name for name in names_of(studio, full) if name.startswith("studio, ")]) == 1


async def test_an_account_without_room_for_a_key_says_what_to_do(studio: Studio) -> None:
    studio.may_fail = True
    full = a_user(studio.url, 100)
    for _ in range(99):
        smaller = make_key(studio, full)

    await studio.sign_in(full)
    await expect(studio.page.get_by_role("alert")).to_contain_text("Your account has 100 live keys")
    await studio.sign_in(smaller)
    await studio.open_keys(full)
    bot = studio.page.locator(".entries li", has_text="a bot").first
    await bot.get_by_role("button", name="Delete").click()
    await bot.get_by_role("button", name="Really?").click()
    await expect(studio.page.locator(".entries li")).to_have_count(99)


async def test_what_is_left_of_a_budget_stands_beside_the_balance(studio: Studio) -> None:
    full = a_user(studio.url, 100)
    await studio.sign_in(make_key(studio, full, budget={"tokens": 12, "per": "day"}))
    budget = studio.page.locator(".budget")
    await expect(budget).to_have_text("12 of 12 left today")

    await studio.make("a reed")

    await expect(studio.balance).to_have_text("95 tokens")
    await expect(budget).to_have_text("7 of 12 left today")
    await studio.make("[fail] a rush")
    await expect(studio.page.get_by_text("Nothing was charged")).to_be_visible()
    await expect(budget).to_have_text("7 of 12 left today")
    left = "async (url) => (await import(url)).budgetLeft()"
    module = next(url for url in studio.requests if url.endswith("/budget.js"))
    assert await studio.page.evaluate(left, module) == 7

    await studio.page.get_by_label("Number of images").fill("2")
    await expect(studio.page.get_by_text("This key may spend 7 tokens more.")).to_be_visible()
    await expect(studio.generate).to_be_disabled()
    await studio.page.get_by_label("Number of images").fill("1")
    await expect(studio.generate).to_be_enabled()


async def test_each_place_opens_at_its_top(studio: Studio) -> None:
    await studio.page.set_viewport_size({"width": 800, "height": 300})
    page = studio.page
    await studio.visit()
    await page.get_by_label("API key").fill(a_user(studio.url, 100))
    await page.evaluate("window.scrollTo(0, 10_000)")
    assert await page.evaluate(DEPTH) > 0
    await page.keyboard.press("Enter")
    await expect(studio.prompt).to_be_visible()
    assert await page.evaluate(DEPTH) == 0

    await page.evaluate("window.scrollTo(0, 200)")
    await page.wait_for_function(f"{DEPTH} === 200")
    await page.wait_for_timeout(100)
    await page.evaluate("location.hash = '#/keys'")
    await expect(page.get_by_label("API key")).to_be_visible()
    assert await page.evaluate(DEPTH) == 0
    await page.go_back()
    await expect(studio.prompt).to_be_visible()
    await page.wait_for_function(f"{DEPTH} === 200")


async def test_an_address_that_leads_nowhere_leads_to_create(studio: Studio) -> None:
    await studio.begin()
    for nowhere in ("#/nonsense", "#/constructor"):
        await studio.visit(nowhere)
        await expect(studio.page.locator("nav [aria-current=page]")).to_have_text("Create")
        assert studio.page.url.endswith("#/create")


async def test_the_tab_tells_of_runs_under_way_and_of_one_that_ended_unseen(studio: Studio) -> None:
    await studio.begin()
    await studio.make("[slow:4] a snail")
    await expect(studio.page).to_have_title("(1) Create · Tollgate")
    hide = "hidden => Object.defineProperty(document, 'hidden', {configurable: true, value: hidden})"
    await studio.page.evaluate(hide, arg=True)

    await expect(studio.page).to_have_title("Done · Create · Tollgate")
    await studio.page.evaluate(hide, arg=False)
    await studio.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(studio.page).to_have_title("Create · Tollgate")


async def test_a_lost_network_leaves_the_form_above_the_edge(studio: Studio) -> None:
    studio.may_fail = True
    await studio.begin()
    hint = studio.page.get_by_text("Nothing is charged for what is not delivered.")
    await expect(hint).to_be_in_viewport(ratio=1)

    await studio.context.set_offline(True)
    await expect(studio.page.get_by_text("No connection. Nothing is lost")).to_be_visible()

    await expect(hint).to_be_in_viewport(ratio=1)
    await studio.context.set_offline(False)


async def test_a_key_that_another_tab_uses_is_not_taken_for_left_behind(studio: Studio) -> None:
    full = a_user(studio.url, 100)
    await studio.sign_in(full)
    await expect(studio.prompt).to_be_visible()
    page = await studio.context.new_page()
    # It hears nothing of the first one, as where that one is too busy to answer.
    await page.add_init_script("delete window.BroadcastChannel")
    await page.goto(studio.url)

    await page.get_by_label("API key").fill(full)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_label("Prompt", exact=True)).to_be_visible()

    await studio.make("a reed")
    await expect(studio.balance).to_have_text("95 tokens")
    assert len([name for name in names_of(studio, full) if name.startswith("studio")]) == 2


async def test_where_the_sentences_of_a_language_do_not_come_the_page_is_there_in_english(studio: Studio) -> None:
    studio.may_fail = True
    await studio.context.add_init_script("localStorage.setItem('tollgate-language', 'ru')")
    await studio.page.route("**/text.ru.js", lambda route: route.abort())

    await studio.visit()

    await expect(studio.page.get_by_label("API key")).to_be_visible()


async def test_a_link_that_asks_for_what_is_not_there_shows_all(studio: Studio) -> None:
    await studio.sign_in(a_user(studio.url, 100))
    await expect(studio.prompt).to_be_visible()

    await studio.visit("#/history?state=constructor")

    await expect(studio.page.get_by_role("heading", name="History")).to_be_visible()
    await expect(studio.page.get_by_role("radio", name="All", exact=True)).to_be_checked()
