"""What the commands say of a database on which they cannot work: one line with the cause and the mend, no password."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service_process import PROJECT_DIR
from tests.strict_postgres import answering, dsn_of, execute, strict_postgres

pytestmark = pytest.mark.timeout(300)

SECRET = "hidden-password-4711"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with strict_postgres() as dsn:
        execute(
            dsn,
            *(f"CREATE ROLE {role} LOGIN PASSWORD 'right'" for role in ("owner", "weak", "nobody_from_here", "reader")),
            "CREATE ROLE asleep PASSWORD 'right'",
            "CREATE ROLE crowded LOGIN PASSWORD 'right' CONNECTION LIMIT 0",
            "CREATE DATABASE good OWNER owner",
            "CREATE DATABASE fresh OWNER owner",
            "CREATE DATABASE foreign_names OWNER owner",
            "CREATE DATABASE closed OWNER owner ALLOW_CONNECTIONS false",
            "ALTER ROLE reader SET default_transaction_read_only = on",
            "SELECT 1",
        )
        yield dsn


def run_app(tmp_path: Path, url: str, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app", *command],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(PROJECT_DIR),
            "DATABASE_URL": url,
            "FAL_KEY": "test:key",
            "PORT": "0",
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(tmp_path: Path, url: str, command: str = "migrate") -> str:
    outcome = run_app(tmp_path, url, *command.split())
    assert outcome.returncode == 1, outcome
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1, outcome.stderr
    assert SECRET not in outcome.stderr + outcome.stdout
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("command", ["migrate", "serve", "worker", "ledger verify"])
def test_a_wrong_password_names_the_role(server: str, tmp_path: Path, command: str) -> None:
    said = refusal(tmp_path, dsn_of(server, "owner", SECRET, "good"), command)

    assert 'the password of the role "owner"' in said


@pytest.mark.parametrize(
    ("role", "database", "parts"),
    [
        ("owner", "missing", ['no database "missing"', 'CREATE DATABASE "missing" OWNER "owner"']),
        ("asleep", "good", ['the role "asleep" may not log in', 'ALTER ROLE "asleep" LOGIN']),
        ("nobody_from_here", "good", ['"nobody_from_here"', "pg_hba.conf"]),
        ("crowded", "good", ["no connection left", "53300", "DATABASE_CONNECTIONS_MAX"]),
        ("weak", "fresh", ['the role "weak" may not create the tables', "GRANT USAGE, CREATE ON SCHEMA public"]),
        ("reader", "good", ["read-only", "default_transaction_read_only"]),
        ("owner", "closed", ["not currently accepting connections"]),
    ],
)
def test_names_the_cause_and_the_mend(server: str, tmp_path: Path, role: str, database: str, parts: list[str]) -> None:
    said = refusal(tmp_path, dsn_of(server, role, database=database))

    assert all(part in said for part in parts), said


def test_a_role_that_is_not_there_is_named_like_a_wrong_password(server: str, tmp_path: Path) -> None:
    assert '"stranger"' in refusal(tmp_path, dsn_of(server, "stranger"))


def test_no_password_at_all(server: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, dsn_of(server, "owner", database="good").replace(":right", ""))

    assert 'password of the role "owner"' in said


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("127.0.0.1:1", ["nobody listens at 127.0.0.1:1"]),
        ("no-such-host.invalid", ["host of the database is unknown: no-such-host.invalid"]),
        ("", ["no socket of PostgreSQL in /nonexistent"]),
    ],
)
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_an_address_where_there_is_nothing(tmp_path: Path, place: str, parts: list[str], command: str) -> None:
    query = "" if place else "?host=/nonexistent"

    said = refusal(tmp_path, f"postgresql://owner:{SECRET}@{place}/good{query}", command)

    assert all(part in said for part in parts), said


@pytest.mark.parametrize(
    ("reply", "query", "part"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "", "is not PostgreSQL"),
        (b"N", "?sslmode=require", "offers no TLS"),
        (b"", "", "closes the connection"),
        (b"S\x15\x03\x01\x00\x02\x02\x28", "?sslmode=require", "TLS"),
    ],
)
def test_what_answers_and_is_not_what_was_asked_for(tmp_path: Path, reply: bytes, query: str, part: str) -> None:
    with answering(reply) as port:
        assert part in refusal(tmp_path, f"postgresql://owner:{SECRET}@127.0.0.1:{port}/good{query}")


def test_rights_that_are_missing_on_tables_are_named_with_their_grants(server: str, tmp_path: Path) -> None:
    assert run_app(tmp_path, dsn_of(server, "owner", database="good"), "migrate").returncode == 0
    execute(
        dsn_of(server, "owner", database="good"),
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO weak",
        "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO weak",
        "REVOKE INSERT, UPDATE ON jobs FROM weak",
        "SELECT 1",
    )

    assert 'GRANT INSERT, UPDATE ON jobs TO "weak"' in refusal(
        tmp_path, dsn_of(server, "weak", database="good"), "worker"
    )


def test_the_books_before_the_first_migration_are_one_sentence(server: str, tmp_path: Path) -> None:
    execute(server, "CREATE DATABASE empty_books OWNER owner", "SELECT 1")

    said = refusal(tmp_path, dsn_of(server, "owner", database="empty_books"), "ledger verify")

    assert said == "error: the tables of this release are not there: run python -m app migrate"


def test_tables_of_somebody_else_with_our_names_are_left_alone(server: str, tmp_path: Path) -> None:
    url = dsn_of(server, "owner", database="foreign_names")
    execute(url, "CREATE TABLE jobs (id int)", "CREATE TABLE accounts (id int)", "SELECT 1")

    said = refusal(tmp_path, url, "serve")

    assert "(accounts, jobs)" in said
    assert "a database of its own" in said


def test_the_alembic_command_finds_the_service(server: str, tmp_path: Path) -> None:
    execute(server, "CREATE DATABASE by_alembic OWNER owner", "SELECT 1")
    url = dsn_of(server, "owner", database="by_alembic")
    for command in (["upgrade", "head"], ["current"]):
        outcome = subprocess.run(
            [Path(sys.executable).with_name("alembic"), "-c", PROJECT_DIR / "alembic.ini", *command],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (outcome.returncode, "Traceback" in outcome.stderr) == (0, False), outcome.stderr
    assert execute(url, "SELECT count(*) FROM tollgate_version") == 1
