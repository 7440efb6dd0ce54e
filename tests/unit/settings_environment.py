"""What the environment says to the settings in tests, and what they answer."""

from collections.abc import Mapping

import pytest

from app.infrastructure.settings import SettingsError, load_settings

PASSWORD = "database-password-4711"
AUTH_SECRET = "auth-9c41e7d80b5f2a36c8e19d047f3b6a52"
WEBHOOK_SECRET = "webhook-51d7f03ae92c684b0e7d3f85a1c92b64"
FAL_KEY_SECRET = "e83b0f5d6a9147c2d05b8e31f7a46c9d"
FAL_KEY_ID = "7d5f6a0e-key-id"
ADMIN_KEY_SECRET = "2f96d81b4c70e5a39b1d6f48c03e7a52"
SECRETS = (PASSWORD, AUTH_SECRET, WEBHOOK_SECRET, FAL_KEY_SECRET, FAL_KEY_ID, ADMIN_KEY_SECRET)
PRODUCTION = {
    "APP_ENV": "production",
    "DATABASE_URL": f"postgresql://tollgate:{PASSWORD}@db:5432/tollgate",
    "AUTH_SECRET": AUTH_SECRET,
    "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET,
    "FAL_KEY": f"{FAL_KEY_ID}:{FAL_KEY_SECRET}",
    "FAL_ADMIN_KEY": f"admin:{ADMIN_KEY_SECRET}",
}


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
