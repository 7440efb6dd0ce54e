from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    id: UUID
    external_user_id: UUID
    balance_tokens: int
