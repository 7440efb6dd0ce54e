from typing import Protocol
from uuid import UUID

from app.domain.accounts import AccountUsage, LimitChanges


class AccountRecords(Protocol):
    """Accounts as the operator sees them."""

    async def usage(self, external_user_id: UUID) -> AccountUsage:
        """Raises AccountNotFound."""
        ...

    async def set_limits(self, external_user_id: UUID, changes: LimitChanges) -> AccountUsage:
        """Raises AccountNotFound. Locks the account row."""
        ...
