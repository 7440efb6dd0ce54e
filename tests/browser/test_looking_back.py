"""The history: what the service filters, and jobs that this browser did not start."""

import json
import re
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import Locator, Route, expect

from tests.browser.studio import Studio, a_user

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

TEXT_TO_IMAGE = "images/text-to-image"
FLUX = "fal-ai/flux/schnell"


def start_elsewhere(studio: Studio, key: str, path: str = TEXT_TO_IMAGE, **body: Any) -> str:
    """By another program with a key of the same user; until its end."""
    with httpx.Client(base_url=studio.url, headers={"X-API-Key": key}, trust_env=False, timeout=60) as http:
        job_id: str = http.post(f"/generations/{path}", json=body).raise_for_status().json()["job_id"]
        while http.get(f"/generations/{job_id}?wait=30").json()["billing"] is None:
            pass
    return job_id


def rows(studio: Studio) -> Locator:
    return studio.page.locator(".rows li")


async def look_back(studio: Studio, key: str) -> None:
    await studio.sign_in(key)
    await expect(studio.prompt).to_be_visible()
    await studio.page.get_by_role("link", name="History").click()


async def test_a_job_of_another_browser_is_told_whole(studio: Studio) -> None:
    key = a_user(studio.url, 100)
    start_elsewhere(studio, key, prompt="two birds", num_images=2, seed=7)

    await look_back(studio, key)
    await expect(rows(studio)).to_contain_text(["two birds"])
    await rows(studio).locator(".row-box").click()
    await studio.page.get_by_text("As curl and Python").click()
    curl = studio.page.get_by_role("region", name="curl")
    await expect(curl).to_contain_text('"num_images": 2')
    await expect(curl).to_contain_text('"seed": 7')
    await expect(studio.page.get_by_text("This is not all of the request")).to_have_count(0)
    await studio.page.get_by_role("dialog").get_by_role("button", name="Again with changes").click()

    await expect(studio.prompt).to_have_value("two birds")
    await expect(studio.page.get_by_label("Number of images")).to_have_value("2")
    await expect(studio.generate).to_have_text("Generate for 10 tokens")


async def test_a_job_that_another_browser_starts_appears_with_its_prompt(studio: Studio) -> None:
    key = a_user(studio.url, 100)
    await look_back(studio, key)
    await expect(studio.page.get_by_text("Nothing made yet.")).to_be_visible()

    start_elsewhere(studio, key, prompt="a comet")

    await expect(rows(studio)).to_contain_text(["a comet"])


async def test_what_a_job_was_made_from_comes_again_or_is_said_to_be_gone(studio: Studio) -> None:
    # The page may ask for a picture at the moment of its deletion.
    studio.may_fail = True
    key = a_user(studio.url, 100)
    source = start_elsewhere(studio, key, prompt="a fox")
    edited = start_elsewhere(
        studio, key, "images/image-to-image", prompt="in winter", image_urls=[f"output:{source}/0"]
    )

    await look_back(studio, key)
    await studio.visit(f"#/job/{edited}/0")
    await studio.page.get_by_text("As curl and Python").click()
    await expect(studio.page.get_by_role("region", name="curl")).to_contain_text(f"output:{source}/0")
    await studio.page.get_by_role("dialog").get_by_role("button", name="Again with changes").click()
    await expect(studio.page.locator(".inputs img")).to_be_visible()

    httpx.delete(
        f"{studio.url}/generations/{source}/media", headers={"X-API-Key": key}, trust_env=False
    ).raise_for_status()
    await studio.visit(f"#/job/{edited}/0")
    await studio.page.get_by_text("As curl and Python").click()
    await expect(studio.page.get_by_text("This is not all of the request")).to_be_visible()
    await expect(studio.page.get_by_role("region", name="curl")).not_to_contain_text("output:")


