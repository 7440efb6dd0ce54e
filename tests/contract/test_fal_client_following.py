"""What the statuses, results and answers to a cancel mean for a job, and that trouble on the way means nothing."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from app.application.ports.provider import (
    InProgress,
    InQueue,
    Observation,
    ProviderUnavailable,
    Rejected,
    Stopped,
    Succeeded,
)
from app.domain.terms import ResultShape
from app.infrastructure.fal.client import FalClient
from tests.builders import VIDEO_SHAPE
from tests.contract.fal_calls import IMAGE, KEY, client_of, limits_for
from tests.fal_stub import (
    MARK,
    NGINX_PAGE,
    Behaviour,
    FalStub,
    drip,
    drop,
    endless,
    hang,
    raw,
    reply,
    reply_then_drop_the_next,
    request_at,
    reset,
)

VIDEO = VIDEO_SHAPE
SLOW_ANSWERS = [(hang, "fal stopped answering"), (drip, "no answer from fal within 1 s")]


def completed(**fields: Any) -> Behaviour:
    return reply(200, {"status": "COMPLETED", "request_id": "r-1", "logs": None, **fields})


async def test_reads_the_progress(stub: FalStub, client: FalClient) -> None:
    queued, running = {"status": "IN_QUEUE", "queue_position": 3}, {"status": "IN_PROGRESS", "logs": None}
    stub.then(reply(202, queued), reply(200, queued), reply(202, running))
    observations = [await client.observe(request_at(stub.url), IMAGE) for _ in range(3)]
    assert observations == [InQueue(3), InQueue(3), InProgress()]
    assert stub.calls == [("GET", "/fal-ai/wan-25-preview/requests/r-1/status")] * 3


UNUSABLE_STATUSES = {
    "unknown word": reply(200, {"status": "FAILED"}),
    "lower case": reply(200, {"status": "completed"}),
    "no word": reply(202, {}),
    "word of another type": reply(200, {"status": ["COMPLETED"]}),
    "no JSON": reply(200, NGINX_PAGE),
    "a list": reply(200, ["COMPLETED"]),
    "too large": reply(200, {"status": "COMPLETED", "logs": "x" * 1_100_000}),
    "right word, wrong code": reply(500, {"status": "COMPLETED"}),
    "created": reply(201, {"status": "COMPLETED"}),
    **{str(code): reply(code, {"detail": "no"}, MARK) for code in (400, 401, 403, 404, 422, 429, 500, 502, 503)},
    "redirect": reply(302, b"", {"Location": "/x"}),
    "endless": endless,
}


@pytest.mark.parametrize("behaviour", UNUSABLE_STATUSES.values(), ids=UNUSABLE_STATUSES.keys())
async def test_learns_nothing_from_an_unusable_status(stub: FalStub, client: FalClient, behaviour: Behaviour) -> None:
    stub.then(behaviour)
    with pytest.raises(ProviderUnavailable):
        await client.observe(request_at(stub.url), IMAGE)
    assert len(stub.seen) == 1


@pytest.mark.parametrize(("behaviour", "reason"), SLOW_ANSWERS)
async def test_does_not_wait_for_ever_for_a_status_or_a_result(
    stub: FalStub, behaviour: Behaviour, reason: str
) -> None:
    stub.then(behaviour, completed(), behaviour, behaviour)
    request = request_at(stub.url)
    async with client_of(stub, limits_for(behaviour)) as client:
        for call in (client.observe(request, IMAGE), client.observe(request, IMAGE), client.cancel(request)):
            with pytest.raises(ProviderUnavailable, match=reason):
                await call


async def test_asks_again_at_once_when_a_kept_connection_breaks(stub: FalStub, client: FalClient) -> None:
    """aiohttp repeats a GET once by itself, which is harmless: this documents it."""
    waiting = reply(202, {"status": "IN_PROGRESS"})
    stub.then(reply_then_drop_the_next(waiting), waiting)
    assert await client.observe(request_at(stub.url), IMAGE) == InProgress()
    assert await client.observe(request_at(stub.url), IMAGE) == InProgress()
    assert stub.connections == 2


@pytest.mark.parametrize("behaviours", [(drop, drop), (reset, reset)])
async def test_learns_nothing_from_a_connection_that_breaks_twice(
    stub: FalStub, client: FalClient, behaviours: tuple[Behaviour, ...]
) -> None:
    stub.then(*behaviours)
    with pytest.raises(ProviderUnavailable):
        await client.observe(request_at(stub.url), IMAGE)


IMAGES = {"images": [{"url": "https://v3b.fal.media/files/b/0a1b2c3d/out.png", "width": 512}], "seeds": [7]}
CLIP = {"video": {"url": "https://v3b.fal.media/files/b/0a1b2c3d/out.mp4", "duration": 5.0}, "seed": 7}


@pytest.mark.parametrize(("shape", "result"), [(IMAGE, IMAGES), (VIDEO, CLIP)])
async def test_returns_the_result_as_it_is(
    stub: FalStub, client: FalClient, shape: ResultShape, result: dict[str, Any]
) -> None:
    stub.then(completed(), reply(200, result))
    assert await client.observe(request_at(stub.url), shape) == Succeeded(result)
    assert stub.calls[1] == ("GET", "/fal-ai/wan-25-preview/requests/r-1")


async def test_returns_a_result_even_if_the_status_spoke_of_an_error(stub: FalStub, client: FalClient) -> None:
    stub.then(completed(error="cancelled", error_type="client_cancelled"), reply(200, IMAGES))
    assert await client.observe(request_at(stub.url), IMAGE) == Succeeded(IMAGES)


async def test_cleans_a_result_for_the_database(stub: FalStub, client: FalClient) -> None:
    body = (
        b'{"images":[{"url":"https://x.example/a.png","content_type":"image\\u0000/png"}],'
        b'"ke\\u0000y":"\\ud800lone \\ud83d\\ude00","t":NaN,"u":-Infinity,"v":1e999,"w":0.1}'
    )
    stub.then(completed(), reply(200, body))
    assert await client.observe(request_at(stub.url), IMAGE) == Succeeded(
        {
            "images": [{"url": "https://x.example/a.png", "content_type": "image/png"}],
            "key": "\N{REPLACEMENT CHARACTER}lone \N{GRINNING FACE}",
            "t": None,
            "u": None,
            "v": None,
            "w": 0.1,
        }
    )


@pytest.mark.parametrize(
    "behaviour",
    [
        reply(200, b'{"images":' + b"[" * 100_000),
        reply(200, {**IMAGES, "padding": "x" * (1024 * 1024)}),
        endless,
    ],
)
async def test_rejects_a_result_of_another_form(stub: FalStub, client: FalClient, behaviour: Behaviour) -> None:
    stub.then(completed(), behaviour)
    observation = await client.observe(request_at(stub.url), IMAGE)
    assert isinstance(observation, Rejected)
    assert observation.code == "result_invalid"


async def test_says_that_nothing_was_made_where_a_result_has_no_picture(stub: FalStub, client: FalClient) -> None:
    stub.then(completed(), reply(200, {"images": []}))
    observation = await client.observe(request_at(stub.url), IMAGE)
    assert isinstance(observation, Rejected)
    assert observation.code == "no_media_generated"


POLICY_ERROR = {"detail": [{"loc": ["body", "prompt"], "msg": "fal's words", "type": "content_policy_violation"}]}
REQUEST_TIMEOUT = {"detail": "Request timed out", "error_type": "request_timeout"}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (reply(400, {"detail": "Request is still in progress"}), InProgress),
        (reply(499, {"detail": "Request cancelled by the client."}), Stopped),
        (reply(422, POLICY_ERROR), Rejected),
        (reply(504, REQUEST_TIMEOUT), Rejected),
        (reply(500, {"detail": "Internal Server Error"}, {"X-Fal-Request-Id": "r-1"}), Rejected),
        (reply(404, {"detail": "Path /x not found"}), Rejected),
    ],
)
async def test_takes_fals_own_failure_as_its_verdict(
    stub: FalStub, client: FalClient, result: Behaviour, expected: type[Observation]
) -> None:
    stub.then(completed(), result)
    assert isinstance(await client.observe(request_at(stub.url), IMAGE), expected)


NO_VERDICTS = {
    "502 of the ingress": reply(502, NGINX_PAGE),
    "504 of the ingress with the id": reply(504, NGINX_PAGE, MARK),
    "499 of nginx": reply(499, NGINX_PAGE),
    "404 of the ingress": reply(404, NGINX_PAGE, MARK),
    "504 of a proxy": reply(504, {"detail": "upstream timeout"}, MARK),
    "200 in JSON of a proxy": reply(200, {"message": "starting"}),
    "200 in empty JSON": reply(200, {}),
    "429": reply(429, {"detail": "no"}, MARK),
    "401": reply(401, {"detail": "no"}, MARK),
    "forgotten": reply(404, {"status": "NOT_FOUND"}),
    "no JSON": reply(200, NGINX_PAGE),
    "JSON cut short": reply(200, b'{"images": [{"url"'),
    "answer cut short": raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"images'),
    "accepted": reply(202, IMAGES),
    "redirect": reply(302, b"", {"Location": "/x", **MARK}),
}


@pytest.mark.parametrize("behaviour", NO_VERDICTS.values(), ids=NO_VERDICTS.keys())
async def test_takes_no_verdict_from_trouble_on_the_way(stub: FalStub, client: FalClient, behaviour: Behaviour) -> None:
    stub.then(completed(), behaviour)
    with pytest.raises(ProviderUnavailable):
        await client.observe(request_at(stub.url), IMAGE)


async def test_believes_the_status_where_the_result_is_gone(stub: FalStub, client: FalClient) -> None:
    stub.then(completed(error="x", error_type="client_cancelled"), reply(404, {"status": "NOT_FOUND"}))
    assert await client.observe(request_at(stub.url), IMAGE) == Stopped()


async def test_logs_what_a_rejection_rests_on_without_fals_words(stub: FalStub, client: FalClient) -> None:
    units = {**MARK, "x-fal-billable-units": "0"}
    stub.then(completed(), reply(422, POLICY_ERROR, units))
    with capture_logs() as logs:
        await client.observe(request_at(stub.url), IMAGE)
    assert logs == [
        {
            "event": "fal_rejected",
            "log_level": "warning",
            "fal_request_id": "r-1",
            "status_code": 422,
            "code": "content_policy_violation",
            "types": ["content_policy_violation"],
            "billable_units": "0",
        }
    ]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"status": "OK"}),
        (202, {"status": "CANCELLATION_REQUESTED"}),
        (202, b""),
        (400, {"status": "ALREADY_COMPLETED"}),
        (404, {"status": "NOT_FOUND"}),
    ],
)
async def test_asks_fal_to_stop(stub: FalStub, client: FalClient, status: int, body: Any) -> None:
    stub.then(reply(status, body))
    await client.cancel(request_at(stub.url))
    (request,) = stub.seen
    assert (request.method, request.target) == ("PUT", "/fal-ai/wan-25-preview/requests/r-1/cancel")
    assert request.headers["content-length"] == "0"


@pytest.mark.parametrize(
    "behaviour",
    [
        reply(400, {"detail": "no"}),
        reply(400, NGINX_PAGE),
        reply(404, NGINX_PAGE),
        reply(404, NGINX_PAGE, MARK),
        reply(404, {"detail": "Not Found"}),
        reply(401, {"detail": "no"}),
        reply(429),
        reply(500, {"detail": "no"}, MARK),
        reply(502, NGINX_PAGE),
        reply(302, b"", {"Location": "/x"}),
    ],
)
async def test_says_when_fal_did_not_hear_the_cancel(stub: FalStub, client: FalClient, behaviour: Behaviour) -> None:
    stub.then(behaviour)
    with pytest.raises(ProviderUnavailable):
        await client.cancel(request_at(stub.url))


@pytest.mark.parametrize("status", [401, 403])
async def test_calls_the_operator_when_fal_refuses_the_key(stub: FalStub, client: FalClient, status: int) -> None:
    stub.then(reply(status, {"detail": f"No user found for {KEY}"}))
    with capture_logs() as logs, pytest.raises(ProviderUnavailable):
        await client.observe(request_at(stub.url), IMAGE)
    assert logs == [{"event": "fal_key_refused", "log_level": "error", "status_code": status}]
