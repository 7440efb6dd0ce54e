"""Which rights the service's role needs on the tables that are there."""

from collections.abc import Mapping, Sequence

from app.application.ports.health import Finding, Level
from app.infrastructure.postgres.database import DriverConnection
from app.infrastructure.postgres.migrations import VERSION_TABLE
from app.infrastructure.postgres.queue import ITEM_IDS, QUEUE_TABLES

# To lock a row takes UPDATE.
NEEDED: Mapping[str, Sequence[str]] = {
    "accounts": ("SELECT", "INSERT", "UPDATE"),
    "api_keys": ("SELECT", "INSERT", "UPDATE"),
    "keys": ("SELECT", "INSERT", "UPDATE"),
    "key_windows": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "payment_events": ("SELECT", "INSERT"),
    "refused_payments": ("SELECT", "INSERT", "UPDATE"),
    "reversal_events": ("SELECT", "INSERT"),
    "adjustments": ("SELECT", "INSERT"),
    "attempts": ("SELECT", "INSERT", "UPDATE"),
    "installation": ("SELECT", "INSERT", "UPDATE"),
    "jobs": ("SELECT", "INSERT", "UPDATE"),
    "outputs": ("SELECT", "INSERT", "UPDATE"),
    "files": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "idempotency_keys": ("SELECT", "INSERT", "DELETE"),
    "ledger_entries": ("SELECT", "INSERT"),
    "ledger_violations": ("SELECT",),
    "fair_clock": ("SELECT", "UPDATE"),
    "fair_turns": ("SELECT", "INSERT", "UPDATE"),
    "places": ("SELECT", "INSERT", "UPDATE"),
    "model_paces": ("SELECT", "INSERT", "UPDATE"),
    "event_inbox": ("SELECT", "INSERT", "DELETE"),
    "events": ("SELECT", "INSERT", "DELETE"),
    "event_log": ("SELECT", "UPDATE"),
    "budget_notices": ("SELECT", "INSERT", "DELETE"),
    "forgotten_events": ("SELECT", "INSERT", "UPDATE"),
    "webhook_endpoints": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "webhook_secrets": ("SELECT", "INSERT", "UPDATE"),
    "due_endpoints": ("SELECT", "INSERT", "DELETE"),
    "deliveries": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "heartbeats": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    VERSION_TABLE: ("SELECT",),
    **QUEUE_TABLES,
}
_MISSING = """
SELECT needed.name AS table_name, string_agg(needed.privilege, ', ' ORDER BY needed.place) AS privileges
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS needed(name, privilege, place)
 WHERE to_regclass(needed.name) IS NOT NULL AND NOT has_table_privilege(to_regclass(needed.name), needed.privilege)
 GROUP BY needed.name ORDER BY needed.name
"""
_MAY_NOT_COUNT = "SELECT to_regclass($1) IS NOT NULL AND NOT has_sequence_privilege(to_regclass($1), 'USAGE')"
_SCHEMA = """
SELECT current_schema() AS name, to_regclass('ledger_entries') IS NOT NULL AS has_tables,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create
"""


async def missing_rights(connection: DriverConnection, role: str) -> Sequence[Finding]:
    schema = await connection.fetchrow(_SCHEMA)
    assert schema is not None
    if schema["name"] is None:
        text = (
            f'the role "{role}" sees no schema: CREATE SCHEMA AUTHORIZATION "{role}", or GRANT USAGE, CREATE ON SCHEMA'
            f' public TO "{role}", or correct schema or search_path in DATABASE_URL'
        )
        return [Finding(Level.WRONG, "rights", text)]
    if not schema["has_tables"] and not schema["may_create"]:
        text = (
            f'the role "{role}" may not create the tables: GRANT USAGE, CREATE ON SCHEMA {schema["name"]} TO "{role}",'
            " or let it own the database"
        )
        return [Finding(Level.WRONG, "rights", text)]
    pairs = [(name, privilege) for name, privileges in NEEDED.items() for privilege in privileges]
    if await connection.fetchval(_MAY_NOT_COUNT, ITEM_IDS):
        text = f'the role "{role}" lacks rights: GRANT USAGE ON SEQUENCE {ITEM_IDS} TO "{role}"'
        return [Finding(Level.WRONG, "rights", text)]
    rows = await connection.fetch(_MISSING, [name for name, _ in pairs], [privilege for _, privilege in pairs])
    if rows:
        grants = "; ".join(f'GRANT {row["privileges"]} ON {row["table_name"]} TO "{role}"' for row in rows)
        return [Finding(Level.WRONG, "rights", f'the role "{role}" lacks rights: {grants}')]
    return [Finding(Level.OK, "rights", f'the role "{role}" has those that it needs')]
