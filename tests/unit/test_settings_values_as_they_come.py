"""Values as files, shells and consoles hand them over: with blanks, in quotes, two at once, or of no use at all."""

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from app.cli import app as command_line
from app.infrastructure.settings import load_settings
from tests.unit.settings_environment import AUTH_SECRET, PRODUCTION, WEBHOOK_SECRET, refusal, set_all

pytestmark = pytest.mark.usefixtures("bare_environment")

NAMES = (
    "AUTH_SECRET",
    "PAYMENT_WEBHOOK_SECRET",
    "FAL_KEY",
    "FAL_ADMIN_KEY",
    "FAL_USER_ID",
    "DATABASE_URL",
    "PUBLIC_URL",
)
GIVEN = {**PRODUCTION, "FAL_USER_ID": "user-4711", "PUBLIC_URL": "https://tollgate.example.com"}
CLEAN = load_settings(_env_file=None, **{name.lower(): value for name, value in GIVEN.items()})


@pytest.mark.parametrize(
    "form", ["{}\n", "{}\r\n", " {} ", "\t{}", "\ufeff{}", "{}\u00a0", "\u200b{}\u200b\n", "\ufeff {}\r"]
)
@pytest.mark.parametrize("name", NAMES)
def test_what_stands_around_a_value_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    set_all(monkeypatch, {**GIVEN, name: form.format(GIVEN[name])})

    assert load_settings() == CLEAN


@pytest.mark.parametrize("form", ['"{}"', "'{}'", ' "{}"\n', '" {} "', "'\"{}\"'"])
@pytest.mark.parametrize("name", NAMES)
def test_quotes_are_taken_away_and_told_of(monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    set_all(monkeypatch, {**GIVEN, name: form.format(GIVEN[name])})

    loaded = load_settings()
    with capture_logs() as logs:
        loaded.warn()

    assert loaded.model_dump() == CLEAN.model_dump()
    assert [(log["log_level"], log["event"], log["setting"]) for log in logs] == [
        ("warning", "setting_in_quotes", name)
    ]


@pytest.mark.parametrize("value", ['ab"cd', '"abcd', "ab'cd'"])
def test_a_quote_inside_of_a_secret_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PAYMENT_WEBHOOK_SECRET", value)

    assert load_settings().webhook_secrets == (value,)


def test_a_byte_order_mark_in_the_file_hides_no_setting(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfPORT=9001\r\nAUTH_SECRET=one\r\n")

    loaded = load_settings()

    assert (loaded.port, loaded.service_secrets) == (9001, ("one",))


@pytest.mark.parametrize(
    "value",
    ["geh\u00e9im-4711", "top\nsecret-4711", "a\x7fb-4711", "\u201csecret-4711\u201d", "a\tb-4711", "\u0441ecret-4711"],
)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "FAL_USER_ID"])
def test_refuses_what_no_header_can_carry_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    assert refusal(monkeypatch, {name: value}) == (
        f"{name}: must be plain ASCII characters without line breaks, because it travels in an HTTP header"
    )


