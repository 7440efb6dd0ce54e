"""What the words for faults of single calls mean, without a network."""

import json
import math
import time
from dataclasses import replace
from typing import Any

import pytest

from simulator.answers import Answer
from simulator.behaviours import behaviour_of
from simulator.clock import Clock
from simulator.config import SimulatorConfig
from simulator.faults import OPERATIONS, Circumstances, Fault, FaultyCall, content_of

BODY = {"status": "IN_PROGRESS", "request_id": "id-1", "status_url": "http://127.0.0.1:9/app/requests/id-1/status"}


def fault_of(word: str) -> Fault:
    (fault,) = behaviour_of(f"a boat {word} at sea").faults
    return fault


def edited(word: str, body: Any = BODY, **circumstances: Any) -> Answer:
    return FaultyCall((fault_of(word),), Circumstances(**circumstances)).edited(Answer(202, body))


def parsed(word: str) -> Any:
    return json.loads(content_of(edited(word)))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", ["drop", "hang", "slow:20", "cut", "truncated", "not-json", "large:1", "redirect"])
def test_every_fault_goes_with_every_operation(operation: str, fault: str) -> None:
    assert fault_of(f"[{operation}:{fault}]").operation == operation


@pytest.mark.parametrize(
    ("word", "calls_max", "seconds_max"),
    [
        ("[status:404]", None, None),
        ("[status:404x3]", 3, None),
        ("[status:404 x3]", 3, None),
        ("[status:unknown x3]", 3, None),
        ("[status:404 10s]", None, 10),
        ("[submit:hang:2.5 x1]", 1, None),
        ("[result:without:max2]", None, None),
    ],
)
def test_reads_a_limit(word: str, calls_max: int | None, seconds_max: float | None) -> None:
    fault = fault_of(word)

    assert (fault.calls_max, fault.seconds_max) == (calls_max, seconds_max)


def test_a_limit_ends_a_fault() -> None:
    by_calls, by_seconds = fault_of("[status:drop x2]"), fault_of("[status:drop 10s]")

    assert [by_calls.is_in_force(number, 0) for number in (1, 2, 3)] == [True, True, False]
    assert [by_seconds.is_in_force(99, age) for age in (0, 9.9, 10)] == [True, True, False]


@pytest.mark.parametrize(
    ("word", "status_code", "marked", "body"),
    [
        ("[status:503]", 503, False, "nginx"),
        ("[status:page-500]", 500, False, "nginx"),
        ("[result:500]", 500, True, "internal_error"),
        ("[result:fal-503]", 503, True, "runner_scheduling_failure"),
        ("[result:499]", 499, True, "client_cancelled"),
        ("[result:400]", 400, True, "still in progress"),
        ("[result:422]", 422, True, "content_policy_violation"),
        ("[status:404]", 404, True, "NOT_FOUND"),
        ("[cancel:400]", 400, True, "ALREADY_COMPLETED"),
        ("[submit:401]", 401, True, "No user found"),
        ("[submit:403]", 403, True, "Exhausted balance"),
        ("[submit:425]", 425, True, "Refused on request"),
    ],
)
def test_a_code_alone_is_a_refusal(word: str, status_code: int, marked: bool, body: str) -> None:
    refusal = fault_of(word).refusal

    assert refusal is not None
    assert refusal.status_code == status_code
    # What is no JSON goes out without a header of fal.
    assert isinstance(refusal.body, str) is not marked
    assert body.lower() in content_of(refusal).decode().lower()


def test_a_done_code_is_an_answer_after_the_deed() -> None:
    assert fault_of("[submit:done-429]").refusal is None
    assert edited("[submit:done-429]").status_code == 429
    assert isinstance(edited("[submit:done-502]").body, str)


def test_a_code_of_success_keeps_the_body() -> None:
    assert (edited("[status:200]").status_code, edited("[status:200]").body) == (200, BODY)
    assert edited("[cancel:200]").body == {"status": "OK"}


