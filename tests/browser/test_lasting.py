"""What a reload, a lost network, a second tab and an ended key do to the page: nothing is lost, and nothing is left."""

import json
import re
from typing import Any

import httpx
import pytest
from playwright.async_api import Route, expect

from tests.browser.studio import Studio, a_user

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]


async def jobs_of(studio: Studio) -> list[dict[str, Any]]:
    headers = {"X-API-Key": await studio.key()}
    items: list[dict[str, Any]] = httpx.get(f"{studio.url}/generations", headers=headers, trust_env=False).json()[
        "items"
    ]
    return items


async def test_a_reload_in_the_middle_loses_nothing(studio: Studio) -> None:
    await studio.begin()
    await studio.make("[slow:4] a tortoise")
    await expect(studio.tiles).to_have_count(1)
    await studio.prompt.fill("what comes next")

    await studio.page.reload()

    await expect(studio.prompt).to_have_value("what comes next")
    await expect(studio.tiles).to_contain_text("a tortoise")
    await expect(studio.pictures).to_have_count(1)
    assert len(await jobs_of(studio)) == 1


async def test_what_was_sent_without_an_answer_is_done_once(studio: Studio) -> None:
    """The service takes the request, its answer is lost, and the page is reloaded before it has sent it again."""
    studio.may_fail = True
    await studio.begin()

    async def lose_the_answer(route: Route) -> None:
        await route.fetch()
        await route.abort("connectionreset")

    await studio.page.route("**/generations/images/text-to-image", lose_the_answer, times=1)
    await studio.make("a comet")
    await expect(studio.page.get_by_text("Not sent yet")).to_be_visible()
    await studio.page.reload()

    await expect(studio.pictures).to_have_count(1)
    assert len(await jobs_of(studio)) == 1
    await expect(studio.balance).to_have_text("995 tokens")


async def test_an_answer_that_is_cut_off_is_asked_for_again(studio: Studio) -> None:
    studio.may_fail = True
    await studio.begin()

    async def cut(route: Route) -> None:
        await route.fetch()
        await route.fulfill(status=202, body='{"job_id": "01', content_type="application/json")

    await studio.page.route("**/generations/images/text-to-image", cut, times=1)
    await studio.make("a meteor")

    await expect(studio.pictures).to_have_count(1)
    assert len(await jobs_of(studio)) == 1


async def test_what_waits_goes_with_whoever_asked_for_it(studio: Studio) -> None:
    """The next one at this page neither pays for it nor sees it."""
    studio.may_fail = True
    await studio.sign_in(a_user(studio.url, 100))
    problem = {"code": "no_room_for_body", "status": 503, "detail": "busy"}

    async def busy(route: Route) -> None:
        await route.fulfill(status=503, json=problem, headers={"Retry-After": "3"})

    await studio.page.route("**/generations/images/text-to-image", busy, times=1)
    await studio.make("a secret")
    await expect(studio.page.get_by_text("Not sent yet")).to_be_visible()
    await studio.page.get_by_label("Your key and sign-out").click()
    await studio.page.get_by_role("button", name="Sign out").click()
    await studio.page.get_by_label("API key").fill(a_user(studio.url, 100))
    await studio.page.get_by_role("button", name="Sign in", exact=True).click()

    await expect(studio.balance).to_have_text("100 tokens")
    await studio.page.wait_for_timeout(4000)
    await expect(studio.prompt).to_have_value("")
    await expect(studio.tiles).to_have_count(0)
    assert await jobs_of(studio) == []
    assert "secret" not in json.dumps(await studio.stored())


async def test_a_lost_network_is_said_and_made_up_for(studio: Studio) -> None:
    studio.may_fail = True
    await studio.begin()
    await studio.make("[slow:3] a whale")
    await expect(studio.tiles).to_have_count(1)

    await studio.context.set_offline(True)
    await expect(studio.page.get_by_text("No connection. Nothing is lost")).to_be_visible()
    await studio.prompt.fill("a dolphin")
    await studio.generate.click()
    await expect(studio.page.get_by_text("Not sent yet")).to_be_visible()
    await studio.context.set_offline(False)

    await expect(studio.page.get_by_text("No connection. Nothing is lost")).to_have_count(0)
    await expect(studio.pictures).to_have_count(2)
    assert len(await jobs_of(studio)) == 2


