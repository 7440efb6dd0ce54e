"""The PostgreSQL that holds everything that matters."""

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, SecretStr

from app.infrastructure.settings.secrets import SecretParts
from app.infrastructure.settings.values import InProduction, is_set

_SCHEMES = ("postgresql://", "postgresql+asyncpg://", "postgres://")


def _is_postgres(url: SecretStr) -> SecretStr:
    try:
        # A password with a slash or an @ in it ends up in the wrong part, where messages would quote it.
        port = urlsplit(url.get_secret_value()).port
    except ValueError:
        port = -1
    if port == -1 or not url.get_secret_value().startswith(_SCHEMES):
        raise ValueError(
            "must be a PostgreSQL URL, postgresql://user:password@host:5432/database, "
            "with special characters of the password percent-encoded"
        )
    return url


def _passwords(url: str) -> Iterator[str]:
    """As it stands in the URL, and as the database and its messages spell it."""
    parts = urlsplit(url)
    given = [parts.password, *parse_qs(parts.query).get("password", [])]
    for password in filter(None, given):
        yield password
        yield unquote(password)


PASSWORD = SecretParts(_passwords)
DatabaseUrl = Annotated[SecretStr, AfterValidator(_is_postgres)]


class DatabaseSettings(BaseModel):
    database_url: Annotated[DatabaseUrl | None, InProduction(is_set, "must be set"), PASSWORD] = None
