"""What a link to media answers over HTTP, from our store and, until it is there, from fal."""

import hashlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.domain.outputs import OutputId
from tests.builders import database_copy
from tests.contract.media_service import MediaService, running_media_service
from tests.media import MEDIA_DAYS
from tests.service_process import WITHOUT_LIMITS, ServiceProcess, free_port
from tests.simulator_server import running_simulator
from tests.torture_report import report

pytestmark = pytest.mark.timeout(300)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>" + b" " * 100
UNKNOWN = "application/octet-stream"
POLICY = "default-src 'none'; sandbox"
LARGE_BYTES = 300 * 1024 * 1024
# Two thirds of all places are one account's, and two thirds of those for what comes from fal.
PLACES_OF_ONE = 256
BYTES_OF_A_READER_MAX = 512 * 1024
PLACES_OF_ONE_AT_FAL = 128


@pytest.fixture(scope="module")
def service(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MediaService]:
    with running_media_service(postgres_dsn, template_database, tmp_path_factory.mktemp("serving")) as running:
        yield running


@pytest.fixture(params=["stored", "passed through"])
def place_of(request: pytest.FixtureRequest, service: MediaService) -> Callable[[bytes], OutputId]:
    """An output of those bytes, in our store or at fal."""

    def stored(content: bytes) -> OutputId:
        is_png = content.startswith(PNG[:8])
        return service.stored(content, "image/png" if is_png else UNKNOWN)

    def passed(content: bytes) -> OutputId:
        # fal says of everything that it is a picture.
        path = f"/files/{hashlib.sha256(content).hexdigest()}"
        return service.output(service.files.put(path, content, Content_Type="image/png"), content_type="image/png")

    return stored if request.param == "stored" else passed


