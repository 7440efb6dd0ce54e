"""What the operator does by hand with keys, limits and counters, as the command line prints it."""

import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from app.cli import app as command_line
from app.domain.keys import digest_of
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from tests.builders import Customer, accept_job, open_account, run_with_engine

SECRET = re.compile(r"tgk_\w{49}")
SETTINGS = {"WRITES_PER_MINUTE": "600", "JOBS_UNFINISHED_MAX": "1000", "READS_PER_SECOND": "100"}


class Operator:
    def __init__(self, database: str, directory: str) -> None:
        self._environment = {"DATABASE_URL": database, "DATA_DIR": directory, "APP_ENV": "development", **SETTINGS}

    def run(self, *words: object, is_refused: bool = False) -> list[str]:
        """The lines that it prints."""
        done = CliRunner().invoke(command_line, [str(word) for word in words], env=self._environment)
        assert done.exit_code == int(is_refused), done.output
        return done.output.splitlines()

    def secret(self, *words: object) -> str:
        (line,) = self.run(*words)
        assert SECRET.fullmatch(line)
        return line


@pytest.fixture
def operator(database: str, tmp_path: object) -> Operator:
    return Operator(database, str(tmp_path))


@pytest.fixture
def owner(database: str) -> Customer:
    async def open_one(engine: AsyncEngine) -> Customer:
        return await open_account(engine, 1000)

    return run_with_engine(database, open_one)


def opens(database: str, *secrets: str) -> list[bool]:
    async def look(engine: AsyncEngine) -> list[bool]:
        return [await PostgresKeys(engine).find_by_key(digest_of(secret)) is not None for secret in secrets]

    return run_with_engine(database, look)


def test_makes_lists_rotates_and_revokes_a_key(database: str, operator: Operator, owner: Customer) -> None:
    user, day = owner.external_user_id, datetime.now(UTC).date() + timedelta(days=30)
    secret = operator.secret(
        *("keys", "create", user, "--name", "a bot", "--scope", "generate", "--scope", "read"),
        *("--budget", 50, "--per", "day", "--expires-at", day),
    )

    headings, first, line = operator.run("keys", "list", user)
    assert re.split(r"\s{2,}", headings) == [
        "id", "begins with", "name", "scopes", "budget", "spent", "created", "expires", "last used"
    ]  # fmt: skip
    assert "First key" in first
    key_id, hint, name, scopes, budget, spent, _, expires = re.split(r"\s{2,}", line.strip())
    assert (hint, name, scopes, budget, spent) == (secret[:8], "a bot", "generate,read", "50 per day", "0")
    assert expires == f"{day}T00:00:00+00:00"

    rotated = operator.secret("keys", "rotate", user, "--key", key_id, "--overlap-seconds", 60)
    assert opens(database, secret, rotated) == [True, True]
    again = operator.secret("keys", "rotate", user, "--key", key_id)
    assert opens(database, secret, rotated, again) == [False, False, True]
    assert operator.run("keys", "revoke", user, "--key", key_id) == ["revoked"]
    assert opens(database, again, owner.api_key) == [False, True]
    assert operator.run("keys", "revoke", user, "--key", key_id, is_refused=True) == [
        "error: This user has no live key with this id. `keys list USER` shows those there are."
    ]


