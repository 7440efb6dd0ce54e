"""Faults of single calls: `[OPERATION:FAULT]` in a prompt, or in the setting `faults`.

A refusal stands in for the call: nothing is done. Every other fault spoils the answer to a call that was carried out.
All faults that are in force for a call apply together.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from simulator import answers
from simulator.answers import Answer
from simulator.words import Word, fixed, number, seconds

OPERATIONS = ("submit", "status", "result", "cancel")
# The body of a webhook can be spoilt, its delivery has words of its own.
WEBHOOK = "webhook"
# A download of an output.
MEDIA = "media"
LARGE_MEGABYTES = 12
SLOW_BYTES_PER_SECOND = 1
PADDING = "padding"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an edit may need to know besides the answer."""

    call_number: int = 1
    foreign_url: str = ""
    request_id: str = ""
    other_request_id: str | None = None


Edit = Callable[[Answer, Circumstances], Answer]


@dataclass(frozen=True, slots=True)
class Fault:
    operation: str
    refusal: Answer | None = None
    edit: Edit | None = None
    is_truncated: bool = False
    megabytes_more: int = 0
    is_cut: bool = False
    is_dropped: bool = False
    hang_seconds: float = 0
    bytes_per_second: int | None = None
    calls_max: int | None = None
    seconds_max: float | None = None

    def is_in_force(self, call_number: int, age_seconds: float) -> bool:
        return (self.calls_max is None or call_number <= self.calls_max) and (
            self.seconds_max is None or age_seconds < self.seconds_max
        )


