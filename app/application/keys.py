import hmac
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.application.ports.keys import KeyLookup, Keys
from app.domain.accounts import Caller
from app.domain.errors import AccountNotFound, InvalidApiKey, KeyAlreadyIssued, ProofRequired
from app.domain.keys import KEY_RANDOM_BYTES, digest_of, format_key, is_well_formed, stored_form

log = structlog.get_logger(__name__)


def is_one_of(given: str | None, expected: Sequence[str]) -> bool:
    """Takes as long whichever of them it is, and however much of one is right."""
    if given is None:
        return False
    # All of them are compared, also after the one that is right.
    matches = [hmac.compare_digest(given.encode(), secret.encode()) for secret in expected]
    return any(matches)


def new_key() -> str:
    return format_key(secrets.token_bytes(KEY_RANDOM_BYTES))


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Raises InvalidApiKey. A malformed key is turned away without a query."""

    _keys: KeyLookup

    async def __call__(self, api_key: str | None) -> Caller:
        caller = await self._keys.find_by_key(_digest_of(api_key))
        if caller is None:
            raise InvalidApiKey
        return caller

    def remembered(self, api_key: str | None) -> Caller | None:
        """Whose key it was some seconds ago: only for what looks at `key.version` before it tells or does anything."""
        return self._keys.remembered(_digest_of(api_key))

    async def versions(self, account_ids: Collection[UUID]) -> Mapping[UUID, int]:
        """`ApiKey.version` as it is now."""
        return await self._keys.versions(account_ids)

    def forget(self, caller: Caller) -> None:
        """Whose keys have changed since: next time the key is looked up."""
        if caller.key.secret is not None:
            self._keys.forget(caller.key.secret)


def _digest_of(api_key: str | None) -> bytes:
    """Raises InvalidApiKey."""
    if api_key is None or not is_well_formed(api_key):
        raise InvalidApiKey
    return digest_of(api_key)


@dataclass(frozen=True, slots=True)
class IssueFirstKey:
    """Raises KeyAlreadyIssued for a user who has, or ever had, a key."""

    keys: Keys

    async def __call__(self, external_user_id: UUID) -> str:
        key = new_key()
        if not await self.keys.add_first_key(external_user_id, stored_form(key)):
            raise KeyAlreadyIssued
        log.info("key_issued", external_user_id=str(external_user_id))
        return key


@dataclass(frozen=True, slots=True)
class RotateKey:
    """Replace the key of whoever proves the right to it. `current_key` is None if the operator vouches for the user.

    Raises ProofRequired, and with a `current_key` TooManyWrites, TooManyNewSecrets.
    """

    keys: Keys

    async def __call__(self, external_user_id: UUID, *, current_key: str | None = None) -> str:
        key = new_key()
        current = None if current_key is None else digest_of(current_key)
        if not await self.keys.replace_key(external_user_id, stored_form(key), current):
            raise ProofRequired
        log.info("key_rotated", external_user_id=str(external_user_id))
        return key


class IssueKey:
    """`POST /auth`. Knowing a user's id is never enough to take over the account.

    - With a service secret configured, every call must carry it (`check_secret`): the new one, or the old
      one while it is exchanged. It also proves the right to replace a key.
    - Without one, a user who never had a key gets the first one, and only the current key can replace it.

    Raises ProofRequired, KeyAlreadyIssued, TooManyWrites, TooManyNewSecrets.
    """

    def __init__(self, issue_first: IssueFirstKey, rotate: RotateKey, auth_secrets: Sequence[str]) -> None:
        self._issue_first = issue_first
        self._rotate = rotate
        self._auth_secrets = auth_secrets

    def check_secret(self, given: str | None) -> None:
        """Raises ProofRequired."""
        if self._auth_secrets and not is_one_of(given, self._auth_secrets):
            raise ProofRequired("Send the service secret in the X-Auth-Secret header.")

    async def __call__(
        self, external_user_id: UUID, *, rotate: bool, current_key: str | None, auth_secret: str | None
    ) -> str:
        self.check_secret(auth_secret)
        try:
            return await self._issue_first(external_user_id)
        except KeyAlreadyIssued:
            if not rotate:
                raise
        if self._auth_secrets:
            return await self._rotate(external_user_id)
        if current_key is None:
            raise ProofRequired
        return await self._rotate(external_user_id, current_key=current_key)


@dataclass(frozen=True, slots=True)
class RevokeKeys:
    """Raises AccountNotFound if there is no live key to revoke."""

    keys: Keys

    async def __call__(self, external_user_id: UUID) -> None:
        count = await self.keys.revoke_keys(external_user_id)
        if not count:
            raise AccountNotFound("This user has no live key.")
        log.info("keys_revoked", external_user_id=str(external_user_id), keys=count)
