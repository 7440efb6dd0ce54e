"""What the simulator says on the wire: status codes, headers and bodies of fal's queue."""

import base64
import io
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from tests.service_process import free_port

APP = "/fal-ai/wan-25-preview"
TEXT_TO_IMAGE = f"{APP}/text-to-image"
IMAGE_TO_IMAGE = f"{APP}/image-to-image"
TEXT_TO_VIDEO = f"{APP}/text-to-video"
IMAGE_TO_VIDEO = f"{APP}/image-to-video"


def submit(fal_http: httpx.Client, path: str = TEXT_TO_IMAGE, **arguments: Any) -> dict[str, str]:
    response = fal_http.post(path, json={"prompt": "a boat"} | arguments)
    assert response.status_code == 200
    body: dict[str, str] = response.json()
    return body


def result(fal_http: httpx.Client, path: str = TEXT_TO_IMAGE, **arguments: Any) -> httpx.Response:
    return fal_http.get(submit(fal_http, path, **arguments)["response_url"])


def picture_uri(colour: str = "green") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_answers_a_submit_with_the_eight_fields(fal_http: httpx.Client) -> None:
    response = fal_http.post(TEXT_TO_IMAGE, json={"prompt": "a boat"})

    body = response.json()
    url = f"{str(fal_http.base_url).rstrip('/')}{APP}/requests/{body['request_id']}"
    assert response.status_code == 200
    assert response.headers["x-fal-request-id"] == body["request_id"]
    assert body == {
        "status": "IN_QUEUE",
        "request_id": body["request_id"],
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "logs": None,
        "metrics": {},
        "queue_position": 0,
    }


def test_answers_202_until_the_end_and_then_200(fal_http: httpx.Client) -> None:
    fal_http.post("/_sim/config", json={"queue_seconds": 60})
    queued = fal_http.get(submit(fal_http)["status_url"])
    fal_http.post("/_sim/config", json={"queue_seconds": 0})
    running = fal_http.get(submit(fal_http, prompt="[slow:60]")["status_url"], params={"logs": "1"})
    completed = fal_http.get(submit(fal_http)["status_url"], params={"logs": "true"})

    assert [response.status_code for response in (queued, running, completed)] == [202, 202, 200]
    assert queued.json()["queue_position"] == 0
    assert queued.json()["logs"] is None
    assert running.json()["logs"][0].keys() == {"message", "level", "source", "timestamp"}
    assert "queue_position" not in running.json()
    assert completed.json()["metrics"] == {"inference_time": 0.0}
    assert "error" not in completed.json()


def test_accepts_every_spelling_of_a_request_url(fal_http: httpx.Client) -> None:
    request_id = submit(fal_http)["request_id"]

    for app in (APP, TEXT_TO_IMAGE):
        for end in ("", "/", "/response", "/response/", "/status", "/status/"):
            assert fal_http.get(f"{app}/requests/{request_id}{end}").status_code == 200


def test_gives_the_images_that_were_asked_for(fal_http: httpx.Client) -> None:
    response = result(fal_http, num_images=2, seed=7, image_size="portrait_16_9", enable_prompt_expansion=False)

    body = response.json()
    assert response.headers["x-fal-billable-units"] == "2"
    assert body["seeds"] == [7, 8]
    assert "actual_prompt" not in body
    for entry in body["images"]:
        picture = fal_http.get(entry["url"])
        assert picture.headers["content-type"] == entry["content_type"] == "image/png"
        size = Image.open(io.BytesIO(picture.content)).size
        assert size == (entry["width"], entry["height"]) == (576, 1024)


def test_knows_the_size_of_a_file_once_it_is_drawn(fal_http: httpx.Client) -> None:
    url = submit(fal_http)["response_url"]
    before = fal_http.get(url).json()["images"][0]

    content = fal_http.get(before["url"]).content

    assert before["file_size"] is None
    assert fal_http.get(url).json()["images"][0]["file_size"] == len(content)


def test_gives_a_playable_film(fal_http: httpx.Client) -> None:
    response = result(fal_http, TEXT_TO_VIDEO, duration="5", aspect_ratio="9:16", seed=7)

    video = response.json()["video"]
    film = fal_http.get(video["url"])
    assert response.headers["x-fal-billable-units"] == "5"
    assert response.json()["seed"] == 7
    assert "a boat" in response.json()["actual_prompt"]
    with av.open(io.BytesIO(film.content), "r") as container:
        stream = container.streams.video[0]
        frame_count = len(list(container.decode(stream)))
        assert (stream.width, stream.height, frame_count) == (video["width"], video["height"], video["num_frames"])
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert container.duration == 5 * av.time_base


