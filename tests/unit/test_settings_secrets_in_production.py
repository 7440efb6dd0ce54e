"""Production takes no secret that somebody could guess, that two settings share, or that travels in the open."""

import secrets
from uuid import uuid4

import pytest

from app.infrastructure.secrets import is_guessable, parts_of
from app.infrastructure.settings import load_settings
from tests.unit.settings_environment import (
    ADMIN_KEY_SECRET,
    AUTH_SECRET,
    FAL_KEY_SECRET,
    PASSWORD,
    PRODUCTION,
    WEBHOOK_SECRET,
    refusal,
    set_all,
)

pytestmark = pytest.mark.usefixtures("bare_environment")

PATTERNS = (
    "a" * 64,
    "1234567890" * 4,
    "0123456789abcdef" * 2,
    "0123456789ABCDEF" * 2,
    "fedcba9876543210" * 2,
    "auth-0123456789abcdef0123456789abcdef",
    "changeme" * 5,
    "ChangeMe-" + "e83b0f5d6a9147c2d05b8e31f7a46c9d",
    "change_me_change_me_change_me_change_me",
    "passwordpasswordpasswordpassword",
    "password1password2password3password4",
    "secret-secret-secret-secret-secret",
    "Tr0ub4dor&3Tr0ub4dor&3Tr0ub4dor&3",
    "qwertyuiopasdfghjklzxcvbnm123456",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9",
    "zyxwvutsrqponmlkjihgfedcba987654",
    "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6",
    "111122223333444455556666777788889999",
    "deadbeef" * 5,
    "000102030405060708090a0b0c0d0e0f",
    "development-webhook-secret-development",
    "openssl rand -hex 32 openssl rand -hex 32",
    "00000000-0000-0000-0000-000000000000",
)


@pytest.mark.parametrize("value", PATTERNS)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET"])
def test_refuses_a_pattern(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, name: value})

    assert message.startswith(
        f"APP_ENV=production: {name} must be set to a secret of at least 32 characters that follow"
    )
    assert value not in message


def test_takes_what_is_random() -> None:
    made = [
        secrets.token_hex(16),
        secrets.token_hex(32),
        secrets.token_urlsafe(24),
        secrets.token_urlsafe(48),
        str(uuid4()),
    ]
    made += [secrets.token_hex(16) for _ in range(200)]

    assert [secret for secret in made if is_guessable(secret)] == []


def test_a_long_secret_is_judged_in_no_time() -> None:
    assert not is_guessable(secrets.token_hex(50_000))


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("AUTH_SECRET and PAYMENT_WEBHOOK_SECRET", {"AUTH_SECRET": WEBHOOK_SECRET}),
        ("AUTH_SECRET and PAYMENT_WEBHOOK_SECRET", {"AUTH_SECRET": f"{ADMIN_KEY_SECRET[::-1]},{WEBHOOK_SECRET}"}),
        ("AUTH_SECRET and PAYMENT_SOURCES_JSON", {"PAYMENT_SOURCES_JSON": f'{{"stripe": "{AUTH_SECRET}"}}'}),
        ("PAYMENT_WEBHOOK_SECRET and FAL_KEY", {"PAYMENT_WEBHOOK_SECRET": FAL_KEY_SECRET}),
        ("FAL_KEY and FAL_ADMIN_KEY", {"FAL_ADMIN_KEY": PRODUCTION["FAL_KEY"]}),
        ("FAL_KEY and FAL_ADMIN_KEY", {"FAL_ADMIN_KEY": f"admin:{FAL_KEY_SECRET}"}),
        ("DATABASE_URL and AUTH_SECRET", {"DATABASE_URL": f"postgresql://tollgate:{AUTH_SECRET}@db/tollgate"}),
    ],
)
def test_refuses_one_secret_in_two_settings(
    monkeypatch: pytest.MonkeyPatch, names: str, values: dict[str, str]
) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, **values})

    assert f"{names} must not hold the same secret" in message
    assert not any(secret in message for secret in (WEBHOOK_SECRET, AUTH_SECRET, FAL_KEY_SECRET))


