"""Which models pause is told by the process that submits, and known to every other one."""

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.breaker import REFUSED_ACCOUNTS_MAX, UNREACHABLE_MAX, Breaker
from app.application.ports.health import EVERY_MODEL
from app.application.ports.provider import NotSubmitted
from app.infrastructure.postgres import heartbeats
from app.infrastructure.postgres.heartbeats import Heartbeats, PostgresPausedModels
from tests.builders import Connection

MODEL = "fal-ai/flux/schnell"
REFUSED = NotSubmitted("fal refuses the key", is_operators_matter=True)
AWAY = NotSubmitted("fal cannot be reached", is_unreachable=True)


async def test_a_pause_is_known_to_others_until_it_is_over(engine: AsyncEngine, sql: Connection) -> None:
    breaker = Breaker()
    working, other = Heartbeats(engine, list, lambda: breaker.paused_models), Heartbeats(engine, list)
    for _ in range(REFUSED_ACCOUNTS_MAX):
        breaker.record_failure(uuid4(), MODEL, REFUSED)

    await working.beat()
    await other.beat()
    paused = await PostgresPausedModels(engine).ids()
    breaker.record_success(uuid4(), MODEL)
    await working.beat()

    assert paused == {MODEL}
    assert await PostgresPausedModels(engine).ids() == set()
    assert {row["duty"] for row in await sql.fetch("SELECT duty FROM heartbeats")} == {heartbeats.PROCESS}


async def test_an_outage_pauses_every_model(engine: AsyncEngine) -> None:
    breaker = Breaker()
    for _ in range(UNREACHABLE_MAX):
        breaker.record_failure(uuid4(), MODEL, AWAY)

    await Heartbeats(engine, list, lambda: breaker.paused_models).beat()

    assert await PostgresPausedModels(engine).ids() == {EVERY_MODEL}


async def test_what_a_dead_process_said_is_forgotten(engine: AsyncEngine, sql: Connection) -> None:
    await Heartbeats(engine, list, lambda: [MODEL]).beat()
    await sql.execute("UPDATE heartbeats SET beaten_at = beaten_at - interval '1 minute'")

    assert await PostgresPausedModels(engine).ids() == set()


async def test_many_askers_are_one_question(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = 0

    class Counted(PostgresPausedModels):
        async def _ask(self) -> frozenset[str]:
            nonlocal questions
            questions += 1
            return await super()._ask()

    monkeypatch.setattr(heartbeats, "PAUSES_KNOWN_SECONDS", 60.0)
    known = Counted(engine)
    await Heartbeats(engine, list, lambda: [MODEL]).beat()

    # Nobody who comes while the question is under way is told that nothing is paused.
    assert await asyncio.gather(*(known.ids() for _ in range(20))) == [{MODEL}] * 20
    assert questions == 1
