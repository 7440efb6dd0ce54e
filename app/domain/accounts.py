from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict
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
    secret: bytes | None = field(default=None, repr=False)
    """The digest of the one that was shown; None: none was, so a change of the keys ends it."""

    @property
    def may_manage_keys(self) -> bool:
        """A key never makes or changes one into a key that may do more than itself."""
        return self.scopes == ALL_SCOPES and not self.has_budget and not self.expires


@dataclass(frozen=True, slots=True)
class Caller:
    """An account, with the key that it came by."""

    account: Account
    key: ApiKey
    secret_expires: bool = False
    is_remembered: bool = False
    """As looked up some time ago: nothing may be told or done unless `key.version` is still right."""

    @property
    def ends_by_itself(self) -> bool:
        return self.key.expires or self.secret_expires


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOverview:
    external_user_id: UUID
    balance_tokens: int
    balance_low_tokens: int | None
    """A balance below it is told of as an event; None: none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """0: no limit."""

    amount: int
    is_own: bool
    """False: it is the setting of the service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUsage:
    """The limits of an account, and what is used of those that are counted over all processes."""

    account_id: UUID
    unfinished_jobs: int
    unfinished_jobs_max: Limit
    writes_in_this_minute: int
    writes_per_minute: Limit
    reads_per_second: Limit
    """With each key, in each process."""
    weight: Limit
    """How many turns its jobs have where those of another account have one."""


class LimitChanges(TypedDict, total=False):
    """None: the setting of the service from now on."""

    unfinished_jobs_max: int | None
    writes_per_minute: int | None
    reads_per_second: int | None
    weight: int | None