async def test_the_service_filters(studio: Studio) -> None:
    key = a_user(studio.url, 1_000)
    start_elsewhere(studio, key, prompt="a heron", model=FLUX)
    start_elsewhere(studio, key, prompt="[fail] a thing")
    start_elsewhere(studio, key, "videos/text-to-video", prompt="a storm")
    await look_back(studio, key)
    await expect(rows(studio)).to_have_count(3)

    await studio.page.get_by_role("radio", name="Failed or canceled").check()
    await expect(rows(studio)).to_contain_text(["a thing"])
    await expect(studio.page.locator(".history .head .aside")).to_have_text("1 job")
    await studio.page.get_by_role("radio", name="All", exact=True).check()
    await studio.page.get_by_label("What to make").select_option("TEXT_TO_VIDEO")
    await expect(rows(studio)).to_contain_text(["a storm"])
    await studio.page.get_by_label("What to make").select_option("")
    await studio.page.get_by_label("Model", exact=True).select_option(FLUX)
    await expect(rows(studio)).to_contain_text(["a heron"])
    # No film is made by it: the choice goes with the type.
    await studio.page.get_by_label("What to make").select_option("TEXT_TO_VIDEO")
    await expect(rows(studio)).to_contain_text(["a storm"])
    await expect(studio.page.get_by_label("Model", exact=True)).to_have_value("")
    await studio.page.get_by_label("Search").fill("nothing like that")
    await expect(studio.page.get_by_text("No job fits.")).to_be_visible()
    await studio.page.get_by_role("button", name="Show all").click()
    await expect(rows(studio)).to_have_count(3)

    asked = [httpx.URL(url).params for url in studio.requests if "/generations?" in url]
    assert ["FAILED", "CANCELED"] in [params.get_list("status") for params in asked]
    assert {"TEXT_TO_VIDEO"} < {params.get("type") for params in asked}
    assert {FLUX} < {params.get("model") for params in asked}


async def test_empty_pages_are_gone_through_until_something_fits(studio: Studio) -> None:
    """As of an account with thousands of jobs of which the oldest alone has failed."""
    key = a_user(studio.url, 100)
    start_elsewhere(studio, key, prompt="[fail] the oldest")
    headers = {"X-API-Key": key}
    (job,) = httpx.get(f"{studio.url}/generations?include=input", headers=headers, trust_env=False).json()["items"]
    asked = []

    async def answer(route: Route) -> None:
        query = httpx.URL(route.request.url).params
        cursor = query.get("cursor")
        place = 9 if cursor is None else int(cursor[-1])
        asked.append((tuple(query.get_list("status")), cursor))
        is_last = "status" not in query or place == 0
        page = {
            "items": [job] if "status" in query and place == 0 else [],
            "next_cursor": None if is_last else f"00000000-0000-7000-8000-{place - 1:012}",
        }
        await route.fulfill(body=json.dumps(page), content_type="application/json")

    await studio.page.route("**/generations?limit=*", answer)
    await look_back(studio, key)
    await studio.page.get_by_role("radio", name="Failed or canceled").check()

    await expect(rows(studio)).to_contain_text(["the oldest"])
    await expect(studio.page.locator(".history .head .aside")).to_have_text("1 job")
    filtered = [cursor for statuses, cursor in asked if statuses == ("FAILED", "CANCELED")]
    assert len(filtered) == len(set(filtered)) == 10


async def test_prompts_are_searched_and_kept_by_nobody_but_the_service(studio: Studio) -> None:
    await studio.begin()
    await studio.make("a purple heron")
    await expect(studio.pictures).to_have_count(1)
    await studio.page.reload()
    await studio.page.get_by_role("link", name="History").click()
    await studio.page.get_by_label("Search").fill("PURPLE")

    await expect(rows(studio)).to_have_count(1)
    await expect(rows(studio)).to_contain_text(["a purple heron"])
    # But for the draft, which says what comes next.
    kept = {name: text for name, text in (await studio.stored()).items() if name != "tollgate.draft"}
    assert re.search("purple", json.dumps(kept)) is None
    await studio.page.get_by_label("Search").fill(str(uuid4()))
    await expect(studio.page.get_by_text("No job fits.")).to_be_visible()
