"""How the page says lengths of time."""

import json

import pytest
from playwright.async_api import Page

from tests.browser.studio import Studio

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

RANGES = (
    # Of, to, in English, in Russian.
    (4, 9, "4 to 9 s", "4–9 с"),
    (0.2, 0.4, "0 s", "0 с"),
    (8, 8.3, "8 s", "8 с"),
    (60, 99, "60 to 99 s", "60–99 с"),
    (50, 130, "50 s to 2 min", "50 с–2 мин"),
    (60, 100, "1 to 2 min", "1–2 мин"),
    (110, 125, "2 min", "2 мин"),
    (120, 300, "2 to 5 min", "2–5 мин"),
)
LEFT = (
    (0, 0.4, "it takes longer than most"),
    (0, 4, "0 to 4 s to go"),
)


async def called(page: Page, module: str, function: str, values: list[dict[str, float]]) -> list[str]:
    """What an exported function of the page's own module makes of each value."""
    said: list[str] = await page.evaluate(
        "async ([url, name, values]) => { const found = await import(url); return values.map(found[name]); }",
        [module, function, values],
    )
    return said


def module_url(studio: Studio, name: str) -> str:
    return next(url for url in studio.requests if url.endswith(f"/{name}"))


@pytest.mark.parametrize(("language", "column"), [("en", 2), ("ru", 3)])
async def test_a_range_has_one_unit_where_both_ends_can_be_told_in_it(
    studio: Studio, language: str, column: int
) -> None:
    await studio.context.add_init_script(f"localStorage.setItem('tollgate-language', {json.dumps(language)})")
    await studio.visit()

    ranges = [{"from": row[0], "to": row[1]} for row in RANGES]
    said = await called(studio.page, module_url(studio, "text.js"), "secondsRange", ranges)

    assert said == [row[column] for row in RANGES]


async def test_what_is_left_of_a_run_is_never_nothing(studio: Studio) -> None:
    await studio.visit()

    ranges = [{"from": row[0], "to": row[1]} for row in LEFT]
    said = await called(studio.page, module_url(studio, "gallery.js"), "remaining", ranges)

    assert said == [row[2] for row in LEFT]
