"""What the log of events must hold by the facts, and what its readers must have got by the log.

Neither knows how a reader came by its events: pages, streams and deliveries are held against the same truth.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg

from torture.report import Check

SEQUENCED_SECONDS_MAX = 120
READ_SECONDS_MAX = 600
LOOK_SECONDS = 0.5
# Of a reader that went astray these say enough.
NAMED_MAX = 3


class Told(NamedTuple):
    """An event as anybody sees it."""

    seq: int
    type: str
    subject: str
    """The job, the entry or the crossing that it tells of, in words that are nobody else's."""


class Fact(NamedTuple):
    type: str
    subject: str


BEGINNING, START = "generation.submitted", "generation.started"
ENDS = frozenset({"generation.completed", "generation.failed", "generation.canceled"})
MOVES = frozenset({"balance.credited", "balance.reversed"})
CROSSINGS = frozenset({"balance.low", "balance.recovered"})
REFUSAL = "key.budget_exceeded"
REFUSALS = frozenset({REFUSAL})
OF_JOBS = frozenset({BEGINNING, START}) | ENDS

TOLD_ONCE_OF_A_BUDGET = "a key whose budget refused is told of once"

Facts = Mapping[str, Sequence[Fact]]
"""By user, in the order in which they became true."""


@dataclass(frozen=True, slots=True)
class Truth:
    """By user throughout."""

    jobs: Facts
    moves: Facts
    crossings: Facts
    log: Mapping[str, Sequence[Told]] = field(default_factory=dict)
    refusals: Facts = field(default_factory=dict)
    """By a key's budget, as whoever was refused knows. Empty: nobody was, and the log must not tell of any."""


_ENTRY = "e.kind || ' ' || e.amount || ' of ' || coalesce(e.payment_event_id, '-') || ', then ' || e.balance_after"
_LOG = f"""
    SELECT a.external_user_id::text AS user_id, v.seq, v.type, coalesce(
               v.job_id::text, {_ENTRY},
               (v.facts ->> 'balance_tokens') || ' below or above ' || (v.facts ->> 'balance_low_tokens'),
               'key ' || (v.facts ->> 'key_id'), v.facts::text, 'nothing') AS subject
      FROM events v JOIN accounts a ON a.id = v.account_id
      LEFT JOIN ledger_entries e ON e.account_id = v.account_id AND e.seq = (v.facts ->> 'entry_seq')::bigint
     ORDER BY v.seq
"""
_JOBS = """
    SELECT a.external_user_id::text AS user_id, j.id::text, lower(j.status) AS status, j.is_final,
           j.started_at IS NOT NULL AS has_started
      FROM jobs j JOIN accounts a ON a.id = j.account_id
"""
_ENTRIES = f"""
    SELECT a.external_user_id::text AS user_id, e.kind NOT IN ('DEBIT', 'REFUND') AS is_told, {_ENTRY} AS subject,
           e.kind = 'REVERSAL' OR e.amount < 0 AS takes, e.balance_after, a.balance_low_tokens AS mark,
           lag(e.balance_after) OVER (PARTITION BY e.account_id ORDER BY e.seq) AS balance_before
      FROM ledger_entries e JOIN accounts a ON a.id = e.account_id ORDER BY e.account_id, e.seq
"""


def subject_of(event: Mapping[str, Any]) -> str:
    """Of an event as the service tells it, in the words of the log."""
    data = event["data"]
    if "job_id" in data:
        return str(data["job_id"])
    if "entry" in data:
        entry = data["entry"]
        payment = entry["payment_event_id"] or "-"
        return f"{entry['kind']} {entry['amount']} of {payment}, then {entry['balance_after']}"
    if "key_id" in data:
        return f"key {data['key_id']}"
    return f"{data.get('balance_tokens')} below or above {data.get('balance_low_tokens')}"


async def truth_of(dsn: str) -> Truth:
    """A mark of a balance must be as it was since right after the account's first entry."""
    connection = await asyncpg.connect(dsn)
    try:
        log: defaultdict[str, list[Told]] = defaultdict(list)
        for row in await connection.fetch(_LOG, timeout=300):
            log[row["user_id"]].append(Told(row["seq"], row["type"], row["subject"]))
        jobs: defaultdict[str, list[Fact]] = defaultdict(list)
        for row in await connection.fetch(_JOBS, timeout=300):
            jobs[row["user_id"]] += facts_of_job(row)
        moves: defaultdict[str, list[Fact]] = defaultdict(list)
        crossings: defaultdict[str, list[Fact]] = defaultdict(list)
        for row in await connection.fetch(_ENTRIES, timeout=300):
            if row["is_told"]:
                moves[row["user_id"]].append(
                    Fact("balance.reversed" if row["takes"] else "balance.credited", row["subject"])
                )
            crossings[row["user_id"]] += crossings_of(row["balance_before"], row["balance_after"], row["mark"])
    finally:
        await connection.close()
    return Truth(jobs, moves, crossings, log)


def facts_of_job(row: asyncpg.Record | Mapping[str, Any]) -> list[Fact]:
    facts = [Fact(BEGINNING, row["id"])]
    if row["has_started"]:
        facts.append(Fact(START, row["id"]))
    if row["is_final"]:
        facts.append(Fact(f"generation.{row['status']}", row["id"]))
    return facts


def crossings_of(before: int | None, after: int, mark: int | None) -> list[Fact]:
    if before is None or mark is None or (before < mark) == (after < mark):
        return []
    return [Fact("balance.low" if after < mark else "balance.recovered", f"{after} below or above {mark}")]


