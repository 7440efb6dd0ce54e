"""What the environment says to the settings in tests, and what they answer."""

from collections.abc import Mapping

import pytest

from app.infrastructure.settings import SettingsError, load_settings

PASSWORD = "database-password-4711"
AUTH_SECRET = "auth-9b1f6c07d2e84a35b6720cf1e95d38a4"
WEBHOOK_SECRET = "webhook-4e7a90d35c1b48f2a6e3076bd81f592c"
SIGNING_SECRET = "signing-c3e5a7180b6f4d29ba40e1758d2f96c3"
FAL_KEY_SECRET = "d03c7be1946f4f5a8e27b9c65013da84"
FAL_KEY_ID = "7d5f6a0e-key-id"
ADMIN_KEY_SECRET = "f2a81c5e9d7346b0a4c8e1375b96d20f"
SECRETS = (PASSWORD, AUTH_SECRET, WEBHOOK_SECRET, SIGNING_SECRET, FAL_KEY_SECRET, FAL_KEY_ID, ADMIN_KEY_SECRET)
PRODUCTION = {
    "APP_ENV": "production",
    "DATABASE_URL": f"postgresql://tollgate:{PASSWORD}@db:5432/tollgate",
    "AUTH_SECRET": AUTH_SECRET,
    "PAYMENT_WEBHOOK_SECRET": WEBHOOK_SECRET,
    "SIGNING_SECRET": SIGNING_SECRET,
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