@dataclass(frozen=True, slots=True)
class FaultyCall:
    """The faults that are in force for one call, and what they make of its answer."""

    faults: tuple[Fault, ...]
    circumstances: Circumstances = Circumstances()

    @property
    def refusal(self) -> Answer | None:
        return next((fault.refusal for fault in self.faults if fault.refusal is not None), None)

    @property
    def hang_seconds(self) -> float:
        return sum(fault.hang_seconds for fault in self.faults)

    @property
    def is_dropped(self) -> bool:
        return any(fault.is_dropped for fault in self.faults)

    @property
    def is_cut(self) -> bool:
        return any(fault.is_cut for fault in self.faults)

    @property
    def bytes_per_second(self) -> int | None:
        return min((fault.bytes_per_second for fault in self.faults if fault.bytes_per_second), default=None)

    def edited(self, answer: Answer) -> Answer:
        for fault in self.faults:
            if fault.edit is not None:
                answer = fault.edit(answer, self.circumstances)
        return answer

    def file(self, content: bytes) -> bytes:
        return self.truncated(content + bytes(1024**2 * sum(fault.megabytes_more for fault in self.faults)))

    def truncated(self, content: bytes) -> bytes:
        is_truncated = any(fault.is_truncated for fault in self.faults)
        return content[: len(content) // 2] if is_truncated else content


def content_of(answer: Answer) -> bytes:
    # Written in ASCII, so that also NaN, NUL and half a surrogate pair leave as they are in JSON.
    return (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()


def _body(change: Callable[[Mapping[str, Any], Circumstances], Mapping[str, Any]]) -> Edit:
    def edit(answer: Answer, circumstances: Circumstances) -> Answer:
        if not isinstance(answer.body, dict):
            return answer
        return Answer(answer.status_code, dict(change(answer.body, circumstances)), answer.headers)

    return edit


def _with(**members: Any) -> Edit:
    return _body(lambda body, _: {**body, **members})


def _without(argument: str | None) -> dict[str, Any]:
    if argument is None:
        raise ValueError(argument)
    return {"edit": _body(lambda body, _: {name: value for name, value in body.items() if name != argument})}


def _large(argument: str | None) -> dict[str, Any]:
    megabytes = LARGE_MEGABYTES if argument is None else number(argument)
    return {
        "edit": _body(lambda body, _: {**body, PADDING: "x" * (megabytes * 1024**2)}),
        "megabytes_more": megabytes,
    }


def _not_json(answer: Answer, _: Circumstances) -> Answer:
    return Answer(answer.status_code, "<html>It works!</html>")


def _redirect(_: Answer, circumstances: Circumstances) -> Answer:
    return Answer(302, "", {"location": f"{circumstances.foreign_url}/elsewhere"})


def _foreign_urls(body: Mapping[str, Any], circumstances: Circumstances) -> Mapping[str, Any]:
    def moved(url: str) -> str:
        return circumstances.foreign_url + re.sub(r"^\w+://[^/]*", "", url)

    return {name: moved(value) if name.endswith("_url") else value for name, value in body.items()}


def _other_id(body: Mapping[str, Any], circumstances: Circumstances) -> Mapping[str, Any]:
    other = circumstances.other_request_id or circumstances.request_id
    changed: Mapping[str, Any] = json.loads(json.dumps(body).replace(circumstances.request_id, other))
    return changed


def _flapping(body: Mapping[str, Any], circumstances: Circumstances) -> Mapping[str, Any]:
    is_back = circumstances.call_number % 2 == 0 and body.get("status") == "IN_PROGRESS"
    return {**body, "status": "IN_QUEUE", "queue_position": 0} if is_back else body


def _lower_case(body: Mapping[str, Any], _: Circumstances) -> Mapping[str, Any]:
    return {**body, "status": str(body.get("status")).lower()}


def _dead_media(body: Mapping[str, Any], _: Circumstances) -> Mapping[str, Any]:
    dead: Mapping[str, Any] = json.loads(re.sub(r"/files/b/[^\"]*", "/files/b/0/gone", json.dumps(body)))
    return dead


def _hang(argument: str | None) -> dict[str, Any]:
    return {"hang_seconds": math.inf if argument is None else seconds(argument)}


def _slow(argument: str | None) -> dict[str, Any]:
    return {"bytes_per_second": SLOW_BYTES_PER_SECOND if argument is None else max(1, number(argument))}


FAULTS = (
    Word("drop", "[submit:drop]", "the connection ends without an answer", fixed(is_dropped=True)),
    Word("hang", "[submit:hang:30]", "the answer comes after 30 seconds; [cancel:hang]: never", _hang),
    Word("slow", "[submit:slow]", "the answer comes at 1 byte a second; [status:slow:50]: at 50", _slow),
    Word("cut", "[result:cut]", "the connection ends in the middle of the body", fixed(is_cut=True)),
    Word("truncated", "[status:truncated]", "half of the JSON, with a length that fits", fixed(is_truncated=True)),
    Word("not-json", "[submit:not-json]", "a page instead of JSON, with the usual code", fixed(edit=_not_json)),
    Word("large", "[result:large]", f"{LARGE_MEGABYTES} MB of JSON; [submit:large:20]: 20 MB", _large),
    Word("redirect", "[status:redirect]", "302 to the setting foreign_url", fixed(edit=_redirect)),
    Word("without", "[submit:without:request_id]", "that key is missing from the JSON", _without),
    Word(
        "foreign-urls",
        "[submit:foreign-urls]",
        "every URL of the answer is below the setting foreign_url",
        fixed(edit=_body(_foreign_urls)),
    ),
    Word(
        "other-id",
        "[submit:other-id]",
        "id and URLs are those of the request before this one",
        fixed(edit=_body(_other_id)),
    ),
    Word("unknown", "[status:unknown]", "a status word that does not exist", fixed(edit=_with(status="PAUSED"))),
    Word("lower-case", "[status:lower-case]", "the status word in lower case", fixed(edit=_body(_lower_case))),
    Word(
        "flapping",
        "[status:flapping]",
        "every second look at a run says IN_QUEUE again",
        fixed(edit=_body(_flapping)),
    ),
    Word("nan", "[result:nan]", "the JSON holds NaN and -Infinity", fixed(edit=_with(score=[math.nan, -math.inf]))),
    Word("nul", "[result:nul]", r"a key and a value of the JSON hold \u0000", fixed(edit=_with(**{"a\0b": "c\0d"}))),
    Word(
        "surrogate",
        "[result:surrogate]",
        r"a key and a value of the JSON hold \ud800",
        fixed(edit=_with(**{"a\ud800b": "c\ud800d"})),
    ),
    Word(
        "shape",
        "[result:shape]",
        "JSON of another shape than the model's",
        fixed(edit=_body(lambda body, _: {"output": [body]})),
    ),
    Word("dead-media", "[result:dead-media]", "the media's URLs lead nowhere", fixed(edit=_body(_dead_media))),
)
_FAULTS_BY_NAME = {fault.name: fault for fault in FAULTS}
_EDITS_ONLY = frozenset({"edit", "is_truncated", "megabytes_more"})
# The others are about JSON.
_OF_FILES = frozenset({"drop", "hang", "slow", "cut", "truncated", "not-json", "large", "redirect"})


def words_of(operation: str) -> Iterable[Word]:
    """For the table of words: each fault once, under the operation that its example names."""
    if operation != WEBHOOK:
        yield from _CODES[operation]
    yield from (
        Word(operation, fault.usage, fault.meaning, reader(operation))
        for fault in FAULTS
        if fault.usage.startswith(f"[{operation}:")
    )


def reader(operation: str) -> Callable[[str | None], dict[str, Any]]:
    """Reads any fault of the operation."""

    def read(argument: str | None) -> dict[str, Any]:
        return {"faults": (_fault(operation, argument or ""),)}

    return read


_LIMITED = re.compile(r"(?P<fault>.+?)(?:(?:(?<=\d)| )x(?P<calls>\d{1,6})| (?P<seconds>\d{1,6})s)?")
_CODE = re.compile(r"(?P<done>done-)?(?P<form>fal-|(?:marked-)?(?:page-|text-|json-|empty-))?(?P<code>[2-5]\d\d)")


def _fault(operation: str, text: str) -> Fault:
    limited = _LIMITED.fullmatch(text)
    if limited is None:
        raise ValueError(text)
    name, colon, argument = limited["fault"].partition(":")
    code = _CODE.fullmatch(limited["fault"])
    fields = (
        _code_fields(operation, int(code["code"]), code["form"] or "", is_done=bool(code["done"]))
        if code
        else _FAULTS_BY_NAME[name].read(argument if colon else None)
        if name in _FAULTS_BY_NAME
        else None
    )
    is_out_of_place = operation == MEDIA and not code and name not in _OF_FILES
    if fields is None or is_out_of_place or (operation == WEBHOOK and not fields.keys() <= _EDITS_ONLY):
        raise ValueError(text)
    return Fault(
        operation,
        **fields,
        calls_max=int(limited["calls"]) if limited["calls"] else None,
        seconds_max=float(limited["seconds"]) if limited["seconds"] else None,
    )


def _code_fields(operation: str, code: int, form: str, *, is_done: bool) -> dict[str, Any]:
    if 200 <= code < 300 and operation in ("status", "cancel") and not form:
        return {"edit": _with_code(operation, code)}
    if code < 400:
        raise ValueError(code)
    answer = answers.refusal(operation, code, form)
    return {"edit": lambda *_: answer} if is_done else {"refusal": answer}


def _with_code(operation: str, code: int) -> Edit:
    def edit(answer: Answer, _: Circumstances) -> Answer:
        body = {"status": "OK"} if operation == "cancel" and code == 200 else answer.body
        return Answer(code, body, answer.headers)

    return edit


_CODES: Mapping[str, tuple[Word, ...]] = {
    "submit": (
        Word(
            "submit",
            "[submit:429]",
            "the submit is refused with 429 (or any code from 400 to 599) and nothing is queued; "
            "[submit:429x2]: only the first two POSTs of the same prompt",
            reader("submit"),
        ),
        Word("submit", "[submit:done-429]", "queued, and yet answered with that code", reader("submit")),
        Word(
            "submit",
            "[submit:json-503]",
            "that code in the JSON of a proxy; [submit:text-503] in Envoy's words, [submit:empty-503] without any",
            reader("submit"),
        ),
    ),
    "status": (
        Word("status", "[status:page-500]", "that code with a page of nginx and no header of fal", reader("status")),
        Word("status", "[status:200]", "that code with the usual body", reader("status")),
    ),
    "result": (
        Word("result", "[result:fal-503]", "that code with fal's JSON and headers", reader("result")),
        Word("result", "[result:404]", "as if the result had expired", reader("result")),
        Word(
            "result",
            "[result:marked-page-504]",
            "that code with a page of nginx and the id of the request; marked- also before json-, text- and empty-",
            reader("result"),
        ),
    ),
    "cancel": (
        Word("cancel", "[cancel:400]", "ALREADY_COMPLETED, and nothing is cancelled", reader("cancel")),
        Word("cancel", "[cancel:200]", "the other answer to a cancel that fal documents: OK", reader("cancel")),
    ),
}
