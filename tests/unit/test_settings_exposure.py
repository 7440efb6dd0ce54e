"""What does not start because of what others could do with it, and which forms a secret may have."""

import secrets
from collections.abc import Callable, Mapping

import pytest
import structlog
from typer.testing import CliRunner

from app.cli import app as command_line
from app.infrastructure.logging import configure_logging
from app.infrastructure.settings import load_settings
from app.infrastructure.settings.kept_secrets import signing_secrets
from tests.unit.settings_environment import (
    ADMIN_KEY_SECRET,
    AUTH_SECRET,
    FAL_KEY_SECRET,
    PASSWORD,
    PRODUCTION,
    SIGNING_SECRET,
    WEBHOOK_SECRET,
    production_with,
    refusal,
    set_all,
)

pytestmark = pytest.mark.usefixtures("bare_environment")

REAL_KEY = f"7d5f6a0e-0000-4000-8000-000000000000:{secrets.token_hex(16)}"
SIMULATED = {"FAL_KEY": "simulator:simulator", "FAL_QUEUE_URL": "http://127.0.0.1:9000"}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"HOST": "0.0.0.0", "FAL_KEY": REAL_KEY}, id="a real key"),
        pytest.param({"HOST": "0.0.0.0"}, id="no key"),
        pytest.param({"HOST": "0.0.0.0", **SIMULATED}, id="the simulator"),
        pytest.param({"HOST": "::"}, id="IPv6"),
        pytest.param({"HOST": "0"}, id="the short form"),
        pytest.param({"HOST": "::ffff:0.0.0.0"}, id="mapped"),
        pytest.param({"HOST": "10.1.2.3"}, id="a private network"),
        pytest.param({"HOST": "api.example.com"}, id="a name"),
        pytest.param({"HOST": "localhost.example.com"}, id="a name that looks like this machine"),
        pytest.param(
            {"HOST": "0.0.0.0", "PAYMENT_WEBHOOK_SECRET": "development-webhook-secret"}, id="the default, written out"
        ),
        pytest.param(
            {"HOST": "0.0.0.0", "PAYMENT_WEBHOOK_SECRET": f"{WEBHOOK_SECRET},development-webhook-secret"},
            id="the default as the old one",
        ),
        pytest.param({"HOST": "0.0.0.0", "FAL_KEY": REAL_KEY, "PAYMENT_WEBHOOK_SECRET": "letmein"}, id="a weak one"),
        pytest.param({"FAL_KEY": REAL_KEY, "PUBLIC_URL": "https://pay.example.com"}, id="behind a proxy"),
    ],
)
def test_what_everybody_could_top_up_does_not_start(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    message = refusal(monkeypatch, values)

    assert "so that everybody could top up: set PAYMENT_WEBHOOK_SECRET" in message
    assert "HOST=127.0.0.1" in message
    assert len(message.splitlines()) == 1
    assert REAL_KEY not in message


def test_where_others_get_in_a_weak_secret_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    exposed = {"HOST": "0.0.0.0", "FAL_KEY": REAL_KEY, "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET}
    message = refusal(monkeypatch, {**exposed, "SIGNING_SECRET": f"{SIGNING_SECRET},letmein"})

    assert "so that everybody could make up prices: set SIGNING_SECRET" in message
    assert "letmein" not in message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"FAL_KEY": REAL_KEY},
        {"HOST": "localhost"},
        {"HOST": "127.0.0.2", "FAL_KEY": REAL_KEY},
        {"HOST": "::1"},
        {"HOST": "::ffff:127.0.0.1"},
        {**SIMULATED, "PUBLIC_URL": "https://demo.example.com"},
        {"FAL_KEY": REAL_KEY, "PUBLIC_URL": "http://127.0.0.1:8000"},
        {"HOST": "0.0.0.0", "PAYMENT_WEBHOOK_SECRET": "my own"},
        {"HOST": "0.0.0.0", "FAL_KEY": REAL_KEY, "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET},
        {
            "HOST": "0.0.0.0",
            "FAL_KEY": REAL_KEY,
            "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "SIGNING_SECRET": SIGNING_SECRET,
        },
        {"SIGNING_SECRET": "weak"},
    ],
)
def test_this_machine_alone_or_a_secret_of_ones_own_starts(
    monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]
) -> None:
    set_all(monkeypatch, values)

    assert load_settings() is not None


