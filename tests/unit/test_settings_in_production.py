"""What production refuses to start with, and what the rules beside the fields say of it."""

from typing import Annotated

import pytest
from pydantic import SecretStr, ValidationError

from app.infrastructure.settings import Settings, load_settings
from app.infrastructure.settings.secrets import has_strong_values
from app.infrastructure.settings.values import InProduction
from tests.unit.settings_environment import PRODUCTION, production_with, refusal, set_all

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_production_starts_with_everything_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PRODUCTION)

    loaded = load_settings()

    assert loaded.is_production
    assert loaded.is_event_id_required
    assert loaded.seconds_to_drain == 3


def test_production_may_drain_for_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "DRAIN_SECONDS": "0"})

    assert load_settings().seconds_to_drain == 0


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
        "0123456789abcdef0123456789abcdef",
        "12345678901234567890123456789012",
        "qwertyuiopasdfghjklzxcvbnm123456",
        "passwordpasswordpasswordpassword",
        "deadbeefdeadbeefdeadbeefdeadbeef",
        "test-secret-test-secret-test-secret-1",
        "00000000-0000-0000-0000-000000000001",
        "new-4e7a90d35c1b48f2a6e3076bd81f592c,short",
        "short,old-4e7a90d35c1b48f2a6e3076bd81f592c",
    ],
)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "SIGNING_SECRET"])
def test_production_refuses_a_missing_or_weak_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    message = refusal(monkeypatch, production_with(name, value))

    assert message.startswith(f"APP_ENV=production: {name} must be set to a secret of at least 32 characters")


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

    for name in ("AUTH_SECRET", "PAYMENT_WEBHOOK_SECRET", "SIGNING_SECRET", "FAL_KEY", "DATABASE_URL"):
        assert f"{name} must be set" in message


class NewerSettings(Settings):
    resale_key: Annotated[
        SecretStr | None, InProduction(has_strong_values, "must be set to the key of your reseller")
    ] = None


def test_a_rule_beside_a_new_field_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PRODUCTION)

    with pytest.raises(ValidationError, match="APP_ENV=production: RESALE_KEY must be set to the key of your reseller"):
        NewerSettings()

    assert NewerSettings(resale_key=SecretStr("c81d0f6a2b9e4753a96e5d30f7182c4b")).is_production


def test_every_secret_says_what_production_asks_of_it() -> None:
    fields = Settings.model_fields.items()
    secrets = {name for name, field in fields if "SecretStr" in str(field.annotation)}
    ruled = {name for name, field in fields if any(isinstance(rule, InProduction) for rule in field.metadata)}

    assert {"database_url", "fal_admin_key"} < secrets <= ruled