def test_the_first_key_is_rotated_and_all_are_revoked_as_before(
    database: str, operator: Operator, owner: Customer
) -> None:
    user = owner.external_user_id
    other = operator.secret("keys", "create", user, "--name", "other", "--scope", "read")
    rotated = operator.secret("keys", "rotate", user)
    assert opens(database, owner.api_key, other, rotated) == [False, True, True]

    assert operator.run("keys", "revoke", user) == ["revoked"]
    assert opens(database, other, rotated) == [False, False]
    assert operator.run("keys", "list", user) == ["nothing yet"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("keys", "list", "{nobody}"), "There is no account for this user."),
        (("keys", "rotate", "{user}", "--overlap-seconds", "5"), "--overlap-seconds needs --key"),
        (("keys", "create", "{user}", "--name", " ", "--scope", "read"), "--name must have 1 to 100 characters"),
        (
            ("keys", "create", "{user}", "--name", "a", "--scope", "read", "--expires-at", "2020-01-01"),
            "This must be in the future",
        ),
        (("keys", "create", "{user}", "--name", "a", "--scope", "read", "--per", "day"), "--per needs --budget"),
        (("keys", "create", "{user}", "--name", "a", "--scope", "read", "--budget", "5"), "--budget needs --per"),
        (("ledger", "show", "{nobody}"), "There is no account for this user."),
        (("keys", "issue", "{user}"), "`keys rotate USER` replaces the first one"),
        (("keys", "rotate", "{nobody}"), "`keys issue USER` makes the first one"),
        (("jobs", "show", "{nobody}"), "There is no job with this id. `jobs list`"),
        (("accounts", "limits", "{nobody}"), "There is no account for this user."),
        (("accounts", "limits", "{nobody}", "--jobs", "5"), "There is no account for this user."),
        (("accounts", "limits", "{user}", "--jobs", "5", "--default", "jobs"), "contradict each other"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    operator: Operator, owner: Customer, words: tuple[str, ...], said: str
) -> None:
    names = {"user": owner.external_user_id, "nobody": uuid4()}

    (line,) = operator.run(*(word.format(**names) for word in words), is_refused=True)

    assert line.startswith("error: ")
    assert said in line


def test_says_whether_it_credited_a_top_up_and_what_the_balance_is(operator: Operator) -> None:
    top_up = ("topup", uuid4(), 7, "--event-id", f"ticket {uuid4()}")

    assert operator.run(*top_up) == ["credited, balance 7"]
    assert operator.run(*top_up) == ["credited before: nothing was done, balance 7"]


def test_shows_and_sets_the_limits_of_an_account(database: str, operator: Operator, owner: Customer) -> None:
    run_with_engine(database, lambda engine: accept_job(engine, owner))

    def shown(*words: object) -> list[list[str]]:
        lines = operator.run("accounts", "limits", owner.external_user_id, *words)
        return [re.split(r"\s{2,}", line.strip())[2:] for line in lines[1:]]

    jobs, _, *others = shown()
    assert jobs == ["1000", "the settings", "1"]
    assert others == [["100", "the settings"], ["1", "the settings"]]

    jobs, writes, *others = shown("--jobs", 5000, "--writes", 0, "--reads", 7, "--weight", 3)
    assert (jobs, writes[:2]) == (["5000", "the account", "1"], ["no limit", "the account"])
    assert others == [["7", "the account"], ["3", "the account"]]

    assert shown("--default", "jobs", "--default", "weight")[0] == ["1000", "the settings", "1"]
    assert [row[1] for row in shown()] == ["the settings", "the account", "the account", "the settings"]


def test_counters_that_are_wrong_are_counted_anew(database: str, operator: Operator, owner: Customer) -> None:
    async def spoil(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE accounts SET unfinished_jobs = 3"))

    run_with_engine(database, spoil)
    named = f"the account counts its unfinished jobs: {owner.account_id}"
    assert operator.run("ledger", "verify", is_refused=True) == [named, "error: 1 differences"]

    assert operator.run("ledger", "recount") == [f"unfinished_jobs of {owner.account_id}: 3 before, 0 now"]

    assert operator.run("ledger", "verify") == ["the ledger is right: every token is accounted for"]
    assert operator.run("ledger", "recount") == ["every counter is right: nothing was changed"]


@pytest.mark.parametrize("words", [["keys", "rotate"], ["keys", "issue"], ["ledger", "show"]], ids=" ".join)
def test_an_older_schema_is_left_as_it_is(database: str, operator: Operator, owner: Customer, words: list[str]) -> None:
    async def set_back(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE tollgate_version SET version_num = '0017'"))

    run_with_engine(database, set_back)

    assert operator.run(*words, owner.external_user_id, is_refused=True) == [
        "error: the database is not at this release's schema: run python -m app migrate"
    ]
    assert opens(database, owner.api_key) == [True]
