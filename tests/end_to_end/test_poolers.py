"""The service behind PgBouncer, where that is installed: session mode works, the others are refused with a sentence."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_database_faults import refusal
from tests.end_to_end.test_other_postgres import finished_job
from tests.service_process import ServiceProcess, free_port
from tests.simulator_server import running_simulator
from tests.strict_postgres import dsn_of, execute, socket_of, strict_postgres

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed on this machine"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with strict_postgres() as dsn:
        execute(dsn, "CREATE ROLE owner LOGIN PASSWORD 'right'", "CREATE DATABASE good OWNER owner", "SELECT 1")
        yield dsn


@contextmanager
def pgbouncer(server: str, mode: str, **options: str) -> Iterator[str]:
    """The URL of the database behind it."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        place = Path(directory)
        (place / "users.txt").write_text('"owner" "right"\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "plain",
            "auth_file": place / "users.txt",
            "pool_mode": mode,
            "default_pool_size": 30,
            "logfile": place / "log",
            **options,
        }
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        (place / "ini").write_text(f"[databases]\n* = host={socket_of(server)} port=5432\n[pgbouncer]\n{lines}\n")
        as_whom: dict[str, Any] = {}
        if os.geteuid() == 0:
            # As the user of the server, who alone may enter the directory of its socket.
            owner = pwd.getpwuid(Path(socket_of(server)).stat().st_uid)
            as_whom = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            for path in (place, *place.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        with subprocess.Popen(
            [str(PGBOUNCER), "-q", place / "ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_whom
        ) as process:
            try:
                url = f"postgresql://owner:right@127.0.0.1:{port}/good"
                until_it_answers(url, process)
                yield url
            finally:
                process.terminate()
                process.wait(20)


def until_it_answers(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None
        try:
            execute(url, "SELECT 1")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        except Exception:
            return
        else:
            return


@pytest.mark.parametrize(
    ("mode", "options", "command"),
    [
        ("transaction", {}, "migrate"),
        ("transaction", {}, "serve"),
        ("transaction", {}, "worker"),
        ("transaction", {"server_round_robin": "1"}, "migrate"),
        ("statement", {}, "migrate"),
    ],
)
def test_what_loses_the_session_is_refused_with_a_sentence(
    server: str, tmp_path: Path, mode: str, options: dict[str, str], command: str
) -> None:
    with pgbouncer(server, mode, **options) as url:
        said = refusal(tmp_path, url, command)

    assert "a pooler in transaction or statement mode" in said
    assert "session mode" in said


def test_session_mode_works_from_the_first_migration_to_a_picture(server: str, tmp_path: Path) -> None:
    with pgbouncer(server, "session") as url, running_simulator() as simulator:
        settings = {"DATABASE_URL": url, "FAL_KEY": "test:key", "FAL_QUEUE_URL": simulator, "DATA_DIR": str(tmp_path)}
        with ServiceProcess(tmp_path / "service.log", settings) as service:
            service.wait_until_ready()

            job = finished_job(service.url)

    assert job["status"] == "COMPLETED"


def test_a_parameter_that_the_pooler_refuses_is_named(server: str, tmp_path: Path) -> None:
    with pgbouncer(server, "session") as url:
        said = refusal(tmp_path, f"{url}?search_path=other")

    assert "the pooler at DATABASE_URL refuses a parameter" in said
    assert "search_path" in said


def test_a_wrong_password_at_the_pooler_names_the_role(server: str, tmp_path: Path) -> None:
    with pgbouncer(server, "session") as url:
        assert '"owner"' in refusal(tmp_path, url.replace(":right@", ":wrong@"))


def test_a_missing_database_behind_the_pooler_is_named(server: str, tmp_path: Path) -> None:
    with pgbouncer(server, "session") as url:
        assert '"missing"' in refusal(tmp_path, url.replace("/good", "/missing"))


def test_the_direct_address_needs_nothing_else(server: str, tmp_path: Path) -> None:
    execute(server, "CREATE DATABASE direct OWNER owner", "SELECT 1")
    settings = {"DATABASE_URL": dsn_of(server, "owner", database="direct"), "FAL_KEY": "test:key"}
    with ServiceProcess(tmp_path / "service.log", {**settings, "DATABASE_CONNECTIONS_MAX": "6"}) as service:
        service.wait_until_ready()
