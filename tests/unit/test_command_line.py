"""What the command line prints of rows that a newer release wrote."""

from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest

from app.cli.jobs import print_jobs
from app.cli.ledger import SIGNS, print_entries
from app.cli.running import print_table
from app.domain.jobs import JobStatus
from app.domain.key_errors import TooManyKeys
from app.domain.keys import LIVE_KEYS_MAX
from app.domain.kinds import GenerationKind
from app.domain.ledger import EntryKind, LedgerEntry
from tests.unit.presentation_stand_ins import a_job

JOB_ID = UUID("0199d7a5-0000-7000-8000-000000000001")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def entry(kind: str) -> LedgerEntry:
    return LedgerEntry(
        seq=1,
        kind=cast(EntryKind, kind),
        amount=7,
        balance_after=93,
        job_id=JOB_ID,
        payment_event_id=None,
        created_at=AT,
    )


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        (EntryKind.CREDIT, "+7"),
        (EntryKind.DEBIT, "-7"),
        (EntryKind.REFUND, "+7"),
        ("DEBIT", "-7"),
        (EntryKind.REVERSAL, "-7"),
        (EntryKind.REINSTATEMENT, "+7"),
        (EntryKind.ADJUSTMENT, "7"),
        ("GRANT", "7"),
    ],
)
def test_shows_a_sign_only_where_it_knows_what_an_entry_does(
    capsys: pytest.CaptureFixture[str], kind: str, tokens: str
) -> None:
    print_entries([entry(kind)])

    _, row = capsys.readouterr().out.splitlines()
    assert row.split() == ["2026-01-02T03:04:05+00:00", str(kind), tokens, "93", str(JOB_ID)]


def test_a_refused_key_hears_how_many_there_may_be() -> None:
    assert f" {LIVE_KEYS_MAX} live keys" in TooManyKeys.default_detail


def test_knows_the_sign_of_every_kind_of_entry() -> None:
    assert SIGNS.keys() == set(EntryKind)


@pytest.mark.parametrize(
    ("kind", "status"), [(GenerationKind.TEXT_TO_IMAGE, JobStatus.IN_QUEUE), ("TEXT_TO_SPEECH", "STORING")]
)
def test_shows_the_kind_and_the_status_of_a_job_as_they_are_stored(
    capsys: pytest.CaptureFixture[str], kind: str, status: str
) -> None:
    print_jobs([a_job(kind=kind, status=status)])

    _, row = capsys.readouterr().out.splitlines()
    assert row.split()[1:3] == [str(kind), str(status)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\u202eb", "a\\u202eb"),
        ("Маша's bot", "Маша's bot"),
        ("00012", "00012"),
    ],
)
def test_what_a_user_named_stays_in_its_cell(capsys: pytest.CaptureFixture[str], name: str, shown: str) -> None:
    print_table(("id", "name"), [(1, name), (2, None)])

    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == ["id    name", f"1     {shown}", "2"]
