"""Every answer to a submission, every way in which there is none, and how often fal sees the POST: once."""

import asyncio
import base64
import gzip
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import uvloop
from structlog.testing import capture_logs

from app.application.ports.provider import (
    InProgress,
    InQueue,
    NotSubmitted,
    Observation,
    SubmitOutcomeUnknown,
    SubmitRefused,
    Succeeded,
)
from app.domain.given_media import without_media
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.lifetimes import MEDIA_SECONDS
from tests.contract.fal_calls import IMAGE, KEY, PLAIN, SHORT_READS, client_of, limits_for, submit
from tests.fal_stub import (
    MARK,
    MODEL_ID,
    NGINX_PAGE,
    Behaviour,
    FalStub,
    accepted,
    drip,
    drop,
    endless,
    hang,
    raw,
    reply,
    request_at,
    reset,
    running_stub,
)


@pytest.mark.parametrize("key", ["", "secret", "id:", ":secret", "id:sec ret", "id:se\ncret", "a:b:c", "id:gehéim"])
async def test_refuses_a_key_of_another_form(key: str) -> None:
    with pytest.raises(ValueError, match="must look like <key id>:<key secret>"):
        async with FalClient.open(queue_url="http://127.0.0.1:1", key=key):
            pass


async def test_opens_with_the_certificates_that_come_with_it() -> None:
    async with FalClient.open(queue_url="https://queue.fal.run", key=KEY):
        pass


async def test_submits_once_with_the_key_and_fals_arguments(stub: FalStub, client: FalClient) -> None:
    stub.then(reply(200, accepted(stub.url)))

    assert await submit(client, duration="5", seed=7) == request_at(stub.url)

    (request,) = stub.seen
    assert (request.method, request.target) == ("POST", f"/{MODEL_ID}")
    assert json.loads(request.body) == {"prompt": "a lighthouse", "duration": "5", "seed": 7}
    assert request.headers["authorization"] == f"Key {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("tollgate")
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


async def test_sends_these_headers_and_no_others(stub: FalStub, client: FalClient) -> None:
    stub.then(reply(200, accepted(stub.url)), reply(202, {"status": "IN_QUEUE"}), reply(202))
    request = await submit(client)
    await client.observe(request, IMAGE)
    await client.cancel(request)

    always = {
        "host": stub.url.removeprefix("http://"),
        "connection": "keep-alive",
        "authorization": f"Key {KEY}",
        "user-agent": "tollgate",
        "accept": "application/json",
        "accept-encoding": "identity",
    }
    posted, asked, put = stub.seen
    length = str(len(posted.body))
    assert posted.headers == {
        **always,
        "content-type": "application/json",
        "content-length": length,
        "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds": 259200}',
    }
    assert asked.headers == always
    assert put.headers == {**always, "content-type": "application/octet-stream", "content-length": "0"}


async def test_says_how_long_the_outputs_are_kept(stub: FalStub) -> None:
    stub.then(reply(200, accepted(stub.url)))
    async with FalClient.open(queue_url=stub.url, key=KEY, ssl_context=PLAIN, media_seconds=90) as client:
        await client.submit(MODEL_ID, {"prompt": "p"}, webhook_url="https://us.example/", tags={"attempt": "1"})

    headers = stub.seen[0].headers
    assert headers["x-fal-object-lifecycle-preference"] == '{"expiration_duration_seconds": 90}'
    assert headers["x-fal-tags"] == "attempt=1"


def test_the_simulator_understands_how_long_the_outputs_are_kept(fal_http: httpx.Client, fal_simulator: str) -> None:
    async def submit_one() -> str:
        async with FalClient.open(queue_url=fal_simulator, key=KEY, ssl_context=PLAIN) as client:
            return (await submit(client)).id

    request_id = asyncio.run(submit_one())

    (seen,) = fal_http.get("/_sim/requests").json()["requests"]
    assert (seen["request_id"], seen["media_seconds"]) == (request_id, MEDIA_SECONDS)