@pytest.mark.parametrize(
    ("values", "both"),
    [
        ({"AUTH_SECRET": WEBHOOK_SECRET}, "AUTH_SECRET and PAYMENT_WEBHOOK_SECRET"),
        ({"AUTH_SECRET": f"{AUTH_SECRET},{WEBHOOK_SECRET}"}, "AUTH_SECRET and PAYMENT_WEBHOOK_SECRET"),
        ({"AUTH_SECRET": FAL_KEY_SECRET}, "AUTH_SECRET and FAL_KEY"),
        ({"PAYMENT_WEBHOOK_SECRET": PRODUCTION["FAL_KEY"]}, "PAYMENT_WEBHOOK_SECRET and FAL_KEY"),
        ({"AUTH_SECRET": ADMIN_KEY_SECRET}, "AUTH_SECRET and FAL_ADMIN_KEY"),
        ({"SIGNING_SECRET": f"{SIGNING_SECRET},{AUTH_SECRET}"}, "AUTH_SECRET and SIGNING_SECRET"),
        (
            {"DATABASE_URL": f"postgresql://tollgate:{AUTH_SECRET}@db/tollgate"},
            "DATABASE_URL and AUTH_SECRET",
        ),
    ],
)
def test_production_refuses_the_same_secret_twice(
    monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str], both: str
) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, **values})

    assert message == f"APP_ENV=production: {both} must differ"


def test_one_key_of_fal_may_serve_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "FAL_ADMIN_KEY": PRODUCTION["FAL_KEY"]})

    assert load_settings().is_production


@pytest.mark.parametrize(
    "make", [lambda: secrets.token_hex(16), lambda: secrets.token_hex(32), lambda: secrets.token_urlsafe(24)]
)
def test_production_takes_random_secrets(monkeypatch: pytest.MonkeyPatch, make: Callable[[], str]) -> None:
    set_all(monkeypatch, production_with("AUTH_SECRET", make()))

    assert load_settings().is_production


@pytest.mark.parametrize("name", ["FAL_QUEUE_URL", "FAL_API_URL", "FAL_REST_URL", "FAL_JWKS_URL"])
@pytest.mark.parametrize("url", ["http://queue.example.com", "HTTP://10.0.0.5:8080/queue"])
def test_production_refuses_to_talk_in_the_clear(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, name: url})

    assert message.startswith(f"APP_ENV=production: {name} must start with https://")


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost",
        "https://127.0.0.1:8000",
        "https://0.0.0.0",
        "https://[::1]",
        "https://[::ffff:127.0.0.1]",
        "https://192.168.1.10",
        "https://10.0.0.1",
        "https://172.16.0.1",
        "https://169.254.1.1",
        "https://[fd00::1]",
        "https://100.64.0.1",
        "https://tollgate",
        "https://api.local",
        "https://api.internal.",
        "http://api.example.com",
    ],
)
def test_production_refuses_a_public_url_that_is_not_public(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, "PUBLIC_URL": url})

    assert message.startswith("APP_ENV=production: PUBLIC_URL must be an https:// address that fal can reach")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@example.com",
        "https://example.com?x=1",
        "https://example.com/#top",
        "https://exam ple.com",
        "https://example.com\\@evil.example",
        "https://example.com/a/../b",
        "https://example.com/a b",
        "https://exam\tple.com",
    ],
)
@pytest.mark.parametrize("name", ["PUBLIC_URL", "FAL_REST_URL", "FAL_JWKS_URL", "FAL_QUEUE_URL", "FAL_API_URL"])
def test_a_url_is_a_plain_address(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    message = refusal(monkeypatch, {name: url})

    assert message.startswith(f"{name}: ")
    assert "secret" not in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    [
        f"{AUTH_SECRET}\n",
        f"  {AUTH_SECRET} ",
        f"{AUTH_SECRET}\r\n",
        f"\ufeff{AUTH_SECRET}\u200b",
        f"\t{AUTH_SECRET}\u00a0",
    ],
)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "SIGNING_SECRET", "FAL_USER_ID"])
def test_what_a_copied_line_brings_with_it_is_taken_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    set_all(monkeypatch, {name: value})

    loaded = load_settings()

    assert {
        "AUTH_SECRET": list(loaded.auth_secrets),
        "PAYMENT_WEBHOOK_SECRET": list(loaded.webhook_secrets),
        "SIGNING_SECRET": list(signing_secrets(loaded)),
        "FAL_USER_ID": [loaded.fal_user_id],
    }[name] == [AUTH_SECRET]