async def test_two_tabs_agree(studio: Studio) -> None:
    await studio.begin()

    other = await studio.another_tab()
    # Without signing in: the first one gives it its key.
    await expect(other.locator(".balance a")).to_have_text("1,000 tokens")
    await studio.make("a kite")

    await expect(other.locator(".runs .thumb img")).to_have_count(1)
    await expect(other.locator(".balance a")).to_have_text("995 tokens")
    # Playwright does not tell a stream's end: it is counted where it begins.
    assert len([url for url in studio.requests if url.endswith("/events/stream")]) == 1
    await studio.page.close()
    await other.get_by_label("Prompt", exact=True).fill("a balloon")
    await other.get_by_role("button", name="Generate").click()
    await expect(other.locator(".runs .thumb img")).to_have_count(2)


async def test_signing_out_leaves_nothing_behind(studio: Studio) -> None:
    await studio.sign_in(a_user(studio.url, 100), remember=True)
    await studio.make("a secret")
    await expect(studio.pictures).to_have_count(1)
    other = await studio.another_tab()
    await expect(other.locator(".balance a")).to_have_text("95 tokens")
    key = await studio.key()

    await studio.page.get_by_label("Your key and sign-out").click()
    await studio.page.get_by_role("button", name="Sign out").click()

    await expect(studio.page.get_by_text("You are signed out.")).to_be_visible()
    await expect(other.get_by_text("You have signed out in another tab.")).to_be_visible()
    assert await studio.stored() == {}
    assert (await studio.page.content()).count("secret") == 0
    answer = httpx.get(f"{studio.url}/keys/current", headers={"X-API-Key": key}, trust_env=False)
    assert answer.status_code == 401


async def test_signing_out_leaves_to_another_account_what_is_kept_for_it(studio: Studio) -> None:
    """Whose tab was signed in before that account was remembered."""
    await studio.sign_in(a_user(studio.url, 100))
    await expect(studio.balance).to_have_text("100 tokens")
    remembered = {"key": a_user(studio.url, 50), "isRemembered": True, "isOwn": False, "scopes": ["generate", "read"]}
    kept = {"tollgate.session": json.dumps(remembered), "tollgate.draft": "{}"}
    own = {"tollgate.unsent.own": json.dumps({"of": (await studio.key())[:12], "body": {"prompt": "a secret"}})}
    await studio.page.evaluate("kept => Object.assign(localStorage, kept)", kept | own)

    await studio.page.get_by_label("Your key and sign-out").click()
    await studio.page.get_by_role("button", name="Sign out").click()

    await expect(studio.page.get_by_text("You are signed out.")).to_be_visible()
    assert await studio.stored() == kept
    await studio.page.reload()
    await expect(studio.balance).to_have_text("50 tokens")


async def test_a_key_that_has_ended_is_said(studio: Studio) -> None:
    studio.may_fail = True
    full = a_user(studio.url, 100)
    await studio.sign_in(full)
    await expect(studio.prompt).to_be_visible()
    headers = {"X-API-Key": full}
    with httpx.Client(base_url=studio.url, headers=headers, trust_env=False) as http:
        (own,) = [key for key in http.get("/keys").json()["items"] if key["name"].startswith("studio")]
        http.delete(f"/keys/{own['id']}").raise_for_status()

    # The stream ends within a second of it, and nobody has to press anything.
    await expect(studio.page.get_by_text("The key of this page has ended.")).to_be_visible()
    assert await studio.stored() == {}


async def test_a_wrong_key_is_said(studio: Studio) -> None:
    studio.may_fail = True

    await studio.sign_in("tgk_" + "x" * 49)

    await expect(studio.page.get_by_role("alert")).to_have_text(re.compile("no valid key"))


