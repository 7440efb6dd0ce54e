"""What the environment may say, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from app.bootstrap.catalogue import load_catalogue
from app.cli import app as command_line
from app.domain.kinds import GenerationKind
from app.infrastructure.postgres.dsn import plain_dsn
from app.infrastructure.settings import Settings, SettingsError, load_settings
from tests.unit.settings_environment import PASSWORD, PRODUCTION, refusal, set_all

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nHOST=::1\n")
    monkeypatch.setenv("PORT", "9002")

    loaded = load_settings()

    assert (loaded.host, loaded.port) == ("::1", 9002)


def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {name.upper(): "" for name in Settings.model_fields})

    assert load_settings() == Settings(_env_file=None)  # type: ignore[call-arg]


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


@pytest.mark.parametrize("value", ["-1", "10.1", "nan", "long"])
def test_refuses_a_drain_that_does_not_fit_into_a_stop(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    set_all(monkeypatch, {"DRAIN_SECONDS": value})

    with pytest.raises(SettingsError, match="DRAIN_SECONDS"):
        load_settings()


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

    catalogue = load_catalogue(load_settings())

    assert catalogue.default_of(GenerationKind.TEXT_TO_IMAGE).from_tokens == 7
    assert catalogue.default_of(GenerationKind.IMAGE_TO_IMAGE).from_tokens == 6


def test_a_price_of_no_model_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PRICES_JSON", '{"text_to_imag": 5}')

    with pytest.raises(SettingsError, match=r"^TOKEN_PRICES_JSON: unknown price 'text_to_imag'; the prices"):
        load_catalogue(load_settings())


@pytest.mark.parametrize(
    "value",
    [
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
        f"jdbc:postgresql://host/name?user=user&password={PASSWORD}",
        f"postgresql://user:{PASSWORD}@host/name?options=a@b",
        f"postgresql://user:{PASSWORD}",
        f"postgresql://user:{PASSWORD}\nmore@host/name",
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

    assert (
        message
        == "FAL_API_URL: must be a plain address: a host, perhaps a port and a path, and no credentials or query"
    )


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


def test_prints_the_settings_in_force_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "TOKEN_PRICES_JSON": '{"text_to_image": 7}', "PORT": "9001"})

    shown: dict[str, Any] = json.loads(CliRunner().invoke(command_line, ["settings"]).stdout)

    assert shown.keys() == Settings.model_fields.keys()
    assert (shown["port"], shown["token_prices_json"]) == (9001, {"text_to_image": 7})
