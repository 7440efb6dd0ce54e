"""Where other machines get in, nothing starts with secrets that everybody knows."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.infrastructure.settings import load_settings
from tests.service_process import PROJECT_DIR
from tests.unit.settings_environment import AUTH_SECRET, WEBHOOK_SECRET, refusal, set_all

pytestmark = pytest.mark.usefixtures("bare_environment")

REAL_KEY = "764cabcf-b745-4b3e-ae38-1200304cf45b:e83b0f5d6a9147c2d05b8e31f7a46c9d"
SAFE = {"AUTH_SECRET": AUTH_SECRET, "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET}
OPEN_HOSTS = (
    "0.0.0.0",
    "::",
    "192.168.1.5",
    "203.0.113.7",
    "api.example.com",
    "0",
    "::ffff:0.0.0.0",
    "fe80::1%eth0",
    "localhost.example.com",
    "*",
)
CLOSED_HOSTS = ("127.0.0.1", "127.0.0.53", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1", "127.1")


@pytest.mark.parametrize("key", [{}, {"FAL_KEY": REAL_KEY}, {"FAL_KEY": "any:other"}])
@pytest.mark.parametrize("host", OPEN_HOSTS)
def test_does_not_listen_for_others_with_public_secrets(
    monkeypatch: pytest.MonkeyPatch, host: str, key: dict[str, str]
) -> None:
    message = refusal(monkeypatch, {"HOST": host, **key})

    assert "AUTH_SECRET must be set to a secret" in message
    assert "PAYMENT_WEBHOOK_SECRET must be set to a secret" in message
    assert message.endswith("or set HOST=127.0.0.1")
    assert len(message.splitlines()) == 1
    assert "e83b0f5d" not in message


@pytest.mark.parametrize("missing", SAFE)
@pytest.mark.parametrize(
    "value", ["", "short", "a" * 40, "development-webhook-secret" * 2, f"{AUTH_SECRET[::-1]},short"]
)
def test_names_the_one_secret_that_is_missing_or_weak(
    monkeypatch: pytest.MonkeyPatch, missing: str, value: str
) -> None:
    message = refusal(monkeypatch, {**SAFE, "HOST": "0.0.0.0", missing: value})

    assert f"{missing} must be set to a secret" in message
    (other,) = SAFE.keys() - {missing}
    assert f" {other} must" not in message


def test_a_weak_secret_of_a_source_opens_the_door_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, {**SAFE, "HOST": "0.0.0.0", "PAYMENT_SOURCES_JSON": '{"stripe": "short"}'})

    assert "PAYMENT_SOURCES_JSON must have for each source a secret" in message


@pytest.mark.parametrize("host", OPEN_HOSTS)
def test_listens_for_others_with_secrets_of_its_own(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    set_all(monkeypatch, {**SAFE, "HOST": host, "FAL_KEY": REAL_KEY})

    assert load_settings().host == host


@pytest.mark.parametrize("key", [{}, {"FAL_KEY": REAL_KEY}])
@pytest.mark.parametrize("host", CLOSED_HOSTS)
def test_needs_nothing_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch, host: str, key: dict[str, str]) -> None:
    set_all(monkeypatch, {"HOST": host, **key})

    assert load_settings().host == host


@pytest.mark.parametrize("url", ["https://tollgate.example.com", "http://192.168.1.5:8000"])
def test_a_public_url_lets_others_in_whatever_the_host_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    message = refusal(monkeypatch, {"PUBLIC_URL": url, "FAL_KEY": REAL_KEY})

    assert "PAYMENT_WEBHOOK_SECRET must be set to a secret" in message
    assert message.endswith("or leave PUBLIC_URL out")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000"])
def test_a_public_url_of_this_machine_lets_nobody_in(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PUBLIC_URL", url)

    assert load_settings().public_url == url


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "where other machines may get in, AUTH_SECRET must be set"),
        ({"FAL_KEY": REAL_KEY}, "PAYMENT_WEBHOOK_SECRET must be set"),
        ({"PORT": "x"}, "PORT: "),
    ],
)
def test_the_uvicorn_target_ends_in_one_line(tmp_path: Path, values: dict[str, str], words: str) -> None:
    """It listens where the command line of uvicorn says, so that HOST tells nothing."""
    environment = {"PYTHONPATH": str(PROJECT_DIR), "PATH": "/usr/bin:/bin", "APP_ENV": "development", **values}

    outcome = subprocess.run(
        [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory", "--host", "127.0.0.1", "--port", "0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert outcome.returncode != 0
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "e83b0f5d" not in outcome.stderr
