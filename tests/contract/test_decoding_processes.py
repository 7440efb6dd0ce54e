"""The processes that look at files: what they may do, and that none of them harms another, or outlives the service."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from app.application.ports.media_decoder import DecoderBusy, DecoderUnavailable
from app.infrastructure.decoding import server_process
from app.infrastructure.decoding.decoder import ConfinedDecoder
from app.infrastructure.decoding.findings import too_demanding, too_slow
from tests.media_decoding import Desk, decoding_children, is_confined, servers, slow_picture, until
from tests.media_samples import four_corners, pictures, saved

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is looked at is Linux's")

SLOW = slow_picture()
QUICK = pictures()["png"]
# In a process whose descriptors are 0 to 2. Each attempt is a name and what came of it.
PROBE = """
import errno, json, os, socket, sys, threading
from app.infrastructure.decoding import confinement
if len(sys.argv) > 1:
    confinement.allows_only_what_is_listed = lambda: False
confinement.confine(os.getppid(), 3, confinement.Seconds(processor=5, in_all=10))
def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    except MemoryError:
        return "MemoryError"
    return "done"
def thread():
    one = threading.Thread(target=lambda: None)
    one.start()
    one.join()
said = {
    "environment": dict(os.environ),
    "a socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
    "a local socket": attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)),
    "a pair": attempt(socket.socketpair),
    "a file": attempt(lambda: os.open("/etc/hostname", os.O_RDONLY)),
    "a new file": attempt(lambda: os.open("/tmp/made-by-a-child", os.O_WRONLY | os.O_CREAT)),
    "a pipe": attempt(os.pipe),
    "a copy": attempt(lambda: os.dup(0)),
    "a name": attempt(lambda: os.stat("/etc/hostname")),
    "a removal": attempt(lambda: os.unlink("/tmp/not-there")),
    "a program": attempt(lambda: os.execv("/bin/true", ["true"])) if len(sys.argv) == 1 else None,
    "a process": attempt(lambda: os.fork() or os._exit(0)) if len(sys.argv) == 1 else None,
    "a signal": attempt(lambda: os.kill(os.getppid(), 0)),
    "its niceness": attempt(lambda: os.nice(1)),
    "two gigabytes": attempt(lambda: bytearray(2 << 30)),
    "a tenth of one": attempt(lambda: bytearray(100 << 20)),
    "a thread": attempt(thread) if len(sys.argv) == 1 else None,
}
os.write(1, json.dumps(said).encode())
"""


def probe(*arguments: str) -> dict[str, object]:
    finished = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"SECRET": "of the service"},
    )
    found: dict[str, object] = json.loads(finished.stdout)
    return found


def test_a_confined_process_makes_no_descriptor_and_no_process_and_reaches_nobody() -> None:
    allowed = {"environment": {}, "a tenth of one": "done", "a thread": "done", "two gigabytes": "MemoryError"}

    found = probe()

    assert {name: found[name] for name in allowed} == allowed
    assert {found[name] for name in found.keys() - allowed.keys()} == {"EPERM"}


def test_the_limits_alone_leave_no_descriptor_and_little_memory() -> None:
    """As it is on other systems, and on processors whose system calls are not listed."""
    found = probe("without the list")

    descriptors = ("a socket", "a local socket", "a pair", "a file", "a new file", "a pipe", "a copy")
    assert {name: found[name] for name in descriptors} == dict.fromkeys(descriptors, "EMFILE")
    assert found["environment"] == {}
    assert found["two gigabytes"] == "MemoryError"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with ConfinedDecoder.open() as decoder:
        yield Desk(decoder, tmp_path)


def with_limits(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """The fork servers that are started from now on have others, so that no test waits a minute."""
    program = server_process._PROGRAM
    begin, main = program.split("; from app")
    changed = f"{begin}; from app.infrastructure.decoding import child, confinement; {change}; from app{main}"
    monkeypatch.setattr(server_process, "_PROGRAM", changed)


SHORT = "child.SECONDS = {kind: child.Seconds(processor=%d, in_all=%g) for kind in child.SECONDS}"


def _seen_of(child: psutil.Process) -> tuple[dict[str, str], str, str, bytes]:
    directory = Path(f"/proc/{child.pid}")
    descriptors = {each.name: os.readlink(each) for each in (directory / "fd").iterdir()}
    status, limits, badness = ((directory / name).read_text() for name in ("status", "limits", "oom_score_adj"))
    assert badness == "1000\n"
    return descriptors, status, limits, (directory / "environ").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a child")
async def test_a_child_has_its_files_and_no_others_and_no_environment(desk: Desk, tmp_path: Path) -> None:
    under_way = asyncio.create_task(desk.examine(SLOW))
    (child,) = await until(decoding_children)

    descriptors, status, limits, environment = await asyncio.to_thread(_seen_of, child)
    under_way.cancel()

    pipe = descriptors.pop("5")
    assert pipe.startswith("pipe:")
    files = {"3": str(tmp_path / "1"), "4": str(tmp_path / "1.cleaned")}
    assert descriptors == {**files, "0": "/dev/null", "1": "/dev/null", "2": "/dev/null"}
    assert "NoNewPrivs:\t1" in status
    assert environment == b""
    for line in ("Max core file size        0", "Max open files            6", "Max data size             1073741824"):
        assert line in limits
    assert child.nice() >= 10
    with suppress(asyncio.CancelledError):
        await under_way


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_child_that_dies_costs_its_own_file_alone(desk: Desk, end: signal.Signals) -> None:
    under_way = asyncio.create_task(desk.refusal(SLOW, "one"))
    (child,) = await until(decoding_children)
    child.send_signal(end)
    (server,) = servers()

    examined, _ = await desk.examine(QUICK, "another")

    assert examined.content_type == "image/png"
    refusal = await under_way
    assert refusal == too_demanding() if end == signal.SIGKILL else "is damaged or incomplete" in refusal
    assert servers() == [server]


@pytest.mark.alone
async def test_a_child_that_hangs_is_killed_and_others_go_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with_limits(monkeypatch, SHORT % (60, 3))
    under_way = asyncio.create_task(desk.refusal(SLOW, "one"))
    (child,) = await until(decoding_children)
    child.suspend()

    for _ in range(3):
        await desk.examine(QUICK, "another")

    assert not under_way.done()
    assert await under_way == too_slow()
    assert not child.is_running()


async def test_a_child_that_computes_for_ever_is_ended_by_its_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with_limits(monkeypatch, SHORT % (1, 1000))
    # To compress noise takes some seconds of a processor, and not to compress it none.
    noise = Image.frombytes("RGB", (3500, 3500), random.Random(1).randbytes(3 * 3500 * 3500))

    assert await desk.refusal(saved(noise, "PNG", compress_level=0)) == too_slow()


async def test_a_child_that_wants_more_memory_than_it_may_have_is_refused_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, "confinement.MEMORY_BYTES_MAX = 120 << 20")

    assert await desk.refusal(SLOW) == too_demanding()
    await desk.examine(QUICK)


async def test_what_is_kept_has_a_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with_limits(monkeypatch, "confinement.OUTPUT_BYTES_MAX = 100")

    assert "larger than 100 MB" in await desk.refusal(saved(four_corners(640, 480), "PNG"))


@pytest.mark.parametrize(
    "change",
    [
        "child._report = lambda source, output, kind: output.write(b'<html>') and {'content_type': 'text/html'}",
        "child._report = lambda source, output, kind: output.write(b'<html>') and {'content_type': 'image/png'}",
        "child._report = lambda source, output, kind: output.write(b'GIF89a') and {'content_type': 'image/png'}",
        "child._report = lambda source, output, kind: output.write(source.read()) and {'width': 5}",
        "child._report = lambda source, output, kind: [[['x' * 100]]]",
        "child._report = lambda source, output, kind: {'refused': 'x' * 1_000_000}",
        "child.json.dumps = lambda report: '[' * 3000",
        "child.json.dumps = lambda report: chr(10) * 100",
        "child.run = lambda parent, kind: None",
        "child.run = lambda parent, kind: 1 / 0",
    ],
)
async def test_a_child_that_was_taken_over_is_not_believed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    with_limits(monkeypatch, change)

    assert "begins like PNG but is damaged" in await desk.refusal(QUICK)


async def test_no_file_is_looked_at_where_a_child_cannot_be_confined(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, "child.confinement.forbid_other_calls = lambda: 1 / 0")

    with pytest.raises(DecoderUnavailable, match="ZeroDivisionError"):
        await desk.examine(QUICK)


async def test_a_fork_server_that_dies_is_started_again_and_its_files_go_through(desk: Desk) -> None:
    under_way = [asyncio.create_task(desk.examine(SLOW, owner)) for owner in ("one", "another")]
    children = await until(lambda: len(found := decoding_children()) == 2 and found)
    (server,) = servers()

    server.kill()

    for each in under_way:
        examined, _ = await each
        assert examined.content_type == "image/jpeg"
    assert servers() != [server]
    await until(lambda: not any(child.is_running() for child in children))


async def test_who_leaves_takes_the_child_along(desk: Desk) -> None:
    under_way = asyncio.create_task(desk.examine(SLOW))
    (child,) = await until(decoding_children)
    child.suspend()

    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way

    await until(lambda: not child.is_running())
    await desk.examine(QUICK)


async def test_one_owner_does_not_take_all_places(tmp_path: Path) -> None:
    async with ConfinedDecoder.open() as decoder:
        desk = Desk(decoder, tmp_path)
        many = [asyncio.create_task(desk.examine(SLOW, "one")) for _ in range(4)]
        await until(decoding_children)

        await desk.examine(QUICK, "another")

        assert len(decoding_children()) == 1
        assert not any(each.done() for each in many)
        for each in many:
            each.cancel()
        await asyncio.gather(*many, return_exceptions=True)


async def test_more_than_may_wait_are_sent_away(tmp_path: Path) -> None:
    async with ConfinedDecoder.open(waiting_max=3, waiting_per_owner_max=2) as decoder:
        desk = Desk(decoder, tmp_path)
        waiting = [asyncio.create_task(desk.examine(SLOW, owner)) for owner in ("a", "b", "a", "a", "b")]
        await until(decoding_children)

        for owner in ("a", "c"):
            with pytest.raises(DecoderBusy):
                await desk.examine(QUICK, owner)

        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_nothing_is_left_when_it_is_closed(tmp_path: Path) -> None:
    async with ConfinedDecoder.open() as decoder:
        assert servers() == []
        await Desk(decoder, tmp_path).examine(QUICK)
        (server,) = servers()

    assert not server.is_running()


SERVICE = """
import asyncio, sys
from pathlib import Path
from app.infrastructure.decoding.decoder import ConfinedDecoder
async def main():
    async with ConfinedDecoder.open() as decoder:
        await decoder.examine(Path(sys.argv[1]), Path(sys.argv[1] + ".cleaned"), owner=1)
asyncio.run(main())
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_no_child_outlives_the_service(tmp_path: Path, end: signal.Signals) -> None:
    source = tmp_path / "slow"
    source.write_bytes(SLOW)
    service = psutil.Popen([sys.executable, "-c", SERVICE, str(source)], stderr=subprocess.DEVNULL)
    try:
        (child,) = await until(lambda: decoding_children(service))
        (server,) = servers(service)

        service.send_signal(end)

        gone: Callable[[], bool] = lambda: not child.is_running() and not server.is_running()  # noqa: E731
        await until(gone)
        assert not is_confined(child)
    finally:
        service.kill()
        service.wait()


async def test_the_loop_is_not_held_up_meanwhile(desk: Desk) -> None:
    await desk.examine(QUICK)
    under_way = asyncio.create_task(desk.examine(SLOW))
    turns = 0

    while not under_way.done():
        await asyncio.sleep(0.01)
        turns += 1

    assert turns > 10
    await under_way
