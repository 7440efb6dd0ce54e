"""Words in square brackets that a prompt can hold to ask for a behaviour; `WORDS` is their one table."""

import contextlib
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
WEBHOOK_COPIES_MAX = 100


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
    drops_submit: bool = False
    submit_hang_seconds: float = 0
    webhook_copies: int = 1
    webhook_delay_seconds: float = 0
    webhook_is_early: bool = False
    webhook_is_never_sent: bool = False
    webhook_has_null_payload: bool = False
    webhook_is_forged: bool = False
    webhook_is_stale: bool = False
    webhook_names_foreign_user: bool = False
    webhook_names_wrong_request: bool = False
    webhook_has_unknown_key: bool = False
    words: tuple[str, ...] = ()

    def flags(self, number: int) -> bool:
        return self.flags_all or number in self.flagged_numbers


@dataclass(frozen=True, slots=True)
class Word:
    """One row of the table; rows can share a name when their arguments differ.

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


def _option(option: str, read: Callable[[str | None], dict[str, Any]]) -> Callable[[str | None], dict[str, Any]]:
    """For a name of several rows: the argument begins with what tells this one from the others."""

    def read_option(argument: str | None) -> dict[str, Any]:
        chosen, colon, rest = (argument or "").partition(":")
        if chosen != option:
            raise ValueError(argument)
        return read(rest if colon else None)

    return read_option


def _copies(argument: str | None) -> dict[str, Any]:
    copies = 2 if argument is None else _number(argument)
    if not 2 <= copies <= WEBHOOK_COPIES_MAX:
        raise ValueError(argument)
    return {"webhook_copies": copies}


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
    Word(
        "submit",
        "[submit:drop]",
        "the submit is accepted and queued, then its connection ends without an answer",
        _option("drop", _flag("drops_submit")),
    ),
    Word(
        "submit",
        "[submit:hang:30]",
        "the submit is accepted and queued, its answer comes after 30 seconds",
        _option("hang", lambda argument: {"submit_hang_seconds": _seconds(argument)}),
    ),
    Word(
        "webhook",
        "[webhook:duplicate]",
        "the webhook is delivered twice at once; [webhook:duplicate:10]: ten times",
        _option("duplicate", _copies),
    ),
    Word(
        "webhook",
        "[webhook:delay:3]",
        "the webhook comes 3 seconds after the end of the run",
        _option("delay", lambda argument: {"webhook_delay_seconds": _seconds(argument)}),
    ),
    Word(
        "webhook",
        "[webhook:early]",
        "the run is over at once, and the webhook comes before the answer to the submit",
        _option("early", _flag("webhook_is_early")),
    ),
    Word("webhook", "[webhook:never]", "the webhook is never sent", _option("never", _flag("webhook_is_never_sent"))),
    Word(
        "webhook",
        "[webhook:null]",
        "the payload of the webhook is null, with a payload_error; the result itself is there",
        _option("null", _flag("webhook_has_null_payload")),
    ),
    Word(
        "webhook",
        "[webhook:forged]",
        "the signature of the webhook is that of another body",
        _option("forged", _flag("webhook_is_forged")),
    ),
    Word(
        "webhook",
        "[webhook:stale]",
        "the timestamp of the webhook is 10 minutes old; the signature is good",
        _option("stale", _flag("webhook_is_stale")),
    ),
    Word(
        "webhook",
        "[webhook:foreign-user]",
        "the webhook names another user; the signature is good",
        _option("foreign-user", _flag("webhook_names_foreign_user")),
    ),
    Word(
        "webhook",
        "[webhook:wrong-request]",
        "the webhook names a request that does not exist, in body and header; the signature is good",
        _option("wrong-request", _flag("webhook_names_wrong_request")),
    ),
    Word(
        "webhook",
        "[webhook:unknown-key]",
        "the webhook is signed with a key that is not in the key set",
        _option("unknown-key", _flag("webhook_has_unknown_key")),
    ),
)

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
        fields = _fields(name, argument)
        if fields is not None:
            behaviour = replace(behaviour, **fields, words=(*behaviour.words, match.group()))
    return behaviour


def _fields(name: str, argument: str | None) -> dict[str, Any] | None:
    for word in WORDS:
        if word.name == name:
            with contextlib.suppress(ValueError):
                return word.read(argument)
    return None


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