async def test_names_the_webhook_in_the_url(stub: FalStub, client: FalClient) -> None:
    webhook_url = "https://us.example:8443/hooks/fal?job=1&note=a b+%25é"
    stub.then(reply(200, accepted(stub.url)))
    await client.submit(MODEL_ID, {"prompt": "p"}, webhook_url=webhook_url)
    path, _, query = stub.seen[0].target.partition("?")
    assert (path, parse_qs(query)) == (f"/{MODEL_ID}", {"fal_webhook": [webhook_url]})


async def test_keeps_no_cookie(stub: FalStub) -> None:
    # By name: cookie jars take nothing from a bare address.
    url = stub.url.replace("127.0.0.1", "localhost")
    stub.then(reply(200, accepted(url), {"Set-Cookie": "session=1; Path=/"}), reply(200, accepted(url)))
    async with FalClient.open(queue_url=url, key=KEY, ssl_context=PLAIN) as client:
        await submit(client)
        await submit(client)
    assert "cookie" not in stub.seen[1].headers


async def test_takes_all_the_headers_that_fal_may_send(stub: FalStub, client: FalClient) -> None:
    stub.then(reply(200, accepted(stub.url), {"X-Large": "x" * 15_000}))
    assert await submit(client) == request_at(stub.url)


SLOW_ANSWERS = [(hang, "fal stopped answering"), (drip, "no answer from fal within 1 s")]


@pytest.mark.parametrize(("behaviour", "reason"), SLOW_ANSWERS)
async def test_does_not_wait_for_ever_and_posts_once(stub: FalStub, behaviour: Behaviour, reason: str) -> None:
    stub.then(behaviour)
    async with client_of(stub, limits_for(behaviour)) as client:
        with pytest.raises(SubmitOutcomeUnknown, match=reason):
            await submit(client)
    await asyncio.sleep(0.02)
    assert stub.calls == [("POST", f"/{MODEL_ID}")]


async def test_accepts_any_success_code_with_a_request_id(stub: FalStub, client: FalClient) -> None:
    stub.then(reply(202, accepted(stub.url)))
    assert (await submit(client)).id == "r-1"


async def test_does_not_need_the_words_after_a_status_code(stub: FalStub, client: FalClient) -> None:
    stub.then(raw(b'HTTP/1.1 200 \xff\r\nContent-Length: 20\r\n\r\n{"request_id":"r-1"}'))
    assert (await submit(client)).id == "r-1"


async def test_builds_the_urls_that_fal_left_out(stub: FalStub, client: FalClient) -> None:
    stub.then(reply(200, {"request_id": "r-1"}))
    assert await submit(client) == request_at(stub.url)


@pytest.mark.parametrize(
    "foreign",
    [
        "http://evil.example/requests/r-1",
        "http://127.0.0.1:1/requests/r-1",
        "{url}@evil.example/requests/r-1",
        "{url}\\@evil.example/r-1",
        "{url}.evil.example/r-1",
        "https://queue.fal.run/fal-ai/wan-25-preview/requests/r-1",
        "//evil.example/r-1",
        "file:///etc/passwd",
        "http://[::1/r-1",
        ["http://evil.example"],
        None,
    ],
)
async def test_replaces_a_url_that_leads_elsewhere(stub: FalStub, client: FalClient, foreign: Any) -> None:
    if isinstance(foreign, str):
        foreign = foreign.replace("{url}", stub.url)
    stub.then(reply(200, accepted(stub.url, status_url=foreign, response_url=foreign, cancel_url=foreign)))
    with capture_logs() as logs:
        assert await submit(client) == request_at(stub.url)
    assert [entry["event"] for entry in logs] == ["fal_url_refused"] * 3
    assert all(entry.keys() == {"event", "log_level", "host"} for entry in logs)