def test_development_may_have_one_secret_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"AUTH_SECRET": WEBHOOK_SECRET, "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET})

    assert load_settings().service_secrets == load_settings().webhook_secrets


@pytest.mark.parametrize(
    "url", ["http://queue.fal.run", "http://proxy.internal:8080", "http://10.0.0.5", "HTTP://queue.fal.run"]
)
@pytest.mark.parametrize("name", ["FAL_QUEUE_URL", "FAL_API_URL", "FAL_REST_URL", "FAL_JWKS_URL"])
def test_refuses_plain_http_to_fal(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, name: url})

    assert message.startswith(f"APP_ENV=production: {name} must begin with https://")


@pytest.mark.parametrize("name", ["FAL_QUEUE_URL", "FAL_API_URL", "FAL_REST_URL", "FAL_JWKS_URL"])
def test_development_may_speak_plain_http_to_a_proxy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy.internal:8080")

    assert getattr(load_settings(), name.lower()) == "http://proxy.internal:8080"


@pytest.mark.parametrize(
    "url", ["https://127.1", "https://2130706433", "https://0x7f.1", "https://localhost.", "https://a.localhost"]
)
@pytest.mark.parametrize("name", ["FAL_QUEUE_URL", "FAL_REST_URL", "FAL_JWKS_URL"])
def test_refuses_this_machine_in_every_notation(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    assert f"{name} must not be the simulator" in refusal(monkeypatch, {**PRODUCTION, name: url})


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost",
        "https://127.0.0.1:8000",
        "https://[::1]",
        "https://10.0.0.5",
        "https://192.168.1.5/tollgate",
        "https://172.16.0.1",
        "https://169.254.169.254",
        "https://100.64.0.1",
        "https://[fd00::1]",
        "https://[::ffff:10.0.0.5]",
        "https://0.0.0.0",
        "https://127.1",
        "https://api",
        "https://tollgate.local",
        "https://tollgate.internal",
        "https://tollgate.default.svc",
        "https://nas.lan",
        "https://127.0.0.1.nip.io",
        "https://10-0-0-5.sslip.io",
        "https://tollgate.home.arpa.",
    ],
)
def test_refuses_a_public_url_that_the_internet_does_not_reach(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, "PUBLIC_URL": url})

    assert message.startswith("APP_ENV=production: PUBLIC_URL must be the URL under which the internet reaches")


def test_refuses_a_public_url_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, "PUBLIC_URL": "http://tollgate.example.com"})

    assert message.startswith("APP_ENV=production: PUBLIC_URL must begin with https://")


@pytest.mark.parametrize(
    "url",
    [
        "https://tollgate.example.com",
        "https://example.com/ai",
        "https://ec2-54-1-2-3.compute.amazonaws.com",
        "https://8.8.8.8",
    ],
)
def test_takes_a_public_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    set_all(monkeypatch, {**PRODUCTION, "PUBLIC_URL": url})

    assert load_settings().public_url == url


@pytest.mark.parametrize(
    ("secret", "parts"),
    [
        (f"id-4711:{FAL_KEY_SECRET}", {"id-4711", FAL_KEY_SECRET}),
        (f"postgresql://u:{PASSWORD}@h/d", {PASSWORD}),
        ("postgresql+asyncpg://u:p%40ss@h:5432/d?sslmode=require", {"p%40ss", "p@ss"}),
        ("postgresql://u:p@ss/word@h/d", {"p@ss/word"}),
        ("postgresql:///d?host=/tmp&password=pa%20ss", {"pa ss", "pa%20ss"}),
        ("no parts", set()),
    ],
)
def test_what_opens_something_by_itself_is_a_part(secret: str, parts: set[str]) -> None:
    assert {secret, *parts} <= set(parts_of(secret))
