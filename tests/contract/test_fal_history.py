"""What is found in fal's request history: over HTTP in the simulator's, and in the answers of a server that lies."""

import asyncio
import base64
import random
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from structlog.testing import capture_logs

from app.application.ports.provider import ProviderUnavailable
from app.domain.given_media import Media, without_media
from app.infrastructure.fal import history
from app.infrastructure.fal.exchange import HttpLimits
from app.infrastructure.fal.history import FalHistory
from tests.contract.fal_calls import PATIENT, PLAIN, limits_for
from tests.fal_stub import (
    MODEL_ID,
    NGINX_PAGE,
    Behaviour,
    FalStub,
    drip,
    drop,
    endless,
    hang,
    raw,
    reply,
    reset,
    running_stub,
)

ADMIN_KEY = "admin:secret"
IMAGE_TO_IMAGE = "fal-ai/wan-25-preview/image-to-image"
TEXT_TO_VIDEO = "fal-ai/wan-25-preview/text-to-video"
NOW = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC)
SENT: dict[str, Any] = {"prompt": "a lighthouse", "seed": 7}
BODY_BYTES_MAX = 4096


def item(request_id: object = "r-1", **changes: Any) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "endpoint_id": MODEL_ID,
        "sent_at": NOW.isoformat().replace("+00:00", "Z"),
        "json_input": {**SENT, "num_images": 1, "enable_safety_checker": True},
        **changes,
    }


def page(*items: object, after_seconds: float = 0, **changes: Any) -> Behaviour:
    answer = reply(200, {"items": list(items), "next_cursor": None, "has_more": False, **changes})

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(after_seconds)
        return await answer(reader, writer)

    return behave


async def find(
    searched: FalHistory, parameters: dict[str, Any] | None = None, model_id: str = MODEL_ID, **changes: Any
) -> Sequence[str]:
    span = {"sent_from": NOW - timedelta(seconds=60), "sent_until": NOW + timedelta(seconds=90)}
    return await searched.find(model_id, parameters or SENT, **{**span, **changes})


@asynccontextmanager
async def history_of(stub: FalStub, limits: HttpLimits) -> AsyncIterator[FalHistory]:
    bounded = replace(limits, body_bytes_max=BODY_BYTES_MAX)
    async with FalHistory.open(
        api_url=f"{stub.url}/v1", key=f" {ADMIN_KEY}\n", limits=bounded, ssl_context=PLAIN
    ) as opened:
        yield opened


@pytest.fixture
async def searched(stub: FalStub) -> AsyncIterator[FalHistory]:
    """The history of the stub."""
    async with history_of(stub, PATIENT) as opened:
        yield opened


@pytest.fixture
async def patient(stub: FalStub) -> AsyncIterator[FalHistory]:
    """The history of the stub, whose pages may hold pictures."""
    async with FalHistory.open(api_url=f"{stub.url}/v1", key=ADMIN_KEY, ssl_context=PLAIN) as opened:
        yield opened


@pytest.fixture
async def simulated(fal_simulator: str) -> AsyncIterator[FalHistory]:
    async with FalHistory.open(api_url=f"{fal_simulator}/v1/", key=ADMIN_KEY, ssl_context=PLAIN) as opened:
        yield opened


def submit(fal_http: httpx.Client, model_id: str = MODEL_ID, **arguments: Any) -> str:
    answer = fal_http.post(f"/{model_id}", json=arguments).raise_for_status()
    return str(answer.json()["request_id"])


def calls(fal_http: httpx.Client) -> dict[str, Any]:
    seen: dict[str, Any] = fal_http.get("/_sim/calls").json()
    return seen


async def find_now(searched: FalHistory, parameters: dict[str, Any], model_id: str = MODEL_ID) -> Sequence[str]:
    now = datetime.now(UTC)
    return await find(searched, parameters, model_id, sent_from=now - timedelta(seconds=60), sent_until=now)


