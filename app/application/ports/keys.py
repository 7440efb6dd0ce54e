from collections.abc import Collection, Mapping
from typing import Protocol
from uuid import UUID

from app.domain.accounts import Caller
from app.domain.keys import StoredKey


class KeyLookup(Protocol):
    async def find_by_key(self, digest: bytes) -> Caller | None: ...

    def remembered(self, digest: bytes) -> Caller | None:
        """As found some seconds ago; `is_remembered` is then set. None: look the key up."""
        ...

    def forget(self, digest: bytes) -> None: ...

    async def versions(self, account_ids: Collection[UUID]) -> Mapping[UUID, int]:
        """`ApiKey.version` as it is now."""
        ...


class Keys(KeyLookup, Protocol):
    async def add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        """Store the key if the user never had one, creating the account where needed.

        False: the user has or had a key; nothing is written. Locks the account row.
        """
        ...

    async def replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        """Revoke the secrets of a key, and store a new one: the key stays what it is, and keeps what it spent.

        `current`: a digest of that key's; None where the operator vouches: then it is the first key, which may do
        everything, and nothing is counted. False: the proof does not hold, or there is no such account. Locks the
        account row. Raises TooManyWrites, TooManyNewSecrets.
        """
        ...

    async def revoke_keys(self, external_user_id: UUID) -> int:
        """End all keys of the user. Returns how many there were. Locks the account row."""
        ...
