"""What the start sees of a database before it works on it: limits, versions, certificates, rights."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from app.application.ports.health import Level
from app.infrastructure.postgres import inspection as inspection_module
from app.infrastructure.postgres.dsn import Dsn
from app.infrastructure.postgres.faults import DatabaseRefused
from app.infrastructure.postgres.inspection import check_before_start, inspect_database
from tests.builders import connect
from tests.certificates import self_signed, serving_tls


@asynccontextmanager
async def limited_role(dsn: str, limit: int) -> AsyncIterator[str]:
    role = f"limited_{uuid4().hex}"
    async with connect(dsn) as admin:
        await admin.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT {limit}")
        await admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        await admin.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        try:
            yield dsn.replace("postgres@", f"{role}@", 1)
        finally:
            await admin.execute(f"DROP OWNED BY {role}")
            await admin.execute(f"DROP ROLE {role}")


async def warned(url: str, connections_max: int) -> list[str]:
    with capture_logs() as logs:
        await check_before_start(url, connections_max=connections_max)
    return [log["advice"] for log in logs if log["event"] == "database_doubtful" and log["subject"] == "connections"]


async def test_a_plan_with_20_connections_is_compared_with_the_22_of_a_process(database: str) -> None:
    async with limited_role(database, 20) as url:
        (advice,) = await warned(url, 22)
        assert await warned(url, 6) == []

    assert "the role has 20 connections, 0 of them in use; this process opens up to 22" in advice
    assert "set DATABASE_CONNECTIONS_MAX to 6" in advice


async def test_the_limit_of_the_database_counts_too(database: str) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    async with connect(database) as admin, limited_role(database, -1) as url:
        await admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 10")

        (advice,) = await warned(url, 22)

    assert "the database has 10 connections, " in advice


async def test_fewer_connections_than_a_process_can_live_with_stop_the_start(database: str) -> None:
    async with limited_role(database, 2) as url:
        with pytest.raises(DatabaseRefused, match="the role has 2 connections, 0 of them in use"):
            await check_before_start(url, connections_max=22)


async def test_an_old_release_of_postgresql_is_named(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection_module, "_SERVER", "SELECT 'PostgreSQL 12.9' AS product, 12 AS version")
    with pytest.raises(DatabaseRefused, match="PostgreSQL 12 is too old: this service needs 14 or newer"):
        await check_before_start(database, connections_max=22)


@pytest.mark.parametrize(
    ("product", "name"),
    [("CockroachDB CCL v23.1", "CockroachDB"), ("PostgreSQL 8.0.2 on i686, Redshift 1.0", "PostgreSQL")],
)
async def test_what_only_speaks_its_protocol_is_named(
    database: str, monkeypatch: pytest.MonkeyPatch, product: str, name: str
) -> None:
    monkeypatch.setattr(inspection_module, "_SERVER", f"SELECT '{product}' AS product, 13 AS version")
    with pytest.raises(DatabaseRefused, match=f"is {name} and not PostgreSQL 14 or newer"):
        await check_before_start(database, connections_max=22)


class Session:
    """One behind a pooler: each statement is answered by what is next in the list."""

    def __init__(self, *answers: object) -> None:
        self._answers = [*answers]

    async def fetchval(self, _: str) -> object:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def execute(self, _: str) -> None:
        await self.fetchval("")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (TimeoutError(), None),
        (asyncpg.TooManyConnectionsError("no more connections allowed (max_client_conn)"), None),
        (asyncpg.ProtocolViolationError("query_wait_timeout"), None),
        (Session(asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")), True),
        (Session(None, 7), True),
        (Session(None, 8), False),
    ],
)
async def test_tells_from_a_second_session_whether_a_pooler_changes_sessions(
    monkeypatch: pytest.MonkeyPatch, other: object, expected: bool | None
) -> None:
    async def connect_other(*_: object) -> object:
        if isinstance(other, Exception):
            raise other
        return other

    monkeypatch.setattr(inspection_module, "_connect", connect_other)
    monkeypatch.setattr(inspection_module, "POOLER_LOOKS", 1)
    async with AsyncExitStack() as stack:
        first = Session(7, 7)
        dsn = Dsn.read("postgresql://u@h/d")
        assert await inspection_module._changes_sessions(first, dsn, stack) is expected  # type: ignore[arg-type]


async def test_a_clock_that_differs_is_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection_module, "CLOCK_SECONDS_MAX", -1.0)

    findings = await inspect_database(database, connections_max=22)

    (clock,) = [finding for finding in findings if finding.subject == "clock"]
    assert clock.level is Level.WARNING
    assert "NTP" in clock.text


@contextmanager
def tls_only(certificate: Path) -> Iterator[int]:
    """A server that takes TLS as PostgreSQL does, and then says nothing."""
    import socket

    context = serving_tls(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                connection.settimeout(20)
                connection.recv(8)
                connection.sendall(b"S")
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(1)
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@pytest.mark.parametrize("query", ["sslmode=verify-full", "sslmode=require&sslrootcert=system", "sslmode=verify-ca"])
async def test_a_certificate_that_is_not_accepted_is_told_with_its_mend(tmp_path: Path, query: str) -> None:
    with tls_only(self_signed(tmp_path / "other.pem", "other.example")) as port:
        url = f"postgresql://u:hidden@127.0.0.1:{port}/d?{query}"
        with pytest.raises(DatabaseRefused, match=r"certificate of the database at 127\.0\.0\.1") as refused:
            await asyncio.wait_for(check_before_start(url, connections_max=22), 20)

    assert "sslrootcert" in str(refused.value)
    assert "hidden" not in str(refused.value)


async def test_a_certificate_for_another_host_is_told_although_its_authority_is_known(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "other.pem", "other.example")
    with tls_only(certificate) as port:
        url = f"postgresql://u:hidden@127.0.0.1:{port}/d?sslmode=verify-full&sslrootcert={certificate}"
        with pytest.raises(DatabaseRefused, match="or a host that the certificate names"):
            await check_before_start(url, connections_max=22)


async def test_a_file_of_certificates_that_is_not_there_is_named() -> None:
    url = "postgresql://u:hidden@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/no/such/file.crt"

    with pytest.raises(DatabaseRefused, match=r"cannot be read: /no/such/file\.crt"):
        await check_before_start(url, connections_max=22)
