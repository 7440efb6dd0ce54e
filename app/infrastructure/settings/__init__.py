"""Settings from the environment and `.env`, a file for each concern; `.env.example` says what each is for."""

from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infrastructure.settings.database import DatabaseSettings
from app.infrastructure.settings.egress import EgressSettings
from app.infrastructure.settings.fal import FalSettings
from app.infrastructure.settings.money import MoneySettings
from app.infrastructure.settings.service import AppEnv, RunnerHome, ServiceSettings
from app.infrastructure.settings.values import DEVELOPMENT_WEBHOOK_SECRET, secrets_in, unmet_demands

__all__ = ["DEVELOPMENT_WEBHOOK_SECRET", "AppEnv", "RunnerHome", "Settings", "SettingsError", "load_settings"]


class SettingsError(Exception):
    """What is wrong, one line each; never a value, it may be a secret."""


# pydantic collects the fields from the last base to the first: this is the order of `.env.example`.
class Settings(EgressSettings, FalSettings, MoneySettings, DatabaseSettings, ServiceSettings, BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True, frozen=True
    )

    @model_validator(mode="after")
    def _safe_in_production(self) -> Self:
        unmet = unmet_demands(self) if self.is_production else []
        if unmet:
            raise ValueError("APP_ENV=production: " + "; ".join(unmet))
        return self

    @property
    def is_event_id_required(self) -> bool:
        return self.is_production if self.topup_require_event_id is None else self.topup_require_event_id

    @property
    def secrets(self) -> list[str]:
        """Whatever must never be logged."""
        return list(secrets_in(self))


def load_settings(**overrides: Any) -> Settings:
    """Raises SettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"{str(problem['loc'][0]).upper()}: {problem['msg'].removeprefix('Value error, ')}"
            if problem["loc"]
            else problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("\n".join(lines)) from None
