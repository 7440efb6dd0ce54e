"""The simulator's files: how long they are there, in parts, and spoilt on request."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator.behaviours import behaviour_of
from tests.simulator_server import running_simulator

TEXT_TO_IMAGE = "/fal-ai/wan-25-preview/text-to-image"
PREFERENCE = "X-Fal-Object-Lifecycle-Preference"
DAY_SECONDS = 86_400


def output(http: httpx.Client, prompt: str = "a boat", **headers: str) -> str:
    """The path of the one picture."""
    body = {"prompt": prompt, "seed": 5}
    submitted = http.post(TEXT_TO_IMAGE, json=body, headers=headers).raise_for_status().json()
    (image,) = http.get(submitted["response_url"]).raise_for_status().json()["images"]
    return str(httpx.URL(image["url"]).path)


def lifetime(seconds: Any) -> dict[str, str]:
    return {PREFERENCE: json.dumps({"expiration_duration_seconds": seconds})}


def advance(http: httpx.Client, seconds: float) -> None:
    http.post("/_sim/clock", json={"advance_seconds": seconds}).raise_for_status()


def upload(http: httpx.Client, content: bytes, **headers: str) -> str:
    token = http.post("/storage/auth/token", params={"storage_type": "fal-cdn-v3"}, json={}).json()["token"]
    own = {"Authorization": f"Bearer {token}", "Content-Type": "image/png", "X-Fal-File-Name": "a.png", **headers}
    url = http.post("/files/upload", content=content, headers=own).raise_for_status().json()["access_url"]
    return str(httpx.URL(url).path)


def test_outputs_are_gone_after_the_time_that_was_asked_for(fal_http: httpx.Client) -> None:
    fal_http.post("/_sim/config", json={"speed": 1000}).raise_for_status()
    kept, path = output(fal_http), output(fal_http, **lifetime(3 * DAY_SECONDS))
    assert fal_http.get(path).status_code == 200

    advance(fal_http, 3 * DAY_SECONDS - 10)
    assert fal_http.get(path).status_code == 200
    advance(fal_http, 10)

    gone = fal_http.get(path)
    assert (gone.status_code, gone.json()) == (404, {"detail": "File not found"})
    assert fal_http.get(kept).status_code == 200
    seen = fal_http.get("/_sim/requests").json()["requests"]
    assert [each["media_seconds"] for each in seen] == [3 * DAY_SECONDS, None]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", *(json.dumps({"expiration_duration_seconds": value}) for value in (None, "1", True, -1))],
)
def test_a_lifetime_that_makes_no_sense_is_none(fal_http: httpx.Client, text: str) -> None:
    path = output(fal_http, **{PREFERENCE: text})
    advance(fal_http, 400 * DAY_SECONDS)

    assert fal_http.get(path).status_code == 200


def test_a_restart_does_not_make_outputs_stay(tmp_path: Path) -> None:
    key = {"Authorization": "Key id:secret"}
    with running_simulator(state_dir=tmp_path) as url, httpx.Client(base_url=url, headers=key, timeout=60) as http:
        path = output(http, **lifetime(60))
        assert http.get(path).status_code == 200

    with running_simulator(state_dir=tmp_path) as url, httpx.Client(base_url=url, headers=key, timeout=60) as http:
        assert http.get(path).status_code == 200
        advance(http, 60)
        assert http.get(path).status_code == 404


@pytest.mark.parametrize("header", [PREFERENCE, "X-Fal-Object-Lifecycle"])
def test_uploads_have_a_lifetime_too(fal_http: httpx.Client, header: str) -> None:
    kept = upload(fal_http, b"kept")
    path = upload(fal_http, b"12345", **{header: json.dumps({"expiration_duration_seconds": DAY_SECONDS})})
    listed = fal_http.get("/_sim/uploads").json()["uploads"]

    assert [(f"/files/b/{each['name']}", each["content_type"], each["size_bytes"]) for each in listed] == [
        (path, "image/png", 5),
        (kept, "image/png", 4),
    ]
    assert [each["expires_at"] is None for each in listed] == [False, True]
    assert fal_http.get(path).content == b"12345"
    advance(fal_http, DAY_SECONDS)
    assert fal_http.get(path).status_code == 404
    assert fal_http.get(kept).content == b"kept"


def test_an_upload_that_was_announced_has_one_as_well(fal_http: httpx.Client) -> None:
    body = {"file_name": "a.png", "content_type": "image/png"}
    announced = fal_http.post("/storage/upload/initiate", json=body, headers=lifetime(60)).json()
    path = httpx.URL(announced["file_url"]).path
    fal_http.put(httpx.URL(announced["upload_url"]).path, content=b"123").raise_for_status()

    assert fal_http.get(path).content == b"123"
    advance(fal_http, 60)
    assert fal_http.get(path).status_code == 404


@pytest.mark.parametrize("is_upload", [True, False])
def test_files_come_in_parts_and_tell_of_themselves(fal_http: httpx.Client, is_upload: bool) -> None:
    path = upload(fal_http, b"0123456789" * 50) if is_upload else output(fal_http)
    whole = fal_http.get(path)
    head, part = fal_http.head(path), fal_http.get(path, headers={"Range": "bytes=10-19"})
    beyond = fal_http.get(path, headers={"Range": "bytes=99999999-"})

    size_bytes = len(whole.content)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size_bytes))
    assert head.headers["accept-ranges"] == "bytes"
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size_bytes}"
    assert beyond.status_code == 416


def test_outputs_go_early_on_request(fal_http: httpx.Client) -> None:
    path, soon = output(fal_http, "[media:gone]"), output(fal_http, "[media:gone:50]", **lifetime(DAY_SECONDS))

    assert fal_http.get(path).status_code == 404
    assert fal_http.get(soon).status_code == 200
    advance(fal_http, 50)
    assert fal_http.get(soon).status_code == 404


def test_outputs_are_spoilt_on_request(fal_http: httpx.Client) -> None:
    whole = fal_http.get(output(fal_http)).content
    truncated, large = (fal_http.get(output(fal_http, f"a boat [media:{word}]")) for word in ("truncated", "large:1"))
    page, redirect, busy = (
        fal_http.get(output(fal_http, f"[media:{word}]"), headers={"Range": "bytes=0-1"})
        for word in ("not-json", "redirect", "503")
    )

    assert truncated.headers["content-type"] == large.headers["content-type"] == "image/png"
    assert 0 < len(truncated.content) < len(whole)
    assert truncated.headers["content-length"] == str(len(truncated.content))
    assert len(large.content) > 2**20
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (redirect.status_code, redirect.headers["location"]) == (302, "https://elsewhere.example/elsewhere")
    assert (busy.status_code, b"nginx" in busy.content) == (503, True)


@pytest.mark.parametrize("word", ["cut", "drop"])
def test_downloads_break_off_on_request(fal_http: httpx.Client, word: str) -> None:
    path = output(fal_http, f"[media:{word}]")

    with pytest.raises(httpx.RemoteProtocolError):
        fal_http.get(path)


def test_downloads_are_slow_on_request(fal_http: httpx.Client) -> None:
    path = output(fal_http, "[media:slow:100 x1]")
    begun = time.monotonic()

    with fal_http.stream("GET", path) as answer:
        pieces = answer.iter_raw()
        first, second = next(pieces), next(pieces)

    assert len(first) == len(second) == 100
    assert 0.5 < time.monotonic() - begun < 30
    assert fal_http.get(path).status_code == 200


def test_an_outage_of_downloads_counts_for_each_request(fal_http: httpx.Client) -> None:
    fal_http.post("/_sim/config", json={"faults": "[media:503 x2]"}).raise_for_status()
    first, second = output(fal_http), output(fal_http)
    uploaded = upload(fal_http, b"123")

    assert [fal_http.get(path).status_code for path in (first, first, second, first)] == [503, 503, 503, 200]
    assert fal_http.get(uploaded).status_code == 200


@pytest.mark.parametrize("word", ["[media:nan]", "[media:without:url]", "[media:gone:x]", "[media:302]", "[media]"])
def test_what_makes_no_sense_for_a_file_is_ordinary_text(word: str) -> None:
    assert behaviour_of(word).words == ()
