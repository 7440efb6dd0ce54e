"""The simulator's webhooks as a receiver sees them, and submits whose answer does not arrive."""

import base64
import hashlib
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simulator.dropping import LendsItsConnection
from tests.simulator_server import running_simulator

TEXT_TO_IMAGE = "/fal-ai/wan-25-preview/text-to-image"
WAIT_SECONDS_MAX = 30
SIGNATURE_AGE_SECONDS_MAX = 300


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    content: bytes
    received_at: float

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.content)
        return body

    def signed(self, name: str) -> str:
        return self.headers[f"x-fal-webhook-{name}"]


class Receiver(ThreadingHTTPServer):
    """Answers with the scripted status codes, then with 200."""

    # Many connections at once must not wait for the system to repeat a handshake.
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook?token=a-b"
        self.received: queue.Queue[Received] = queue.Queue()
        self.status_codes: list[int] = []
        self.answer_seconds = 0.0
        self.first_answer: bytes | None = None

    def next(self) -> Received:
        return self.received.get(timeout=WAIT_SECONDS_MAX)


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer, self.server.first_answer = self.server.first_answer, None
        self.server.received.put(Received(self.path, headers, content, time.time()))
        time.sleep(self.server.answer_seconds)
        if answer is not None:
            self.wfile.write(answer)
            return
        # The sender may have given up by now.
        with suppress(OSError):
            self.send_response(self.server.status_codes.pop(0) if self.server.status_codes else 200)
            self.send_header("location", self.server.url)
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def submit(fal_http: httpx.Client, url: str, prompt: str = "a boat") -> dict[str, str]:
    response = fal_http.post(TEXT_TO_IMAGE, params={"fal_webhook": url}, json={"prompt": prompt})
    assert response.status_code == 200
    body: dict[str, str] = response.json()
    return body