async def test_finds_the_one_request_with_this_input_among_others(
    fal_http: httpx.Client, simulated: FalHistory
) -> None:
    wanted = submit(fal_http, **SENT, num_images=1)
    submit(fal_http, **{**SENT, "seed": 8})
    submit(fal_http, **{**SENT, "prompt": "a lighthouse "})
    submit(fal_http, prompt="a lighthouse")

    assert await find_now(simulated, SENT) == [wanted]


async def test_finds_a_film_whose_length_fal_has_as_text(fal_http: httpx.Client, simulated: FalHistory) -> None:
    wanted = submit(fal_http, TEXT_TO_VIDEO, **SENT, duration="10")
    submit(fal_http, TEXT_TO_VIDEO, **SENT, duration="5")

    assert await find_now(simulated, {**SENT, "duration": "10"}, TEXT_TO_VIDEO) == [wanted]
    assert await find_now(simulated, {**SENT, "duration": 10}, TEXT_TO_VIDEO) == []
    assert await find_now(simulated, {**SENT, "duration": "10"}) == []


PICTURE = random.Random(1).randbytes(9_000)
PICTURE_URI = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
WITH_PICTURE: dict[str, Any] = {**SENT, "image_urls": [PICTURE_URI, "https://example.com/fox.png"]}


@pytest.mark.parametrize("form", [WITH_PICTURE, without_media(WITH_PICTURE)], ids=["given", "forgotten"])
async def test_finds_a_picture_also_by_what_is_left_of_it(
    fal_http: httpx.Client, simulated: FalHistory, form: dict[str, Any]
) -> None:
    other = f"data:image/png;base64,{base64.b64encode(PICTURE[::-1]).decode()}"
    wanted = submit(fal_http, IMAGE_TO_IMAGE, **WITH_PICTURE, num_images=1)
    submit(fal_http, IMAGE_TO_IMAGE, **{**WITH_PICTURE, "image_urls": [other, WITH_PICTURE["image_urls"][1]]})
    submit(fal_http, IMAGE_TO_IMAGE, **{**WITH_PICTURE, "image_urls": [PICTURE_URI]})
    submit(fal_http, IMAGE_TO_IMAGE, **{**WITH_PICTURE, "seed": 8})
    submit(fal_http, IMAGE_TO_IMAGE, **SENT)

    assert await find_now(simulated, form, IMAGE_TO_IMAGE) == [wanted]


async def test_finds_for_each_of_several_jobs_what_it_sent_and_asks_once(
    fal_http: httpx.Client, simulated: FalHistory
) -> None:
    first, second = [submit(fal_http, IMAGE_TO_IMAGE, **{**WITH_PICTURE, "seed": seed}) for seed in (1, 2)]
    inputs = {
        "given": {**WITH_PICTURE, "seed": 1},
        "forgotten": without_media({**WITH_PICTURE, "seed": 2}),
        "other": without_media({**WITH_PICTURE, "seed": 3}),
    }
    now = datetime.now(UTC)

    found = await simulated.find_each(IMAGE_TO_IMAGE, inputs, sent_from=now - timedelta(seconds=60), sent_until=now)

    assert found == {"given": [first], "forgotten": [second], "other": []}
    assert calls(fal_http)["history"]["count"] == 1


@pytest.mark.parametrize(
    ("shown", "is_found"),
    [
        (PICTURE_URI, True),
        (PICTURE_URI.rstrip("="), True),
        (f"data:image/png;base64,{base64.encodebytes(PICTURE).decode()}", True),
        (f"data:image/png;base64,{base64.urlsafe_b64encode(PICTURE).decode()}", True),
        (f"data:image/png;base64,{base64.b64encode(PICTURE + b'x').decode()}", False),
        (f"data:image/png;base64,{base64.b64encode(PICTURE[:-1] + b'x').decode()}", False),
        ("data:image/png;base64,", False),
        (without_media(PICTURE_URI), False),
        (None, False),
    ],
    ids=["same", "no padding", "lines", "for URLs", "longer", "other", "empty", "mark", "null"],
)
async def test_a_forgotten_picture_fits_the_same_bytes_alone(
    stub: FalStub, patient: FalHistory, shown: object, is_found: bool
) -> None:
    seen = {**SENT, "image_url": shown, "num_images": 1, "enable_safety_checker": True}
    stub.then(page(item(json_input=seen)))

    found = await find(patient, without_media({**SENT, "image_url": PICTURE_URI}))

    assert found == (["r-1"] if is_found else [])


