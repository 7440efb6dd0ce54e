"""Whatever the API can say, the page says in the language of its reader.

English is the API's own language; each other one has a sentence for each code, and one for each figure that the API has
in a sentence alone.
"""

import re
from collections.abc import Iterable, Iterator

import pytest

from app.application import deliver
from app.domain.errors import DomainError, FieldRefused
from app.domain.errors_of_fal import ALL_ERRORS, CODES
from app.domain.media_limits import MediaFacts, MediaLimits
from app.domain.outputs import DeletedBecause
from app.domain.parameters import ParameterType
from app.domain.webhooks import DeliveryState, DisabledReason
from app.infrastructure.guarded_http import reasons
from app.presentation.http import field_errors
from app.presentation.http.errors import RefusedRequest
from app.presentation.http.studio import DIRECTORY
from tests.builders import BUILT_IN

# A language and the file that has the API's sentences in it.
LANGUAGES = [("text.ru.js", "sayings.ru.js")]


def read(name: str) -> str:
    return (DIRECTORY / name).read_text(encoding="utf-8")


def keys_of(catalogue: str) -> set[str]:
    return set(re.findall(r'^  "([^"]+)": ', read(catalogue), re.MULTILINE))


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from subclasses(narrower)


def codes_of(kind: type[Exception]) -> set[str]:
    found = {getattr(one, "code", "") for one in subclasses(kind) if one.__module__.startswith("app.")}
    # What has no subclass that says more is never raised by itself.
    return found - {"", DomainError.code}


def all_keys() -> set[str]:
    of_fields = {code for code, _ in field_errors._SENTENCES.values()} | {field_errors._FALLBACK[0]}
    return {
        *(f"job.{code}" for code in CODES),
        *(f"field.{code}" for code in of_fields | codes_of(FieldRefused)),
        *(f"error.{code}" for code in codes_of(DomainError) | codes_of(RefusedRequest) | {"method_not_allowed"}),
        *(f"delivery.state.{state}" for state in DeliveryState),
        *(f"endpoint.reason.{reason}" for reason in DisabledReason),
        *(f"output.{because}" for because in DeletedBecause),
    }


def limits_of_media() -> Iterator[MediaLimits]:
    for model in BUILT_IN.models:
        for parameter in model.parameters.values():
            if parameter.media is not None:
                yield parameter.media


def problems_of_media() -> Iterator[str]:
    for limits in limits_of_media():
        sides = [(1, 1), (100_000, 100_000), (100_000, 1), (2_000, 9_000), (700, 700)]
        facts = [
            MediaFacts(content_type="text/plain"),
            MediaFacts(size_bytes=10**12),
            *(MediaFacts(width=width, height=height) for width, height in sides),
            MediaFacts(duration_seconds=0.5),
            MediaFacts(duration_seconds=10_000),
        ]
        yield from (problem for one in facts if (problem := limits.problem_of(one)) is not None)


def sentences_with_figures() -> Iterator[str]:
    yield from problems_of_media()
    for model in BUILT_IN.models:
        for parameter in model.parameters.values():
            if parameter.type is ParameterType.SIZE and parameter.size_limits is not None:
                yield parameter.size_limits.sentence
    for error in ALL_ERRORS:
        yield from error.limits
    yield from (
        sentence for _, sentence in field_errors._SENTENCES.values() if "{" in sentence and sentence != "{reason}"
    )
    yield from (reason for _, reason in reasons._REASONS)
    yield from (deliver._failure(status) for status in (301, 500))
    yield from (attempt.error or "" for attempt in (deliver._FORGOTTEN, deliver._NOT_WRITTEN))


def patterns_of(sayings: str) -> list[re.Pattern[str]]:
    said = re.findall(r'^  "([^"]+)": ', read(sayings), re.MULTILINE)
    return [re.compile("(.+?)".join(map(re.escape, one.split("{}")))) for one in said]


def unsaid(sentences: Iterable[str], patterns: list[re.Pattern[str]]) -> set[str]:
    in_both_numbers = {sentence.replace("{s}", ending) for sentence in sentences for ending in ("", "s")}
    filled = {re.sub(r"\{\w+\}", "7", sentence) for sentence in in_both_numbers}
    return {one for one in filled if not any(pattern.fullmatch(one) for pattern in patterns)}


@pytest.mark.parametrize(("catalogue", "_sayings"), LANGUAGES)
def test_each_code_of_the_api_has_a_sentence(catalogue: str, _sayings: str) -> None:
    keys = all_keys()

    assert len(keys) > 150
    assert keys - keys_of(catalogue) == set()


@pytest.mark.parametrize(("_catalogue", "sayings"), LANGUAGES)
def test_each_sentence_that_has_figures_is_said_with_them(_catalogue: str, sayings: str) -> None:
    sentences = set(sentences_with_figures())

    assert len(sentences) > 50
    assert unsaid(sentences, patterns_of(sayings)) == set()


@pytest.mark.parametrize(("_catalogue", "sayings"), LANGUAGES)
def test_no_figure_is_named_that_the_sentence_has_not(_catalogue: str, sayings: str) -> None:
    for english, translated in re.findall(r'^  "([^"]+)": "([^"]+)",$', read(sayings), re.MULTILINE):
        places = {int(place) for place in re.findall(r"\{(\d)\}", translated)}
        assert places <= set(range(1, english.count("{}") + 1)), english
