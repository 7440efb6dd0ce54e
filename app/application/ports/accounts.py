from typing import Protocol
from uuid import UUID

from app.domain.accounts import AccountOverview, AccountUsage, LimitChanges


class AccountSettings(Protocol):
    """An account as its holder sees it."""

    async def overview(self, account_id: UUID) -> AccountOverview: ...

    async def set_balance_low(self, account_id: UUID, tokens: int | None) -> AccountOverview:
        """Whether the balance is low by this is told of at once, where it was not by the bound before.

        Raises TooManyWrites. Locks the account row.
        """
        ...


class AccountRecords(Protocol):
    """Accounts as the operator sees them."""

    async def usage(self, external_user_id: UUID) -> AccountUsage:
        """Raises AccountNotFound."""
        ...

    async def set_limits(self, external_user_id: UUID, changes: LimitChanges) -> AccountUsage:
        """Raises AccountNotFound. Locks the account row."""
        ...
