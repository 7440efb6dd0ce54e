"""What the environment may say, what is refused, and that no secret ever shows."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from app.cli import app as command_line
from app.domain.catalogue import GenerationKind
from app.infrastructure.postgres.database import plain_dsn
from app.infrastructure.settings import Settings, SettingsError, load_settings

# The database that docker-compose.yml creates.
COMPOSE_NAMES = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}

PASSWORD = "database-password-4711"
AUTH_SECRET = "auth-0123456789abcdef0123456789abcdef"
WEBHOOK_SECRET = "webhook-0123456789abcdef0123456789abcdef"
FAL_KEY_SECRET = "0123456789abcdef0123456789abcdef"
FAL_KEY_ID = "7d5f6a0e-key-id"
ADMIN_KEY_SECRET = "fedcba9876543210fedcba9876543210"
SECRETS = (PASSWORD, AUTH_SECRET, WEBHOOK_SECRET, FAL_KEY_SECRET, FAL_KEY_ID, ADMIN_KEY_SECRET)
PRODUCTION = {
    "APP_ENV": "production",
    "DATABASE_URL": f"postgresql://tollgate:{PASSWORD}@db:5432/tollgate",
    "AUTH_SECRET": AUTH_SECRET,
    "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET,
    "FAL_KEY": f"{FAL_KEY_ID}:{FAL_KEY_SECRET}",
    "FAL_ADMIN_KEY": f"admin:{ADMIN_KEY_SECRET}",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from the environment, and no .env in the working directory."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def set_all(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def refusal(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> str:
    set_all(monkeypatch, values)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    return str(refused.value)


def production_with(name: str, value: str | None) -> dict[str, str]:
    others = {other: given for other, given in PRODUCTION.items() if other != name}
    return others if value is None else {**others, name: value}


def test_the_example_lists_exactly_the_settings(project_dir: Path) -> None:
    lines = (project_dir / ".env.example").read_text().splitlines()

    listed = [line.partition("=")[0] for line in lines if re.match("[A-Z]", line)]

    assert sorted(listed) == sorted({name.upper() for name in Settings.model_fields} | COMPOSE_NAMES)


def test_every_line_of_the_example_is_a_comment_or_a_setting(project_dir: Path) -> None:
    lines = (project_dir / ".env.example").read_text().splitlines()

    assert [line for line in lines if not re.fullmatch(r"#.*||[A-Z_]+=(\S+)?", line)] == []


def test_the_example_says_the_defaults(project_dir: Path, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text((project_dir / ".env.example").read_text())

    assert load_settings() == Settings(_env_file=None)  # type: ignore[call-arg]


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nHOST=::1\n")
    monkeypatch.setenv("PORT", "9002")

    loaded = load_settings()

    assert (loaded.host, loaded.port) == ("::1", 9002)


def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {name.upper(): "" for name in Settings.model_fields})

    assert load_settings() == Settings(_env_file=None)  # type: ignore[call-arg]


def test_production_starts_with_everything_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PRODUCTION)

    loaded = load_settings()

    assert loaded.is_production
    assert loaded.is_event_id_required
    assert loaded.seconds_to_drain == 3


@pytest.mark.parametrize(
    ("values", "is_terminal", "is_json"), [({}, True, False), ({}, False, True), (PRODUCTION, True, True)]
)
def test_logs_are_readable_lines_on_a_developers_terminal_only(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], *, is_terminal: bool, is_json: bool
) -> None:
    set_all(monkeypatch, values)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)

    assert load_settings().logs_as_json is is_json


@pytest.mark.parametrize(("value", "seconds"), [("", 0), ("0", 0), ("7.5", 7.5)])
def test_development_drains_only_where_asked(monkeypatch: pytest.MonkeyPatch, value: str, seconds: float) -> None:
    set_all(monkeypatch, {"DRAIN_SECONDS": value})

    assert load_settings().seconds_to_drain == seconds


def test_production_may_drain_for_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "DRAIN_SECONDS": "0"})

    assert load_settings().seconds_to_drain == 0


@pytest.mark.parametrize("value", ["-1", "10.1", "nan", "long"])
def test_refuses_a_drain_that_does_not_fit_into_a_stop(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    set_all(monkeypatch, {"DRAIN_SECONDS": value})

    with pytest.raises(SettingsError, match="DRAIN_SECONDS"):
        load_settings()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "short",
        "0123456789abcdef0123456789abcde",
        "development-webhook-secret",
        "change-me-change-me-change-me-change-me",
        "a" * 64,
        "abababababababababababababababababababab",
    ],
)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET"])
def test_production_refuses_a_missing_or_weak_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    message = refusal(monkeypatch, production_with(name, value))

    assert message == f"APP_ENV=production: {name} must be set to a secret of at least 32 characters"


@pytest.mark.parametrize(
    "value", [None, "", "simulator:simulator", "id:short", "change-me:change-me-change-me-change-me"]
)
def test_production_refuses_a_missing_or_weak_fal_key(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    message = refusal(monkeypatch, production_with("FAL_KEY", value))

    assert message == "APP_ENV=production: FAL_KEY must be set to the key of your fal.ai account"


@pytest.mark.parametrize("value", ["admin:simulator", "id:short", "change-me:change-me-change-me-change-me"])
def test_production_refuses_a_weak_admin_key(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    message = refusal(monkeypatch, {**PRODUCTION, "FAL_ADMIN_KEY": value})

    assert message == "APP_ENV=production: FAL_ADMIN_KEY must be an ADMIN key of your fal.ai account, or not set"


@pytest.mark.parametrize("value", [None, ""])
def test_production_starts_without_an_admin_key(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    set_all(monkeypatch, production_with("FAL_ADMIN_KEY", value))

    assert load_settings().fal_admin_key is None


def test_names_every_secret_that_must_not_be_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PRODUCTION)

    assert [secret for secret in SECRETS if not any(secret in hidden for hidden in load_settings().secrets)] == []


@pytest.mark.parametrize("value", [None, ""])
def test_production_refuses_to_start_without_a_database(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    assert (
        refusal(monkeypatch, production_with("DATABASE_URL", value)) == "APP_ENV=production: DATABASE_URL must be set"
    )


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "http://localhost:9000/", "http://LOCALHOST", "https://[::1]:9000"]
)
@pytest.mark.parametrize("name", ["FAL_QUEUE_URL", "FAL_API_URL"])
def test_production_refuses_the_simulator(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    message = refusal(monkeypatch, production_with(name, url))

    assert message == f"APP_ENV=production: {name} must not be the simulator"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2:9000", "http://0.0.0.0:9000", "http://[::ffff:127.0.0.1]:9000", "http://localhost.:9000"]
)
def test_production_refuses_the_simulator_under_other_names_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    message = refusal(monkeypatch, production_with("FAL_QUEUE_URL", url))

    assert message == "APP_ENV=production: FAL_QUEUE_URL must not be the simulator"


def test_production_names_everything_that_is_wrong_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, {"APP_ENV": "production"})

    for name in ("AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "FAL_KEY", "DATABASE_URL"):
        assert f"{name} must be set" in message


def test_development_starts_with_nothing_and_listens_on_this_machine_only() -> None:
    loaded = load_settings()

    assert not loaded.is_production
    assert loaded.host == "127.0.0.1"
    assert not loaded.is_event_id_required


@pytest.mark.parametrize(("value", "is_required"), [("true", True), ("false", False)])
def test_the_event_id_rule_can_be_set(monkeypatch: pytest.MonkeyPatch, value: str, is_required: bool) -> None:
    set_all(monkeypatch, {**PRODUCTION, "TOPUP_REQUIRE_EVENT_ID": value})

    assert load_settings().is_event_id_required is is_required


def test_a_price_can_be_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PRICES_JSON", '{"text_to_image": 7}')

    prices = load_settings().token_prices_json

    assert prices.cost_tokens(GenerationKind.TEXT_TO_IMAGE, {}) == 7
    assert prices.cost_tokens(GenerationKind.IMAGE_TO_IMAGE, {}) == 6


@pytest.mark.parametrize(
    "value",
    [
        '{"text_to_imag": 5}',
        '{"text_to_image": 0}',
        '{"text_to_image": -1}',
        '{"text_to_image": 5.0}',
        '{"text_to_image": true}',
        '{"text_to_image": null}',
        '{"text_to_image": "5"}',
        '{"text_to_image": 1000000001}',
        '{"text_to_image": 1e400}',
        '{"text_to_image": NaN}',
        '{"text_to_image": ' + "9" * 5000 + "}",
        '{"text_to_image": 5',
        "text_to_image=5",
        "[]",
        "5",
        "null",
        pytest.param("[" * 100_000, id="nested too deeply"),
    ],
)
def test_prices_that_cannot_be_used_stop_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    message = refusal(monkeypatch, {"TOKEN_PRICES_JSON": value})

    assert message.startswith("TOKEN_PRICES_JSON: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 300


@pytest.mark.parametrize(
    ("url", "as_asyncpg_reads_it"),
    [
        ("postgresql://user:password@host:5432/name", "postgresql://user:password@host:5432/name"),
        ("postgresql+asyncpg://user:password@host:5432/name", "postgresql://user:password@host:5432/name"),
        ("postgres://user:password@host/name", "postgresql://user:password@host/name"),
        ("postgresql://user@/name?host=/var/run/postgresql", "postgresql://user@/name?host=/var/run/postgresql"),
        ("postgresql+asyncpg:///name?host=/tmp", "postgresql:///name?host=/tmp"),
    ],
)
def test_takes_every_form_of_a_postgresql_url(
    monkeypatch: pytest.MonkeyPatch, url: str, as_asyncpg_reads_it: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    given = load_settings().database_url

    assert given is not None
    assert plain_dsn(given.get_secret_value()) == as_asyncpg_reads_it


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{PASSWORD}@host/name",
        f"sqlite:///{PASSWORD}",
        f"host=localhost password={PASSWORD}",
        f"postgresql+psycopg://user:{PASSWORD}@host/name",
        f"postgresql://user:{PASSWORD}/with-a-slash@host/name",
        PASSWORD,
    ],
)
def test_refuses_another_database_without_repeating_what_was_given(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    message = refusal(monkeypatch, {"DATABASE_URL": url})

    assert message.startswith("DATABASE_URL: must be a PostgreSQL URL, postgresql://user:password@host:5432/database,")
    assert PASSWORD not in message


@pytest.mark.parametrize("value", ["id:secret", " id:secret", "id:secret\n", "\tid:secret \r\n"])
@pytest.mark.parametrize("name", ["FAL_KEY", "FAL_ADMIN_KEY"])
def test_strips_a_fal_key(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    assert getattr(load_settings(), name.lower()) == SecretStr("id:secret")


@pytest.mark.parametrize("value", ["topsecret", ":topsecret", "topsecret:", "id: topsecret", "id:top\nsecret", " "])
@pytest.mark.parametrize("name", ["FAL_KEY", "FAL_ADMIN_KEY"])
def test_refuses_what_is_no_fal_key_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    assert refusal(monkeypatch, {name: value}) == f"{name}: must look like <key id>:<key secret>"


@pytest.mark.parametrize("url", ["https://user:secret@api.fal.ai/v1", "https://api.fal.ai/v1?x=1"])
def test_refuses_an_api_url_that_carries_more_than_an_address(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    message = refusal(monkeypatch, {"FAL_API_URL": url})

    assert message == "FAL_API_URL: the API URL must not carry credentials, a query or a fragment"


@pytest.mark.parametrize("name", ["FAL_QUEUE_URL", "FAL_REST_URL", "FAL_JWKS_URL", "FAL_API_URL", "PUBLIC_URL"])
@pytest.mark.parametrize("value", ["queue.fal.run", "ftp://queue.fal.run", "http://", "https:///path", "http://[::1"])
def test_refuses_what_is_no_url(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    message = refusal(monkeypatch, {name: value})

    assert message.startswith(f"{name}: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("APP_ENV", "staging"),
        ("RUNNER", "none"),
        ("LOG_LEVEL", "LOUD"),
        ("TOPUP_REQUIRE_EVENT_ID", "perhaps"),
        ("IMAGE_TIME_LIMIT_SECONDS", "0"),
        ("VIDEO_TIME_LIMIT_SECONDS", "86401"),
    ],
)
def test_refuses_a_value_out_of_range_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    message = refusal(monkeypatch, {name: value})

    assert message.startswith(f"{name}: ")
    assert len(message.splitlines()) == 1


def shown_of(settings: Settings) -> Mapping[str, str]:
    return {
        "str": str(settings),
        "repr": repr(settings),
        "dict": str(settings.model_dump()),
        "JSON": settings.model_dump_json(),
        "command": CliRunner().invoke(command_line, ["settings"]).output,
    }


def test_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PRODUCTION)

    shown = shown_of(load_settings())

    leaks = [(place, secret) for place, text in shown.items() for secret in SECRETS if secret in text]
    assert leaks == []
    assert all("production" in text for text in shown.values())


@pytest.mark.parametrize(
    "mistake",
    [{"PORT": "x"}, {"FAL_QUEUE_URL": "http://localhost"}, {"DATABASE_URL": PASSWORD}, {"APP_ENV": AUTH_SECRET}],
)
def test_names_no_secret_in_an_error(monkeypatch: pytest.MonkeyPatch, mistake: Mapping[str, str]) -> None:
    set_all(monkeypatch, {**PRODUCTION, **mistake})

    outcome = CliRunner().invoke(command_line, ["settings"])

    assert outcome.exit_code == 1
    assert outcome.stdout == ""
    assert all(line.startswith("error: ") for line in outcome.stderr.splitlines())
    assert [secret for secret in SECRETS if secret in outcome.output] == []


def test_prints_the_settings_in_force_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "TOKEN_PRICES_JSON": '{"text_to_image": 7}', "PORT": "9001"})

    shown: dict[str, Any] = json.loads(CliRunner().invoke(command_line, ["settings"]).stdout)

    assert shown.keys() == Settings.model_fields.keys()
    assert (shown["port"], shown["token_prices_json"]) == (9001, {"text_to_image": 7})
