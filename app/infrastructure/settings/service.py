"""The process itself: where it runs, listens, logs and keeps its files, and how it stops."""

import re
import sys
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from app.infrastructure.settings.values import connectable, is_loopback

# A proxy that looks at /readyz every second has then looked twice.
DRAIN_SECONDS_IN_PRODUCTION = 3.0
# Beyond it, the drain and the requests after it would not fit into the 30 s of a stop.
DRAIN_SECONDS_MAX = 10
# A webhook is tried for more than five days, and tells what happened until then.
EVENT_DAYS_MIN = 6


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class RunnerHome(StrEnum):
    EMBEDDED = "embedded"
    EXTERNAL = "external"


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)


def _root_path(value: str) -> str:
    path = value.rstrip("/")
    if not _ROOT_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError("must be a path such as /ai, of letters, digits and . _ ~ - between its slashes")
    return path


def _origins(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    origins = [origin.strip().lower().rstrip("/") for origin in value.split(",") if origin.strip()]
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        # A star would let every page in the world ask, with any key that it has got hold of.
        raise ValueError("must be origins with commas between them, such as https://app.example.com; * is not taken")
    return tuple(origins)


def _networks(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    networks = [part.strip() for part in value.split(",") if part.strip()]
    try:
        parsed = [ip_network(network, strict=False) for network in networks]
    except ValueError:
        raise ValueError("must be addresses or networks with commas between them, such as 10.0.0.0/8,::1") from None
    if any(network.prefixlen == 0 for network in parsed):
        # Whoever asks could then write any address into X-Forwarded-For.
        raise ValueError("must not name all addresses: list those of your proxies")
    return tuple(map(str, parsed))


class ServiceSettings(BaseModel):
    app_env: AppEnv = AppEnv.DEVELOPMENT
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Path = Path(".data")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    runner: RunnerHome = RunnerHome.EMBEDDED
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = 75
    root_path: Annotated[str, AfterValidator(_root_path)] | None = None
    cors_origins: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_origins)] = None
    trusted_proxies: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_networks)] = None
    event_days: Annotated[int, Field(ge=EVENT_DAYS_MIN, le=3650)] = 30
    drain_seconds: Annotated[float, Field(ge=0, le=DRAIN_SECONDS_MAX)] | None = None

    @property
    def is_production(self) -> bool:
        return self.app_env is AppEnv.PRODUCTION

    @property
    def is_for_this_machine_only(self) -> bool:
        return is_loopback(self.host)

    @property
    def base_url(self) -> str:
        """Where the service answers on this machine."""
        host = connectable(self.host)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}"

    @property
    def logs_as_json(self) -> bool:
        """Readable lines are for a developer at a terminal."""
        return self.is_production or not sys.stderr.isatty()

    @property
    def seconds_to_drain(self) -> float:
        if self.drain_seconds is None:
            return DRAIN_SECONDS_IN_PRODUCTION if self.is_production else 0
        return self.drain_seconds
