"""Settings from the environment and `.env`; `.env.example` says what each is for."""

import json
import sys
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.domain.catalogue import PriceList
from app.infrastructure.fal.urls import QueueUrls, checked_base_url, checked_key

SECRET_LENGTH_MIN = 32
FAL_QUEUE_URL = "https://queue.fal.run"
FAL_WEBHOOKS_PATH = "/webhooks/fal"
FAL_REST_URL = "https://rest.fal.ai"
FAL_API_URL = "https://api.fal.ai/v1"
# A proxy that looks at /readyz every second has then looked twice.
DRAIN_SECONDS_IN_PRODUCTION = 3.0
# Beyond it, the drain and the requests after it would not fit into the 30 s of a stop.
DRAIN_SECONDS_MAX = 10
# For a laptop only; production refuses it.
DEVELOPMENT_WEBHOOK_SECRET = "development-webhook-secret"  # noqa: S105


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class RunnerHome(StrEnum):
    EMBEDDED = "embedded"
    EXTERNAL = "external"


class SettingsError(Exception):
    """What is wrong, one line each; never a value, it may be a secret."""


def _without_trailing_slash(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("must start with https:// or http:// and name a host")
    return url.rstrip("/")


def _is_this_machine(url: str) -> bool:
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


Url = Annotated[str, AfterValidator(_without_trailing_slash)]


def _empty_is_unset(value: Any) -> Any:
    return None if value == "" else value


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True, frozen=True
    )

    app_env: AppEnv = AppEnv.DEVELOPMENT
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Path = Path(".data")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    runner: RunnerHome = RunnerHome.EMBEDDED
    drain_seconds: Annotated[float, Field(ge=0, le=DRAIN_SECONDS_MAX)] | None = None

    database_url: SecretStr | None = None

    auth_secret: SecretStr | None = None
    payment_webhook_secret: SecretStr | None = None
    topup_require_event_id: bool | None = None
    token_prices_json: Annotated[PriceList, NoDecode] = PriceList()

    fal_key: SecretStr | None = None
    fal_queue_url: Url = FAL_QUEUE_URL
    fal_rest_url: Url = FAL_REST_URL
    fal_jwks_url: Url | None = None
    fal_user_id: str | None = None
    fal_admin_key: SecretStr | None = None
    fal_api_url: Url = FAL_API_URL
    public_url: Url | None = None

    image_time_limit_seconds: Annotated[int, Field(ge=1, le=86_400)] = 20 * 60
    video_time_limit_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60 * 60

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("token_prices_json", mode="before")
    @classmethod
    def _prices(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            overrides = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is not valid JSON") from None
        if not isinstance(overrides, dict):
            raise ValueError('must be a JSON object such as {"text_to_image": 5}')
        return PriceList(overrides)

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("postgresql://", "postgresql+asyncpg://", "postgres://")
        if value is None:
            return None
        try:
            # A password with a slash or an @ in it ends up in the wrong part, where messages would quote it.
            port = urlsplit(value.get_secret_value()).port
        except ValueError:
            port = -1
        if port == -1 or not value.get_secret_value().startswith(schemes):
            raise ValueError(
                "must be a PostgreSQL URL, postgresql://user:password@host:5432/database, "
                "with special characters of the password percent-encoded"
            )
        return value

    @field_validator("fal_key", "fal_admin_key")
    @classmethod
    def _is_key(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(checked_key(value.get_secret_value()))

    @field_validator("fal_queue_url")
    @classmethod
    def _is_queue(cls, value: str) -> str:
        QueueUrls(value)
        return value

    @field_validator("fal_api_url")
    @classmethod
    def _is_api(cls, value: str) -> str:
        return checked_base_url(value)

    @model_validator(mode="after")
    def _safe_in_production(self) -> Self:
        if not self.is_production:
            return self
        problems = [
            f"{name.upper()} must be set to a secret of at least {SECRET_LENGTH_MIN} characters"
            for name in ("auth_secret", "payment_webhook_secret")
            if not _is_strong(getattr(self, name))
        ]
        if not _is_strong(self.fal_key):
            problems.append("FAL_KEY must be set to the key of your fal.ai account")
        if _is_this_machine(self.fal_queue_url):
            problems.append("FAL_QUEUE_URL must not be the simulator")
        if self.fal_admin_key is not None and not _is_strong(self.fal_admin_key):
            problems.append("FAL_ADMIN_KEY must be an ADMIN key of your fal.ai account, or not set")
        if _is_this_machine(self.fal_api_url):
            problems.append("FAL_API_URL must not be the simulator")
        if self.database_url is None:
            problems.append("DATABASE_URL must be set")
        if problems:
            raise ValueError("APP_ENV=production: " + "; ".join(problems))
        return self

    @property
    def base_url(self) -> str:
        """Where the service answers on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def secrets(self) -> list[str]:
        """Whatever must never be logged."""
        given = (
            self.database_url,
            self.auth_secret,
            self.payment_webhook_secret,
            self.fal_key,
            self.fal_admin_key,
        )
        return [secret.get_secret_value() for secret in given if secret is not None]

    @property
    def is_production(self) -> bool:
        return self.app_env is AppEnv.PRODUCTION

    @property
    def logs_as_json(self) -> bool:
        """Readable lines are for a developer at a terminal."""
        return self.is_production or not sys.stderr.isatty()

    @property
    def service_secret(self) -> str | None:
        return _reveal(self.auth_secret)

    @property
    def webhook_secret(self) -> str:
        return _reveal(self.payment_webhook_secret) or DEVELOPMENT_WEBHOOK_SECRET

    @property
    def seconds_to_drain(self) -> float:
        if self.drain_seconds is None:
            return DRAIN_SECONDS_IN_PRODUCTION if self.is_production else 0
        return self.drain_seconds

    @property
    def is_event_id_required(self) -> bool:
        return self.is_production if self.topup_require_event_id is None else self.topup_require_event_id

    @property
    def webhooks_url(self) -> str | None:
        """Where fal's webhooks go, without the attempt's token at the end."""
        return None if self.public_url is None else f"{self.public_url}{FAL_WEBHOOKS_PATH}"

    @property
    def jwks_url(self) -> str:
        return self.fal_jwks_url or f"{self.fal_rest_url}/.well-known/jwks.json"


def _reveal(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _is_strong(secret: SecretStr | None) -> bool:
    value = _reveal(secret)
    if value is None or value == DEVELOPMENT_WEBHOOK_SECRET:
        return False
    return len(value) >= SECRET_LENGTH_MIN and "change-me" not in value and len(set(value)) > 4


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