@pytest.mark.parametrize("value", [" ", '""', "\ufeff", "\n"])
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "FAL_USER_ID", "HOST", "PUBLIC_URL"])
def test_refuses_a_value_of_blanks(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    message = refusal(monkeypatch, {name: value})

    assert message.startswith(f"{name}: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("value", ["new,old", "new, old", " new ,\told\n", "'new','old'"])
def test_two_secrets_are_good_at_once(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    set_all(monkeypatch, {"AUTH_SECRET": value, "PAYMENT_WEBHOOK_SECRET": value})
    monkeypatch.setenv(
        "PAYMENT_SOURCES_JSON", json.dumps({"stripe": value.replace("new", "newer").replace("old", "older")})
    )

    loaded = load_settings()

    assert loaded.service_secrets == loaded.webhook_secrets == ("new", "old")
    assert loaded.secrets_by_source == {"stripe": ("newer", "older")}
    assert loaded.webhook_secret == "new"


@pytest.mark.parametrize(
    "value",
    [
        "one-4711,two-4711,three-4711",
        ",one-4711",
        "one-4711,",
        "one-4711,,two-4711",
        ",",
        "one-4711, ",
        "one-4711,one-4711",
    ],
)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "PAYMENT_SOURCES_JSON"])
def test_refuses_what_is_not_one_secret_or_two(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    given = json.dumps({"stripe": value}) if name == "PAYMENT_SOURCES_JSON" else value

    message = refusal(monkeypatch, {name: given})

    assert message.startswith(f"{name}: must ")
    assert len(message.splitlines()) == 1
    assert "4711" not in message


@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET"])
@pytest.mark.parametrize("value", [f"{AUTH_SECRET[::-1]},short", f"short,{AUTH_SECRET[::-1]}"])
def test_each_of_two_secrets_must_be_strong_in_production(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    assert f"{name} must be set to a secret of at least 32" in refusal(monkeypatch, {**PRODUCTION, name: value})


@pytest.mark.parametrize(
    "value",
    [
        "stripe=secret-4711",
        "[]",
        "{}",
        '{"Stripe": "secret-4711"}',
        '{"": "secret-4711"}',
        '{"a/b": "secret-4711"}',
        '{"stripe\\n": "secret-4711"}',
        json.dumps({"s" * 33: "secret-4711"}),
        '{"stripe": 4711}',
        '{"stripe": ["secret-4711"]}',
        '{"stripe": null}',
        '{"stripe": ""}',
        '{"stripe": "secret-4711", "stripe": "another-4711"}',
        '{"stripe": "geh\u00e9im-4711"}',
        '{"stripe": "secret-4711", "yookassa": "secret-4711"}',
        '{"stripe": "secret-4711", "yookassa": "new-4711,secret-4711"}',
        '{"stripe": "development-webhook-secret"}',
        pytest.param("[" * 100_000, id="nested too deeply"),
    ],
)
def test_refuses_sources_that_cannot_be_told_apart(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    message = refusal(monkeypatch, {"PAYMENT_SOURCES_JSON": value})

    assert message.startswith("PAYMENT_SOURCES_JSON: ")
    assert len(message.splitlines()) == 1
    assert "4711" not in message


def test_a_source_must_not_have_the_secret_of_the_plain_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = json.dumps({"stripe": f"{AUTH_SECRET},{WEBHOOK_SECRET}"})

    message = refusal(monkeypatch, {"PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET, "PAYMENT_SOURCES_JSON": sources})

    assert message == "PAYMENT_SOURCES_JSON: each source must have a secret of its own that opens nothing else"


URL_NAMES = ("FAL_QUEUE_URL", "FAL_API_URL", "FAL_REST_URL", "FAL_JWKS_URL", "PUBLIC_URL")


@pytest.mark.parametrize(
    "url",
    [
        "https://fal 4711.run",
        "https://fal.run\\4711",
        "https://fal\\@4711.run",
        "https://fal.run/4711/../admin",
        "https://fal.run/4711/%2e%2e/admin",
        "https://fal.run/4711%2Fadmin",
        "https://fal.run//4711",
        "https://fal.run/./4711",
        "https://user:4711@fal.run",
        "https://4711@fal.run",
        "https://fal.run/?key=4711",
        "https://fal.run/#4711",
        "https://fal_\u200b4711.run",
        "https://fal.run:0/4711",
        "https://fal<4711>.run",
        "https://fal.run/4711 5",
    ],
)
@pytest.mark.parametrize("name", URL_NAMES)
def test_refuses_a_url_that_two_readers_may_read_differently(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    message = refusal(monkeypatch, {name: url})

    assert message.startswith(f"{name}: the ")
    assert len(message.splitlines()) == 1
    assert "4711" not in message


@pytest.mark.parametrize("name", ["FAL_REST_URL", "PUBLIC_URL"])
def test_the_settings_are_shown_without_what_a_url_carries(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "https://user:4711@fal.run")

    outcome = CliRunner().invoke(command_line, ["settings"])

    assert outcome.exit_code == 1
    assert "4711" not in outcome.output


def test_the_name_and_the_password_in_any_url_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later setting may have them."""
    monkeypatch.setenv("FAL_USER_ID", "http://somebody:4711@proxy")

    outcome = CliRunner().invoke(command_line, ["settings"])

    assert outcome.exit_code == 0
    assert "4711" not in outcome.output
    assert "somebody" not in outcome.output