UNKNOWN_ANSWERS = {
    "no body": reply(200),
    "no JSON": reply(200, NGINX_PAGE),
    "a list": reply(200, [accepted("http://x")]),
    "no request id": reply(200, {"status": "IN_QUEUE"}),
    "empty request id": reply(200, {"request_id": ""}),
    "request id with a path": reply(200, {"request_id": "../../r-1"}),
    "long request id": reply(200, {"request_id": "r" * 201}),
    "request id of another type": reply(200, {"request_id": 5}),
    "cut short": raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"request_id": "r-1"'),
    "cut short without a length": raw(b'HTTP/1.1 200 OK\r\n\r\n{"request_id": "r-1"'),
    "nested too deeply": reply(200, b"[" * 100_000),
    "too large": reply(200, b" " * (1024 * 1024) + json.dumps(accepted("http://x")).encode()),
    "endless": endless,
    "packed": reply(200, gzip.compress(b'{"request_id": "r-1"}'), {"Content-Encoding": "gzip"}),
    "no content": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "redirect": reply(307, b"", {"Location": "/elsewhere"}),
    "redirect to no URL": reply(302, b"", {"Location": "http://[::1"}),
    "permanent redirect": reply(301, b"", {"Location": "/elsewhere"}),
    "408": reply(408, {"detail": "Request Timeout"}),
    "409": reply(409, {"detail": "Conflict"}),
    "499": reply(499, {"detail": "Client disconnected", "error_type": "client_disconnected"}),
    "500": reply(500, {"detail": "Internal Server Error"}),
    "502 of the ingress": reply(502, NGINX_PAGE),
    "503 of fal": reply(503, {"detail": "No runner", "error_type": "runner_scheduling_failure"}),
    "503 with the id of a request": reply(503, NGINX_PAGE, MARK),
    "503 with another header of fal": reply(503, {"message": "no"}, {"X-Fal-Served-From": "eu"}),
    "503 with details of fal": reply(503, {"detail": [{"loc": ["body"], "msg": "m", "type": "internal_server_error"}]}),
    "504 of fal": reply(504, {"detail": "Request timed out", "error_type": "request_timeout"}, MARK),
    "dropped": drop,
    "reset": reset,
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "half a head": raw(b"HTTP/1.1 200 OK\r\nContent-"),
    "a huge header": raw(b"HTTP/1.1 200 OK\r\nX-Large: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n"),
    "a broken length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
    "a broken chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
}


@pytest.mark.parametrize("behaviour", UNKNOWN_ANSWERS.values(), ids=UNKNOWN_ANSWERS.keys())
async def test_does_not_know_the_outcome_and_posts_once(stub: FalStub, client: FalClient, behaviour: Behaviour) -> None:
    stub.then(behaviour)
    with pytest.raises(SubmitOutcomeUnknown):
        await submit(client)
    # Long enough for a second POST to show.
    await asyncio.sleep(0.02)
    assert stub.calls == [("POST", f"/{MODEL_ID}")]


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, {"detail": 'Application "h3-max" not found'}, "model_unavailable"),
        (413, NGINX_PAGE, "input_too_large"),
        (422, {"detail": [{"loc": ["body", "prompt"], "msg": "m", "type": "missing"}]}, "parameter_missing"),
    ],
)
async def test_takes_a_refusal_as_final(stub: FalStub, client: FalClient, status: int, body: Any, code: str) -> None:
    stub.then(reply(status, body))
    with pytest.raises(SubmitRefused) as caught:
        await submit(client)
    assert caught.value.code == code
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {}, None),
        (429, {"Retry-After": "7"}, 7.0),
        (429, {"Retry-After": "86400"}, 300.0),
        (425, {}, None),
        (401, {"Retry-After": "1"}, 30.0),
        (402, {}, 30.0),
        (403, {}, 30.0),
        (407, {}, 30.0),
    ],
)
async def test_knows_that_nothing_was_queued(
    stub: FalStub, client: FalClient, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    stub.then(reply(status, {"detail": "no"}, headers))
    with pytest.raises(NotSubmitted) as caught:
        await submit(client)
    assert caught.value.retry_after_seconds == seconds
    assert len(stub.seen) == 1


EDGES = {
    "nginx": reply(503, NGINX_PAGE),
    "nothing": reply(503),
    "envoy": reply(503, b"upstream connect error or disconnect/reset before headers. reset reason: overflow"),
    "Cloudflare": reply(503, b"error code: 1015", {"Server": "cloudflare", "CF-RAY": "8c0f"}),
    "message": reply(503, {"message": "no healthy upstream"}),
    "error": reply(503, {"error": {"code": 503, "status": "UNAVAILABLE"}}),
    "detail": reply(503, {"detail": "Service Unavailable"}),
    "list": reply(503, ["detail"]),
    "no JSON after all": reply(503, b'{"detail": [', {"Content-Type": "application/json"}),
    "page 404": reply(404, NGINX_PAGE),
    "404 in JSON": reply(404, {"detail": "Not Found"}),
    "page 410": reply(410, NGINX_PAGE),
}


@pytest.mark.parametrize("behaviour", EDGES.values(), ids=EDGES.keys())
async def test_takes_a_word_of_the_ingress_for_nothing_queued(
    stub: FalStub, client: FalClient, behaviour: Behaviour
) -> None:
    stub.then(behaviour)
    with pytest.raises(NotSubmitted, match="the ingress in front of fal answered") as caught:
        await submit(client)
    assert not caught.value.is_operators_matter
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("1", 1.0), ("7.5", 7.5), ("86400", 300.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("x", None)],
)
async def test_comes_back_when_the_ingress_asks_for_it(
    stub: FalStub, client: FalClient, asked: str, seconds: float | None
) -> None:
    stub.then(reply(503, NGINX_PAGE, {"Retry-After": asked}))
    with pytest.raises(NotSubmitted) as caught:
        await submit(client)
    assert caught.value.retry_after_seconds == seconds


