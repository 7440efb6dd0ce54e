from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Scope(StrEnum):
    """What a key may do."""

    GENERATE = "generate"
    """Start and cancel generations."""
    READ = "read"
    MANAGE = "manage"
    """Keys, endpoints, secrets and the account itself."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    id: UUID
    external_user_id: UUID
    balance_tokens: int
    reads_per_second: int | None = None
    """None: the setting of the service. 0: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What a key was allowed to do when its secret was looked up."""

    id: UUID
    scopes: frozenset[Scope]
    has_budget: bool
    expires: bool
    version: int
    """Of the keys of the account. Any change of one of them, or of their secrets, makes it another."""

    @property
    def may_manage_keys(self) -> bool:
        """A key never makes or changes one into a key that may do more than itself."""
        return self.scopes == ALL_SCOPES and not self.has_budget and not self.expires


@dataclass(frozen=True, slots=True)
class Caller:
    """An account, with the key that it came by."""

    account: Account
    key: ApiKey
