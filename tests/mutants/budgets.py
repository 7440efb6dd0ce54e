"""Known ways to get budgets, and the locks of the accounts that they are spent under, wrong."""

from app.infrastructure.postgres.jobs import acceptance, settling
from app.infrastructure.postgres.keys import windows
from tests.mutants.changes import Change, Mutant, source_of

ACCEPTANCE, SETTLING, WINDOWS = map(source_of, (acceptance, settling, windows))
TEST_CHANGES = "tests/integration/test_budget_changes.py"
TEST_LOCKS = "tests/integration/test_locks_of_accounts.py"

BUDGET_MUTANTS = (
    Mutant(
        "what was spent since the sum is forgotten",
        (
            Change(
                WINDOWS,
                "        spent = await _brought_up(connection, account_id, key_id, window, sums[window])\n",
                "        spent = sums[window]\n",
            ),
        ),
        (f"{TEST_CHANGES}::test_what_happens_after_the_sum_is_added_to_the_token",),
    ),
    Mutant(
        "what came back since the sum is forgotten",
        (
            Change(
                WINDOWS,
                "        (ledger_entries.c.kind == constant(EntryKind.REFUND), -ledger_entries.c.amount),\n",
                "",
            ),
        ),
        (f"{TEST_CHANGES}::test_changes_race_with_accepts_and_ends",),
    ),
    Mutant(
        "a window is written whatever is decided",
        (
            Change(
                ACCEPTANCE,
                "await add_windows(driver.fetch, [one.order for one in new], purses)",
                "await add_windows(driver.fetch, orders, purses)",
            ),
        ),
        (f"{TEST_CHANGES}::test_refused_orders_leave_nothing",),
    ),
    Mutant(
        "ends lock accounts in any order",
        (Change(SETTLING, "    .order_by(accounts.c.id)\n", ""),),
        (f"{TEST_LOCKS}::test_ends_and_accepts_of_many_accounts_never_wait_in_a_circle",),
    ),
    Mutant(
        "ends leave the locks of accounts to triggers",
        (Change(SETTLING, "        _ACCOUNT.c.id == _LOCKED.c.account_id,\n", ""),),
        (f"{TEST_LOCKS}::test_whoever_waits_for_the_lowest_account_holds_none_of_the_higher_ones",),
    ),
)
