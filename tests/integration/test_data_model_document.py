"""docs/data-model.md against a migrated database: what there is stands on the page, and what stands there is."""

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from tests.builders import Connection, connect

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "data-model.md").read_text()
OWN_TABLES = (
    "accounts",
    "keys",
    "api_keys",
    "key_windows",
    "payment_events",
    "refused_payments",
    "reversal_events",
    "adjustments",
    "jobs",
    "model_paces",
    "attempts",
    "outputs",
    "files",
    "fair_turns",
    "fair_clock",
    "places",
    "installation",
    "idempotency_keys",
    "ledger_entries",
    "event_inbox",
    "events",
    "event_log",
    "budget_notices",
    "forgotten_events",
    "webhook_endpoints",
    "webhook_secrets",
    "due_endpoints",
    "deliveries",
    "heartbeats",
)
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)

TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
"""
COLUMNS = """
SELECT attrelid::regclass::text, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
"""
# NOT NULL has a name since PostgreSQL 18. A constraint trigger is a trigger.
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname FROM pg_constraint
 WHERE connamespace = 'public'::regnamespace AND contype NOT IN ('n', 't')
"""
INDEXES = "SELECT tablename, indexname FROM pg_indexes WHERE schemaname = 'public'"
TRIGGERS = """
SELECT tgrelid::regclass::text, tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
 WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal
"""
FUNCTIONS = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
FOREIGN_KEYS = """
SELECT confrelid::regclass::text, conrelid::regclass::text, conname FROM pg_constraint
 WHERE connamespace = 'public'::regnamespace AND contype = 'f'
"""
# The same trigger on a table without any constraint.
TRIAL = """
CREATE TEMPORARY TABLE trial (LIKE jobs INCLUDING DEFAULTS);
INSERT INTO trial (id, account_id, kind, model_id, parameters, cost_tokens, refunded_tokens, outputs_requested,
                   time_limit_seconds, status, is_final, attempts, created_at, updated_at)
SELECT gen_random_uuid(), gen_random_uuid(), 'TEXT_TO_IMAGE', 'model', '{}', 5, 0, 1, 60, status,
       status IN ('COMPLETED', 'FAILED', 'CANCELED'), 0, now(), now()
  FROM unnest($statuses$::text[]) AS status;
CREATE TRIGGER trial_guard BEFORE UPDATE ON trial FOR EACH ROW EXECUTE FUNCTION guard_job();
"""
# The page says of these that no operation takes them.
ALLOWED_BUT_NOT_TAKEN = {
    ("QUEUED", "FAILED"),
    ("SUBMITTING", "IN_QUEUE"),
    ("SUBMITTING", "IN_PROGRESS"),
    ("SUBMITTING", "COMPLETED"),
}


