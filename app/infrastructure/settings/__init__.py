"""Settings from the environment and `.env`, a file for each concern; `.env.example` says what each is for."""

from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infrastructure.egress import is_this_machine
from app.infrastructure.guarded_http.hosts import Hosts
from app.infrastructure.settings.exposure import SettingsTogether
from app.infrastructure.settings.media import DAYS_TO_HEAR_MAX, MEDIA_DAYS_MIN, NO_STORE
from app.infrastructure.settings.secrets import DEVELOPMENT_WEBHOOK_SECRET, secrets_in
from app.infrastructure.settings.service import AppEnv, RunnerHome
from app.infrastructure.settings.values import without_outer_blanks

__all__ = [
    "DEVELOPMENT_WEBHOOK_SECRET",
    "AppEnv",
    "RunnerHome",
    "Settings",
    "SettingsError",
    "WorkerSettings",
    "load_settings",
]


class SettingsError(Exception):
    """What is wrong, one line each; never a value, it may be a secret."""


class Settings(SettingsTogether, BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True, frozen=True
    )

    @model_validator(mode="before")
    @classmethod
    def _without_outer_blanks(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        # A value of nothing but blanks stays one, and is refused: somebody meant to set something.
        return {name: without_outer_blanks(value) or value for name, value in given.items()}

    @model_validator(mode="after")
    def _safe_to_start(self) -> Self:
        if self.refusals:
            raise ValueError("\n".join(self.refusals))
        return self

    @property
    def is_event_id_required(self) -> bool:
        return self.is_production if self.topup_require_event_id is None else self.topup_require_event_id

    @property
    def store_url(self) -> str | None:
        """Of the store of media; None: there is none."""
        if self.media_url == NO_STORE:
            return None
        return self.media_url or (self.data_dir.absolute() / "media").as_uri()

    @property
    def spool_dir(self) -> Path:
        """Of files that are being received."""
        return self.data_dir.absolute() / "uploads"

    @property
    def provider_keeps_seconds(self) -> int:
        """For so long fal is asked to keep what it makes: longer than any link to it is good, which counts from when we
        hear of it.
        """
        days = self.media_days if self.store_url is None else MEDIA_DAYS_MIN
        return (days + DAYS_TO_HEAR_MAX) * 24 * 3600

    @property
    def media_hosts(self) -> Hosts:
        """Where fal may have what it made; in development also the simulator."""
        queue = urlsplit(self.fal_queue_url)
        is_simulated = not self.is_production and is_this_machine(queue.hostname or "")
        return Hosts.of(*self.fal_media_hosts, *([queue.netloc] if is_simulated else []))

    @property
    def links_url(self) -> str:
        """What links begin with that are told to somebody who has not asked."""
        return self.public_url or f"{self.base_url}{self.root_path or ''}"

    @property
    def secrets(self) -> list[str]:
        """Whatever must never be logged."""
        return list(secrets_in(self))


# What an operator sells.
_OF_SELLING = ("catalogue_dir", "token_prices_json")


class WorkerSettings(Settings):
    """Of a process that accepts nothing: jobs that were accepted go on, whatever is wrong with what is sold next."""

    @model_validator(mode="before")
    @classmethod
    def _without_selling(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if name not in _OF_SELLING}


def load_settings(kind: type[Settings] = Settings, /, **overrides: Any) -> Settings:
    """Raises SettingsError."""
    try:
        return kind(**overrides)
    except ValidationError as error:
        lines = [
            f"{str(problem['loc'][0]).upper()}: {problem['msg'].removeprefix('Value error, ')}"
            if problem["loc"]
            else problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("\n".join(lines)) from None
