"""Shows events as they come, and hands them on to a program on the developer's own machine."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import aiohttp
import typer

from app.cli.running import fail, printable, run
from app.domain.events import SEQ_MAX
from app.domain.webhook_signatures import new_secret, sign
from app.infrastructure.egress import Egress, is_this_machine
from app.infrastructure.settings import Settings
from app.infrastructure.webhooks.event_source import EventSource, StreamLost, StreamRefused
from app.infrastructure.webhooks.local_program import LocalProgram, Unanswered
from app.presentation.schemas.events import MESSAGE_BYTES_MAX

PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.5, 5.0
# Between the tries of one event.
TRY_AGAIN_SECONDS = (0.5, 2.0)
# What helps, beside the API's own words.
_MENDS: Mapping[int, str] = {
    401: "Give a live key with --key or in TOLLGATE_KEY.",
    403: "Give a key that has the scope `read`.",
    404: "Look at --server: below it is no such API.",
    410: "--after 0 begins with the oldest event that is still kept.",
}
# Of what an event says, by which it is known; the first that it has.
_ABOUT: Mapping[str, str] = {"job_id": "job", "key_id": "key", "balance_tokens": "balance"}


def listen(
    target: Annotated[str, typer.Argument(help="Where your program takes events, on this machine.")],
    *,
    key: Annotated[str, typer.Option(envvar="TOLLGATE_KEY", help="An API key with the scope `read`.")],
    server: Annotated[str | None, typer.Option(help="Whose events. Left out: the service on this machine.")] = None,
    types: Annotated[str | None, typer.Option(help="Only these, with commas between them.")] = None,
    after: Annotated[
        int | None,
        typer.Option(min=0, max=SEQ_MAX, help="Begin after this `seq`, 0 for the oldest. Left out: from now on."),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="What signs the events, whsec_... Left out: a new one, which is printed.")
    ] = None,
) -> None:
    """Show events as they come, and hand each on, signed, by POST to a program on this machine."""
    _check_target(target)
    if server is not None:
        _check_url("--server", server, ("http", "https"))
    signing_secret = new_secret() if secret is None else _checked_secret(secret)
    names = [name.strip() for name in (types or "").split(",") if name.strip()]

    async def work(settings: Settings) -> None:
        url = server or settings.base_url
        async with _session(settings.egress) as session:
            source = EventSource(session, settings.egress, url, _checked_key(key))
            typer.echo(f"handing the events of {url} on to {target}, signed with {signing_secret}")
            await _follow(source, LocalProgram(session, target, signing_secret), names, after)

    run(work, is_quiet=True)


def _check_target(target: str) -> None:
    _check_url("TARGET", target, ("http",))
    if not is_this_machine(urlsplit(target).hostname or ""):
        fail(
            "TARGET must be on this machine, such as http://127.0.0.1:3000/hook: events tell of your users, and this "
            "command is for a program in development"
        )


def _check_url(name: str, url: str, schemes: Sequence[str]) -> None:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right:
        fail(f"{name} must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")


def _checked_secret(secret: str) -> str:
    try:
        sign([secret], "", 0, b"")
    except ValueError as error:
        fail(error)
    return secret


def _checked_key(key: str) -> str:
    stripped = key.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable():
        fail("--key must be an API key, as `POST /auth` or `POST /keys` gave it")
    return stripped


@asynccontextmanager
async def _session(egress: Egress) -> AsyncIterator[aiohttp.ClientSession]:
    try:
        tls = egress.verifying_tls()
    except OSError as error:
        fail(f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        yield session


async def _follow(source: EventSource, program: LocalProgram, types: Sequence[str], after: int | None) -> None:
    """Until Ctrl-C, or until the server refuses."""
    place: str | None = None
    tries = 0
    while True:
        is_open = False
        try:
            async with aclosing(source.messages(place=place, after=after, types=types)) as messages:
                async for message in messages:
                    if not is_open:
                        typer.echo("listening" if place is None else f"listening again, after {place}", err=tries > 0)
                        is_open, tries = True, 0
                    if message.event is not None:
                        await _show_and_hand_on(message.event, program)
                    # Only now: what was not handed on when the connection broke is told again.
                    place = message.place
        except StreamRefused as error:
            fail(_refusal(error))
        except StreamLost as error:
            tries += 1
            pause_seconds = random.uniform(PAUSE_SECONDS_MIN, min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2**tries))
            typer.echo(f"{printable(error)}; trying again in {pause_seconds:.1f} s", err=True)
            await asyncio.sleep(pause_seconds)


def _refusal(error: StreamRefused) -> str:
    code = f" ({printable(error.code)})" if error.code else ""
    mend = _MENDS.get(error.status, "Look at --server." if not error.code else "")
    return f"{printable(error.detail).rstrip('.')}{code}. {mend}".rstrip()


async def _show_and_hand_on(event: Mapping[str, Any], program: LocalProgram) -> None:
    typer.echo(line_of(event))
    body = body_of(event)
    for number, pause_seconds in enumerate((*TRY_AGAIN_SECONDS, None), 1):
        try:
            answered = await program.hand_on(event["id"], body)
        except Unanswered as error:
            shown = printable(error)
        else:
            shown = f"{answered.status} in {answered.milliseconds:.0f} ms"
            if answered.is_receipt:
                typer.echo(f"    {shown}")
                return
        if pause_seconds is None:
            typer.echo(f"    {shown}; not handed on after {number} tries, going on")
            return
        typer.echo(f"    {shown}; trying again in {pause_seconds:g} s")
        await asyncio.sleep(pause_seconds)


def body_of(event: Mapping[str, Any]) -> bytes:
    """The message that the service itself would deliver of it."""
    message = {**event, "timestamp": event["created_at"], "is_shortened": False}
    body = _json(message)
    data = event.get("data")
    if len(body) <= MESSAGE_BYTES_MAX or not isinstance(data, dict) or "job_id" not in data:
        return body
    return _json({**message, "data": {**data, "result": None}, "is_shortened": True})


def _json(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def line_of(event: Mapping[str, Any]) -> str:
    """Its time, its type, and what it is about."""
    data = event.get("data")
    facts: Mapping[str, Any] = data if isinstance(data, dict) else {}
    about = next((f"{label} {facts[name]}" for name, label in _ABOUT.items() if name in facts), event["id"])
    return printable(f"{_moment(event['created_at'])}  {event['type']:<22} {about}")


def _moment(text: str) -> str:
    try:
        return datetime.fromisoformat(text).isoformat(timespec="seconds")
    except ValueError:
        return text