@pytest.fixture
async def sql(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


def diagram(kind: str) -> str:
    (found,) = (text for text in DIAGRAM.findall(PAGE) if text.startswith(kind))
    return str(found)


def code_in(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", DIAGRAM.sub("", text)))


def section(heading: str) -> str:
    """The text from a heading of the second or third level to the next one."""
    match = re.search(rf"^##+ {re.escape(heading)}$.*?(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert match is not None, f"docs/data-model.md has no section {heading!r}"
    return match[0]


def first_cells(text: str) -> set[str]:
    return {name for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in code_in(cell)}


async def names_by_table(sql: Connection, query: str) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for table, name in await sql.fetch(query):
        found.setdefault(table, set()).add(name)
    return found


async def own(sql: Connection, query: str) -> set[str]:
    by_table = await names_by_table(sql, query)
    return set().union(*(by_table.get(table, set()) for table in OWN_TABLES))


async def test_no_table_is_missing(sql: Connection) -> None:
    tables = {row[0] for row in await sql.fetch(TABLES)}

    assert tables - code_in(PAGE) == set()
    assert {name for name in tables if not name.startswith("pgqueuer")} == {
        *OWN_TABLES,
        "ledger_violations",
        "tollgate_version",
    }


@pytest.mark.parametrize("table", OWN_TABLES)
async def test_the_columns_of_our_tables_are_those_on_the_page(sql: Connection, table: str) -> None:
    columns = (await names_by_table(sql, COLUMNS))[table]

    assert first_cells(section(f"`{table}`")) == columns


async def test_the_columns_of_the_queue_that_the_page_names_exist(sql: Connection) -> None:
    by_table = await names_by_table(sql, COLUMNS)
    named = first_cells(section("The queue")) - by_table.keys() - (await names_by_table(sql, TRIGGERS))["pgqueuer"]

    assert named
    assert named - by_table["pgqueuer"] == set()


@pytest.mark.parametrize("query", [CONSTRAINTS, INDEXES, TRIGGERS], ids=["constraints", "indexes", "triggers"])
async def test_no_constraint_index_or_trigger_of_ours_is_missing(sql: Connection, query: str) -> None:
    in_diagram = set(re.findall(r": (\w+)$", diagram("erDiagram"), re.MULTILINE))

    assert await own(sql, query) - code_in(PAGE) - in_diagram == set()


async def test_no_trigger_of_the_queue_is_missing(sql: Connection) -> None:
    by_table = await names_by_table(sql, TRIGGERS)

    assert by_table["pgqueuer"] | by_table["pgqueuer_log"] <= code_in(PAGE)


async def test_every_name_on_the_page_exists(sql: Connection) -> None:
    """Of whatever sort; an operation is named in the table of fault points, which a test holds against the code."""
    known = {row[0] for query in (TABLES, FUNCTIONS) for row in await sql.fetch(query)}
    for query in (COLUMNS, CONSTRAINTS, INDEXES, TRIGGERS):
        known |= set().union(*(await names_by_table(sql, query)).values())
    operations = set(re.findall(r"`(\w+)\.before_commit`", (DOCS / "architecture.md").read_text()))
    named = {name for name in code_in(PAGE) if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", name)}

    assert named - known - operations == set()


async def test_every_index_of_the_table_exists(sql: Connection) -> None:
    indexes = set().union(*(await names_by_table(sql, INDEXES)).values())

    assert first_cells(section("Indexes")) <= indexes


async def test_the_relations_are_the_foreign_keys(sql: Connection) -> None:
    drawn = set(re.findall(r"^ +(\w+) \S*--\S* (\w+) : (\w+)$", diagram("erDiagram"), re.MULTILINE))

    assert drawn == {tuple(row) for row in await sql.fetch(FOREIGN_KEYS)}


async def test_the_arrows_between_states_are_what_the_database_lets_pass(sql: Connection) -> None:
    drawn = set(re.findall(r"^ +([A-Z_]+) --> ([A-Z_]+): ", diagram("stateDiagram"), re.MULTILINE))
    statuses = sorted({status for arrow in drawn for status in arrow})
    await sql.execute(TRIAL.replace("$statuses$", f"'{{{','.join(statuses)}}}'"))

    passed = {(old, new) for old in statuses for new in statuses if old != new and await passes(sql, old, new)}

    assert await known_statuses(sql) == set(statuses)
    assert drawn & ALLOWED_BUT_NOT_TAKEN == set()
    assert passed == drawn | ALLOWED_BUT_NOT_TAKEN


async def known_statuses(sql: Connection) -> set[str]:
    definition = await sql.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'jobs_status_known'"
    )
    return set(re.findall(r"'([A-Z_]+)'", definition))


async def passes(sql: Connection, old: str, new: str) -> bool:
    transaction = sql.transaction()
    await transaction.start()
    try:
        await sql.execute("UPDATE trial SET status = $2 WHERE status = $1", old, new)
    except asyncpg.CheckViolationError:
        return False
    finally:
        await transaction.rollback()
    return True


def test_the_operations_on_the_arrows_are_operations() -> None:
    operations = set(re.findall(r"`(\w+)\.before_commit`", (DOCS / "architecture.md").read_text()))
    labels = re.findall(r" --> [A-Z_]+: (.*)$", diagram("stateDiagram"), re.MULTILINE)
    named = {name for label in labels for name in label.partition(",")[0].split(" or ")}

    assert named
    assert named - operations == set()
