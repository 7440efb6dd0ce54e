"""Words in square brackets that a prompt can hold to ask for a behaviour; `WORDS` is their one table."""

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from simulator.answers import (
    INFRASTRUCTURE_ERRORS,
    MODEL_ERRORS,
    Answer,
    infrastructure_error,
    model_error,
    submit_refusal,
)

HELP_COLUMNS = 78


@dataclass(frozen=True, slots=True)
class SubmitRefusal:
    answer: Answer
    times: int | None
    """How many POSTs of the same prompt are refused; None: every one."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request differs from the ordinary."""

    submit_refusal: SubmitRefusal | None = None
    failure: Answer | None = None
    run_seconds: float | None = None
    is_stuck: bool = False
    ignores_cancel: bool = False
    images_max: int | None = None
    flags_all: bool = False
    flagged_numbers: frozenset[int] = frozenset()
    hides_error: bool = False
    flaky_polls: int = 0
    words: tuple[str, ...] = ()

    def flags(self, number: int) -> bool:
        return self.flags_all or number in self.flagged_numbers


@dataclass(frozen=True, slots=True)
class Word:
    """One row of the table.

    `read` turns the text after the colon (None without one) into fields of Behaviour; it raises ValueError
    for an argument that makes no sense, and the word is then ordinary text.
    """

    name: str
    usage: str
    meaning: str
    read: Callable[[str | None], dict[str, Any]]


FAILURES_BY_STATUS_CODE = {
    "422": "content_policy_violation",
    "500": "runner_server_error",
    "502": "runner_incomplete_response",
    "503": "runner_scheduling_failure",
    "504": "request_timeout",
}


def _failure(argument: str | None) -> Answer:
    error_type = FAILURES_BY_STATUS_CODE.get(argument or "422", argument)
    if error_type in INFRASTRUCTURE_ERRORS:
        return infrastructure_error(error_type)
    if error_type in MODEL_ERRORS:
        return model_error(error_type)
    raise ValueError(argument)


def _submit_refusal(argument: str | None) -> SubmitRefusal:
    match = re.fullmatch(r"([45]\d\d)(?:x(\d{1,6}))?", argument or "")
    if match is None:
        raise ValueError(argument)
    status_code, times = match.groups()
    return SubmitRefusal(submit_refusal(int(status_code)), int(times) if times else None)


def _number(argument: str | None) -> int:
    if argument is None or re.fullmatch(r"\d{1,6}", argument) is None:
        raise ValueError(argument)
    return int(argument)


def _seconds(argument: str | None) -> float:
    if argument is None or re.fullmatch(r"\d{1,6}(\.\d{1,6})?", argument) is None:
        raise ValueError(argument)
    return float(argument)


def _flagged(argument: str | None) -> dict[str, Any]:
    if argument is None:
        return {"flags_all": True}
    return {"flagged_numbers": frozenset(_number(part) for part in argument.split(","))}


def _flag(field_name: str) -> Callable[[str | None], dict[str, Any]]:
    def read(argument: str | None) -> dict[str, Any]:
        if argument is not None:
            raise ValueError(argument)
        return {field_name: True}

    return read


def _no_error_field(argument: str | None) -> dict[str, Any]:
    return {"failure": _failure(argument), "hides_error": True}


WORDS = (
    Word(
        "fail",
        "[fail]",
        "the run fails with 422 content_policy_violation; [fail:500] runner_server_error, also 502, 503, "
        "504 (request_timeout); or with the name of an error type: [fail:no_media_generated]",
        lambda argument: {"failure": _failure(argument)},
    ),
    Word(
        "no-error-field",
        "[no-error-field]",
        "the result is a failure, but the COMPLETED status does not say so; [no-error-field:500] as above",
        _no_error_field,
    ),
    Word("slow", "[slow:12]", "runs for 12 seconds", lambda argument: {"run_seconds": _seconds(argument)}),
    Word("stuck", "[stuck]", "stays at position 0 of the queue until it is cancelled", _flag("is_stuck")),
    Word(
        "ignore-cancel",
        "[ignore-cancel]",
        "a cancel is answered with 202, but the run goes on to its end",
        _flag("ignores_cancel"),
    ),
    Word(
        "partial",
        "[partial:3]",
        "at most 3 of the requested images come out",
        lambda argument: {"images_max": _number(argument)},
    ),
    Word(
        "nsfw",
        "[nsfw]",
        "every output is black, with has_nsfw_concepts true; [nsfw:2] or [nsfw:1,3]: only these images",
        _flagged,
    ),
    Word(
        "flaky",
        "[flaky:3]",
        "the first 3 status polls get 503 with a page of nginx",
        lambda argument: {"flaky_polls": _number(argument)},
    ),
    Word(
        "submit",
        "[submit:429]",
        "the submit is refused with 429 (or any code from 400 to 599) and nothing is queued; "
        "[submit:429x2]: only the first two POSTs of the same prompt",
        lambda argument: {"submit_refusal": _submit_refusal(argument)},
    ),
)

_READERS = {word.name: word.read for word in WORDS}
_PATTERN = re.compile(r"\[([a-z-]+)(?::([^\]\s]+))?\]")
ORDINARY = Behaviour()


def behaviour_of(prompt: object) -> Behaviour:
    """Read the words in a prompt; whatever is no word of the table is ordinary text."""
    if not isinstance(prompt, str) or "[" not in prompt:
        return ORDINARY
    return _read(prompt)


@lru_cache(maxsize=1024)
def _read(prompt: str) -> Behaviour:
    behaviour = ORDINARY
    for match in _PATTERN.finditer(prompt):
        name, argument = match.groups()
        if name not in _READERS:
            continue
        try:
            fields = _READERS[name](argument)
        except ValueError:
            continue
        behaviour = replace(behaviour, **fields, words=(*behaviour.words, match.group()))
    return behaviour


def help_text() -> str:
    width = max(len(word.usage) for word in WORDS) + 2
    entries = [
        textwrap.fill(
            word.meaning,
            HELP_COLUMNS,
            initial_indent=f"  {word.usage:<{width}}",
            subsequent_indent=" " * (width + 2),
        )
        for word in WORDS
    ]
    return "\n".join(["Words that a prompt can hold:", *entries])
