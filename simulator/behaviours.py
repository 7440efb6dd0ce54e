"""Words in square brackets that a prompt can hold to ask for a behaviour; `WORDS` is their one table."""

import contextlib
import re
import textwrap
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from simulator.answers import INFRASTRUCTURE_ERRORS, MODEL_ERRORS
from simulator.faults import MEDIA, OPERATIONS, WEBHOOK, Fault, reader, words_of
from simulator.words import Word, fixed, number, option, seconds

HELP_COLUMNS = 78
FAULTS_NOTE = (
    "Every fault of submit, status, result and cancel goes with each of them, and several go together. A code alone is "
    "a refusal: nothing is done. Every other fault comes after the call was carried out. [status:404 x3] is for the "
    "first 3 calls, [status:404 10s] for the first 10 seconds. The setting `faults` of /_sim/config holds words that "
    "are in force for every prompt, and foreign_url the other host."
)
WEBHOOK_COPIES_MAX = 100
IMAGES_EXTRA_MAX = 10


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request differs from the ordinary."""

    faults: tuple[Fault, ...] = ()
    failure: str | None = None
    """fal's type of the error."""

    run_seconds: float | None = None
    is_stuck: bool = False
    ignores_cancel: bool = False
    images_max: int | None = None
    images_extra: int = 0
    tells_sizes: bool = False
    size: tuple[int, int] | None = None
    flags_all: bool = False
    flagged_numbers: frozenset[int] = frozenset()
    hides_error: bool = False
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
    media_seconds: float | None = None
    """How long its outputs stay after the end of the run, if not for longer."""
    words: tuple[str, ...] = ()

    def flags(self, number: int) -> bool:
        return self.flags_all or number in self.flagged_numbers

    def count_of(self, asked: int) -> int:
        """How many images a run delivers that was asked for so many."""
        return asked + self.images_extra if self.images_max is None else min(asked, self.images_max)


FAILURES_BY_STATUS_CODE = {
    "422": "content_policy_violation",
    "500": "runner_server_error",
    "502": "runner_incomplete_response",
    "503": "runner_scheduling_failure",
    "504": "request_timeout",
}


def _failure(argument: str | None) -> str:
    error_type = FAILURES_BY_STATUS_CODE.get(argument or "422", argument)
    if error_type is None or error_type not in INFRASTRUCTURE_ERRORS.keys() | MODEL_ERRORS.keys():
        raise ValueError(argument)
    return error_type


def _flagged(argument: str | None) -> dict[str, Any]:
    if argument is None:
        return {"flags_all": True}
    return {"flagged_numbers": frozenset(number(part) for part in argument.split(","))}


def _copies(argument: str | None) -> dict[str, Any]:
    copies = 2 if argument is None else number(argument)
    if not 2 <= copies <= WEBHOOK_COPIES_MAX:
        raise ValueError(argument)
    return {"webhook_copies": copies}


def _gone(argument: str | None) -> dict[str, Any]:
    return {"media_seconds": 0.0 if argument is None else seconds(argument)}


def _no_error_field(argument: str | None) -> dict[str, Any]:
    return {"failure": _failure(argument), "hides_error": True}


def _size(argument: str | None) -> dict[str, Any]:
    width, _, height = (argument or "").partition("x")
    size = (number(width), number(height))
    if 0 in size:
        raise ValueError(argument)
    return {"size": size}


