"""No secret leaves in a log line, however deep it hides, and a line stays what its reader expects."""

import asyncio
import json
import logging
from collections.abc import Callable
from io import StringIO
from threading import Thread
from typing import Any

import pytest
import structlog

from app.application.keys import new_key
from app.infrastructure.logging import configure_logging

PASSWORD = "pa55word-of-the-database"
DSN = f"postgresql://tollgate:{PASSWORD}@db.example:5432/tollgate"
FAL_ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
FAL_SECRET = "0123456789abcdef0123456789abcdef"
FAL_KEY = f"{FAL_ID}:{FAL_SECRET}"
WEBHOOK_SECRET = "the-webhook-secret-of-the-operator"
API_KEY = new_key()
# What hides in a line, and the part of it that must not be seen.
SECRETS = {
    "dsn": (f"cannot connect to {DSN}", PASSWORD),
    "dsn-of-the-driver": (f"postgresql+asyncpg://tollgate:{PASSWORD}@/tollgate?host=/socket", PASSWORD),
    "dsn-without-a-user": (f"redis://:{PASSWORD}@cache", PASSWORD),
    "fal-key-in-a-header": (f"Key {FAL_KEY}", FAL_SECRET),
    "foreign-fal-key": ("Key another:fedcba9876543210", "fedcba9876543210"),
    "configured-fal-key": (FAL_KEY, FAL_SECRET),
    "configured-secret": (f"secret={WEBHOOK_SECRET};", WEBHOOK_SECRET),
    "api-key": (f"key {API_KEY}.", API_KEY),
}
NESTINGS: dict[str, Callable[[str], Any]] = {
    "text": lambda secret: secret,
    "dict": lambda secret: {"headers": {"authorization": secret}},
    "name-in-a-dict": lambda secret: {secret: 1},
    "list": lambda secret: [[secret], (secret,), {secret}],
    "bytes": lambda secret: secret.encode(),
    "object": ValueError,
    "objects": lambda secret: {"errors": [OSError(5, secret)]},
}
every_secret = pytest.mark.parametrize(("text", "hidden"), SECRETS.values(), ids=SECRETS.keys())
both_forms = pytest.mark.parametrize("as_json", [True, False], ids=["json", "console"])


def lines(*, as_json: bool, secrets: list[str] | None = None) -> StringIO:
    """Where the lines go from now on."""
    configure_logging("INFO", as_json=as_json, secrets=[DSN, WEBHOOK_SECRET, FAL_KEY] if secrets is None else secrets)
    written = StringIO()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    return written


@both_forms
@every_secret
@pytest.mark.parametrize("nest", NESTINGS.values(), ids=NESTINGS.keys())
def test_a_secret_is_not_seen_in_a_field(text: str, hidden: str, nest: Callable[[str], Any], *, as_json: bool) -> None:
    written = lines(as_json=as_json)

    structlog.get_logger("test").info("something_happened", field=nest(text), other=1)

    assert hidden not in written.getvalue()
    assert "something_happened" in written.getvalue()
    assert "[secret]" in written.getvalue()


@both_forms
@every_secret
def test_a_secret_is_not_seen_in_an_event(text: str, hidden: str, *, as_json: bool) -> None:
    written = lines(as_json=as_json)

    structlog.get_logger("test").warning(f"something happened: {text}")

    assert hidden not in written.getvalue()
    assert "[secret]" in written.getvalue()


def fail_and_log(text: str) -> None:
    """In a frame of its own, whose variables a trace may show."""
    try:
        try:
            raise ConnectionRefusedError(5, text)
        except OSError as error:
            raise RuntimeError(text) from error
    except RuntimeError:
        structlog.get_logger("test").exception("something_failed")


@both_forms
@every_secret
def test_a_secret_is_not_seen_in_the_words_of_an_exception(text: str, hidden: str, *, as_json: bool) -> None:
    written = lines(as_json=as_json)

    fail_and_log(text)

    # A form for people may break a long text over several lines.
    assert hidden not in "".join(written.getvalue().split())
    assert "RuntimeError" in written.getvalue()


@both_forms
@pytest.mark.parametrize("filling", [0, 60])
@pytest.mark.parametrize(
    ("text", "piece"),
    [
        (f"postgresql://tollgate:{PASSWORD}{'-and-on' * 12}@db.example/tollgate", PASSWORD),
        (f"Key {FAL_KEY}", FAL_SECRET[:16]),
        ("a-very-long-operators-secret" * 4, "operators-secret"),
    ],
    ids=["dsn", "fal-key", "configured-secret"],
)
def test_no_piece_of_a_long_secret_is_seen_in_an_exception(
    text: str, piece: str, *, filling: int, as_json: bool
) -> None:
    written = lines(as_json=as_json, secrets=[text.removeprefix("Key ")])

    fail_and_log("x" * filling + " " + text)

    assert piece not in written.getvalue()


@both_forms
@every_secret
def test_a_secret_is_not_seen_in_the_words_of_a_library(text: str, hidden: str, *, as_json: bool) -> None:
    written = lines(as_json=as_json)

    logging.getLogger("some.library").error("failed with %s", {"reason": text})

    assert hidden not in written.getvalue()
    assert "[secret]" in written.getvalue()


