"""Keys as rows. The digest of a secret is how it is found."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping, func, or_

from app.domain.accounts import ApiKey, Scope
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import api_keys, keys

KEY_COLUMNS = (
    keys.c.id.label("key_id"),
    keys.c.scopes,
    keys.c.budget_tokens.is_not(None).label("has_budget"),
    keys.c.expires_at.is_not(None).label("expires"),
)
IS_LIVE_KEY = keys.c.deleted_at.is_(None) & or_(keys.c.expires_at.is_(None), keys.c.expires_at > func.now())
IS_CURRENT_SECRET = api_keys.c.revoked_at.is_(None) & api_keys.c.expires_at.is_(None)
IS_LIVE_SECRET = api_keys.c.revoked_at.is_(None) & or_(
    api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now()
)


def key_of(row: Mapping[str, Any] | RowMapping, version: int, secret: bytes | None = None) -> ApiKey:
    return ApiKey(
        id=row["key_id"],
        scopes=_scopes_of(tuple(row["scopes"])),
        has_budget=row["has_budget"],
        expires=row["expires"],
        version=version,
        secret=secret,
    )


@lru_cache
def _scopes_of(names: tuple[str, ...]) -> frozenset[Scope]:
    # A scope that only a newer release knows allows nothing here.
    return frozenset(scope for scope in Scope if scope in names)


_HIDING = "restricted"
HIDDEN = func.sha256(func.convert_to(constant(_HIDING), constant("UTF8")).op("||")(api_keys.c.digest))


def hidden(digest: bytes) -> bytes:
    """How the secret is stored of a key that may not do everything, as HIDDEN is in SQL.

    The release before, which would let it do everything, looks for the digest alone.
    """
    return hashlib.sha256(_HIDING.encode() + digest).digest()
