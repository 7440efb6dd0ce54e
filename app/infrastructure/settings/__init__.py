"""Settings from the environment and `.env`, a file for each concern; `.env.example` says what each is for."""

from collections.abc import Sequence
from typing import Any, Self

import structlog
from pydantic import ModelWrapValidatorHandler, PrivateAttr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infrastructure.secrets import DEVELOPMENT_WEBHOOK_SECRET, parts_of
from app.infrastructure.settings.database import DatabaseSettings
from app.infrastructure.settings.fal import FalSettings
from app.infrastructure.settings.money import MoneySettings
from app.infrastructure.settings.service import AppEnv, RunnerHome, ServiceSettings
from app.infrastructure.settings.values import is_elsewhere, names_of_one_secret, plain, secrets_in, unmet_demands

__all__ = ["DEVELOPMENT_WEBHOOK_SECRET", "AppEnv", "RunnerHome", "Settings", "SettingsError", "load_settings"]

log = structlog.get_logger(__name__)


class SettingsError(Exception):
    """What is wrong, one line each; never a value, it may be a secret."""


# pydantic collects the fields from the last base to the first: this is the order of `.env.example`.
class Settings(FalSettings, MoneySettings, DatabaseSettings, ServiceSettings, BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env",
        # An editor's byte order mark would become part of the first name.
        env_file_encoding="utf-8-sig",
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
    )

    _in_quotes: Sequence[str] = PrivateAttr(default=())

    @model_validator(mode="wrap")
    @classmethod
    def _without_what_stands_around(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        texts = {name: plain(value) for name, value in data.items() if isinstance(value, str)}
        settings = handler({**data, **{name: text for name, (text, _) in texts.items()}})
        in_quotes = [name.upper() for name, (_, is_quoted) in texts.items() if is_quoted]
        settings._in_quotes = in_quotes  # noqa: SLF001 - its own: nothing but a validator sees what was given
        return settings

    @model_validator(mode="after")
    def _safe_to_start(self) -> Self:
        if self.is_secret_of_a_source_shared:
            raise ValueError("PAYMENT_SOURCES_JSON: each source must have a secret of its own that opens nothing else")
        if self.is_production:
            unmet = [*unmet_demands(self), *names_of_one_secret(self)]
            if unmet:
                raise ValueError("APP_ENV=production: " + "; ".join(unmet))
        elif not self.is_for_this_machine_alone:
            unmet = [*self.demands_of_others]
            if unmet:
                unmet.append(f"or {'set HOST=127.0.0.1' if self.public_url is None else 'leave PUBLIC_URL out'}")
                raise ValueError("HOST or PUBLIC_URL lets other machines in: " + "; ".join(unmet))
        return self

    @property
    def is_for_this_machine_alone(self) -> bool:
        return self.is_host_for_this_machine_alone and (self.public_url is None or not is_elsewhere(self.public_url))

    @property
    def demands_of_others(self) -> Sequence[str]:
        """What is missing before other machines may reach the service: what is left out is known to everybody."""
        return unmet_demands(self, is_production=False)

    def warn(self) -> None:
        """Log what works and is probably not meant, once the log is set up."""
        for name in self._in_quotes:
            log.warning("setting_in_quotes", setting=name, advice="the quotes were taken away; write it without them")

    @property
    def is_event_id_required(self) -> bool:
        return self.is_production if self.topup_require_event_id is None else self.topup_require_event_id

    @property
    def secrets(self) -> list[str]:
        """Whatever must never be logged."""
        return list(dict.fromkeys(part for secret in secrets_in(self) for part in parts_of(secret)))


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