@pytest.mark.parametrize(
    ("content", "content_type", "disposition"),
    [
        (PNG, "image/png", 'inline; filename="image-1.png"'),
        (SVG, UNKNOWN, "attachment; filename="),
        (HTML, UNKNOWN, "attachment; filename="),
        (b"a", UNKNOWN, "attachment; filename="),
    ],
    ids=["png", "svg", "html", "a letter"],
)
def test_a_file_is_what_it_is_and_never_what_fal_says(
    service: MediaService, place_of: Callable[[bytes], OutputId], content: bytes, content_type: str, disposition: str
) -> None:
    answer = service.get(place_of(content))

    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Content-Disposition"].startswith(disposition)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_the_middle_of_a_file_is_never_shown_as_a_page(service: MediaService) -> None:
    url = service.files.put("/files/page", HTML, Content_Type="text/html")

    for told, shown in (("text/html", UNKNOWN), ("image/svg+xml", UNKNOWN), ("image/png", "image/png")):
        answer = service.get(service.output(url, content_type=told), Range="bytes=9-40")
        assert (answer.status_code, answer.content) == (206, HTML[9:41])
        assert (answer.headers["Content-Type"], answer.headers["X-Content-Type-Options"]) == (shown, "nosniff")
        assert answer.headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-7", 0, 8),
        ("bytes=100-", 100, len(PNG)),
        ("bytes=-5", len(PNG) - 5, len(PNG)),
        ("bytes=9-99999", 9, len(PNG)),
    ],
)
def test_a_part_of_a_file(
    service: MediaService, place_of: Callable[[bytes], OutputId], asked: str, start: int, end: int
) -> None:
    answer = service.get(place_of(PNG), Range=asked)

    assert (answer.status_code, answer.content) == (206, PNG[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(PNG)}"
    assert answer.headers["Content-Length"] == str(end - start)


def test_a_part_beyond_the_end_is_refused(service: MediaService, place_of: Callable[[bytes], OutputId]) -> None:
    answer = service.get(place_of(PNG), Range="bytes=99999-")

    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(PNG)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=5-4", "lines=1-2"])
def test_what_is_no_single_part_is_the_whole(
    service: MediaService, place_of: Callable[[bytes], OutputId], asked: str
) -> None:
    answer = service.get(place_of(PNG), Range=asked)

    assert (answer.status_code, answer.content) == (200, PNG)


def test_a_head_has_the_headers_alone(service: MediaService, place_of: Callable[[bytes], OutputId]) -> None:
    link = service.link(place_of(PNG))

    head, whole = service.http.head(link), service.http.get(link)

    assert (head.status_code, head.content) == (200, b"")
    ours = ("content-type", "content-length", "content-disposition", "etag", "accept-ranges", "content-security-policy")
    assert {name: head.headers.get(name) for name in ours} == {name: whole.headers.get(name) for name in ours}


def test_who_has_a_stored_file_is_told_so(service: MediaService) -> None:
    output_id = service.stored(PNG, "image/png")
    etag = service.get(output_id).headers["ETag"]

    assert etag == f'"{hashlib.sha256(PNG).hexdigest()}"'
    for known in (etag, f'"x", W/{etag}', "*"):
        answer = service.get(output_id, If_None_Match=known)
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert service.get(output_id, If_None_Match='"x"').status_code == 200
    assert service.get(output_id, Range="bytes=0-1", If_Range=etag).status_code == 206
    for other in ('"x"', f"W/{etag}"):
        assert service.get(output_id, Range="bytes=0-1", If_Range=other).content == PNG


def test_nobody_keeps_a_file_for_longer_than_its_link_and_its_output_are_good(service: MediaService) -> None:
    output_id = service.stored(PNG, "image/png")

    def kept_seconds(link_seconds: float) -> int:
        told = service.http.get(service.link(output_id, seconds=link_seconds)).headers["Cache-Control"]
        found = re.fullmatch(r"private, max-age=(\d+), immutable", told)
        assert found, told
        return int(found[1])

    assert 540 <= kept_seconds(600) <= 600
    days = MEDIA_DAYS * 24 * 3600
    assert days - 60 <= kept_seconds(days * 2) <= days


def test_what_fal_has_is_kept_by_nobody_and_has_no_name(service: MediaService) -> None:
    output_id = service.output(service.files.put("/files/kept", PNG))

    answer = service.get(output_id, Range="bytes=0-1", If_Range='"x"')

    assert (answer.status_code, answer.content) == (200, PNG)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


def test_a_file_whose_length_fal_does_not_say_comes_whole(service: MediaService) -> None:
    url = service.files.put("/files/chunked", PNG * 100, Transfer_Encoding="chunked")

    answer = service.get(service.output(url))

    assert (answer.status_code, answer.content) == (200, PNG * 100)
    assert "Content-Length" not in answer.headers
    assert answer.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("url", ["{files}/none", "https://fal.media.example/a.png", "http://127.0.0.1:1/a", "nothing"])
def test_what_fal_does_not_give_is_not_there_for_now(service: MediaService, url: str) -> None:
    answer = service.get(service.output(url.format(files=service.files.url)))

    assert (answer.status_code, answer.json()["code"]) == (503, "media_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_while_the_store_is_away_a_stored_file_is_not_there(service: MediaService) -> None:
    output_id = service.stored(PNG, "image/png")
    away = service.store.with_name("away")
    service.store.rename(away)
    try:
        answer = service.get(output_id)
        assert (answer.status_code, answer.json()["code"]) == (503, "media_unavailable")
    finally:
        away.rename(service.store)
    assert service.get(output_id).content == PNG


def test_what_the_store_has_lost_comes_from_fal_while_fal_has_it(service: MediaService) -> None:
    lost = service.stored(PNG, "image/png")
    (service.store / lost.store_key).unlink()

    answer = service.get(lost)
    assert (answer.status_code, answer.json()["code"]) == (503, "media_unavailable")
    service.files.put("/gone", PNG)
    try:
        whole, part = service.get(lost), service.get(lost, Range="bytes=9-40")
    finally:
        del service.files.contents["/gone"]

    assert (whole.status_code, whole.content, whole.headers["Cache-Control"]) == (200, PNG, "no-store")
    assert (part.status_code, part.content) == (206, PNG[9:41])
    told = [line for line in service.process.output().splitlines() if "media_missing" in line]
    assert len(told) == 3
    assert all(str(lost) in line for line in told)


def test_a_link_ends_and_is_wrong_or_leads_to_what_was_deleted(service: MediaService) -> None:
    customer = service.customer()
    output_id = service.stored(PNG, "image/png", customer)
    good = service.link(output_id)

    def answer_to(link: str) -> tuple[int, str]:
        answer = service.http.get(link)
        return answer.status_code, answer.json()["code"]

    path, _, query = good.partition("?")
    expires, _, signature = query.partition("&")
    another = service.stored(PNG, "image/png")
    for wrong in (
        path,
        f"{path}?{expires}",
        f"{path}?{signature}",
        f"{path}?expires=99999999999&{signature}",
        f"{path}?{query}A",
        good.replace(str(output_id), str(another)),
        service.link("nothing"),
    ):
        assert answer_to(wrong) == (403, "link_not_valid")
    assert answer_to(service.link(OutputId(output_id.job_id, 1))) == (404, "media_not_found")
    assert answer_to(service.link(output_id, seconds=-1)) == (410, "link_expired")
    assert service.http.get(service.link(output_id, name="anything at all.exe")).status_code == 200
    assert service.http.get(good).headers["Content-Disposition"] == 'inline; filename="image-1.png"'

    headers = {"X-API-Key": customer.api_key}
    job = service.http.delete(f"/generations/{output_id.job_id}/media", headers=headers).raise_for_status().json()
    assert (job["outputs"][0]["url"], job["result"]["images"][0]["url"]) == (None, None)
    assert job["outputs"][0]["is_stored"] is False
    assert answer_to(good) == (410, "media_deleted")
    assert answer_to(service.link(output_id, seconds=-1)) == (410, "media_deleted")


def test_a_link_works_for_the_time_it_says(service: MediaService) -> None:
    output_id = service.stored(PNG, "image/png")
    while True:
        link = service.link(output_id, seconds=4)
        ends_at = int(link.partition("expires=")[2].partition("&")[0])
        answer = service.http.get(link)
        # On a busy machine it may be over before it was asked for, which tells nothing.
        if time.time() < ends_at:
            break

    assert answer.status_code == 200
    while time.time() < ends_at + 0.1:
        time.sleep(0.1)
    assert service.http.get(link).json()["code"] == "link_expired"


def test_no_log_has_a_link(service: MediaService) -> None:
    output_id, away = service.stored(PNG, "image/png"), service.output("https://fal.media.example/a.png")
    for link in (service.link(output_id), service.link(away), service.link(output_id) + "A"):
        service.http.get(link)

    log = service.process.output()
    assert str(away) in log
    assert "signature" not in log
    assert link.partition("signature=")[2][:20] not in log


class SlowReader:
    """Asks for a file, reads a little and then nothing."""

    def __init__(self, service: MediaService, output_id: OutputId, *, read_bytes: int = 64) -> None:
        port = urlsplit(service.process.url).port
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        request = f"GET {service.link(output_id)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
        self.socket.sendall(request.encode())
        self.first = b""
        while len(self.first) < read_bytes:
            self.first += self.socket.recv(4096)
        self.status = int(self.first.split(b" ", 2)[1])

    def close(self) -> None:
        self.socket.close()


def test_readers_who_stop_fill_no_memory(service: MediaService) -> None:
    large = service.stored(LARGE_BYTES, "video/mp4")
    at_fal = service.output(service.files.put("/files/large", LARGE_BYTES))
    service.get(large, Range="bytes=0-5000000")
    before, sent_before = service.memory_bytes(), service.files.sent_bytes
    with ExitStack() as stack:
        for output_id in (large,) * 8 + (at_fal,) * 8:
            reader = stack.enter_context(closing(SlowReader(service, output_id, read_bytes=1024 * 1024)))
            assert reader.status == 200
        time.sleep(3)
        grown, sent = service.memory_bytes() - before, service.files.sent_bytes - sent_before

    report("slow_readers_of_media", {"readers": 16, "grown_mib": grown >> 20, "taken_from_fal_mib": sent >> 20})
    assert grown < 64 * 1024 * 1024
    assert sent < 8 * 16 * 1024 * 1024


# Whoever takes nothing for a minute is cut off, so that nobody else may keep the processor from those that come last.
@pytest.mark.alone
def test_one_account_cannot_have_all_places_and_who_goes_frees_his(service: MediaService) -> None:
    greedy, other = service.customer(), service.customer()
    large = service.stored(LARGE_BYTES, "video/mp4", greedy)
    small, of_other = service.stored(PNG, "image/png", greedy), service.stored(PNG, "image/png", other)
    service.get(large, Range="bytes=0-5000000")
    before = service.memory_bytes()
    with ExitStack() as readers:
        statuses = []
        while 429 not in statuses:
            statuses.append(readers.enter_context(closing(SlowReader(service, large))).status)
        assert statuses == [200] * PLACES_OF_ONE + [429]
        refused = service.get(small)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_downloads")
        assert service.get(of_other).content == PNG
        grown = service.memory_bytes() - before
        report("places_of_downloads", {"readers": len(statuses), "grown_mib": grown >> 20})
        assert grown < PLACES_OF_ONE * BYTES_OF_A_READER_MAX
    deadline = time.monotonic() + 120
    while service.get(small).status_code == 429:
        assert time.monotonic() < deadline, "no place comes free"
        time.sleep(0.1)


@pytest.mark.alone
def test_one_account_cannot_have_all_connections_to_fal(service: MediaService) -> None:
    greedy, other = service.customer(), service.customer()
    large = service.output(service.files.put("/files/endless", LARGE_BYTES), greedy)
    of_other = service.output(service.files.put("/files/small", PNG), other)
    stored = service.stored(PNG, "image/png", greedy)
    with ExitStack() as readers:
        statuses: list[int] = []
        while 429 not in statuses and len(statuses) <= PLACES_OF_ONE:
            statuses.append(readers.enter_context(closing(SlowReader(service, large))).status)
        assert statuses == [200] * PLACES_OF_ONE_AT_FAL + [429]
        assert service.get(of_other).content == PNG
        # What comes from our store needs none of them.
        assert service.get(stored).content == PNG


def test_a_link_of_one_process_is_good_at_another(service: MediaService) -> None:
    output_id = service.stored(PNG, "image/png")
    settings = dict(service.settings) | {"PORT": str(free_port())}

    with ServiceProcess(service.process.log.with_name("second.log"), settings) as second:
        second.wait_until_ready()
        answer = httpx.get(f"{second.url}{service.link(output_id)}", trust_env=False, timeout=60)

    assert (answer.status_code, answer.content) == (200, PNG)


def test_a_link_works_at_once_and_says_the_same_once_the_copy_is_there(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The store is away at first: a file stands where its folder should be."""
    directory = tmp_path_factory.mktemp("copying")
    (directory / "media").mkdir()
    in_the_way = directory / "media" / "outputs"
    in_the_way.write_text("")
    with database_copy(postgres_dsn, template_database) as database, running_simulator() as simulator:
        settings = {"DATABASE_URL": database, "DATA_DIR": str(directory), "FAL_KEY": "test:key", **WITHOUT_LIMITS}
        with ServiceProcess(directory / "service.log", settings | {"FAL_QUEUE_URL": simulator}) as process:
            process.wait_until_ready()
            with httpx.Client(base_url=process.url, timeout=30, trust_env=False) as http:
                read = job_reader(http)
                (output,) = read("COMPLETED")["outputs"]
                first = http.get(output["url"])
                assert (first.status_code, output["is_stored"], output["sha256"]) == (200, False, None)
                in_the_way.unlink()
                (later,) = read("stored")["outputs"]
                second = http.get(later["url"])

        assert second.content == first.content
        assert later["sha256"] == hashlib.sha256(first.content).hexdigest()
        assert moment_of(later["expires_at"]) > moment_of(output["expires_at"])
        # Also the link that was given out first.
        assert output["url"].partition("?")[0] == later["url"].partition("?")[0]
        assert "media_store_away" in process.output()
        assert "signature" not in process.output()


def moment_of(moment: str) -> str:
    """Texts of this form are in the order of their moments."""
    assert moment.endswith("Z")
    return moment


def job_reader(http: httpx.Client) -> Callable[[str], dict[str, Any]]:
    user_id = "7b0d2b52-3a52-4f5a-9d52-6a0a6a6f3c11"
    paid = {"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": "payment-1"}
    http.post("/webhook/topup", json={"external_user_id": user_id, "amount": 100}, headers=paid).raise_for_status()
    key = http.post("/auth", json={"external_user_id": user_id}).raise_for_status().json()["api_key"]
    headers = {"X-API-Key": key}
    started = http.post("/generations/images/text-to-image", json={"prompt": "a fox"}, headers=headers)
    job_id = started.raise_for_status().json()["job_id"]

    def read(until: str) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while True:
            job: dict[str, Any] = http.get(f"/generations/{job_id}", headers=headers).raise_for_status().json()
            if job["status"] == until or (until == "stored" and job["outputs"][0]["is_stored"]):
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.1)

    return read
