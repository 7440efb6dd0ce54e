"""The tour of README.md, pasted as it is printed, against the service that `make run` starts.

Commands, targets of make and links are checked in all documents.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from app.cli import app as command_line
from tests.service_process import PROJECT_DIR, ServiceProcess

pytestmark = [
    pytest.mark.timeout(300),
    # Such a file reaches the service, and its FAL_KEY would turn these jobs into paid ones.
    pytest.mark.skipif((PROJECT_DIR / ".env").exists(), reason="there is a .env file: move it away to run these tests"),
]

README = (PROJECT_DIR / "README.md").read_text()
DOCUMENTS = {
    str(path.relative_to(PROJECT_DIR)): path.read_text()
    for path in sorted([PROJECT_DIR / "README.md", PROJECT_DIR / "CONTRIBUTING.md", *PROJECT_DIR.glob("docs/**/*.md")])
}
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def section(title: str) -> str:
    """The text from a heading of the second level to the next one."""
    match = re.search(rf"^## {title}.*?(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    assert match is not None, f"README.md has no section {title!r}"
    return match[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_tour_works_as_printed_and_ends_with_a_picture() -> None:
    blocks = BLOCK.findall(section("The tour"))
    assert len(blocks) >= 5
    # PostgreSQL's server user, where root starts it, must be able to enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        here = Path(directory)
        (here / ".venv").symlink_to(sys.prefix)
        with ServiceProcess(here / "service.log", {"DATA_DIR": str(here / "data")}) as service:
            service.wait_until_ready()
            script = "".join(blocks).replace("localhost:8000", f"localhost:{service.port}")

            pasted = subprocess.run(
                ["bash", "-c", script],
                cwd=here,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": directory,
                    # Stand for the working directory and the settings of `make run`.
                    "PYTHONPATH": str(PROJECT_DIR),
                    "DATA_DIR": str(here / "data"),
                },
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )

        assert pasted.stderr == ""
        assert re.search(r"^tgk_\w{49}$", pasted.stdout, re.MULTILINE)
        assert pasted.stdout.count('{"ok":true}') == 2
        assert '"balance_tokens":100' in pasted.stdout
        assert '"status": "COMPLETED"' in pasted.stdout
        assert re.search(r"CREDIT +\+100 +100 ", pasted.stdout)
        assert re.search(r"DEBIT +-2 +98 ", pasted.stdout)
        assert (here / "image.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_every_command_that_is_mentioned_exists() -> None:
    root = get_command(command_line)
    known = {name for name, _ in commands_of(root)}
    mentioned = set()
    word = r"[a-z]+(?:-[a-z]+)*"
    for words in re.findall(rf"python -m app ((?:{word}(?:\|{word})* ?){{1,2}})", "\n".join(DOCUMENTS.values())):
        first, *rest = words.split()
        options = rest[0].split("|") if rest and any(name.startswith(f"{first} ") for name in known) else []
        mentioned |= {f"{first} {option}" for option in options} or {first}

    assert mentioned
    assert mentioned <= known


def commands_of(command: object, prefix: str = "") -> list[tuple[str, object]]:
    assert isinstance(command, typer.core.TyperGroup)
    found: list[tuple[str, object]] = []
    for name, child in command.commands.items():
        found.append((prefix + name, child))
        if isinstance(child, typer.core.TyperGroup):
            found += commands_of(child, f"{prefix}{name} ")
    return found


def test_every_target_of_make_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT_DIR / "Makefile").read_text(), re.MULTILINE))

    mentioned = set(re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join(DOCUMENTS.values()), re.MULTILINE))

    assert {"run", "test"} <= mentioned
    assert mentioned <= targets


def test_every_file_that_is_linked_exists() -> None:
    links = [
        (name, link.partition("#")[0])
        for name, text in DOCUMENTS.items()
        for link in re.findall(r"\]\(([^)]+)\)", text)
        if "://" not in link
    ]

    assert {"README.md", "docs/architecture.md", "docs/data-model.md"} <= {name for name, _ in links}
    assert [(name, link) for name, link in links if not ((PROJECT_DIR / name).parent / link).exists()] == []
