"""The page at 200 %, of everything or of the letters alone: nothing is cut off or has to be moved sideways."""

from typing import Any

import pytest
from playwright.async_api import Browser

from tests.browser.studio import Studio
from tests.browser.views import each_view
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

# Text that its own box or one around it hides, or that ends beyond the window. What is shortened with an ellipsis is
# said elsewhere as a whole, and code may be wider than its box, which then moves.
CUT_OFF = """() => {
    const found = [];
    const isMoved = (value) => value === "auto" || value === "scroll";
    const isCutting = (value) => value === "hidden" || value === "clip";
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const open = document.querySelector("dialog[open]");
    while (walker.nextNode()) {
        const text = walker.currentNode;
        const parent = text.parentElement;
        if (!text.data.trim() || !parent.checkVisibility() || (open && !open.contains(parent))) continue;
        if (parent.closest(".unseen, .skip, option, textarea, pre")) continue;
        const range = document.createRange();
        range.selectNodeContents(text);
        const box = range.getBoundingClientRect();
        let isWide = true;
        for (let around = parent; around !== document.documentElement; around = around.parentElement) {
            const style = getComputedStyle(around);
            if (style.textOverflow === "ellipsis" || style.webkitLineClamp !== "none") { isWide = false; break; }
            const edge = around.getBoundingClientRect();
            const isCut = (isCutting(style.overflowX) && (box.right > edge.right + 1 || box.left < edge.left - 1))
                || (isCutting(style.overflowY) && (box.bottom > edge.bottom + 1 || box.top < edge.top - 1));
            if (isCut) found.push(`cut off by ${around.className || around.tagName}: ${text.data.trim()}`);
            if (isMoved(style.overflowX) || isMoved(style.overflowY)) { isWide = false; break; }
        }
        const isBeyond = isWide && (box.right > innerWidth + 1 || box.left < -1);
        if (isBeyond) found.push(`beyond the window: ${text.data.trim()}`);
    }
    for (const box of document.querySelectorAll("body, body *")) {
        const style = getComputedStyle(box);
        const isWide = isMoved(style.overflowX) && box.scrollWidth > box.clientWidth + 1;
        if (isWide && box.checkVisibility() && !box.matches("pre, textarea"))
            found.push(`moves sideways: ${box.className || box.tagName}`);
    }
    for (const row of document.querySelectorAll(".row-box")) {
        const edge = row.getBoundingClientRect();
        const box = row.querySelector(".row-text").getBoundingClientRect();
        if (box.height > edge.height || box.top < edge.top) found.push(`higher than its row: ${row.textContent}`);
    }
    const wide = document.documentElement.scrollWidth;
    if (wide > innerWidth) found.push(`${wide} pixels wide`);
    return [...new Set(found)];
}"""


@pytest.mark.parametrize(
    ("options", "letters"),
    [
        # What a window of 1280 x 800 is once everything in it is twice as large.
        ({"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2}, 16),
        ({"viewport": {"width": 1280, "height": 800}}, 32),
    ],
    ids=["everything", "letters"],
)
async def test_nothing_is_cut_off_at_twice_the_size(
    service: ServiceProcess, chromium: Browser, options: dict[str, Any], letters: int
) -> None:
    async with Studio.opened(chromium, service.url, reduced_motion="reduce", **options) as studio:
        devtools = await studio.context.new_cdp_session(studio.page)
        # As whoever sets the size of letters in the browser does.
        await devtools.send("Page.setFontSizes", {"fontSizes": {"standard": letters, "fixed": letters}})
        found: dict[str, list[str]] = {}
        async for view in each_view(studio):
            assert await studio.page.evaluate("getComputedStyle(document.documentElement).fontSize") == f"{letters}px"
            cut_off = await studio.page.evaluate(CUT_OFF)
            if cut_off:
                found[view] = cut_off

        assert found == {}
        studio.check_quiet()
