"""Uploads of those who mean harm, at a running service: each gets its answer, and nothing is left."""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import httpx
import pytest

from app.domain.files import FILE_BYTES_MAX
from app.presentation.http.uploads import FORM_BYTES_MAX, UPLOADS_MAX
from tests.contract.upload_service import UploadService, User, picture, running_upload_service
from tests.hostile_media import FAMILIES, hostile_files

pytestmark = pytest.mark.timeout(300)

FORM = {"Content_Type": "multipart/form-data; boundary=b"}
SHARE_OF_ONE = -(-UPLOADS_MAX * 2 // 3)
PIECE = bytes(1024 * 1024)
ANSWER_SECONDS_MAX = 3.0


@pytest.fixture(scope="module")
def service(
    postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UploadService]:
    directory = tmp_path_factory.mktemp("hostile")
    with running_upload_service(postgres_dsn, template_database, directory, RUNNER="external") as running:
        yield running


def part(content: bytes, name: str = "file", more: bytes = b"") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n'.encode()
    return head + more + b"\r\n" + content + b"\r\n"


END = b"--b--\r\n"


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (b"", "ends before its last boundary"),
        (part(picture()), "ends before its last boundary"),
        (part(picture()) + b"--b", "ends before its last boundary"),
        (part(picture())[:-500], "ends before its last boundary"),
        (part(picture(), "picture") + END, "has no file"),
        (part(picture()) * 2 + END, "more than one file"),
        (part(b"", "x") * 1000 + part(picture()) + END, "more than 16 parts"),
        (part(picture(), more=b"X: " + b"x" * 5000 + b"\r\n") + END, "cannot be told apart"),
        (part(picture(), more=b"X: x\r\n" * 100) + END, "cannot be told apart"),
        (part(picture(), more=b"no colon\r\n") + END, "cannot be told apart"),
        (part(picture()).replace(b"--b", b"--c") + END, "cannot be told apart"),
        (b"--b\r\n\r\n" + picture() + b"\r\n" + END, "has no file"),
    ],
    ids=[
        "nothing",
        "no end",
        "half an end",
        "cut",
        "no file",
        "two files",
        "1,000 parts",
        "a huge header",
        "100 headers",
        "a header that is none",
        "another boundary",
        "a part without headers",
    ],
)
def test_a_form_that_is_none_is_refused_with_a_reason(service: UploadService, form: bytes, told: str) -> None:
    user = service.user()

    answer = user.send(form, **FORM)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_multipart"), answer.text
    assert told in answer.json()["detail"]
    assert user.used_bytes() == 0
    assert service.left() == []


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "b" * 300,
        "MULTIPART/FORM-DATA",
        "multipart/form-data; boundary*=b",
    ],
    ids=["none", "empty", "empty in quotes", "300 characters", "capitals", "extended"],
)
def test_a_form_whose_boundary_is_none_is_refused(service: UploadService, content_type: str) -> None:
    answer = service.user().send(part(picture()) + END, Content_Type=content_type)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_multipart")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "nonsense"])
def test_a_compressed_file_is_refused(service: UploadService, encoding: str) -> None:
    answer = service.user().send(picture(), Content_Encoding=encoding)

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content_encoding")