async def test_names_the_job_and_the_attempt_for_fals_billing(stub: FalStub, client: FalClient) -> None:
    stub.then(reply(200, accepted(stub.url)))
    await client.submit(MODEL_ID, {"prompt": "p"}, tags={"job": "0192-a", "attempt": "2"})
    assert stub.seen[0].headers["x-fal-tags"] == "job=0192-a,attempt=2"


async def test_tells_the_digest_of_the_very_bytes_that_it_sends(stub: FalStub, client: FalClient) -> None:
    parameters = {"prompt": "ein Fuchs \N{FOX FACE}", "duration": 5, "image_url": "data:," + "x" * 100_000}
    stub.then(reply(200, accepted(stub.url)))
    await client.submit(MODEL_ID, parameters)
    assert client.input_digest(parameters) == hashlib.sha256(stub.seen[0].body).digest()


async def test_the_digest_is_the_same_once_the_pictures_were_forgotten(client: FalClient) -> None:
    picture = f"data:image/png;base64,{base64.b64encode(bytes(9_000)).decode()}"
    given, other = ({"prompt": "a fox", "image_urls": [uri]} for uri in (picture, picture.replace("AAAA", "AAAB", 1)))
    assert client.input_digest(without_media(given)) == client.input_digest(given)
    assert client.input_digest(other) != client.input_digest(given)


async def test_calls_the_operator_when_fal_refuses_the_key(stub: FalStub, client: FalClient) -> None:
    stub.then(reply(401, {"detail": f"No user found for {KEY}"}))
    with capture_logs() as logs, pytest.raises(NotSubmitted, match="fal refused the key"):
        await submit(client)
    assert logs == [{"event": "fal_key_refused", "log_level": "error", "status_code": 401}]


async def test_says_that_the_account_is_locked(stub: FalStub, client: FalClient) -> None:
    stub.then(reply(403, {"detail": "User is locked. Reason: Exhausted balance."}))
    with pytest.raises(NotSubmitted, match="fal account is locked"):
        await submit(client)


async def test_takes_a_generation_through_the_simulator(fal_simulator: str) -> None:
    async with FalClient.open(queue_url=fal_simulator, key=KEY, ssl_context=PLAIN) as client:
        with capture_logs() as logs:
            request = await submit(client)
            observation: Observation = InProgress()
            while not isinstance(observation, Succeeded):
                observation = await client.observe(request, IMAGE)
                assert isinstance(observation, InQueue | InProgress | Succeeded)
            await client.cancel(request)
    assert logs == []


def test_works_on_uvloop() -> None:
    result = {"images": [{"url": "https://x.example/a.png"}]}

    async def run() -> None:
        async with running_stub() as stub:
            stub.then(
                reply(200, accepted(stub.url)), reply(200, {"status": "COMPLETED"}), reply(200, result), drop, hang
            )
            async with client_of(stub, SHORT_READS) as client:
                request = await submit(client)
                assert await client.observe(request, IMAGE) == Succeeded(result)
                for _ in range(2):
                    with pytest.raises(SubmitOutcomeUnknown):
                        await submit(client)
                assert len(stub.seen) == 5

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
