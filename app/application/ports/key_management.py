"""The keys of an account, as whoever may manage them sees and changes them.

`by` is the key that the caller came by, as it was then: if a key of the account has changed since, it is looked at
again, under the lock of the account. None: the operator's, whose changes are no writes of the account.
Each change raises InvalidApiKey or KeyRestricted where `by` may do it no more, and TooManyWrites. It is repeated if the
answer to its COMMIT is lost; where that fails, too, it raises CommitUnknown. It locks the account row, then the key,
then its windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from app.domain.accounts import ApiKey
from app.domain.keys import KeyChanges, KeyRecord, NewKey, StoredKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedKey:
    key: KeyRecord
    is_replay: bool


class KeyReader(Protocol):
    async def live(self, account_id: UUID) -> Sequence[KeyRecord]:
        """The oldest first."""
        ...

    async def get(self, account_id: UUID, key_id: UUID) -> KeyRecord:
        """Raises KeyNotFound, also for another account's key."""
        ...


class KeyManagement(KeyReader, Protocol):
    async def create(self, account_id: UUID, new: NewKey, by: ApiKey | None) -> CreatedKey:
        """Raises IdempotencyKeyReused, KeyEnded, ExpiresInThePast, TooManyKeys, TooManyNewSecrets."""
        ...

    async def change(self, account_id: UUID, key_id: UUID, changes: KeyChanges, by: ApiKey | None) -> KeyRecord:
        """Keep what was spent, also in the window of another budget. Raises KeyNotFound, ExpiresInThePast."""
        ...

    async def rotate(
        self, account_id: UUID, key_id: UUID, secret: StoredKey, *, overlap_seconds: int, by: ApiKey | None
    ) -> KeyRecord:
        """Of the secrets before, the newest one opens the key for so long. Raises KeyNotFound, TooManyNewSecrets."""
        ...

    async def delete(self, account_id: UUID, key_id: UUID, by: ApiKey | None) -> None:
        """Raises KeyNotFound. It counts as a write and is never refused for their number: a leaked key, which may
        have made as many as there may be, must end at once.
        """
        ...

    async def end_own(self, account_id: UUID, key_id: UUID) -> None:
        """Do as `delete` does, whatever the key may do. Raises nothing where it has ended already."""
        ...
