"""The PostgreSQL that holds everything that matters."""

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from app.infrastructure.postgres.dsn import Dsn
from app.infrastructure.settings.secrets import SecretParts
from app.infrastructure.settings.values import InProduction, is_set

CONNECTIONS_MIN = 4
# Beyond these the runner's lanes have no use for more.
RUNNER_CONNECTIONS_MAX = 6


def _is_postgres(url: SecretStr) -> SecretStr:
    Dsn.read(url.get_secret_value())
    return url


def _passwords(url: str) -> Iterator[str]:
    """As it stands in the URL, and as the database and its messages spell it."""
    password = Dsn.read(url).password
    if password:
        yield from {password, quote(password, safe="")}


PASSWORD = SecretParts(_passwords)
DatabaseUrl = Annotated[SecretStr, AfterValidator(_is_postgres)]


class DatabaseSettings(BaseModel):
    database_url: Annotated[DatabaseUrl | None, InProduction(is_set, "must be set"), PASSWORD] = None
    database_connections_max: Annotated[int, Field(ge=CONNECTIONS_MIN, le=1_000)] = 22

    @property
    def runner_connections_max(self) -> int:
        """The runner's share: one that listens, and some that take items and say what became of them."""
        return min(max(2, self.database_connections_max * 3 // 11), RUNNER_CONNECTIONS_MAX)

    @property
    def pool_connections_max(self) -> int:
        """What is left for everything else, the steps included."""
        return self.database_connections_max - self.runner_connections_max