class Connection:
    """One request, whose body comes as the test wants."""

    def __init__(self, service: UploadService, user: User, *headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.process.port), timeout=30)
        head = ("POST /files HTTP/1.1", "Host: tollgate", f"X-API-Key: {user.key}", "Connection: close", *headers)
        self.socket.sendall("".join(f"{line}\r\n" for line in head).encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, object]]:
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := self.socket.recv(65536):
                received += piece
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), json.loads(body)

    def close(self) -> None:
        self.socket.close()

    def break_off(self) -> None:
        """With a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@pytest.mark.parametrize("headers", [(), ("Content-Type: multipart/form-data; boundary=b",)], ids=["body", "form"])
def test_what_is_declared_too_large_is_refused_before_it_is_sent(
    service: UploadService, headers: tuple[str, ...]
) -> None:
    user = service.user()
    size_bytes = FILE_BYTES_MAX + (FORM_BYTES_MAX if headers else 0) + 1
    with closing(Connection(service, user, f"Content-Length: {size_bytes}", *headers)) as connection:
        status, problem = connection.answer()

    assert (status, problem["code"]) == (413, "request_body_too_large")
    assert problem["detail"] == f"A file may have at most {FILE_BYTES_MAX} bytes."
    assert service.left() == []


@pytest.mark.parametrize("is_form", [False, True], ids=["body", "form"])
def test_what_becomes_too_large_is_refused_and_nothing_is_left(service: UploadService, is_form: bool) -> None:
    user = service.user()
    head = part(b"")[:-2] if is_form else b""

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(FILE_BYTES_MAX // len(PIECE) + 2):
            yield PIECE

    headers = {"Transfer-Encoding": "chunked"} | ({"Content-Type": FORM["Content_Type"]} if is_form else {})
    with closing(Connection(service, user, *(f"{name}: {value}" for name, value in headers.items()))) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces():
                if piece:
                    connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        status, problem = connection.answer()

    assert (status, problem["code"]) == (413, "request_body_too_large")
    service.until_nothing_is_left()
    assert user.used_bytes() == 0


@pytest.mark.parametrize("leave", [Connection.close, Connection.break_off], ids=["closes", "resets"])
def test_who_goes_in_the_middle_leaves_nothing(service: UploadService, leave: Callable[[Connection], None]) -> None:
    user = service.user()
    for headers in ((), (f"Content-Type: {FORM['Content_Type']}",)):
        connection = Connection(service, user, f"Content-Length: {FILE_BYTES_MAX}", *headers)
        connection.send(part(PIECE)[:-10] + PIECE * 3)
        deadline = time.monotonic() + 30
        while not service.left():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        leave(connection)
        service.until_nothing_is_left()
    assert user.used_bytes() == 0
    user.keep(picture())


def test_one_account_cannot_have_all_places_and_who_goes_frees_his(service: UploadService) -> None:
    greedy, other = service.user(), service.user()
    with ExitStack() as stack:
        held = [
            stack.enter_context(closing(Connection(service, greedy, "Content-Length: 1000000")))
            for _ in range(SHARE_OF_ONE + 8)
        ]
        for connection in held:
            with contextlib.suppress(ConnectionError):
                connection.send(b"\x89PNG")
        deadline = time.monotonic() + 30
        while len(service.left()) < SHARE_OF_ONE:
            assert time.monotonic() < deadline, len(service.left())
            time.sleep(0.05)
        refused = greedy.send(picture())
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_uploads")
        assert int(refused.headers["Retry-After"]) > 0
        assert other.send(picture()).status_code == 201
        assert len(service.left()) == SHARE_OF_ONE
    service.until_nothing_is_left()
    greedy.keep(picture())


@pytest.mark.alone
def test_hostile_files_are_refused_or_cleaned_while_others_are_served(service: UploadService) -> None:
    files = [each for family in FAMILIES for each in list(hostile_files(family))[::4]]
    user, other = service.user(), service.user()
    slowest = 0.0

    def sent(data: bytes) -> httpx.Response:
        deadline = time.monotonic() + 60
        while (answer := user.send(data)).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return answer

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(sent, each.data) for each in files]
        while not all(answer.done() for answer in answers):
            began_at = time.monotonic()
            assert other.balance() == 1000
            slowest = max(slowest, time.monotonic() - began_at)
            time.sleep(0.05)

    complaints = []
    for hostile, future in zip(files, answers, strict=True):
        answer = future.result()
        if answer.status_code == 201 and not hostile.must_be_refused:
            continue
        if (answer.status_code, answer.json()["code"]) != (422, "file_not_taken"):
            complaints.append(f"{hostile}: {answer.status_code} {answer.text}")
    assert complaints == []
    assert slowest < ANSWER_SECONDS_MAX
    assert service.left() == []
    assert user.used_bytes() == sum(file["size_bytes"] for file in user.ask("GET", "/files?limit=100").json()["items"])
    user.keep(picture())
    assert "request_failed" not in service.process.output()
    assert "multipart" not in service.process.output()
