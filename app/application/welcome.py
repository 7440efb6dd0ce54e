from dataclasses import dataclass
from uuid import uuid4

from app.application.keys import IssueFirstKey
from app.application.payments import TopUp

WELCOME_TOKENS = 1_000


@dataclass(frozen=True, slots=True)
class Welcome:
    """A fresh user with a key and a balance, for whoever tries the service in development."""

    issue_first: IssueFirstKey
    top_up: TopUp

    async def __call__(self) -> str:
        user = uuid4()
        await self.top_up(user, WELCOME_TOKENS, event_id=str(uuid4()), source="development")
        return await self.issue_first(user)
