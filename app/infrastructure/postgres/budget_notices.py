"""That an order was refused for the budget of its key is told once for each key and period."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.events import EventType
from app.domain.limits import BudgetExceeded
from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.tables import budget_notices, event_inbox

# Of this process, so that whoever asks again and again is refused without a write. What it has forgotten, the table
# knows.
KNOWN_MAX = 10_000
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


class PostgresBudgetNotices:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: set[tuple[UUID, datetime]] = set()

    async def note(self, account_id: UUID, key_id: UUID, refused: BudgetExceeded) -> None:
        ends_at = refused.spending.renews_at or _NEVER
        if (key_id, ends_at) in self._known:
            return
        facts = {"key_id": str(key_id), "per": refused.spending.budget.per.value, **refused.figures}
        is_first = insert(budget_notices).values(key_id=key_id, ends_at=ends_at).on_conflict_do_nothing()
        first = is_first.returning(budget_notices.c.key_id).cte("first")
        told = select(literal(account_id), literal(EventType.KEY_BUDGET_EXCEEDED.value), literal(facts, JSONB))
        async with transaction(self._engine, "note_budget") as connection:
            await connection.execute(
                delete(budget_notices).where(budget_notices.c.key_id == key_id, budget_notices.c.ends_at <= func.now())
            )
            await connection.execute(
                insert(event_inbox).from_select(
                    ["account_id", "type", "facts"], told.select_from(first), include_defaults=False
                )
            )
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add((key_id, ends_at))