def test_answers_a_range_of_a_film(fal_http: httpx.Client) -> None:
    url = result(fal_http, IMAGE_TO_VIDEO, image_url=picture_uri()).json()["video"]["url"]

    part = fal_http.get(url, headers={"Range": "bytes=4-7"})

    assert (part.status_code, part.content) == (206, b"ftyp")


def test_derives_the_picture_from_the_inputs(fal_http: httpx.Client) -> None:
    earlier_result = result(fal_http, seed=1).json()["images"][0]["url"]
    corners = []
    for inputs in ([picture_uri("green")], [picture_uri("red")], [picture_uri("green"), earlier_result]):
        response = result(fal_http, IMAGE_TO_IMAGE, seed=2, image_urls=inputs)
        content = fal_http.get(response.json()["images"][0]["url"]).content
        picture = Image.open(io.BytesIO(content))
        corners.append((picture.getpixel((0, 0)), picture.getpixel((511, 0))))

    green, red, both = corners
    assert green[0] == green[1] == both[0]
    assert green[0] not in (red[0], both[1])


def test_draws_the_input_pictures_of_examples(fal_http: httpx.Client) -> None:
    urls = ["https://example.com/house.jpg", "http://example.org/boat.png?size=2"]

    answers = [result(fal_http, IMAGE_TO_IMAGE, seed=2, image_urls=[url]) for url in (*urls, urls[0])]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    house, boat, again = (fal_http.get(answer.json()["images"][0]["url"]).content for answer in answers)
    assert house == again != boat


def result_in_time(fal_http: httpx.Client, url: str) -> httpx.Response:
    """Of a run from this picture, which is not over before the picture is there or cannot be had."""
    response_url = submit(fal_http, IMAGE_TO_IMAGE, image_urls=[url])["response_url"]
    deadline = time.monotonic() + 60
    while (response := fal_http.get(response_url)).status_code == 400:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return response


def test_waits_for_the_picture_of_a_service_that_is_just_starting(fal_http: httpx.Client, tmp_path: Path) -> None:
    """After a kill both start together, and the service listens later."""
    Image.new("RGB", (40, 30)).save(tmp_path / "picture.png")
    port = free_port()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        response = pool.submit(result_in_time, fal_http, f"http://127.0.0.1:{port}/picture.png")
        time.sleep(1.5)
        assert not response.done()
        with ThreadingHTTPServer(("127.0.0.1", port), handler) as late:
            pool.submit(late.serve_forever)
            try:
                answer = response.result()
            finally:
                late.shutdown()

    assert answer.status_code == 200


