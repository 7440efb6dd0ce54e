"""The process itself: where it runs, listens, logs and keeps its files, and how it stops."""

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from app.infrastructure.settings.values import is_for_this_machine_alone

# A proxy that looks at /readyz every second has then looked twice.
DRAIN_SECONDS_IN_PRODUCTION = 3.0
# Beyond it, the drain and the requests after it would not fit into the 30 s of a stop.
DRAIN_SECONDS_MAX = 10


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class RunnerHome(StrEnum):
    EMBEDDED = "embedded"
    EXTERNAL = "external"


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _is_host(host: str) -> str:
    # The operating system takes no name at all for every address of the machine.
    if not re.fullmatch("[!-~]+", host):
        raise ValueError("must be the address or the name on which the API listens, such as 127.0.0.1")
    return host


class ServiceSettings(BaseModel):
    app_env: AppEnv = AppEnv.DEVELOPMENT
    host: Annotated[str, AfterValidator(_is_host)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Path = Path(".data")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    runner: RunnerHome = RunnerHome.EMBEDDED
    drain_seconds: Annotated[float, Field(ge=0, le=DRAIN_SECONDS_MAX)] | None = None

    @property
    def is_production(self) -> bool:
        return self.app_env is AppEnv.PRODUCTION

    @property
    def is_host_for_this_machine_alone(self) -> bool:
        return is_for_this_machine_alone(self.host)

    @property
    def base_url(self) -> str:
        """Where the service answers on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def logs_as_json(self) -> bool:
        """Readable lines are for a developer at a terminal."""
        return self.is_production or not sys.stderr.isatty()

    @property
    def seconds_to_drain(self) -> float:
        if self.drain_seconds is None:
            return DRAIN_SECONDS_IN_PRODUCTION if self.is_production else 0
        return self.drain_seconds