@pytest.mark.parametrize(
    "value", ["pass\nword", "pass\x00word", "pass\x7fword", "пароль-для-вебхука", "naïve-secret", "emoji-😀"]
)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "SIGNING_SECRET", "FAL_USER_ID"])
def test_what_no_header_can_carry_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    if "\x00" in value:
        with pytest.raises(Exception, match=name):
            load_settings(**{name.lower(): value})
        return
    message = refusal(monkeypatch, {name: value})

    assert message == f"{name}: must have visible ASCII characters only: no header can carry others"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("one,two,three", "has 3 values; at most 2"),
        ("one,", "has an empty value beside a comma"),
        (",one", "has an empty value beside a comma"),
        (",", "has an empty value beside a comma"),
        (" ", "has an empty value"),
        ("one,one", "has the same value twice"),
        ("one, one", "has the same value twice"),
    ],
)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "SIGNING_SECRET"])
def test_refuses_what_is_neither_one_value_nor_two(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    assert refusal(monkeypatch, {name: value}).startswith(f"{name}: {reason}")


def test_two_values_are_good_while_one_is_exchanged_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "AUTH_SECRET": f"{secrets.token_hex(16)} , {AUTH_SECRET}"})

    new, old = load_settings().auth_secrets

    assert (len(new), old) == (32, AUTH_SECRET)


@pytest.mark.parametrize(
    ("values", "concern"),
    [
        ({"PAYMENT_WEBHOOK_SECRET": f'"{WEBHOOK_SECRET}"'}, "PAYMENT_WEBHOOK_SECRET begins and ends with quotes"),
        ({"AUTH_SECRET": f"'{AUTH_SECRET}'"}, "AUTH_SECRET begins and ends with quotes"),
        ({"AUTH_SECRET": f"'{AUTH_SECRET}','old'"}, "AUTH_SECRET begins and ends with quotes"),
        (PRODUCTION, "HOST=127.0.0.1 lets in nobody but this machine"),
        ({"HOST": "0.0.0.0", "PAYMENT_WEBHOOK_SECRET": "my own"}, "AUTH_SECRET is not set"),
    ],
)
def test_says_what_is_probably_not_meant(
    monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str], concern: str
) -> None:
    set_all(monkeypatch, values)

    concerns = load_settings().concerns

    assert [one for one in concerns if one.startswith(concern)]
    assert not any(secret in " ".join(concerns) for secret in (AUTH_SECRET, WEBHOOK_SECRET))


def test_a_plain_development_start_has_no_concerns() -> None:
    assert load_settings().concerns == []


def test_no_part_of_a_secret_is_logged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    old = secrets.token_hex(16)
    set_all(
        monkeypatch,
        {
            **PRODUCTION,
            "PAYMENT_WEBHOOK_SECRET": f"{WEBHOOK_SECRET}, {old}",
            "DATABASE_URL": "postgresql://tollgate:per%40cent-4711@db/tollgate",
        },
    )
    configure_logging("INFO", as_json=True, secrets=load_settings().secrets)

    structlog.get_logger().info(
        "seen",
        key=f"half {FAL_KEY_SECRET}",
        dsn="password per@cent-4711",
        raw="per%40cent-4711",
        old=old,
        new=WEBHOOK_SECRET,
    )

    line = capsys.readouterr().err
    assert "seen" in line
    for secret in (FAL_KEY_SECRET, "per@cent-4711", "per%40cent-4711", old, WEBHOOK_SECRET, PASSWORD):
        assert secret not in line


def test_the_command_prints_no_part_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "HOST": "0.0.0.0", "AUTH_SECRET": f"{secrets.token_hex(16)},{AUTH_SECRET}"})

    printed = CliRunner().invoke(command_line, ["settings"])

    assert printed.exit_code == 0
    assert AUTH_SECRET not in printed.output