def log_checks(truth: Truth) -> list[Check]:
    """The log against the facts."""
    told = {user: [Fact(event.type, event.subject) for event in events] for user, events in truth.log.items()}
    known = OF_JOBS | MOVES | CROSSINGS | (REFUSALS if truth.refusals else frozenset())
    of_refusals = [_as_often(TOLD_ONCE_OF_A_BUDGET, truth.refusals, told, REFUSALS)] if truth.refusals else []
    unknown = [f"{user} was told {fact}" for user, facts in told.items() for fact in facts if fact.type not in known]
    return [
        _as_often("a job has one beginning, one end, and one start where fal began", truth.jobs, told, OF_JOBS),
        _as_often("a payment and a reversal are told of once", truth.moves, told, MOVES),
        _as_often("a balance that crosses its mark is told of once", truth.crossings, told, CROSSINGS),
        *of_refusals,
        _in_order("a job's events are in their order", _by_job(truth.jobs), _by_job(told)),
        _in_order("a balance's payments and reversals are in their order", truth.moves, told),
        _in_order("a balance's crossings are in their order", truth.crossings, told),
        Check("the log tells of nothing else", sum(map(len, told.values())), unknown),
    ]


def _as_often(claim: str, facts: Facts, told: Facts, types: frozenset[str]) -> Check:
    violations = []
    for user in facts.keys() | told.keys():
        expected = Counter(facts.get(user, ()))
        found = Counter(fact for fact in told.get(user, ()) if fact.type in types)
        violations += [f"{user} is never told {fact}" for fact in (expected - found).elements()]
        violations += [f"{user} is told once too often {fact}" for fact in (found - expected).elements()]
    return Check(claim, sum(map(len, facts.values())), violations)


def _in_order(claim: str, facts: Facts, told: Facts) -> Check:
    """What is missing or told twice is another claim."""
    violations = []
    for subject, expected in facts.items():
        places = {fact: place for place, fact in enumerate(_numbered(expected))}
        found = [fact for fact in _numbered(told.get(subject, ())) if fact in places]
        violations += [
            f"{subject} is told {after[0]} before {before[0]}"
            for before, after in zip(found[1:], found, strict=False)
            if places[before] < places[after]
        ]
    return Check(claim, sum(map(len, facts.values())), violations)


def _numbered(facts: Iterable[Fact]) -> list[tuple[Fact, int]]:
    """A balance may cross its mark with the same number again."""
    seen: Counter[Fact] = Counter()
    numbered = []
    for fact in facts:
        numbered.append((fact, seen[fact]))
        seen[fact] += 1
    return numbered


def _by_job(facts: Facts) -> Facts:
    by_job: defaultdict[str, list[Fact]] = defaultdict(list)
    for each in facts.values():
        for fact in each:
            if fact.type in OF_JOBS:
                by_job[fact.subject].append(fact)
    return by_job


def reader_checks(
    who: str, told: Iterable[tuple[str, Sequence[Told]]], truth: Truth, *, at_least_once: bool = False
) -> list[Check]:
    """Each reader with its user, against the log. At least once: it may have an event again, and in any order."""
    examined = 0
    missed, foreign, twice, disordered = [], [], [], []
    for number, (user, events) in enumerate(told):
        log = truth.log.get(user, ())
        examined += len(log)
        name = f"{who} {number} of {user}"
        missed += _named(name, "missed", set(log).difference(events))
        foreign += _named(name, "was told, which the log has not,", set(events).difference(log))
        seen = Counter(event.seq for event in events)
        twice += _named(name, "was told again", (event for event in set(events) if seen[event.seq] > 1))
        pairs = zip(events[1:], events, strict=False)
        disordered += _named(name, "was told too late", (event for event, before in pairs if event.seq < before.seq))
    checks = [
        Check(f"{who}: nothing is missed", examined, missed),
        Check(f"{who}: nothing is told that the log has not, or otherwise", examined, foreign),
    ]
    if not at_least_once:
        checks += [
            Check(f"{who}: nothing is told twice", examined, twice),
            Check(f"{who}: the place always rises", examined, disordered),
        ]
    return checks


def _named(name: str, what: str, events: Iterable[Told]) -> list[str]:
    found = sorted(events)
    if not found:
        return []
    return [f"{name} {what} {len(found)} times, as {', '.join(map(str, found[:NAMED_MAX]))}"]


async def until_sequenced(dsn: str, seconds_max: float = SEQUENCED_SECONDS_MAX) -> bool:
    """Until the inbox is empty: nobody may write any more. False: it is not, after so long."""
    connection = await asyncpg.connect(dsn)
    try:

        async def is_empty() -> bool:
            return not await connection.fetchval("SELECT EXISTS (SELECT FROM event_inbox)")

        until = time.monotonic() + seconds_max
        while not await is_empty():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await connection.close()
    return True


async def until_read(
    last_seqs: Mapping[str, int], places: Callable[[], Iterable[tuple[str, int]]], seconds_max: float = READ_SECONDS_MAX
) -> bool:
    """Until every reader has its user's last event. False: some have not, after so long; the checks say which."""
    until = time.monotonic() + seconds_max
    while any(place < last_seqs.get(user, 0) for user, place in places()):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


async def last_seqs(dsn: str) -> Mapping[str, int]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT a.external_user_id::text AS user_id, max(v.seq) AS seq"
            " FROM events v JOIN accounts a ON a.id = v.account_id GROUP BY 1"
        )
    finally:
        await connection.close()
    return {row["user_id"]: row["seq"] for row in rows}
