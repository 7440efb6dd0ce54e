"""What the card of a run says: why it waits, for how long, what came back, and what becomes of what is not sent."""

import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from app.domain.kinds import GenerationKind
from tests.browser.studio import Studio, running_service
from tests.builders import MODEL_IDS, connect

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

OUTLOOK = re.compile(r"^\d+ s · \d+( s)? to \d+ (s|min) to go$")
STARTS = "**/generations/images/text-to-image"


@pytest_asyncio.fixture(loop_scope="session")
async def crowded(database: str, chromium: Browser) -> AsyncIterator[Studio]:
    """A service that has one place at fal, and knows how long runs took."""
    async with connect(database) as sql:
        model_id, seconds = MODEL_IDS[GenerationKind.TEXT_TO_IMAGE], [float(second) for second in range(20, 120)]
        await sql.execute("INSERT INTO model_paces VALUES ($1, $2)", model_id, seconds)
    with running_service({"DATABASE_URL": database, "FAL_CONCURRENCY": "1"}) as service:
        async with Studio.opened(chromium, service.url) as studio:
            yield studio
            studio.check_quiet()


async def test_a_run_that_waits_says_why_and_how_long_and_gives_the_tokens_back(crowded: Studio) -> None:
    studio = crowded
    await studio.begin()
    await studio.make("[slow:600] a glacier")
    await expect(studio.card("a glacier").locator(".state")).to_have_text("Generating")
    await studio.make("a river")
    await expect(studio.card("a river")).to_be_visible()
    await studio.make("a pond")
    await expect(studio.balance).to_have_text("985 tokens")

    river, pond = studio.card("a river"), studio.card("a pond")
    await expect(river.locator(".why")).to_have_text("Waits for its turn among all users. It is next.")
    await expect(pond.locator(".why")).to_have_text("Waits for its turn among all users. 1 ahead of it.")
    for card in (studio.card("a glacier"), river, pond):
        await expect(card.locator(".stage .aside")).to_have_text(OUTLOOK)
    elapsed = river.locator(".stage .number").first
    await expect(elapsed).not_to_have_text(await elapsed.inner_text())

    await pond.get_by_role("button", name="Cancel").click()
    await expect(pond.locator(".state")).to_have_text("Canceled")
    await expect(pond).to_contain_text("Nothing was charged: 5 tokens are back.")
    await expect(studio.page.locator(".arrival")).to_have_text("+5 tokens back")
    await expect(studio.balance).to_have_text("990 tokens")
    # Its place becomes free, and the next one has its turn.
    await studio.card("a glacier").get_by_role("button", name="Cancel").click()
    await expect(river.locator("img")).to_have_count(1)
    await expect(studio.balance).to_have_text("995 tokens")


async def test_a_failure_says_why_and_that_nothing_was_charged(studio: Studio) -> None:
    await studio.begin()
    await studio.make("[fail] a thing")

    card = studio.card("a thing")
    await expect(card.locator(".state")).to_have_text("Failed")
    await expect(card.locator(".why")).to_contain_text("fal's content policy does not allow this input or its result.")
    await expect(card.locator(".free")).to_have_text("Nothing was charged: 5 tokens are back.")
    await expect(studio.balance).to_have_text("1,000 tokens")
    await card.locator("button.stage").click()
    dialog = studio.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("content policy")
    await expect(dialog).to_contain_text("Nothing was charged: 5 tokens are back.")
    await studio.page.keyboard.press("Escape")

    await studio.prompt.fill("something else")
    await card.get_by_role("button", name="Again with changes").click()
    await expect(studio.prompt).to_have_value("[fail] a thing")
    await studio.page.locator("nav").get_by_role("link", name="Balance").click()
    await expect(studio.page.locator("tbody tr").first).to_contain_text("[fail] a thing")


class Outage:
    """Answers 503 to whoever starts a generation, until it is over.

    May lose the first answer instead, or refuse what comes after it.
    """

    def __init__(self, *, loses_an_answer: bool = False, refusal: dict[str, Any] | None = None) -> None:
        self.is_over = False
        self.loses_an_answer = loses_an_answer
        self.refusal = refusal
        self.prices: list[int] = []

    async def __call__(self, route: Route) -> None:
        self.prices.append((route.request.post_data_json or {})["max_cost_tokens"])
        if self.is_over and self.refusal:
            status = self.refusal["status"]
            await route.fulfill(status=status, json=self.refusal, content_type="application/problem+json")
        elif self.is_over:
            await route.continue_()
        elif self.loses_an_answer:
            self.loses_an_answer = False
            await route.fetch()
            await route.abort("connectionreset")
        else:
            problem = {"code": "overloaded", "status": 503, "detail": "busy"}
            await route.fulfill(status=503, body=json.dumps(problem), content_type="application/problem+json")


