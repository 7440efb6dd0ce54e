"""How the page says lengths of time, and in Russian what the API says in English."""

import json
from collections.abc import Mapping, Sequence

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
# Code, the API's sentence, what is said of it in Russian.
FIELDS = (
    ("too_large", "This must be at most 4.", "Не больше 4."),
    ("too_large", "In words of a later release.", "Число слишком велико."),
    ("not_allowed", "This must be one of: '5', '8' or '10'.", "Можно только так: '5', '8' или '10'."),
    (
        "input_not_taken",
        "The picture has 20 x 20 pixels: each side must have at least 384.",
        "В файле 20 × 20 пикселей, а каждая сторона должна быть не меньше 384.",
    ),
    (
        "input_not_taken",
        "The picture has 12,000,000 bytes: it may have at most 10,485,760, which is 10 MB.",
        "В файле 12\xa0000\xa0000 байт, а можно не больше 10\xa0485\xa0760 (10 МБ).",
    ),
    ("of_a_later_release", "Something new.", "Something new."),
)
JOBS = (
    (
        "image_too_small",
        "A picture in image_urls/1 is too small. The limit is 300. Nothing was charged.",
        "Картинка слишком маленькая. Возьмите побольше. Предел: 300. Параметр: image_urls/1.",
    ),
    (
        "provider_timeout",
        "fal could not start a machine for this generation in time. Your input is not the reason. Nothing was charged.",
        "Модель не успела. Попробуйте ещё раз.",
    ),
    ("of_a_later_release", "Something new. Nothing was charged.", "Something new."),
)


async def called(page: Page, module: str, function: str, values: Sequence[Mapping[str, float | str]]) -> list[str]:
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


async def test_what_the_api_says_is_said_in_russian_with_its_figures(studio: Studio) -> None:
    await studio.context.add_init_script("localStorage.setItem('tollgate-language', 'ru')")
    await studio.visit()

    url = module_url(studio, "text.js")
    fields = await called(studio.page, url, "explainField", [{"code": row[0], "detail": row[1]} for row in FIELDS])
    jobs = [{"error_code": row[0], "error_message": row[1]} for row in JOBS]

    assert fields == [row[2] for row in FIELDS]
    assert await called(studio.page, url, "explainJob", jobs) == [row[2] for row in JOBS]
