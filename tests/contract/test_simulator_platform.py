"""What the simulator says on the wire of fal's platform API: history, prices, billing."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

APP = "fal-ai/wan-25-preview"
TEXT_TO_IMAGE = f"{APP}/text-to-image"
TEXT_TO_VIDEO = f"{APP}/text-to-video"
ADMIN = {"Authorization": "Key admin:secret"}
HISTORY = "/v1/models/requests/by-endpoint"
BILLING = "/v1/models/billing-events"
ACCOUNT = "/v1/account/billing"
PRICES = "/v1/models/pricing"
FOR_ADMINS = [HISTORY, BILLING, ACCOUNT]


def submit(fal_http: httpx.Client, endpoint_id: str = TEXT_TO_IMAGE, **arguments: Any) -> str:
    answer = fal_http.post(f"/{endpoint_id}", json={"prompt": "a boat"} | arguments).raise_for_status()
    return str(answer.json()["request_id"])


def ask(fal_http: httpx.Client, path: str = HISTORY, **query: Any) -> dict[str, Any]:
    query = ({"endpoint_id": TEXT_TO_IMAGE} if path == HISTORY else {}) | query
    answer = fal_http.get(path, params=query, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def listed(fal_http: httpx.Client, **query: Any) -> list[str]:
    return [item["request_id"] for item in ask(fal_http, **query)["items"]]


def test_lists_a_finished_request_with_its_times(fal_http: httpx.Client) -> None:
    request_id = submit(fal_http, seed=7)

    page = ask(fal_http)

    (item,) = page["items"]
    moments = [datetime.fromisoformat(item.pop(name)) for name in ("sent_at", "started_at", "ended_at")]
    assert moments == sorted(moments)
    assert datetime.now(UTC) - moments[0] < timedelta(seconds=30)
    assert item == {"request_id": request_id, "endpoint_id": TEXT_TO_IMAGE, "status_code": 200, "duration": 0.0}
    assert (page["next_cursor"], page["has_more"]) == (None, False)


def test_shows_the_payloads_where_they_are_asked_for(fal_http: httpx.Client) -> None:
    request_id = submit(fal_http, seed=7)

    (item,) = ask(fal_http, expand="payloads")["items"]

    assert item["json_input"] == {"prompt": "a boat", "seed": 7}
    assert item["json_output"] == fal_http.get(f"/{APP}/requests/{request_id}").json()


def test_does_not_list_what_has_not_ended(fal_http: httpx.Client) -> None:
    submit(fal_http, prompt="[stuck]")
    submit(fal_http, prompt="[slow:60]")

    assert listed(fal_http) == []


def test_lists_what_failed_and_what_was_canceled_with_its_code(fal_http: httpx.Client) -> None:
    submit(fal_http, prompt="[fail]")
    canceled = submit(fal_http, prompt="[stuck]")
    fal_http.put(f"/{APP}/requests/{canceled}/cancel").raise_for_status()

    items = ask(fal_http)["items"]

    assert sorted(item["status_code"] for item in items) == [422, 499]


@pytest.mark.parametrize(("word", "status"), [("", "success"), ("[fail]", "user_error"), ("[fail:500]", "error")])
def test_filters_by_status(fal_http: httpx.Client, word: str, status: str) -> None:
    wanted = {prompt: submit(fal_http, prompt=f"a boat {prompt}") for prompt in ("", "[fail]", "[fail:500]")}

    assert listed(fal_http, status=status) == [wanted[word]]


def test_filters_by_endpoint_request_and_time(fal_http: httpx.Client) -> None:
    film = submit(fal_http, TEXT_TO_VIDEO)
    first = submit(fal_http)
    ended_at = datetime.fromisoformat(ask(fal_http)["items"][0]["ended_at"])
    second = submit(fal_http)
    later = (ended_at + timedelta(microseconds=1)).isoformat()

    assert listed(fal_http, endpoint_id=TEXT_TO_VIDEO) == [film]
    assert listed(fal_http, request_id=first) == [first]
    assert listed(fal_http, start=ended_at.isoformat()) == [second, first]
    assert listed(fal_http, start=later) == [second]
    assert listed(fal_http, end=later) == [first]
    # The end is exclusive.
    assert listed(fal_http, end=ended_at.isoformat()) == []
    assert listed(fal_http, end="2025-01-01") == []


def test_lists_the_last_day_where_no_start_is_given(fal_http: httpx.Client) -> None:
    request_id = submit(fal_http)

    fal_http.post("/_sim/clock", json={"advance_seconds": 23 * 3600}).raise_for_status()
    assert listed(fal_http) == [request_id]
    fal_http.post("/_sim/clock", json={"advance_seconds": 2 * 3600}).raise_for_status()
    assert listed(fal_http) == []
    assert listed(fal_http, start="2025-01-01") == [request_id]


def test_pages_newest_first(fal_http: httpx.Client) -> None:
    newest_first = [submit(fal_http) for _ in range(5)][::-1]

    pages, cursor = [], ""
    while True:
        page = ask(fal_http, limit=2, cursor=cursor)
        pages.append([item["request_id"] for item in page["items"]])
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            break

    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:]]


@pytest.mark.parametrize("path", FOR_ADMINS)
@pytest.mark.parametrize(
    ("authorization", "status_code"),
    [("Key id:secret", 403), ("Key unknown:secret", 401), ("Bearer x", 401), ("", 401)],
)
def test_shows_nothing_without_an_admin_key(
    fal_http: httpx.Client, path: str, authorization: str, status_code: int
) -> None:
    answer = fal_http.get(path, params={"endpoint_id": TEXT_TO_IMAGE}, headers={"Authorization": authorization})

    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (status_code, "authorization_error")
    assert error.keys() == {"type", "message", "docs_url", "request_id"}


def test_the_admin_key_ids_can_be_chosen(fal_http: httpx.Client) -> None:
    fal_http.post("/_sim/config", json={"admin_key_ids": ["boss"]}).raise_for_status()
    query = {"endpoint_id": TEXT_TO_IMAGE}

    assert fal_http.get(HISTORY, params=query, headers=ADMIN).status_code == 403
    assert fal_http.get(HISTORY, params=query, headers={"Authorization": "Key boss:x"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "query", "status_code", "error_type"),
    [
        (HISTORY, {}, 400, "validation_error"),
        (HISTORY, {"endpoint_id": "x", "limit": "101"}, 400, "validation_error"),
        (HISTORY, {"endpoint_id": "x", "limit": "0"}, 400, "validation_error"),
        (HISTORY, {"endpoint_id": "x", "cursor": "nonsense"}, 400, "validation_error"),
        (HISTORY, {"endpoint_id": "x", "cursor": base64.b64encode(b"0").decode()}, 400, "validation_error"),
        (HISTORY, {"endpoint_id": "x", "start": "yesterday"}, 400, "validation_error"),
        (HISTORY, {"endpoint_id": "x", "status": "well"}, 400, "validation_error"),
        (HISTORY, {"endpoint_id": "x", "sort_by": "size"}, 400, "validation_error"),
        (BILLING, {"limit": "10001"}, 400, "validation_error"),
        (BILLING, {"request_id": ",".join("x" * 51)}, 400, "validation_error"),
        (PRICES, {"endpoint_id": "fal-ai/unknown"}, 404, "not_found"),
        ("/v1/nothing/here", {}, 404, "not_found"),
    ],
)
def test_refuses_in_the_platforms_own_form(
    fal_http: httpx.Client, path: str, query: dict[str, str], status_code: int, error_type: str
) -> None:
    answer = fal_http.get(path, params=query, headers=ADMIN)

    assert (answer.status_code, answer.json()["error"]["type"]) == (status_code, error_type)


def test_bills_each_success_once_and_nothing_else(fal_http: httpx.Client) -> None:
    images = submit(fal_http, num_images=3)
    film = submit(fal_http, TEXT_TO_VIDEO, duration="10", resolution="480p")
    submit(fal_http, prompt="[fail]")
    submit(fal_http, prompt="[slow:60]")

    rows = {row["request_id"]: row for row in ask(fal_http, BILLING)["billing_events"]}

    assert rows.keys() == {images, film}
    assert (rows[images]["output_units"], rows[images]["cost_estimate_nano_usd"]) == (3, 150_000_000)
    assert (rows[film]["output_units"], rows[film]["unit_price"], rows[film]["cost_total"]) == (10, 0.05, 0.5)
    account = ask(fal_http, ACCOUNT, expand="credits")
    assert account["credits"]["current_balance"] == pytest.approx(1000 - 0.65)
    assert "credits" not in ask(fal_http, ACCOUNT)


def test_bills_a_submit_that_was_repeated_twice(fal_http: httpx.Client) -> None:
    twice = {submit(fal_http, seed=7), submit(fal_http, seed=7)}

    assert {row["request_id"] for row in ask(fal_http, BILLING)["billing_events"]} == twice
    assert set(listed(fal_http)) == twice


def test_filters_the_bill(fal_http: httpx.Client) -> None:
    picture, film = submit(fal_http), submit(fal_http, TEXT_TO_VIDEO)

    def billed(**query: Any) -> set[str]:
        return {row["request_id"] for row in ask(fal_http, BILLING, **query)["billing_events"]}

    assert billed(endpoint_id=TEXT_TO_VIDEO) == {film}
    assert billed(request_id=f"{picture},{film}") == {picture, film}
    assert billed(api_key_id="id") == {picture, film}
    assert billed(api_key_id="another") == set()
    assert billed(start=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == set()


def test_names_the_prices_to_any_key(fal_http: httpx.Client) -> None:
    one = fal_http.get(PRICES, params={"endpoint_id": TEXT_TO_IMAGE}).json()
    every = fal_http.get(PRICES).json()

    price = {"endpoint_id": TEXT_TO_IMAGE, "unit_price": 0.05, "unit": "images", "currency": "USD"}
    assert one == {"prices": [price], "next_cursor": None, "has_more": False}
    assert len(every["prices"]) == 4
