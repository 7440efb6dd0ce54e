"""What the server says of a statement that commits by itself."""

import asyncpg
import pytest

from app.infrastructure.postgres.faults import is_refused


@pytest.mark.parametrize(
    ("severity", "sqlstate", "expected"),
    [
        ("ERROR", "23505", True),
        ("ERROR", "40P01", True),
        ("ERROR", "55P03", True),
        ("ERROR", "57014", True),
        ("FATAL", "57P01", False),
        ("FATAL", "58000", False),
        ("PANIC", "53100", False),
        ("PANIC", "58030", False),
    ],
)
def test_only_a_server_that_goes_on_has_certainly_written_nothing(severity: str, sqlstate: str, expected: bool) -> None:
    error = asyncpg.PostgresError.new({"S": severity, "V": severity, "C": sqlstate, "M": "what happened"})

    assert is_refused(error) == expected


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), asyncpg.InterfaceError("closed")])
def test_a_connection_that_is_lost_says_nothing(error: Exception) -> None:
    assert not is_refused(error)
