"""The heartbeats of all processes: a row for each duty, and with it the proof that the database can be written."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Double, Interval, Text, Uuid, bindparam, cast, delete, exists, extract, func, literal, select
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.errors import DatabaseUnavailable
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.faults import anew
from app.infrastructure.postgres.lifelong import going_on
from app.infrastructure.postgres.snapshots import Snapshot
from app.infrastructure.postgres.tables import heartbeats

log = structlog.get_logger(__name__)

BEAT_SECONDS = 3.0
# Six beats, so that one that waits for a busy database is none that died.
DEAD_SECONDS = 20.0
# Rows of processes that ended without a word.
KEPT = literal("1 day", Text).cast(Interval)
FORGET_SECONDS = 3600.0
LAST_WORD_SECONDS_MAX = 1.0
# Every process has this duty: its row is written while there is nothing else to tell.
PROCESS = "process"
# Before the id of a model: told like a duty, for as long as it is so.
PAUSED = "paused "
# Told beside it, where the pause is the operator's matter. The release before knows no such rows.
LOCKED = "locked "
PAUSES_KNOWN_SECONDS = 2.0

_duty = func.unnest(bindparam("duties", type_=ARRAY(Text))).column_valued("duty")
_rows = select(
    bindparam("process_id", type_=Uuid),
    _duty,
    bindparam("command", type_=Text),
    bindparam("host", type_=Text),
    func.clock_timestamp(),
)
_insert = insert(heartbeats).from_select([column.name for column in heartbeats.c], _rows)
_BEAT = _insert.on_conflict_do_update(
    index_elements=[heartbeats.c.process_id, heartbeats.c.duty],
    set_={"beaten_at": _insert.excluded.beaten_at},
)
_AGE_SECONDS = cast(extract("epoch", func.clock_timestamp() - heartbeats.c.beaten_at), Double)
IS_ALIVE = _AGE_SECONDS < DEAD_SECONDS
_sessions = sql_table("pg_stat_activity", sql_column("application_name"), sql_column("datname"))


class Heartbeats:
    def __init__(
        self,
        engine: AsyncEngine,
        duties: Callable[[], Sequence[str]],
        paused_models: Callable[[], Sequence[str]] = list,
        locked_models: Callable[[], Sequence[str]] = list,
    ) -> None:
        """They say at each beat which of this process's duties live, and of which models its submissions pause.

        `locked_models`: of those, the ones that only the operator can let go on.
        """
        self._engine = engine
        self._duties = duties
        self._paused_models = paused_models
        self._locked_models = locked_models
        self._has_told_pauses = False
        self._process_id: UUID = uuid4()
        self._command = "other"
        self._one_at_a_time = asyncio.Lock()
        self._tried_at_seconds = self._forgot_at_seconds = float("-inf")
        self._failure: DatabaseUnavailable | None = None

    @asynccontextmanager
    async def beating(self, command: str) -> AsyncIterator[None]:
        """Beat until left. `command` tells workers from API processes."""
        self._command = command
        async with going_on(self._beat_on(), "heart", last=self._forget_own, last_seconds_max=LAST_WORD_SECONDS_MAX):
            yield

    async def _beat_on(self) -> None:
        while True:
            try:
                await self.beat()
            except DatabaseUnavailable:
                # The event database_failed says why.
                pass
            except Exception:
                log.exception("heartbeat_failed")
            await asyncio.sleep(BEAT_SECONDS)

    async def beat(self, *, unless_within_seconds: float = 0) -> None:
        """Write the rows; what was tried so lately counts, with its outcome. Raises DatabaseUnavailable."""
        async with self._one_at_a_time:
            if time.monotonic() >= self._tried_at_seconds + unless_within_seconds:
                await self._try()
            if self._failure is not None:
                raise anew(self._failure)

    async def _try(self) -> None:
        pauses = [f"{PAUSED}{model_id}" for model_id in self._paused_models()]
        pauses += [f"{LOCKED}{model_id}" for model_id in self._locked_models()]
        values = {
            "process_id": self._process_id,
            "command": self._command,
            "host": socket.gethostname(),
            "duties": [PROCESS, *self._duties(), *pauses],
        }
        try:
            # Single statements: nothing depends on them together.
            async with reading(self._engine) as connection:
                await connection.execute(_BEAT, values)
                if pauses or self._has_told_pauses:
                    await connection.execute(
                        delete(heartbeats).where(
                            heartbeats.c.process_id == self._process_id,
                            heartbeats.c.duty.startswith(PAUSED) | heartbeats.c.duty.startswith(LOCKED),
                            heartbeats.c.duty.not_in(pauses),
                        )
                    )
                    self._has_told_pauses = bool(pauses)
                if time.monotonic() > self._forgot_at_seconds + FORGET_SECONDS:
                    await connection.execute(delete(heartbeats).where(heartbeats.c.beaten_at < func.now() - KEPT))
                    self._forgot_at_seconds = time.monotonic()
            self._failure = None
        except DatabaseUnavailable as error:
            self._failure = error
        finally:
            self._tried_at_seconds = time.monotonic()

    async def _forget_own(self) -> None:
        async with reading(self._engine) as connection:
            await connection.execute(delete(heartbeats).where(heartbeats.c.process_id == self._process_id))


async def ages_seconds(engine: AsyncEngine, duties: Collection[str]) -> Mapping[str, float]:
    """For how long each of the duties has not beaten in any process, of those that ever did."""
    query = (
        select(heartbeats.c.duty, func.min(_AGE_SECONDS).label("age_seconds"))
        .where(heartbeats.c.duty.in_(duties))
        .group_by(heartbeats.c.duty)
    )
    async with reading(engine) as connection:
        return {row.duty: row.age_seconds for row in await connection.execute(query)}


class PostgresPausedModels:
    """As they were some moments ago. Without an answer the last one holds."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: Snapshot[frozenset[str]] = Snapshot(self._ask, seconds_max=PAUSES_KNOWN_SECONDS)

    async def ids(self) -> Collection[str]:
        await self._known.fresh()
        return self._known.last or frozenset()

    async def _ask(self) -> frozenset[str]:
        async with reading(self._engine) as connection:
            return await told_models(connection, PAUSED)


async def told_models(connection: AsyncConnection, prefix: str) -> frozenset[str]:
    """Of which models a process that lives tells this: PAUSED or LOCKED."""
    query = select(heartbeats.c.duty).where(heartbeats.c.duty.startswith(prefix), IS_ALIVE)
    return frozenset(duty.removeprefix(prefix) for duty in await connection.scalars(query))


async def own_workers(engine: AsyncEngine) -> Mapping[UUID, Mapping[str, float]]:
    """The workers of this host or container: for how long each of their duties has not beaten."""
    query = select(heartbeats.c.process_id, heartbeats.c.duty, _AGE_SECONDS).where(
        heartbeats.c.command == "worker", heartbeats.c.host == socket.gethostname()
    )
    workers: dict[UUID, dict[str, float]] = {}
    async with reading(engine) as connection:
        for process_id, duty, age_seconds in (await connection.execute(query)).all():
            workers.setdefault(process_id, {})[duty] = age_seconds
    return workers


async def has_silent_runner(engine: AsyncEngine) -> bool:
    """Whether a runner is connected. One of a release before the heartbeats works and does not beat."""
    query = select(
        exists().where(
            _sessions.c.application_name == "tollgate-runner", _sessions.c.datname == func.current_database()
        )
    )
    async with reading(engine) as connection:
        return bool(await connection.scalar(query))


def silence(ages_seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{duty} has been silent for {age:.0f} s" for duty, age in sorted(ages_seconds.items()))
