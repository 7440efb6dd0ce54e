from typing import Protocol
from uuid import UUID

from app.domain.accounts import Account
from app.domain.keys import StoredKey


class KeyLookup(Protocol):
    async def find_by_key(self, digest: bytes) -> Account | None: ...


class Keys(KeyLookup, Protocol):
    async def add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        """Store the key if the user never had one, creating the account where needed.

        False: the user has or had a key; nothing is written. Locks the account row.
        """
        ...

    async def replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        """Revoke the live key and store the new one.

        `current`: the digest that must be the live key's; None where the operator vouches.
        False: the proof does not hold, or there is no such account. Locks the account row.
        """
        ...

    async def revoke_key(self, external_user_id: UUID) -> bool: ...