async def test_pictures_are_decoded_in_a_thread_and_only_of_what_was_sent_at_the_time(
    stub: FalStub, patient: FalHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    def of_uri(text: str) -> Media | None:
        threads.append(threading.current_thread() is threading.main_thread())
        return decode(text)

    decode = Media.of_uri
    monkeypatch.setattr(Media, "of_uri", of_uri)
    seen = {"image_url": PICTURE_URI}
    late = (NOW + timedelta(seconds=91)).isoformat()
    stub.then(page(item("late", json_input=seen, sent_at=late), item("r-2", json_input=seen)))

    assert await find(patient, without_media(seen)) == ["r-2"]

    assert threads == [False]


async def test_finds_what_failed_too(fal_http: httpx.Client, simulated: FalHistory) -> None:
    wanted = submit(fal_http, prompt="[fail]", seed=7)

    assert await find_now(simulated, {"prompt": "[fail]", "seed": 7}) == [wanted]


async def test_reads_every_page(fal_http: httpx.Client, simulated: FalHistory) -> None:
    wanted = submit(fal_http, **SENT)
    for number in range(210):
        submit(fal_http, prompt=f"{number}")
    wanted_too = submit(fal_http, **SENT)

    assert set(await find_now(simulated, SENT)) == {wanted, wanted_too}
    assert calls(fal_http)["history"] == {"count": 3, "by_key_id": {"admin": 3}}


async def test_does_not_find_what_was_sent_outside_the_time(fal_http: httpx.Client, simulated: FalHistory) -> None:
    submit(fal_http, **SENT)
    now, span = datetime.now(UTC), timedelta(seconds=30)

    assert await find(simulated, sent_from=now - 3 * span, sent_until=now - span) == []
    assert await find(simulated, sent_from=now + span, sent_until=now + 3 * span) == []


async def test_finds_what_ended_after_the_time_in_which_it_was_sent(
    fal_http: httpx.Client, simulated: FalHistory
) -> None:
    before = datetime.now(UTC)
    wanted = submit(fal_http, prompt="[slow:0.3]", seed=7)
    sent_until = datetime.now(UTC)
    await asyncio.sleep(0.6)

    found = await find(simulated, {"prompt": "[slow:0.3]", "seed": 7}, sent_from=before, sent_until=sent_until)

    assert found == [wanted]


async def test_a_key_that_is_no_admins_finds_nothing_and_is_said(fal_http: httpx.Client, fal_simulator: str) -> None:
    submit(fal_http, **SENT)
    async with FalHistory.open(api_url=f"{fal_simulator}/v1", key="id:secret", ssl_context=PLAIN) as opened:
        with capture_logs() as logs, pytest.raises(ProviderUnavailable, match="answered 403"):
            await find_now(opened, SENT)

    assert logs == [{"event": "fal_admin_key_refused", "log_level": "error", "status_code": 403}]


async def test_asks_for_one_endpoint_and_time_with_the_admin_key(stub: FalStub, searched: FalHistory) -> None:
    stub.then(page(item()))

    assert await find(searched) == ["r-1"]

    (request,) = stub.seen
    url = urlsplit(request.target)
    assert (request.method, url.path) == ("GET", "/v1/models/requests/by-endpoint")
    assert request.headers["authorization"] == f"Key {ADMIN_KEY}"
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert query.pop("start") == (NOW - timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert query == {"endpoint_id": MODEL_ID, "expand": "payloads", "limit": "100"}


@pytest.mark.parametrize("key", ["", "secret", "id:sec\nret"])
async def test_refuses_a_key_of_another_form(key: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        async with FalHistory.open(api_url="https://api.fal.ai/v1", key=key):
            pass


@pytest.mark.parametrize("url", ["ftp://api.fal.ai", "https://user:secret@api.fal.ai", "https://api.fal.ai?x=1"])
async def test_refuses_an_api_url_of_another_form(url: str) -> None:
    with pytest.raises(ValueError, match="the API URL"):
        async with FalHistory.open(api_url=url, key=ADMIN_KEY):
            pass


async def test_the_admin_key_does_not_follow_a_redirect(stub: FalStub, searched: FalHistory) -> None:
    async with running_stub() as elsewhere:
        stub.then(reply(307, b"", {"Location": f"{elsewhere.url}/v1/models/requests/by-endpoint"}))
        with pytest.raises(ProviderUnavailable, match="answered 307"):
            await find(searched)
        assert elsewhere.connections == 0


async def test_a_cursor_does_not_lead_elsewhere(stub: FalStub, searched: FalHistory) -> None:
    stub.then(page(next_cursor="http://elsewhere/&endpoint_id=x#", has_more=True), page(item()))

    assert await find(searched) == ["r-1"]

    query = parse_qs(urlsplit(stub.seen[1].target).query)
    assert (query["cursor"], query["endpoint_id"]) == (["http://elsewhere/&endpoint_id=x#"], [MODEL_ID])


DIFFERENT: list[object] = [
    item(endpoint_id=TEXT_TO_VIDEO),
    item(endpoint_id=None),
    item(sent_at=None),
    item(sent_at="yesterday"),
    item(sent_at=0),
    item(sent_at="0001-01-01T00:00:00+14:00"),
    item(sent_at=(NOW - timedelta(seconds=61)).isoformat()),
    item(sent_at=(NOW + timedelta(seconds=91)).isoformat()),
    item(json_input=None),
    item(json_input=[]),
    item(json_input={}),
    item(json_input={"prompt": "a lighthouse"}),
    item(json_input={"prompt": "a lighthouse", "seed": None}),
    item(json_input={"prompt": "a lighthouse", "seed": "7"}),
    item(json_input={"prompt": "a lighthouse", "seed": True}),
    item(json_input={"prompt": ["a lighthouse"], "seed": 7}),
    item(request_id="../../elsewhere"),
    item(request_id=7),
    item(request_id=None),
    "r-1",
    None,
    [],
]


@pytest.mark.parametrize("other", DIFFERENT, ids=str)
async def test_takes_nothing_that_differs_or_cannot_be_read(stub: FalStub, searched: FalHistory, other: object) -> None:
    stub.then(page(other, item(request_id="r-2")))

    assert await find(searched) == ["r-2"]


async def test_compares_every_field_that_was_sent(stub: FalStub, searched: FalHistory) -> None:
    sent: dict[str, Any] = {
        **SENT,
        "image_size": {"width": 768, "height": 800},
        "image_urls": ["https://a/1.png", "https://a/2.png"],
        "enable_safety_checker": True,
    }
    others: list[dict[str, Any]] = [
        {"image_size": {"width": 768, "height": 801}},
        {"image_urls": ["https://a/2.png", "https://a/1.png"]},
        {"enable_safety_checker": 1},
        {"enable_safety_checker": False},
    ]
    same = {**sent, "image_size": {"height": 800, "width": 768}, "negative_prompt": ""}
    different = [item(f"r-{number}", json_input=sent | other) for number, other in enumerate(others)]
    stub.then(page(*different, item("same", json_input=same)))

    assert await find(searched, sent) == ["same"]


async def test_names_a_request_once_that_two_pages_show(stub: FalStub, searched: FalHistory) -> None:
    stub.then(page(item(), next_cursor="Mg==", has_more=True), page(item()))

    assert await find(searched) == ["r-1"]


BAD = [
    pytest.param(drop, id="dropped"),
    pytest.param(reset, id="reset"),
    pytest.param(hang, id="hanging"),
    pytest.param(drip, id="dripping"),
    pytest.param(raw(b"nonsense\r\n\r\n"), id="no-http"),
    *(pytest.param(reply(status, NGINX_PAGE), id=str(status)) for status in (401, 402, 403, 404, 429, 500, 502, 503)),
    pytest.param(reply(204), id="204"),
    pytest.param(reply(200, b""), id="empty"),
    pytest.param(reply(200, NGINX_PAGE), id="html"),
    pytest.param(reply(200, b'{"items": [{'), id="cut-short"),
    pytest.param(reply(200, b"\xff\xfe"), id="not-text"),
    pytest.param(reply(200, b"[" * 3000), id="deep"),
    pytest.param(reply(200, []), id="list"),
    pytest.param(reply(200, {"items": None}), id="no-items"),
    pytest.param(reply(200, {"items": {"r-1": item()}}), id="items-by-id"),
    pytest.param(reply(200, {"items": [item()], "next_cursor": 7, "has_more": True}), id="number-as-cursor"),
    pytest.param(reply(200, {"items": [item()], "next_cursor": "x" * 1025}), id="long-cursor"),
]


@pytest.mark.parametrize("behaviour", BAD)
async def test_a_bad_answer_is_no_answer(stub: FalStub, behaviour: Behaviour) -> None:
    # The transport repeats a GET that was dropped, once.
    stub.then(behaviour, behaviour)

    async with history_of(stub, limits_for(behaviour)) as searched:
        with pytest.raises(ProviderUnavailable):
            await find(searched)


async def test_nothing_is_found_where_nobody_listens() -> None:
    async with FalHistory.open(api_url="http://127.0.0.1:1/v1", key=ADMIN_KEY, ssl_context=PLAIN) as opened:
        with pytest.raises(ProviderUnavailable):
            await find(opened)


async def test_a_bad_page_spoils_the_good_one_before_it(stub: FalStub, searched: FalHistory) -> None:
    """It might hold a second match."""
    stub.then(page(item(), next_cursor="Mg==", has_more=True), reply(503, NGINX_PAGE))

    with pytest.raises(ProviderUnavailable, match="answered 503"):
        await find(searched)


async def test_asks_for_smaller_pages_where_one_is_too_large(stub: FalStub, searched: FalHistory) -> None:
    stub.then(endless, page(item()))

    assert await find(searched) == ["r-1"]

    assert [parse_qs(urlsplit(seen.target).query)["limit"] for seen in stub.seen] == [["100"], ["10"]]


async def test_gives_up_where_small_pages_are_too_large(stub: FalStub, searched: FalHistory) -> None:
    stub.then(endless, endless, page(item()))

    with pytest.raises(ProviderUnavailable, match="too large"):
        await find(searched)
    assert len(stub.seen) == 2


async def test_gives_up_where_the_pages_do_not_end(stub: FalStub, searched: FalHistory) -> None:
    stub.then(*[page(item(), next_cursor="Mg==", has_more=True)] * (history.PAGES_MAX + 1))

    with pytest.raises(ProviderUnavailable, match="longer than 50 pages"):
        await find(searched)
    assert len(stub.seen) == history.PAGES_MAX


async def test_the_whole_search_has_a_limit_of_time(
    stub: FalStub, searched: FalHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine a short one may be over before the first page is there, which would show nothing.
    for limit_seconds in (0.5, 2, 8):
        monkeypatch.setattr(history, "SEARCH_SECONDS_MAX", limit_seconds)
        stub.script.clear()
        stub.seen.clear()
        stub.then(*[page(next_cursor="Mg==", has_more=True, after_seconds=limit_seconds / 5)] * 20)

        with pytest.raises(ProviderUnavailable, match=f"longer than {limit_seconds:g} s"):
            await find(searched)

        assert len(stub.seen) <= 6
        if len(stub.seen) >= 2:
            return
    pytest.fail("no search came to its second page")


async def test_waiting_for_other_searches_is_no_part_of_a_search(
    stub: FalStub, searched: FalHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies loses all its submissions at once, and all are searched for at the same moments."""
    # All together take twice the limit, and each by itself a sixth of it, to which a busy machine may add a second.
    limit_seconds, searches = 1.5, 6 * history.SEARCHES_AT_ONCE * 2
    monkeypatch.setattr(history, "SEARCH_SECONDS_MAX", limit_seconds)
    stub.then(*[page(item(), after_seconds=limit_seconds / 6)] * searches)

    assert await asyncio.gather(*(find(searched) for _ in range(searches))) == [["r-1"]] * searches