def test_waits_for_the_picture_of_a_service_that_was_killed_and_is_slow_to_start(fal_http: httpx.Client) -> None:
    """One that starts has its port, and so the connection, long before it answers."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    head = f"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {file.tell()}\r\n\r\n".encode()
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)
        response = pool.submit(result_in_time, fal_http, f"http://127.0.0.1:{listening.getsockname()[1]}/picture.png")
        # Killed in the middle of its answer.
        with listening.accept()[0] as killed:
            killed.recv(65536)
            killed.sendall(head + file.getvalue()[:10])
        with listening.accept()[0] as slow:
            # Longer than an HTTP client waits that was not told how long.
            time.sleep(6)
            slow.recv(65536)
            slow.sendall(head + file.getvalue())
            answer = response.result()

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("url", "error_type"),
    [
        ("ftp://127.0.0.1/picture.png", "file_download_error"),
        ("not a url", "file_download_error"),
        ("http://127.0.0.1:9/nothing.png?example.com", "file_download_error"),
        ("https://[example.com/", "file_download_error"),
        ("data:image/png;base64,AAAA", "image_load_error"),
        ("data:image/png;base64,%%%", "image_load_error"),
        ("data:", "image_load_error"),
    ],
)
def test_answers_422_when_an_input_picture_cannot_be_had(fal_http: httpx.Client, url: str, error_type: str) -> None:
    response = result_in_time(fal_http, url)

    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == error_type
    assert response.json()["detail"][0]["loc"] == ["body", "image_urls", 0]


@pytest.mark.parametrize(
    ("arguments", "loc", "error_type"),
    [
        ({"duration": 5}, ["duration"], "one_of"),
        ({"resolution": "4k"}, ["resolution"], "one_of"),
        ({"prompt": None}, ["prompt"], "string_type"),
        ({"prompt": "x" * 1501}, ["prompt"], "string_too_long"),
    ],
)
def test_answers_422_at_the_result_when_arguments_are_wrong(
    fal_http: httpx.Client, arguments: dict[str, Any], loc: list[str], error_type: str
) -> None:
    submitted = submit(fal_http, TEXT_TO_VIDEO, **arguments)

    status, response = fal_http.get(submitted["status_url"]), fal_http.get(submitted["response_url"])

    assert status.status_code == 200
    assert status.json()["error_type"] == error_type
    assert response.status_code == 422
    assert response.headers["x-fal-billable-units"] == "0"
    assert response.json()["detail"][0]["loc"] == ["body", *loc]
    assert response.json()["detail"][0]["type"] == error_type


def test_accepts_a_body_that_is_no_json_and_fails_it_later(fal_http: httpx.Client) -> None:
    response = fal_http.post(TEXT_TO_IMAGE, content=b"{")

    assert response.status_code == 200
    assert fal_http.get(response.json()["response_url"]).status_code == 422


@pytest.mark.parametrize(
    ("header", "status_code", "detail"),
    [
        (
            None,
            401,
            'Cannot access application "fal-ai/wan-25-preview". Authentication is required to access this application.',
        ),
        ("Key unknown:secret", 401, "No user found for Key ID and Secret"),
        (
            "Key secret",
            401,
            "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.",
        ),
        (
            "Key locked:secret",
            403,
            "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing.",
        ),
    ],
)
def test_refuses_a_submit_without_a_good_key(
    fal_http: httpx.Client, header: str | None, status_code: int, detail: str
) -> None:
    request = fal_http.build_request("POST", TEXT_TO_IMAGE, json={"prompt": "a boat"})
    del request.headers["Authorization"]
    if header is not None:
        request.headers["Authorization"] = header

    response = fal_http.send(request)

    assert (response.status_code, response.json()) == (status_code, {"detail": detail})


@pytest.mark.parametrize("path", ["/fal-ai/h3-max/text", "/h3-max", "/workflows/fal-ai/h3-max"])
def test_refuses_an_unknown_application(fal_http: httpx.Client, path: str) -> None:
    response = fal_http.post(path, json={})

    assert (response.status_code, response.json()) == (404, {"detail": 'Application "h3-max" not found'})


def test_accepts_an_unknown_path_and_answers_404_at_the_result(fal_http: httpx.Client) -> None:
    response = result(fal_http, f"{APP}/text-to-smell")

    assert (response.status_code, response.json()) == (404, {"detail": "Path /text-to-smell not found"})
    assert response.headers["x-fal-billable-units"] == "0"


def test_answers_400_when_the_result_is_asked_for_too_early(fal_http: httpx.Client) -> None:
    response = result(fal_http, prompt="[slow:60]")

    assert (response.status_code, response.json()) == (400, {"detail": "Request is still in progress"})


@pytest.mark.parametrize("prompt", ["[stuck]", "[slow:60]"])
def test_ends_a_cancelled_request_with_499(fal_http: httpx.Client, prompt: str) -> None:
    submitted = submit(fal_http, prompt=prompt)

    cancelled = fal_http.put(submitted["cancel_url"])
    again = fal_http.put(submitted["cancel_url"])

    response = fal_http.get(submitted["response_url"])
    assert (cancelled.status_code, cancelled.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert (again.status_code, again.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert response.status_code == 499
    assert response.headers["x-fal-error-type"] == "client_cancelled"
    assert fal_http.get(submitted["status_url"]).json()["error_type"] == "client_cancelled"


def test_goes_on_after_a_cancel_when_the_prompt_says_so(fal_http: httpx.Client) -> None:
    submitted = submit(fal_http, prompt="[ignore-cancel] [slow:0.2]")

    cancelled = fal_http.put(submitted["cancel_url"])

    assert cancelled.status_code == 202
    assert fal_http.get(submitted["status_url"]).json()["status"] == "IN_PROGRESS"
    with fal_http.stream("GET", submitted["status_url"] + "/stream") as stream:
        stream.read()
    assert fal_http.get(submitted["response_url"]).status_code == 200


def test_answers_404_for_an_unknown_request(fal_http: httpx.Client) -> None:
    request_id = submit(fal_http)["request_id"]

    for url in (f"{APP}/requests/nothing", f"/fal-ai/flux/requests/{request_id}"):
        for response in (fal_http.get(url), fal_http.get(f"{url}/status"), fal_http.put(f"{url}/cancel")):
            assert (response.status_code, response.json()) == (404, {"status": "NOT_FOUND"})


def test_streams_every_status_until_the_end(fal_http: httpx.Client) -> None:
    submitted = submit(fal_http, prompt="[slow:0.2]")

    with fal_http.stream("GET", submitted["status_url"] + "/stream") as stream:
        lines = [line for line in stream.iter_lines() if line]

    assert stream.headers["content-type"].startswith("text/event-stream")
    statuses = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [status["status"] for status in statuses] == ["IN_PROGRESS", "COMPLETED"]
    assert statuses[0]["response_url"] == submitted["response_url"]


@pytest.mark.parametrize(
    ("prompt", "status_code", "error_type"),
    [
        ("[fail]", 422, "content_policy_violation"),
        ("[fail:500]", 500, "runner_server_error"),
        ("[fail:504]", 504, "request_timeout"),
        ("[fail:no_media_generated]", 422, "no_media_generated"),
    ],
)
def test_fails_as_the_prompt_asks(fal_http: httpx.Client, prompt: str, status_code: int, error_type: str) -> None:
    submitted = submit(fal_http, prompt=prompt)

    status, response = fal_http.get(submitted["status_url"]), fal_http.get(submitted["response_url"])

    assert status.status_code == 200
    assert status.json()["error_type"] == error_type
    assert response.status_code == status_code
    body = response.json()
    assert error_type == (body["error_type"] if "error_type" in body else body["detail"][0]["type"])


def test_hides_the_error_from_the_status_when_the_prompt_asks(fal_http: httpx.Client) -> None:
    submitted = submit(fal_http, prompt="[no-error-field]")

    assert "error" not in fal_http.get(submitted["status_url"]).json()
    assert fal_http.get(submitted["response_url"]).status_code == 422


def test_gives_fewer_or_black_images_when_the_prompt_asks(fal_http: httpx.Client) -> None:
    response = result(fal_http, prompt="[partial:3] [nsfw:2]", num_images=4)

    body = response.json()
    black = Image.open(io.BytesIO(fal_http.get(body["images"][1]["url"]).content))
    assert len(body["images"]) == len(body["seeds"]) == 3
    assert body["has_nsfw_concepts"] == [False, True, False]
    assert response.headers["x-fal-billable-units"] == "3"
    assert black.getextrema() == ((0, 0), (0, 0), (0, 0))


def test_fails_the_first_status_polls_when_the_prompt_asks(fal_http: httpx.Client) -> None:
    url = submit(fal_http, prompt="[flaky:2]")["status_url"]

    responses = [fal_http.get(url) for _ in range(3)]

    assert [response.status_code for response in responses] == [503, 503, 200]
    assert "nginx" in responses[0].text
    assert "x-fal-request-id" not in responses[0].headers


def test_refuses_submits_when_the_prompt_asks(fal_http: httpx.Client) -> None:
    codes = [fal_http.post(TEXT_TO_IMAGE, json={"prompt": "[submit:429x2]"}).status_code for _ in range(3)]
    codes += [fal_http.post(TEXT_TO_IMAGE, json={"prompt": f"[submit:{code}]"}).status_code for code in (401, 422, 500)]

    stats = fal_http.get("/_sim/stats").json()
    assert codes == [429, 429, 200, 401, 422, 500]
    assert (stats["posts_received"], stats["posts_accepted"]) == (6, 1)
    assert len(fal_http.get("/_sim/requests").json()["requests"]) == 1


def test_refuses_a_submit_when_the_queue_is_longer_than_allowed(fal_http: httpx.Client) -> None:
    fal_http.post("/_sim/config", json={"queue_seconds": 60})
    submit(fal_http)

    response = fal_http.post(TEXT_TO_IMAGE, params={"fal_max_queue_length": 0}, json={"prompt": "a boat"})

    assert response.status_code == 429


def test_tells_what_it_was_asked(fal_http: httpx.Client) -> None:
    fal_http.post(
        IMAGE_TO_IMAGE,
        params={"fal_webhook": "https://example.org/hook"},
        headers={"X-Fal-Tags": "attempt=a1"},
        json={"prompt": "a boat", "image_urls": [picture_uri()]},
    )

    seen = fal_http.get("/_sim/requests").json()["requests"][0]
    calls = fal_http.get("/_sim/calls").json()
    assert seen["endpoint_id"] == IMAGE_TO_IMAGE[1:]
    assert seen["attempt"] == {"webhook_url": "https://example.org/hook", "tags": {"attempt": "a1"}}
    assert seen["input"]["image_urls"][0].startswith("data:image/png;sha256=")
    assert seen["cancel_requested_at"] is None
    assert calls == {"submit": {"count": 1, "by_key_id": {"id": 1}}}


def test_refuses_settings_that_make_no_sense(fal_http: httpx.Client) -> None:
    codes = [
        fal_http.post("/_sim/config", content=body).status_code
        for body in ('{"queue_seconds": -1}', '{"unheard_of": 1}', "{", "7")
    ]

    assert codes == [422, 422, 400, 400]


def test_shows_requests_and_words_to_people(fal_http: httpx.Client) -> None:
    submit(fal_http, prompt="<b>a boat</b>")

    page = fal_http.get("/").text

    assert "This is a simulator." in page
    assert "&lt;b&gt;a boat" in page
    assert "[ignore-cancel]" in page
    assert "[ignore-cancel]" in fal_http.get("/_sim/help").text


def test_the_page_follows_the_requests(fal_http: httpx.Client) -> None:
    with fal_http.stream("GET", "/_sim/page") as stream:
        told = (json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line)
        assert next(told) == [["none", "<td>none yet</td>"]]
        fal_http.post("/_sim/config", json={"run_seconds_image": 1}).raise_for_status()
        request_id = submit(fal_http, prompt="a <boat>\n\nat dawn")["request_id"]
        phases = []
        for rows in told:
            [[row_id, cells]] = rows
            assert (row_id, "a &lt;boat&gt;\n\nat dawn" in cells) == (request_id, True)
            phases.append(next(phase for phase in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED 200") if phase in cells))
            if phases[-1] == "COMPLETED 200":
                assert "<img src=" in cells
                break
        fal_http.post("/_sim/reset").raise_for_status()
        assert next(told) == [["none", "<td>none yet</td>"]]

    assert phases == ["IN_PROGRESS", "COMPLETED 200"]


@pytest.mark.parametrize("name", ["nothing.png", "01a2066c-5b5b-73e8-85e4-56c6ccfe9418-1.png"])
def test_answers_404_for_a_file_that_nobody_made(fal_http: httpx.Client, name: str) -> None:
    assert fal_http.get(f"/files/b/0a1b2c3d/{name}").status_code == 404


def test_takes_the_parts_of_the_javascript_client(fal_http: httpx.Client) -> None:
    announced = fal_http.post(
        "/storage/upload/initiate-multipart",
        params={"storage_type": "fal-cdn-v3"},
        json={"file_name": "a.bin", "content_type": "application/x-parts"},
    ).json()
    parts = [
        fal_http.put(f"{announced['upload_url']}/{number}", content=content).json()
        for number, content in ((2, b"world"), (1, b"hello "))
    ]
    completed = fal_http.post(f"{announced['upload_url']}/complete", json={"parts": parts})

    assert completed.status_code == 200
    assert fal_http.get(announced["file_url"]).content == b"hello world"


def test_takes_only_files_that_were_announced(fal_http: httpx.Client) -> None:
    announced = fal_http.post("/storage/upload/initiate", json={"file_name": "a.txt", "content_type": "text/plain"})
    upload_url = announced.json()["upload_url"]

    assert fal_http.put(upload_url, content=b"hello").status_code == 200
    assert fal_http.put(upload_url, content=b"again").status_code == 404
    assert fal_http.post("/files/upload", content=b"hello").status_code == 401
    assert fal_http.get(announced.json()["file_url"]).text == "hello"
