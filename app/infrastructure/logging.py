"""Logs: one JSON object a line, or readable lines on a developer's terminal; never a secret."""

import asyncio
import json
import logging
import re
import sys
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, TextIO

import pydantic_core
import structlog
from structlog.typing import EventDict, WrappedLogger

EXACT_LENGTH_MIN = 8
_SECRET_FORMS = (
    r"tgk_[0-9A-Za-z]{49}",
    r"whsec_[0-9A-Za-z+/]{32,}=*",
    r"Key [!-9;-~]+:[!-~]+",
    r"(?<=://)[^\s/@:]*:[^\s@]+(?=@)",
)
# What every match of these contains.
_SECRET_SIGNS = ("tgk_", "whsec_", "Key ", "://")
_PLAIN_TYPES = frozenset({int, float, bool, type(None)})
_QUIET_LOGGERS = ("pgqueuer", "httpx", "httpcore", "alembic", "asyncio", "uvicorn")


class _Redaction:
    """Just before the line is written, and before its form escapes, wraps or cuts anything: however deep a secret
    sits in the event, it does not get out.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        # Below this length a secret would be found in innocent words.
        exact = [secret for secret in secrets if len(secret) >= EXACT_LENGTH_MIN]
        self._pattern = re.compile("|".join([*_SECRET_FORMS, *map(re.escape, exact)]), re.ASCII)
        self._signs = (*_SECRET_SIGNS, *exact)

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if self._is_innocent(event):
            return event
        return {name: self._clean(value) for name, value in event.items()}

    def _is_innocent(self, event: EventDict) -> bool:
        """Almost every event is: plain values without a sign of a secret. The search for patterns takes longer."""
        texts = []
        for value in event.values():
            if type(value) is str:
                texts.append(value)
            elif type(value) not in _PLAIN_TYPES:
                return False
        text = "\n".join(texts)
        return not any(sign in text for sign in self._signs)

    def _clean(self, value: Any) -> Any:
        match value:
            case str():
                return self._pattern.sub("[secret]", value)
            case bool() | int() | float() | None:
                return value
            case dict():
                return {self._clean(name): self._clean(item) for name, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._clean(item) for item in value]
            case _:
                return self._pattern.sub("[secret]", repr(value))


class _Lines(logging.StreamHandler[TextIO]):
    """Where every line ends, ours and those of the libraries.

    An event loop writes the lines of one turn together when the turn is over: a write for each line took a tenth of
    the time that a request takes. A process that is killed loses at most the lines of that turn.
    """

    def __init__(self) -> None:
        super().__init__()
        # Appended to and emptied without a lock: other threads than the loop's log, too.
        self._waiting: deque[str] = deque()
        self._written_by: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            # The language's own report would show the values, and secrets among them.
            self.msg(json.dumps({"event": "log_line_failed", "level": "error", "logger": record.name}))
        else:
            self.msg(line)

    def msg(self, line: str) -> None:
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if self._written_by is not loop:
            self._written_by = loop
            loop.call_soon(self.flush)

    debug = info = warning = error = critical = exception = msg

    def flush(self) -> None:
        self._written_by = None
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(f"{self._waiting.popleft()}\n")
        # A log that cannot be written must not stop what it tells of.
        with suppress(OSError, ValueError):
            self.stream.write("".join(lines))
            self.stream.flush()


def _to_json(event: EventDict, default: Callable[[Any], Any]) -> str:
    """Six times as quick as the language's own, which takes what this one refuses (half a character, say) and escapes
    what a terminal would obey.
    """
    with suppress(pydantic_core.PydanticSerializationError):
        line = pydantic_core.to_json(event, fallback=default)
        if line.isascii():
            return line.decode()
    return json.dumps(event, default=default)


def _name_the_error_only(record: logging.LogRecord) -> bool:
    """In an outage the library traces each of its tries; our own events say what that means for jobs."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and isinstance(record.args, tuple):
        record.msg, record.args = f"{record.msg}: %s: %s", (*record.args, type(error).__name__, error)
        record.exc_info = None
    return True


def configure_logging(level: str, *, as_json: bool, secrets: Collection[str] = ()) -> None:
    """For this process: our own events and those of every library, in the same form, on standard error.

    Readable lines are for a terminal: they take four times as long to make.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain traces: rich ones show local variables, and secrets among them in pieces.
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(_to_json)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    ending: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, _Redaction(secrets), renderer]
    lines = _Lines()
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    structlog.configure(
        processors=[*shared, *ending],
        # Not through the library of the language: a record for each line took more than twice as long.
        logger_factory=lambda *_: lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [lines]
    root.setLevel(level)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("pgqueuer").addFilter(_name_the_error_only)
    # In an outage it prints a dozen traces, which bury our own one line.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
