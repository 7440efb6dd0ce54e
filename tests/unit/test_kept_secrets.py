"""The secret that development makes for itself: one for all processes, kept whole, for nobody else to read."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.infrastructure.settings import Settings, SettingsError, load_settings
from app.infrastructure.settings.kept_secrets import signing_secrets
from app.infrastructure.settings.secrets import is_strong
from tests.unit.settings_environment import PRODUCTION, SIGNING_SECRET, set_all

pytestmark = pytest.mark.usefixtures("bare_environment")

PROCESSES = 6
PROGRAM = """
import sys
from app.infrastructure.settings import load_settings
from app.infrastructure.settings.kept_secrets import signing_secrets
settings = load_settings(data_dir=sys.argv[1])
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
print(*signing_secrets(settings))
"""


def development(directory: Path) -> Settings:
    return load_settings(data_dir=directory)


def test_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there" / "yet"
    before = os.umask(0)
    try:
        (made,) = signing_secrets(development(directory))
    finally:
        os.umask(before)

    assert is_strong(made)
    assert list(signing_secrets(development(directory))) == [made]
    assert [path.name for path in directory.iterdir()] == ["signing-secret"]
    assert stat.S_IMODE((directory / "signing-secret").stat().st_mode) == 0o600
    assert list(signing_secrets(development(tmp_path / "elsewhere"))) != [made]


def outcomes_of(program: str, directory: Path, project_dir: Path, processes: int = PROCESSES) -> set[str]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(directory)],
            cwd=project_dir,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return {process.communicate(timeout=60)[0] for process in started}


def test_processes_that_start_at_once_have_the_same_one(tmp_path: Path, project_dir: Path) -> None:
    found = outcomes_of(PROGRAM, tmp_path, project_dir)

    assert found == {(tmp_path / "signing-secret").read_text()}
    assert [path.name for path in tmp_path.iterdir()] == ["signing-secret"]


def test_whoever_is_slower_takes_that_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = "0f" * 32
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_text(first)
        link(source, target)

    monkeypatch.setattr(os, "link", late)

    assert list(signing_secrets(development(tmp_path))) == [first]
    assert [path.name for path in tmp_path.iterdir()] == ["signing-secret"]


@pytest.mark.parametrize("content", [b"", b"\n", b"letmein\n", b"0" * 63, b"0" * 65, b"\xff" * 64])
def test_what_is_no_secret_of_ours_is_not_signed_with(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "signing-secret").write_bytes(content)

    with pytest.raises(
        SettingsError, match=r"SIGNING_SECRET is not set, and .* has no secret of ours: delete it"
    ) as told:
        signing_secrets(development(tmp_path))
    assert "letmein" not in str(told.value)


def test_where_none_can_be_kept_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SettingsError, match=r"SIGNING_SECRET is not set, and .* cannot be kept"):
        signing_secrets(development(tmp_path / "file"))


def test_what_is_set_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "SIGNING_SECRET": f"new-{SIGNING_SECRET},{SIGNING_SECRET}"})

    assert list(signing_secrets(development(tmp_path))) == [f"new-{SIGNING_SECRET}", SIGNING_SECRET]
    assert list(tmp_path.iterdir()) == []


WITHOUT_LINKS = f"""
import errno, os
def link(*_):
    raise OSError(errno.EPERM, "Operation not permitted")
os.link = link
{PROGRAM}
"""


def test_where_a_file_has_one_name_processes_have_the_same_one_as_well(tmp_path: Path, project_dir: Path) -> None:
    assert outcomes_of(WITHOUT_LINKS, tmp_path, project_dir) == {(tmp_path / "signing-secret").read_text()}
    assert {path.name for path in tmp_path.iterdir()} == {"signing-secret", "signing-secret.lock"}
    assert stat.S_IMODE((tmp_path / "signing-secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("call", ["os.fsync", "fcntl.flock", "pathlib.Path.replace"])
def test_a_process_that_dies_meanwhile_leaves_no_half_of_one(tmp_path: Path, project_dir: Path, call: str) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", f"import fcntl, os, pathlib, signal\n{WITHOUT_LINKS}".replace(
            "settings = load", f"{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nsettings = load"
        ), str(tmp_path)],
        cwd=project_dir,
        input="go\n",
        text=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert killed.returncode == -9
    assert not (tmp_path / "signing-secret").exists()

    (found,) = outcomes_of(WITHOUT_LINKS, tmp_path, project_dir, processes=1)

    assert found == (tmp_path / "signing-secret").read_text()
    assert list(signing_secrets(development(tmp_path))) == [found.strip()]