def test_edits_the_answer() -> None:
    assert parsed("[status:without:status]").keys() == BODY.keys() - {"status"}
    assert parsed("[status:unknown]")["status"] == "PAUSED"
    assert parsed("[status:lower-case]")["status"] == "in_progress"
    assert math.isnan(parsed("[result:nan]")["score"][0])
    assert parsed("[result:nul]")["a\0b"] == "c\0d"
    assert parsed("[result:surrogate]")["a\ud800b"] == "c\ud800d"
    assert parsed("[result:shape]") == {"output": [BODY]}
    assert len(content_of(edited("[result:large:2]"))) > 2 * 1024**2
    assert isinstance(edited("[status:not-json]").body, str)


def test_leads_elsewhere() -> None:
    foreign_url = "https://elsewhere.example"

    redirect = edited("[status:redirect]", foreign_url=foreign_url)
    moved = edited("[submit:foreign-urls]", foreign_url=foreign_url).body

    assert (redirect.status_code, redirect.headers["location"]) == (302, f"{foreign_url}/elsewhere")
    assert moved == {**BODY, "status_url": f"{foreign_url}/app/requests/id-1/status"}


def test_names_another_request() -> None:
    body = edited("[submit:other-id]", request_id="id-1", other_request_id="id-0").body

    assert body["request_id"] == "id-0"
    assert body["status_url"].endswith("/app/requests/id-0/status")
    assert edited("[submit:other-id]", request_id="id-1").body == BODY


def test_flaps_at_every_second_look_at_a_run() -> None:
    seen = [edited("[status:flapping]", call_number=number).body["status"] for number in (1, 2, 3, 4)]

    assert seen == ["IN_PROGRESS", "IN_QUEUE", "IN_PROGRESS", "IN_QUEUE"]
    assert edited("[status:flapping]", {"status": "COMPLETED"}, call_number=2).body == {"status": "COMPLETED"}


def test_faults_of_a_call_add_up() -> None:
    faults = behaviour_of("[result:nan] [result:without:status] [result:hang:1] [result:hang:2] [result:cut]").faults
    call = FaultyCall(faults)

    body = call.edited(Answer(200, BODY)).body
    assert "score" in body
    assert "status" not in body
    assert (call.hang_seconds, call.is_cut, call.is_dropped) == (3, True, False)


def test_half_of_truncated_json_is_there() -> None:
    assert FaultyCall((fault_of("[status:truncated]"),)).truncated(b"12345678") == b"1234"
    assert FaultyCall((fault_of("[status:nan]"),)).truncated(b"12345678") == b"12345678"


def test_takes_only_words_for_faults_in_force() -> None:
    assert SimulatorConfig(faults="[status:503] [submit:drop x3]").faults == "[status:503] [submit:drop x3]"
    with pytest.raises(ValueError, match="words in square brackets"):
        SimulatorConfig(faults="[status:503] [status:soon]")


def test_moves_and_holds_the_clock() -> None:
    clock, machine = Clock(lambda: machine_now), 100.0
    machine_now = machine
    clock.advance(60)
    moved = clock.now()
    clock.hold()
    machine_now += 5
    held = clock.now()
    clock.advance(1)
    advanced = clock.now()
    clock.release()
    machine_now += 2
    released = clock.now()
    clock.reset()

    assert (moved, held, advanced, released, clock.now()) == (160, 160, 161, 163, 107)
    assert not clock.is_held


def test_knows_the_time_of_the_machine() -> None:
    assert abs(Clock(time.time).now() - time.time()) < 5


def test_the_slowest_pace_counts() -> None:
    slow = fault_of("[status:slow:9]")

    assert FaultyCall((slow, replace(slow, bytes_per_second=3))).bytes_per_second == 3
    assert FaultyCall(()).bytes_per_second is None


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("form", ["page", "text", "json", "empty"])
def test_an_ingress_answers_in_many_forms_and_in_none_of_fals(operation: str, form: str) -> None:
    plain, marked = fault_of(f"[{operation}:{form}-503]").refusal, fault_of(f"[{operation}:marked-{form}-503]").refusal

    assert plain is not None
    assert (plain.status_code, plain.is_marked) == (503, False)
    # As text, so that it gets no header of fal.
    assert isinstance(plain.body, str)
    assert marked == replace(plain, is_marked=True)


def test_what_an_ingress_says_may_come_after_the_deed() -> None:
    fault = fault_of("[submit:done-marked-json-504 x1]")

    assert fault.refusal is None
    assert edited("[submit:done-marked-json-504 x1]").status_code == 504
    assert behaviour_of("[submit:marked-504]").faults == ()
