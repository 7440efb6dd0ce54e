"""`doctor`: a line for each thing, what to do about it, and an exit code; whatever is broken, it goes on."""

import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import text as text_of
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.heartbeats import Heartbeats
from tests.builders import run_with_engine
from tests.end_to_end.test_database_faults import run_app
from tests.service_process import ServiceProcess
from tests.simulator_server import running_simulator
from tests.strict_postgres import answering
from tests.unit.settings_environment import PRODUCTION

pytestmark = pytest.mark.timeout(300)

Lines = list[tuple[str, str, str]]


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    with running_simulator() as url:
        yield url


def doctor(tmp_path: Path, url: str, **settings: str) -> tuple[int, Lines]:
    outcome = run_app(tmp_path, url, "doctor", **settings)
    assert "Traceback" not in outcome.stderr
    assert "hidden" not in outcome.stderr + outcome.stdout
    lines = [re.fullmatch(r"(ok|warning|wrong) +([a-z ]+): (.+)", line) for line in outcome.stdout.splitlines()]
    assert None not in lines, outcome.stdout
    return outcome.returncode, [(line[1], line[2], line[3]) for line in lines if line is not None]


def level(lines: Lines, subject: str) -> str:
    order = ("wrong", "warning", "ok")
    return min((one[0] for one in lines if one[1] == subject), key=order.index)


def text(lines: Lines, subject: str) -> str:
    return " ".join(one[2] for one in lines if one[1] == subject)


def test_a_running_service_is_all_right(database: str, simulator: str, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": database, "FAL_KEY": "test:key", "FAL_QUEUE_URL": simulator, "DATA_DIR": str(tmp_path)}
    with ServiceProcess(tmp_path / "service.log", settings) as service:
        service.wait_until_ready()
        time.sleep(4)
        code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=simulator, PUBLIC_URL=service.url)

    subjects = {
        "settings",
        "database",
        "connections",
        "clock",
        "rights",
        "migrations",
        "runner",
        "disk",
        "descriptors",
        "uploads",
        "media",
    }
    assert {subject for subject in subjects if level(lines, subject) != "ok"} <= {"disk", "descriptors"}
    assert level(lines, "fal") == level(lines, "clock of fal") == "ok"
    assert "this service answers, without TLS" in text(lines, "public url")
    assert "AUTH_SECRET must be set" in text(lines, "secrets")
    assert code == 0


def test_works_before_the_first_migration(empty_database: str, simulator: str, tmp_path: Path) -> None:
    code, lines = doctor(tmp_path, empty_database, FAL_QUEUE_URL=simulator)

    assert level(lines, "database") == "ok"
    assert "run python -m app migrate" in text(lines, "migrations")
    assert level(lines, "migrations") == level(lines, "runner") == "warning"
    assert code == 0


def test_goes_on_with_the_rest_while_the_database_is_down(simulator: str, tmp_path: Path) -> None:
    code, lines = doctor(tmp_path, "postgresql://u:hidden@127.0.0.1:1/none", FAL_QUEUE_URL=simulator)

    assert "nobody listens at 127.0.0.1:1" in text(lines, "database")
    assert level(lines, "fal") == "ok"
    assert level(lines, "disk")
    assert code == 1


def test_goes_on_with_the_rest_where_settings_are_wrong(simulator: str, tmp_path: Path) -> None:
    code, lines = doctor(tmp_path, "mysql://hidden", FAL_QUEUE_URL=simulator, IMAGE_TIME_LIMIT_SECONDS="never")

    assert "DATABASE_URL: must be a PostgreSQL URL" in text(lines, "settings")
    assert "IMAGE_TIME_LIMIT_SECONDS: " in text(lines, "settings")
    assert level(lines, "fal") == "ok"
    assert code == 1


def test_in_production_the_rest_is_looked_at_too(database: str, simulator: str, tmp_path: Path) -> None:
    code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=simulator, APP_ENV="production", SAFETY_CHECKER="on")

    assert "AUTH_SECRET must be set" in text(lines, "settings")
    assert "SIGNING_SECRET must be set" in text(lines, "settings")
    assert "models are sold SAFETY_CHECKER=on: " in text(lines, "catalogue")
    assert level(lines, "database") == level(lines, "migrations") == "ok"
    assert code == 1


def test_in_production_webhooks_need_a_public_url_for_their_links(tmp_path: Path) -> None:
    # Nothing of this leaves the machine.
    here = {"HOST": "0.0.0.0", "PORT": "8000", "HTTPS_PROXY": "http://127.0.0.1:1"}
    settings = PRODUCTION | here | {"DATABASE_URL": "postgresql://u:hidden-4711@127.0.0.1:1/none"}

    _, lines = doctor(tmp_path, settings.pop("DATABASE_URL"), **settings)

    assert level(lines, "settings") == "ok"
    assert level(lines, "public url") == "warning"
    assert "begin with http://127.0.0.1:8000, where no customer finds them: set it" in text(lines, "public url")


def test_the_simulators_webhooks_need_no_public_url(tmp_path: Path) -> None:
    _, lines = doctor(tmp_path, "postgresql://u:hidden@127.0.0.1:1/none", FAL_KEY="")

    assert level(lines, "public url") == "ok"
    assert "its webhooks are on" in text(lines, "public url")


def test_a_store_that_is_not_there_yet_is_not_made(database: str, simulator: str, tmp_path: Path) -> None:
    code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=simulator)

    assert (level(lines, "media"), code) == ("ok", 0)
    assert f"{tmp_path}/.data/media is not there yet" in text(lines, "media")
    assert not (tmp_path / ".data").exists()


