"""The page as a screen reader has it: landmarks, headings, a name for each control, and what it says by itself."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.studio import Studio
from tests.browser.views import each_view

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

NAMED = (
    "button|link|textbox|searchbox|combobox|checkbox|radio|radiogroup|switch|slider|spinbutton|progressbar|meter|img|"
    "dialog|listbox|option|region|navigation"
)
# A line of a snapshot is `- role "name" [state]: text`, in quotes as a whole where YAML wants it so.
NAMELESS = re.compile(rf"""^\s*- '?(?:{NAMED})(?! "| /)\b.*$""", re.MULTILINE)
DIALOGS = ("models", "result", "failure")


def count(role: str, snapshot: str) -> int:
    return len(re.findall(rf"^\s*- '?{role}\b", snapshot, re.MULTILINE))


async def test_each_view_has_landmarks_one_heading_and_names(studio: Studio) -> None:
    views = []
    async for view in each_view(studio):
        views.append(view)
        whole = await studio.page.locator("body").aria_snapshot()
        assert (count("banner", whole), count("main", whole)) == (1, 1), whole
        assert count("navigation", whole) == (0 if view == "welcome" else 1), whole
        assert len(re.findall(r"^\s*- '?heading .*\[level=1\]", whole, re.MULTILINE)) == 1, whole
        assert NAMELESS.findall(whole) == [], view
        assert count("dialog", whole) == (1 if view in DIALOGS else 0), view
    assert len(views) > 10


async def test_says_by_itself_what_changes(studio: Studio) -> None:
    await studio.begin()
    spoken = studio.page.get_by_role("status")

    await studio.page.get_by_label("Number of images").fill("3")
    price = studio.page.locator(".pay [aria-live=polite]")
    await expect(price).to_have_text(re.compile("3 images × 5 tokens.*15 tokens"))
    await studio.page.get_by_label("Number of images").fill("1")
    await expect(spoken.filter(has_text="Balance: 1,000 tokens")).to_have_count(1)
    await studio.make("a pier")
    await expect(spoken.filter(has_text="Balance: 995 tokens")).to_have_count(1)
    await expect(spoken.filter(has_text="Done: a pier.")).to_have_count(1)

    await studio.make("[slow:600] a wave")
    await expect(spoken.filter(has_text="Generating: [slow:600] a wave.")).to_have_count(1)
    await studio.card("a wave").get_by_role("button", name="Cancel").click()
    await expect(studio.page.locator("[aria-live=polite] .arrival")).to_have_text("+5 tokens back")
    await expect(spoken.filter(has_text="Canceled: [slow:600] a wave.")).to_have_count(1)
    await expect(spoken.filter(has_text="Balance: 995 tokens")).to_have_count(1)