def posts(fal_http: httpx.Client, count: int) -> list[dict[str, Any]]:
    """The list of webhooks once it has so many, oldest first."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while len(listed := fal_http.get("/_sim/webhooks").json()["webhooks"]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return list(reversed(listed))


def is_signed(fal_http: httpx.Client, received: Received) -> bool:
    """Checked as fal documents it, by hand."""
    digest = hashlib.sha256(received.content).hexdigest()
    parts = [received.signed(name) for name in ("request-id", "user-id", "timestamp")]
    message = "\n".join([*parts, digest]).encode()
    for key in fal_http.get("/.well-known/jwks.json").json()["keys"]:
        public_key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
        with suppress(InvalidSignature):
            public_key.verify(bytes.fromhex(received.signed("signature")), message)
            return True
    return False


def is_fresh(received: Received) -> bool:
    return abs(received.received_at - int(received.signed("timestamp"))) <= SIGNATURE_AGE_SECONDS_MAX


def test_tells_of_a_success(fal_http: httpx.Client, receiver: Receiver) -> None:
    submitted = submit(fal_http, receiver.url)

    received = receiver.next()

    request_id = submitted["request_id"]
    assert received.path == "/hook?token=a-b"
    assert received.headers["content-type"] == "application/json"
    assert received.body == {
        "request_id": request_id,
        "gateway_request_id": request_id,
        "status": "OK",
        "payload": fal_http.get(submitted["response_url"]).json(),
    }
    assert (received.signed("request-id"), received.signed("user-id")) == (request_id, "simulator-user")
    assert is_signed(fal_http, received)
    assert is_fresh(received)


def test_publishes_its_key_to_everybody(fal_simulator: str) -> None:
    response = httpx.get(f"{fal_simulator}/.well-known/jwks.json", trust_env=False, timeout=60)

    (key,) = response.json()["keys"]
    assert response.status_code == 200
    assert key.keys() == {"kty", "crv", "kid", "x"}
    assert (key["kty"], key["crv"], len(key["x"])) == ("OKP", "Ed25519", 43)


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("[fail]", "Invalid status code: 422"),
        ("[fail:504]", "Request timed out"),
        ("[no-error-field:500]", "Runner failed to process the request"),
    ],
)
def test_tells_of_a_failure(fal_http: httpx.Client, receiver: Receiver, prompt: str, error: str) -> None:
    submitted = submit(fal_http, receiver.url, prompt)

    body = receiver.next().body

    assert (body["status"], body["error"]) == ("ERROR", error)
    assert body["payload"] == fal_http.get(submitted["response_url"]).json()


@pytest.mark.parametrize("prompt", ["[stuck]", "[slow:60]"])
def test_tells_of_a_cancelled_request(fal_http: httpx.Client, receiver: Receiver, prompt: str) -> None:
    fal_http.put(submit(fal_http, receiver.url, prompt)["cancel_url"])

    body = receiver.next().body

    assert (body["status"], body["error"]) == ("ERROR", "Request cancelled by the client.")
    assert body["payload"]["error_type"] == "client_cancelled"


def test_names_the_user_of_its_settings(fal_http: httpx.Client, receiver: Receiver) -> None:
    fal_http.post("/_sim/config", json={"user_id": "somebody"})
    submit(fal_http, receiver.url)

    received = receiver.next()

    assert received.signed("user-id") == "somebody"
    assert is_signed(fal_http, received)


def test_says_nothing_to_nobody(fal_http: httpx.Client, receiver: Receiver) -> None:
    fal_http.post(TEXT_TO_IMAGE, json={"prompt": "a boat"})
    fal_http.post(TEXT_TO_IMAGE, params={"fal_webhook": ""}, json={"prompt": "a boat"})
    submit(fal_http, receiver.url, "[webhook:never]")
    told = submit(fal_http, receiver.url)

    assert receiver.next().body["request_id"] == told["request_id"]
    assert [post["request_id"] for post in posts(fal_http, 1)] == [told["request_id"]]


def test_tries_again_until_it_is_received(fal_http: httpx.Client, receiver: Receiver) -> None:
    receiver.status_codes = [500, 404, 204]
    submitted = submit(fal_http, receiver.url)

    attempts = [receiver.next() for _ in range(3)]

    listed = posts(fal_http, 3)
    assert all(is_signed(fal_http, attempt) for attempt in attempts)
    assert [(post["attempt"], post["status_code"], post["error"]) for post in listed] == [
        (1, 500, None),
        (2, 404, None),
        (3, 204, None),
    ]
    assert {(post["request_id"], post["url"]) for post in listed} == {(submitted["request_id"], receiver.url)}
    assert listed[0]["sent_at"] < listed[1]["sent_at"] < listed[2]["sent_at"]


def test_takes_a_redirect_as_a_failure_for_good(fal_http: httpx.Client, receiver: Receiver) -> None:
    receiver.status_codes = [302]
    submit(fal_http, receiver.url)
    receiver.next()

    time.sleep(0.15)

    assert receiver.received.empty()
    assert [post["status_code"] for post in posts(fal_http, 1)] == [302]


def test_gives_up_after_the_last_attempt(fal_http: httpx.Client, receiver: Receiver) -> None:
    fal_http.post("/_sim/config", json={"webhook_attempts_max": 2})
    receiver.status_codes = [500] * 3
    submit(fal_http, receiver.url)

    posts(fal_http, 2)
    time.sleep(0.2)

    assert len(posts(fal_http, 2)) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/hook", "no url", "http://127.0.0.1:x/"])
def test_says_why_there_was_no_answer(fal_http: httpx.Client, url: str) -> None:
    fal_http.post("/_sim/config", json={"webhook_attempts_max": 1})
    submit(fal_http, url)

    (post,) = posts(fal_http, 1)

    assert post["status_code"] is None
    assert post["error"]


@pytest.mark.parametrize("answer", [b"", b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"])
def test_tries_again_after_an_answer_that_is_none(fal_http: httpx.Client, receiver: Receiver, answer: bytes) -> None:
    receiver.first_answer = answer
    submit(fal_http, receiver.url)

    first, second = posts(fal_http, 2)

    assert first["error"]
    assert (second["error"], second["status_code"]) == (None, 200)


def test_does_not_wait_for_a_slow_receiver(fal_http: httpx.Client, receiver: Receiver) -> None:
    fal_http.post("/_sim/config", json={"webhook_seconds_max": 0.1})
    receiver.answer_seconds = 0.2
    submit(fal_http, receiver.url)
    receiver.next()

    receiver.answer_seconds = 0

    # On a busy machine some of the later answers may be too slow as well.
    count = 2
    while (errors := [post["error"] for post in posts(fal_http, count)])[-1] is not None:
        count = len(errors) + 1
    assert errors[0] == "TimeoutError"
    assert set(errors[:-1]) == {"TimeoutError"}


def test_lists_the_newest_webhooks_first(fal_http: httpx.Client, receiver: Receiver) -> None:
    for count in (1, 2):
        newest = submit(fal_http, receiver.url)
        # A webhook is listed once it is answered, which is after it is received.
        posts(fal_http, count)

    listed = fal_http.get("/_sim/webhooks", params={"limit": 1}).json()["webhooks"]

    assert [post["request_id"] for post in listed] == [newest["request_id"]]


@pytest.mark.alone
@pytest.mark.parametrize(("prompt", "count"), [("[webhook:duplicate]", 2), ("[webhook:duplicate:10]", 10)])
def test_delivers_duplicates_at_once(fal_http: httpx.Client, receiver: Receiver, prompt: str, count: int) -> None:
    # Whoever sent them one after the other would wait for each answer.
    receiver.answer_seconds = 0.3
    submit(fal_http, receiver.url, prompt)

    copies = [receiver.next() for _ in range(count)]

    assert copies[-1].received_at - copies[0].received_at < 0.3
    assert len({copy.content for copy in copies}) == 1
    assert all(is_signed(fal_http, copy) for copy in copies)
    assert {post["attempt"] for post in posts(fal_http, count)} == {1}
    assert receiver.received.empty()


def test_delivers_later(fal_http: httpx.Client, receiver: Receiver) -> None:
    began = time.time()
    submit(fal_http, receiver.url, "[webhook:delay:0.3]")

    assert receiver.next().received_at - began >= 0.3


def test_delivers_before_the_answer_to_the_submit(fal_http: httpx.Client, receiver: Receiver) -> None:
    fal_http.post("/_sim/config", json={"queue_seconds": 60})
    receiver.answer_seconds = 0.2
    began = time.monotonic()

    submitted = submit(fal_http, receiver.url, "[webhook:early]")

    assert time.monotonic() - began >= 0.2
    received = receiver.received.get_nowait()
    assert (received.body["request_id"], received.body["status"]) == (submitted["request_id"], "OK")
    assert fal_http.get(submitted["status_url"]).json()["status"] == "COMPLETED"


def test_answers_the_submit_also_when_the_early_webhook_fails(fal_http: httpx.Client, receiver: Receiver) -> None:
    receiver.status_codes = [500]
    submit(fal_http, receiver.url, "[webhook:early]")

    assert [post["status_code"] for post in posts(fal_http, 2)] == [500, 200]


@pytest.mark.parametrize(("prompt", "status"), [("[webhook:null]", "OK"), ("[webhook:null] [fail]", "ERROR")])
def test_leaves_the_payload_out(fal_http: httpx.Client, receiver: Receiver, prompt: str, status: str) -> None:
    submitted = submit(fal_http, receiver.url, prompt)

    body = receiver.next().body

    assert (body["status"], body["payload"]) == (status, None)
    assert "not JSON serializable" in body["payload_error"]
    assert (fal_http.get(submitted["response_url"]).status_code == 200) == (status == "OK")


@pytest.mark.parametrize("prompt", ["[webhook:forged]", "[webhook:unknown-key]"])
def test_signs_so_that_nobody_may_accept_it(fal_http: httpx.Client, receiver: Receiver, prompt: str) -> None:
    submitted = submit(fal_http, receiver.url, prompt)

    received = receiver.next()

    assert len(bytes.fromhex(received.signed("signature"))) == 64
    assert not is_signed(fal_http, received)
    assert is_fresh(received)
    assert received.body["request_id"] == received.signed("request-id") == submitted["request_id"]


def test_signs_an_old_timestamp(fal_http: httpx.Client, receiver: Receiver) -> None:
    submit(fal_http, receiver.url, "[webhook:stale]")

    received = receiver.next()

    assert is_signed(fal_http, received)
    assert received.received_at - int(received.signed("timestamp")) == pytest.approx(600, abs=WAIT_SECONDS_MAX)


def test_signs_for_another_user(fal_http: httpx.Client, receiver: Receiver) -> None:
    submitted = submit(fal_http, receiver.url, "[webhook:foreign-user]")

    received = receiver.next()

    assert is_signed(fal_http, received)
    assert received.signed("user-id") == "another-user"
    assert received.body["request_id"] == submitted["request_id"]


def test_signs_for_another_request(fal_http: httpx.Client, receiver: Receiver) -> None:
    submitted = submit(fal_http, receiver.url, "[webhook:wrong-request]")

    received = receiver.next()

    assert is_signed(fal_http, received)
    assert received.body["request_id"] == received.signed("request-id") != submitted["request_id"]


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])
def test_accepts_a_submit_and_drops_the_connection(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, protocol: type
) -> None:
    monkeypatch.setattr(
        "tests.simulator_server.DroppableProtocol", type("Protocol", (LendsItsConnection, protocol), {})
    )
    content = b'{"prompt": "[submit:drop]"}'
    head = (
        f"POST {TEXT_TO_IMAGE}?fal_webhook={receiver.url} HTTP/1.1\r\nhost: simulator\r\n"
        f"authorization: Key id:secret\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    with running_simulator() as url, httpx.Client(base_url=url, timeout=60) as client:
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=WAIT_SECONDS_MAX) as connection:
            connection.sendall(head.encode() + content)
            answer = connection.recv(1)

        (accepted,) = client.get("/_sim/requests").json()["requests"]
        stats = client.get("/_sim/stats").json()
        assert answer == b""
        assert receiver.next().body["request_id"] == accepted["request_id"]
        assert (stats["posts_received"], stats["posts_accepted"]) == (1, 1)
        assert client.get("/_sim/calls").json()["submit"]["count"] == 1
    assert not caplog.records


def test_drops_a_connection_that_has_served_before(fal_http: httpx.Client) -> None:
    fal_http.get("/_sim/stats").raise_for_status()

    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        fal_http.post(TEXT_TO_IMAGE, json={"prompt": "[submit:drop]"})

    assert len(fal_http.get("/_sim/requests").json()["requests"]) == 1


def test_answers_late(fal_http: httpx.Client) -> None:
    began = time.monotonic()

    response = fal_http.post(TEXT_TO_IMAGE, json={"prompt": "[submit:hang:0.3]"})

    assert time.monotonic() - began >= 0.3
    assert (response.status_code, response.json()["status"]) == (200, "IN_QUEUE")


@pytest.mark.alone
def test_accepts_a_submit_whose_client_does_not_wait_for_the_answer(fal_http: httpx.Client, receiver: Receiver) -> None:
    with pytest.raises(httpx.ReadTimeout):
        fal_http.post(
            TEXT_TO_IMAGE,
            params={"fal_webhook": receiver.url},
            json={"prompt": "[submit:hang:0.5]"},
            timeout=0.1,
        )

    (accepted,) = fal_http.get("/_sim/requests").json()["requests"]
    assert receiver.next().body["request_id"] == accepted["request_id"]
    assert fal_http.get("/_sim/stats").json()["posts_accepted"] == 1


def test_stops_while_an_answer_is_held_back(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[type[Exception]] = []

    def wait_for_the_answer(url: str) -> None:
        try:
            httpx.post(
                url + TEXT_TO_IMAGE,
                headers={"Authorization": "Key id:secret"},
                json={"prompt": "[submit:hang:60]"},
                timeout=WAIT_SECONDS_MAX,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            errors.append(type(error))

    with running_simulator() as url, httpx.Client(base_url=url, timeout=60) as client:
        thread = threading.Thread(target=wait_for_the_answer, args=(url,))
        thread.start()
        while not client.get("/_sim/requests").json()["requests"]:
            time.sleep(0.005)
    thread.join()

    assert errors == [httpx.RemoteProtocolError]
    assert not caplog.records