def test_a_store_is_tried_out(database: str, simulator: str, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=simulator, MEDIA_URL=folder.as_uri())

    assert (level(lines, "media"), code) == ("ok", 0)
    assert "can be written to, read and deleted from" in text(lines, "media")
    assert [path for path in folder.rglob("*") if path.is_file()] == []

    (_, lines) = doctor(tmp_path, database, FAL_QUEUE_URL=simulator, MEDIA_URL="none")
    assert "fal keeps files for 30 days" in text(lines, "media")


def test_says_what_is_wrong_with_the_store_and_what_to_do(database: str, simulator: str, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    # Where the object of the try should go.
    (folder / "probe").write_text("")
    code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=simulator, MEDIA_URL=folder.as_uri())

    assert (level(lines, "media"), code) == ("wrong", 1)
    assert f"The folder {folder} cannot be used: " in text(lines, "media")
    assert "or name another folder or bucket in MEDIA_URL" in text(lines, "media")


def test_a_bucket_that_does_not_answer_is_told_of(database: str, simulator: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bucket = {
            "MEDIA_URL": "s3://bucket/media",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "hidden",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=simulator, **bucket)

    assert (level(lines, "media"), code) == ("wrong", 1)
    assert "The store does not answer in time. " in text(lines, "media")


def http(status: str, headers: Mapping[str, str] | None = None, body: str = "{}") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@pytest.mark.parametrize(
    ("status", "expected", "part"),
    [
        ("401 Unauthorized", "wrong", "fal refuses the key (401)"),
        ("403 Forbidden", "wrong", "fal refuses the key (403)"),
        ("404 Not Found", "ok", "takes the key"),
        ("503 Unavailable", "warning", "it has trouble"),
        ("200 OK", "warning", "is it fal's?"),
    ],
)
def test_what_fal_says_of_the_key(database: str, tmp_path: Path, status: str, expected: str, part: str) -> None:
    with answering(http(status)) as port:
        code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=f"http://127.0.0.1:{port}")

    assert level(lines, "fal") == expected
    assert part in text(lines, "fal")
    assert code == (1 if expected == "wrong" else 0)


def test_a_clock_that_is_not_fals_is_told_with_its_seconds(database: str, tmp_path: Path) -> None:
    with answering(http("404 Not Found", {"Date": "Sun, 01 Jan 2023 00:00:00 GMT"})) as port:
        _, lines = doctor(tmp_path, database, FAL_QUEUE_URL=f"http://127.0.0.1:{port}")

    assert level(lines, "clock of fal") == "warning"
    assert re.search(r"\d{6,} s ahead of fal's", text(lines, "clock of fal"))


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (http("200 OK", body='{"status":"ok"}'), "is not this service"),
        (http("404 Not Found"), "is not this service"),
        (http("301 Moved", {"Location": "https://else.where/"}), "redirect"),
        (b"", "nobody answers"),
    ],
)
def test_what_answers_at_the_public_url_and_is_not_the_service(
    database: str, simulator: str, tmp_path: Path, reply: bytes, part: str
) -> None:
    with answering(reply) as port:
        code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=simulator, PUBLIC_URL=f"http://127.0.0.1:{port}")

    assert level(lines, "public url") == "wrong"
    assert part in text(lines, "public url")
    assert code == 1


@pytest.mark.alone
def test_what_is_silent_holds_nobody_up(database: str, simulator: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        dsn = f"postgresql://u:hidden@{url.removeprefix('http://')}/none"
        began = time.monotonic()
        doctor(tmp_path, database, FAL_QUEUE_URL=simulator)
        usual_seconds = time.monotonic() - began
        code, lines = doctor(tmp_path, dsn, FAL_QUEUE_URL=url, PUBLIC_URL=url)
        took_seconds = time.monotonic() - began - usual_seconds

    assert "does not answer in time" in text(lines, "database")
    assert level(lines, "fal") == level(lines, "public url") == "wrong"
    assert code == 1
    # Its own limits, without what this machine needs to start it.
    assert took_seconds - usual_seconds < 25


def test_says_what_is_wrong_and_what_is_ignored(database: str, simulator: str, tmp_path: Path) -> None:
    url = f"{database}&channel_binding=prefer&connection_limit=5"

    code, lines = doctor(tmp_path, url, FAL_QUEUE_URL=simulator)

    assert "channel_binding, connection_limit; DATABASE_CONNECTIONS_MAX" in text(lines, "database url")
    assert code == 0


def test_is_listed_among_the_commands(tmp_path: Path) -> None:
    outcome: subprocess.CompletedProcess[str] = run_app(tmp_path, "", "--help")

    assert "doctor" in outcome.stdout


def test_says_that_fal_refuses_the_account_and_what_to_do(database: str, simulator: str, tmp_path: Path) -> None:
    async def beat(engine: AsyncEngine) -> None:
        await Heartbeats(engine, list, lambda: ["*"], lambda: ["*"]).beat()
        async with engine.begin() as connection:
            # It is still alive when doctor has started, however long that takes.
            await connection.execute(text_of("UPDATE heartbeats SET beaten_at = beaten_at + interval '5 minutes'"))

    run_with_engine(database, beat)

    code, lines = doctor(tmp_path, database, FAL_QUEUE_URL=simulator)

    assert level(lines, "submissions") == "wrong"
    assert "for all models: top up or unlock it" in text(lines, "submissions")
    assert code == 1
