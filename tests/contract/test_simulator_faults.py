"""Faults of single calls, and the simulator's time, as a client on the wire meets them."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

TEXT_TO_IMAGE = "/fal-ai/wan-25-preview/text-to-image"
PROMPTS = iter(range(10**6))


def post(fal_http: httpx.Client, words: str, **more: Any) -> httpx.Response:
    return fal_http.post(TEXT_TO_IMAGE, json={"prompt": f"{next(PROMPTS)} {words}"}, **more)


def submit(fal_http: httpx.Client, words: str = "", **more: Any) -> dict[str, str]:
    answer = post(fal_http, words, **more)
    assert answer.status_code == 200, answer.text
    body: dict[str, str] = answer.json()
    return body


def accepted(fal_http: httpx.Client) -> int:
    return int(fal_http.get("/_sim/stats").json()["posts_accepted"])


def advance(fal_http: httpx.Client, seconds: float) -> None:
    fal_http.post("/_sim/clock", json={"advance_seconds": seconds}).raise_for_status()


CALLS: dict[str, Callable[[httpx.Client, str], httpx.Response]] = {
    "submit": post,
    "status": lambda fal, words: fal.get(submit(fal, words)["status_url"]),
    "result": lambda fal, words: fal.get(submit(fal, words)["response_url"]),
    "cancel": lambda fal, words: fal.put(submit(fal, f"[stuck] {words}")["cancel_url"]),
}
every_call = pytest.mark.parametrize("operation", CALLS)


@every_call
@pytest.mark.parametrize("code", [401, 403, 429, 500, 502, 503, 504])
def test_refuses_any_call_as_fal_does(fal_http: httpx.Client, operation: str, code: int) -> None:
    marked = CALLS[operation](fal_http, f"[{operation}:fal-{code}]")
    page = CALLS[operation](fal_http, f"[{operation}:page-{code}]")

    assert (marked.status_code, page.status_code) == (code, code)
    assert marked.json()["detail"]
    assert "x-fal-request-id" in marked.headers
    assert "x-fal-request-id" not in page.headers
    assert "nginx" in page.text


@every_call
def test_spoils_the_answer_to_any_call(fal_http: httpx.Client, operation: str) -> None:
    call = CALLS[operation]

    with pytest.raises(httpx.RemoteProtocolError):
        call(fal_http, f"[{operation}:drop]")
    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        call(fal_http, f"[{operation}:cut]")
    with pytest.raises(ValueError, match=r"[Ee]xpecting|Unterminated|delimiter"):
        call(fal_http, f"[{operation}:truncated]").json()
    assert call(fal_http, f"[{operation}:not-json]").text.startswith("<html>")
    assert len(call(fal_http, f"[{operation}:large:1]").content) > 1024**2
    assert call(fal_http, f"[{operation}:redirect]").headers["location"] == "https://elsewhere.example/elsewhere"


@every_call
def test_a_hanging_call_can_be_given_up(fal_http: httpx.Client, operation: str) -> None:
    with httpx.Client(
        base_url=fal_http.base_url, headers=fal_http.headers, timeout=httpx.Timeout(60, read=0.3)
    ) as impatient:
        with pytest.raises(httpx.ReadTimeout):
            CALLS[operation](impatient, f"[{operation}:hang]")
        # With a time it is late, and complete.
        assert CALLS[operation](fal_http, f"[{operation}:hang:0.2]").is_success


def test_answers_byte_by_byte(fal_http: httpx.Client) -> None:
    url = submit(fal_http, "[status:slow:400]")["status_url"]
    start = time.monotonic()

    answer = fal_http.get(url)

    assert answer.json()["status"] == "COMPLETED"
    assert time.monotonic() - start > len(answer.content) // 400 - 0.1


def test_a_spoilt_submit_is_queued_and_a_refused_one_is_not(fal_http: httpx.Client) -> None:
    spoilt = ["drop", "cut", "truncated", "not-json", "without:request_id", "large:1", "redirect", "done-429"]
    for fault in spoilt:
        try:
            post(fal_http, f"[submit:{fault}]")
        except httpx.RemoteProtocolError:
            continue
    refused = [post(fal_http, f"[submit:{fault}]").status_code for fault in ("429", "502", "fal-503", "page-500")]

    assert refused == [429, 502, 503, 500]
    assert accepted(fal_http) == len(spoilt)
    posts = fal_http.get("/_sim/posts").json()["posts"]
    assert [seen["status_code"] for seen in posts][::-1] == [200] * len(spoilt) + refused
    assert all(seen["request_id"] for seen in posts if seen["status_code"] == 200)


def test_a_spoilt_cancel_is_honoured_and_a_refused_one_is_not(fal_http: httpx.Client) -> None:
    spoilt, refused = submit(fal_http, "[stuck] [cancel:done-503]"), submit(fal_http, "[stuck] [cancel:404]")

    assert [fal_http.put(body["cancel_url"]).status_code for body in (spoilt, refused)] == [503, 404]
    assert [fal_http.get(body["status_url"]).status_code for body in (spoilt, refused)] == [200, 202]


def test_a_fault_ends_after_its_calls(fal_http: httpx.Client) -> None:
    url = submit(fal_http, "[status:404 x2]")["status_url"]

    assert [fal_http.get(url).status_code for _ in range(4)] == [404, 404, 200, 200]


def test_a_fault_ends_with_its_time(fal_http: httpx.Client) -> None:
    url = submit(fal_http, "[status:404 10s]")["status_url"]
    before = fal_http.get(url).status_code
    advance(fal_http, 10)

    assert (before, fal_http.get(url).status_code) == (404, 200)


def test_faults_of_the_settings_are_in_force_for_every_prompt(fal_http: httpx.Client) -> None:
    url = submit(fal_http)["status_url"]
    fal_http.post("/_sim/config", json={"faults": "[status:503] [submit:429]"})
    during = (fal_http.get(url).status_code, post(fal_http, "").status_code)
    fal_http.post("/_sim/config", json={"faults": ""})

    assert during == (503, 429)
    assert (fal_http.get(url).status_code, post(fal_http, "").status_code) == (200, 200)
    assert fal_http.post("/_sim/config", json={"faults": "an outage"}).status_code == 422


def test_names_the_request_before(fal_http: httpx.Client) -> None:
    first = submit(fal_http)
    second = submit(fal_http, "[submit:other-id]")

    assert (second["request_id"], second["status_url"]) == (first["request_id"], first["status_url"])
    assert accepted(fal_http) == 2


def test_goes_back_to_the_queue(fal_http: httpx.Client) -> None:
    url = submit(fal_http, "[slow:60] [status:flapping]")["status_url"]

    assert [fal_http.get(url).json()["status"] for _ in range(3)] == ["IN_PROGRESS", "IN_QUEUE", "IN_PROGRESS"]


def test_a_result_holds_what_json_should_not(fal_http: httpx.Client) -> None:
    body = fal_http.get(submit(fal_http, "[result:nan] [result:nul] [result:surrogate]")["response_url"]).text

    for text in ("NaN", "-Infinity", r"\u0000", r"\ud800"):
        assert text in body
    assert json.loads(body)["images"]


def test_media_can_be_gone(fal_http: httpx.Client) -> None:
    (image,) = fal_http.get(submit(fal_http, "[result:dead-media]")["response_url"]).json()["images"]

    assert fal_http.get(image["url"]).status_code == 404


def test_a_request_that_does_not_start_in_time_ends_with_504(fal_http: httpx.Client) -> None:
    header = {"X-Fal-Request-Timeout": "5"}
    late = submit(fal_http, "[stuck]", headers=header)
    in_time = submit(fal_http, headers=header)
    advance(fal_http, 5)

    status, result = fal_http.get(late["status_url"]).json(), fal_http.get(late["response_url"])
    assert (status["status"], status["error_type"]) == ("COMPLETED", "request_timeout")
    assert (result.status_code, result.headers["x-fal-error-type"]) == (504, "request_timeout")
    assert result.headers["x-fal-request-timeout-type"] == "user"
    assert fal_http.get(in_time["response_url"]).status_code == 200


@pytest.mark.parametrize("limit", ["0", "soon", "nan", "-1"])
def test_refuses_a_limit_for_the_start_that_makes_no_sense(fal_http: httpx.Client, limit: str) -> None:
    answer = post(fal_http, "", headers={"X-Fal-Request-Timeout": limit})

    assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")
    assert accepted(fal_http) == 0


def test_forgets_results_large_ones_earlier(fal_http: httpx.Client) -> None:
    small = submit(fal_http)["response_url"]
    # Each letter is six bytes of JSON, and the answer repeats the prompt.
    large = fal_http.post(TEXT_TO_IMAGE, json={"prompt": "é" * 1900}).json()["response_url"]

    def codes() -> list[int]:
        return [fal_http.get(url).status_code for url in (small, large)]

    at_once = codes()
    advance(fal_http, 361)
    after_six_minutes = codes()
    advance(fal_http, 3600)

    assert at_once == [200, 200]
    assert after_six_minutes == [200, 404]
    assert codes() == [404, 404]
    assert fal_http.get(f"{small}/status").json()["status"] == "COMPLETED"


def test_holds_its_clock_until_told_otherwise(fal_http: httpx.Client) -> None:
    fal_http.post("/_sim/clock", json={"is_held": True})
    url = submit(fal_http, "[slow:0.05]")["status_url"]
    time.sleep(0.1)
    held = fal_http.get(url).json()["status"]
    advance(fal_http, 0.05)

    assert held == "IN_PROGRESS"
    assert fal_http.get(url).json()["status"] == "COMPLETED"
    assert fal_http.get("/_sim/clock").json()["is_held"]
    assert not fal_http.post("/_sim/clock", json={"is_held": False}).json()["is_held"]
    assert fal_http.post("/_sim/clock", json={"advance_seconds": -1}).status_code == 422