WORDS = (
    Word(
        "fail",
        "[fail]",
        "the run fails with 422 content_policy_violation; [fail:500] runner_server_error, also 502, 503, "
        "504 (request_timeout); or with fal's name of an error type: [fail:image_too_small]",
        lambda argument: {"failure": _failure(argument)},
    ),
    Word(
        "no-error-field",
        "[no-error-field]",
        "the result is a failure, but the COMPLETED status does not say so; [no-error-field:500] as above",
        _no_error_field,
    ),
    Word("slow", "[slow:12]", "runs for 12 seconds", lambda argument: {"run_seconds": seconds(argument)}),
    Word("stuck", "[stuck]", "stays at position 0 of the queue until it is cancelled", fixed(is_stuck=True)),
    Word(
        "ignore-cancel",
        "[ignore-cancel]",
        "a cancel is answered with 202, but the run goes on to its end",
        fixed(ignores_cancel=True),
    ),
    Word(
        "partial",
        "[partial:3]",
        "at most 3 of the requested images come out",
        lambda argument: {"images_max": number(argument)},
    ),
    Word(
        "extra",
        "[extra:2]",
        "2 images more than were asked for",
        lambda argument: {"images_extra": min(number(argument), IMAGES_EXTRA_MAX)},
    ),
    Word(
        "sized",
        "[sized]",
        "the result tells width and height also where the model may leave them null",
        fixed(tells_sizes=True),
    ),
    Word("size", "[size:512x512]", "pictures come out in this size, whatever was asked for", _size),
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
        lambda argument: reader("status")(f"503x{number(argument)}"),
    ),
    Word(
        "webhook",
        "[webhook:duplicate]",
        "the webhook is delivered twice at once; [webhook:duplicate:10]: ten times",
        option("duplicate", _copies),
    ),
    Word(
        "webhook",
        "[webhook:delay:3]",
        "the webhook comes 3 seconds after the end of the run",
        option("delay", lambda argument: {"webhook_delay_seconds": seconds(argument)}),
    ),
    Word(
        "webhook",
        "[webhook:early]",
        "the run is over at once, and the webhook comes before the answer to the submit",
        option("early", fixed(webhook_is_early=True)),
    ),
    Word("webhook", "[webhook:never]", "the webhook is never sent", option("never", fixed(webhook_is_never_sent=True))),
    Word(
        "webhook",
        "[webhook:null]",
        "the payload of the webhook is null, with a payload_error; the result itself is there",
        option("null", fixed(webhook_has_null_payload=True)),
    ),
    Word(
        "webhook",
        "[webhook:forged]",
        "the signature of the webhook is that of another body",
        option("forged", fixed(webhook_is_forged=True)),
    ),
    Word(
        "webhook",
        "[webhook:stale]",
        "the timestamp of the webhook is 10 minutes old; the signature is good",
        option("stale", fixed(webhook_is_stale=True)),
    ),
    Word(
        "webhook",
        "[webhook:foreign-user]",
        "the webhook names another user; the signature is good",
        option("foreign-user", fixed(webhook_names_foreign_user=True)),
    ),
    Word(
        "webhook",
        "[webhook:wrong-request]",
        "the webhook names a request that does not exist, in body and header; the signature is good",
        option("wrong-request", fixed(webhook_names_wrong_request=True)),
    ),
    Word(
        "webhook",
        "[webhook:unknown-key]",
        "the webhook is signed with a key that is not in the key set",
        option("unknown-key", fixed(webhook_has_unknown_key=True)),
    ),
    *(word for operation in OPERATIONS for word in words_of(operation)),
    Word(
        WEBHOOK,
        "[webhook:nan]",
        "the body of the webhook, signed as it is, has a fault of a result: "
        "nan, nul, surrogate, shape, large, truncated, not-json, without:KEY",
        reader(WEBHOOK),
    ),
    Word(
        MEDIA,
        "[media:gone]",
        "the outputs are gone at once; [media:gone:5]: 5 seconds after the run",
        option("gone", _gone),
    ),
    Word(
        MEDIA,
        "[media:truncated]",
        "half of each output, with a length that fits; other faults of a download: a code such as 503, drop, hang, "
        "slow:5000, cut, large:20, redirect, and not-json for a page",
        reader(MEDIA),
    ),
)

_PATTERN = re.compile(r"\[([a-z-]+)(?::([^\]\s]+(?: (?:x\d+|\d+s))?))?\]")
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
            words = (*behaviour.words, match.group())
            faults = behaviour.faults + fields.pop("faults", ())
            behaviour = replace(behaviour, **fields, faults=faults, words=words)
    return behaviour


def _fields(name: str, argument: str | None) -> dict[str, Any] | None:
    for word in WORDS:
        if word.name == name:
            with contextlib.suppress(ValueError):
                return dict(word.read(argument))
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
    return "\n".join(["Words that a prompt can hold:", *entries, "", textwrap.fill(FAULTS_NOTE, HELP_COLUMNS)])