async def give_up_during(studio: Studio, outage: Outage) -> None:
    studio.may_fail = True
    await studio.begin()
    await studio.page.route(STARTS, outage)
    await studio.make("a comet")
    await studio.page.get_by_role("button", name="Do not send it").click()
    await expect(studio.page.get_by_text("It may have arrived already")).to_be_visible()
    outage.is_over = True


CHANGE_UNSENT = """(change) => {
  for (const place of [sessionStorage, localStorage])
    for (const name of Object.keys(place).filter((one) => one.startsWith("tollgate.unsent.")))
      place.setItem(name, JSON.stringify({ ...JSON.parse(place.getItem(name)), ...change }));
}"""


async def leave_unsent(studio: Studio, change: dict[str, Any]) -> Outage:
    """What is kept of a run that has not arrived says something else meanwhile."""
    outage = Outage()
    studio.may_fail = True
    await studio.begin()
    await studio.page.route(STARTS, outage)
    await studio.make("a comet")
    await expect(studio.page.get_by_role("button", name="Do not send it")).to_be_visible()
    await studio.page.evaluate(CHANGE_UNSENT, change)
    return outage


async def test_what_is_a_day_old_is_not_sent_again(studio: Studio) -> None:
    """The service has forgotten its key by then, and would make and charge it a second time."""
    outage = await leave_unsent(studio, {"at": (time.time() - 86_400) * 1000})

    await studio.page.reload()

    await expect(studio.page.get_by_text(re.compile("^Nobody can tell any more"))).to_be_visible()
    outage.is_over = True
    await studio.page.reload()
    await expect(studio.balance).to_have_text("1,000 tokens")
    await expect(studio.tiles).to_have_count(0)


async def test_what_another_account_has_not_sent_is_not_sent_for_this_one(studio: Studio) -> None:
    await leave_unsent(studio, {"of": "tgk_somebody"})

    await studio.page.reload()

    await expect(studio.balance).to_have_text("1,000 tokens")
    await expect(studio.page.get_by_role("button", name="Do not send it")).to_have_count(0)


@pytest.mark.parametrize("is_reloaded", [False, True], ids=["at once", "after a reload"])
async def test_what_never_arrived_is_not_sent_once_it_is_given_up(studio: Studio, is_reloaded: bool) -> None:
    outage = Outage()
    await give_up_during(studio, outage)
    if is_reloaded:
        await studio.page.reload()

    await expect(studio.page.get_by_text(re.compile("^It has not arrived, and nothing was charged."))).to_be_visible()
    await expect(studio.tiles).to_have_count(0)
    await expect(studio.balance).to_have_text("1,000 tokens")
    # At this price nothing is made, and what was made already is told all the same.
    assert (outage.prices[0], outage.prices[-1]) == (5, 0)
    assert await studio.jobs() == []


async def test_what_had_arrived_is_shown_when_it_is_given_up(studio: Studio) -> None:
    await give_up_during(studio, Outage(loses_an_answer=True))

    await expect(studio.page.get_by_text("It had arrived before you stopped it.")).to_be_visible()
    await expect(studio.pictures).to_have_count(1)
    assert len(await studio.jobs()) == 1
    await expect(studio.balance).to_have_text("995 tokens")


async def test_another_refusal_of_what_is_given_up_does_not_say_that_nothing_was_charged(studio: Studio) -> None:
    """It may come before the service looks whether the request has arrived."""
    outage = Outage(refusal={"code": "insufficient_balance", "status": 402, "detail": "too few"})
    await give_up_during(studio, outage)

    await expect(studio.page.get_by_text(re.compile("^The balance is too low")).first).to_be_visible()
    # At once: what was said would be gone after some seconds.
    assert await studio.page.get_by_text(re.compile("^It has not arrived")).count() == 0
    assert outage.prices[-1] == 0


async def test_what_the_page_has_sent_is_known_where_the_service_cannot_tell_it(studio: Studio) -> None:
    """It keeps no whole pictures that were sent in a row."""

    async def without_inputs(route: Route) -> None:
        answer = await route.fetch()
        told = await answer.json()
        for job in told.get("items", [told]):
            job["input"] = None
        await route.fulfill(response=answer, json=told)

    await studio.page.route(re.compile(r"/generations.*include=input"), without_inputs)
    await studio.begin()
    await studio.page.get_by_label("Number of images").fill("2")
    await studio.make("a comet")

    await expect(studio.pictures).to_have_count(2)
    await studio.pictures.first.click()
    await studio.page.get_by_text("As curl and Python").click()
    await expect(studio.page.get_by_role("region", name="curl")).to_contain_text('"num_images": 2')
    # An answer that is still on its way would be looked at when its page has gone.
    await studio.page.unroute_all(behavior="ignoreErrors")