async def test_ten_thousand_jobs_scroll(studio: Studio) -> None:
    await studio.begin()
    await studio.make("the only real one")
    await expect(studio.pictures).to_have_count(1)
    (real,) = await jobs_of(studio)
    all_jobs = [{**real, "job_id": f"00000000-0000-7000-8000-{10_000 - place:012}"} for place in range(10_000)]

    async def answer(route: Route) -> None:
        query = httpx.URL(route.request.url).params
        limit, cursor = int(query["limit"]), query.get("cursor")
        start = 0 if cursor is None else 10_000 - int(cursor[-12:]) + 1
        page = all_jobs[start : start + limit]
        more = page[-1]["job_id"] if start + limit < len(all_jobs) else None
        await route.fulfill(body=json.dumps({"items": page, "next_cursor": more}), content_type="application/json")

    await studio.page.route("**/generations?limit=*", answer)
    await studio.visit("#/history")
    await studio.page.reload()
    for _ in range(1_000):
        count = await studio.page.locator(".history .head .aside").inner_text()
        if count == "10,000 jobs":
            break
        await studio.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        await studio.page.wait_for_timeout(20)

    assert count == "10,000 jobs"
    rows = studio.page.locator(".rows li")
    assert await rows.count() < 60
    await studio.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    await expect(rows.last).to_have_attribute("aria-posinset", "10000")


async def test_the_full_key_is_kept_in_memory_only(studio: Studio) -> None:
    full = a_user(studio.url, 100)
    await studio.sign_in(full)
    await expect(studio.prompt).to_be_visible()
    await studio.visit("#/keys")
    await studio.page.get_by_label("API key").fill(full)
    await studio.page.get_by_role("button", name="Open").click()

    await studio.page.get_by_text("Make a key").click()
    await studio.page.get_by_label("Name").fill("a bot")
    await studio.page.get_by_label("Budget in tokens").fill("50")
    await studio.page.get_by_role("button", name="Make the key").click()

    dialog = studio.page.get_by_role("dialog", name="Secret of a bot")
    await expect(dialog).to_be_visible()
    first = await studio.save_the_secret()
    assert first.startswith("tgk_")
    await expect(studio.page.get_by_text("0 of 50 tokens a day")).to_be_visible()
    assert full not in str(await studio.stored())
    bot = studio.page.locator(".entries li", has_text="a bot")
    # A press that was none of one's wishes would end the bot's key in an hour.
    await bot.get_by_role("button", name="New secret").click()
    await expect(dialog).to_have_count(0)
    await bot.get_by_role("button", name="Really?").click()
    await expect(dialog).to_contain_text("The old one works for one more hour.")
    assert await studio.save_the_secret() != first
    await expect(studio.page.locator(".entries li", has_text="of this page").get_by_role("button")).to_have_count(0)
    await studio.page.get_by_role("link", name="Create").click()
    await studio.page.get_by_role("link", name="Keys").click()
    await expect(studio.page.get_by_text("This needs your full key")).to_be_visible()


async def test_an_endpoint_is_made_tried_and_seen(studio: Studio) -> None:
    full = a_user(studio.url, 100)
    await studio.sign_in(full)
    await studio.page.get_by_role("link", name="Keys").click()
    await studio.page.get_by_label("API key").fill(full)
    await studio.page.get_by_role("button", name="Open").click()

    await studio.page.get_by_text("Add an endpoint").click()
    # Nobody listens there: the attempt fails, and is seen to.
    await studio.page.get_by_label("URL").fill("http://127.0.0.1:9/hook")
    await studio.page.get_by_role("button", name="Add it").click()
    assert (await studio.save_the_secret()).startswith("whsec_")
    await studio.page.get_by_role("button", name="Send a test").click()
    await expect(studio.page.get_by_text("A test event is on its way.")).to_be_visible()

    await studio.page.get_by_text("Deliveries").click()
    await expect(studio.page.locator(".deliveries")).to_contain_text("webhook.test")
    delete = studio.page.locator(".entries li", has_text="127.0.0.1:9").get_by_role("button", name="Delete")
    await delete.click()
    await studio.page.get_by_role("button", name="Really?").click()
    await expect(studio.page.get_by_text("No endpoint yet.")).to_be_visible()


async def test_files_are_deleted_and_the_job_stays(studio: Studio) -> None:
    await studio.begin()
    await studio.make("a mistake")
    await expect(studio.pictures).to_have_count(1)

    await studio.pictures.first.click()
    await studio.page.get_by_role("button", name="Delete the files").click()
    await studio.page.get_by_role("button", name="Really?").click()

    await expect(studio.page.get_by_role("dialog").get_by_text("This file was deleted.")).to_be_visible()
    assert len(await jobs_of(studio)) == 1