@every_secret
def test_a_line_is_json_also_where_a_secret_was_taken_out(text: str, hidden: str) -> None:
    written = lines(as_json=True)

    structlog.get_logger("test").info("something_happened", authorization=text, items=[text], other=1)

    line = json.loads(written.getvalue())
    assert (line["event"], line["level"], line["other"]) == ("something_happened", "info", 1)
    assert hidden not in str(line)


@both_forms
@pytest.mark.parametrize("secret", ['quo"ted-secret-0123', "back\\slash-secret-0123", "geheimnis-ähnlich-0123"])
@pytest.mark.parametrize("nest", [str, lambda secret: [secret]], ids=["text", "list"])
def test_a_configured_secret_is_not_seen_where_the_form_of_the_line_spells_it_otherwise(
    secret: str, nest: Callable[[str], Any], *, as_json: bool
) -> None:
    written = lines(as_json=as_json, secrets=[secret])

    structlog.get_logger("test").info("something_happened", field=nest(secret))

    assert "secret-0123" not in written.getvalue()
    assert "hnlich-0123" not in written.getvalue()


@both_forms
def test_innocent_words_stay(*, as_json: bool) -> None:
    written = lines(as_json=as_json, secrets=["short", ""])

    structlog.get_logger("test").info("short_story", url="http://127.0.0.1:8000/docs", key="tgk_abc", at="a@b.example")

    for word in ("short_story", "http://127.0.0.1:8000/docs", "tgk_abc", "a@b.example"):
        assert word in written.getvalue()


def test_a_line_in_production_is_one_json_object() -> None:
    written = lines(as_json=True)

    structlog.get_logger("test").info("something_happened", text="two\nlines", number=5)
    logging.getLogger("some.library").warning("and %s", "this")

    first, second = [json.loads(line) for line in written.getvalue().splitlines()]
    assert (first["event"], first["text"], first["number"], first["level"]) == (
        "something_happened",
        "two\nlines",
        5,
        "info",
    )
    assert (second["event"], second["level"]) == ("and this", "warning")
    assert first.keys() >= {"timestamp"}


def test_the_queue_names_its_errors_without_their_traces() -> None:
    written = lines(as_json=True)

    try:
        raise ConnectionResetError("5432")
    except ConnectionResetError:
        logging.getLogger("pgqueuer").exception("Flush of %d items failed", 3)

    line = json.loads(written.getvalue())
    assert (line["event"], line["level"]) == ("Flush of 3 items failed: ConnectionResetError: 5432", "error")
    assert "exception" not in line


@both_forms
@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("I/O operation on closed file")])
def test_a_log_that_cannot_be_written_stops_nothing(error: Exception, *, as_json: bool) -> None:
    class Broken(StringIO):
        def write(self, _: str) -> int:
            raise error

    lines(as_json=as_json)
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(Broken())

    structlog.get_logger("test").info("something_happened")


class Writes(StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        self.texts.append(text)
        return len(text)

    def events(self) -> list[list[str]]:
        """Of each write."""
        return [[json.loads(line)["event"] for line in text.splitlines()] for text in self.texts if text]


def writes() -> Writes:
    written = Writes()
    lines(as_json=True)
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    return written


def test_the_lines_of_one_turn_of_a_loop_are_written_together_and_in_order() -> None:
    written = writes()
    log = structlog.get_logger("test")

    async def take_turns() -> None:
        before = written.events()
        log.info("first")
        logging.getLogger("some.library").error("second")
        log.info("third")
        assert written.events() == before
        await asyncio.sleep(0)
        log.info("fourth")

    log.info("before")
    for _ in range(2):
        asyncio.run(take_turns())

    assert written.events() == [["before"], *[["first", "second", "third"], ["fourth"]] * 2]


def test_a_thread_writes_at_once_also_what_a_loop_that_hangs_has_left() -> None:
    written = writes()
    log = structlog.get_logger("test")

    async def hang() -> None:
        log.info("last_words")
        thread = Thread(target=lambda: log.error("stop_overdue"))
        thread.start()
        thread.join()
        assert written.events() == [["last_words", "stop_overdue"]]

    asyncio.run(hang())

    assert written.events() == [["last_words", "stop_overdue"]]


@pytest.mark.parametrize("text", ["\x9b31m", "\x85", "\u2028", "\ud800", "\x1b[31m", 'quo"ted', "ä"])
def test_a_line_in_production_is_ascii_and_one_line_whatever_the_text(text: str) -> None:
    written = lines(as_json=True)

    structlog.get_logger("test").info("something_happened", text=text)

    (line,) = written.getvalue().splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["text"] == text


def test_a_line_that_cannot_be_made_shows_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    """The language's own report would show what the library wanted to say, with the secret in it."""
    written = lines(as_json=True)

    logging.getLogger("a.library").error("%d connections", DSN)

    assert json.loads(written.getvalue()) == {"event": "log_line_failed", "level": "error", "logger": "a.library"}
    assert capsys.readouterr().err == ""
