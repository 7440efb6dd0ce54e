"""The end of a job is never refused for the sake of a counter.

A counter that is too low, because somebody wrote to the database past the triggers, stops at zero. Otherwise its CHECK
would refuse the end of the job, each time it was tried: a job that never ends and tokens that never come back are worse
than a limit that lets a job too many through. Whoever verifies the books still finds the counter for as long as it is
wrong, and `ledger recount` puts it right.

The view that finds it is made anew: where revision 0015 ran as it once was, the view still reads the jobs of an account
for each of its windows.
"""

from types import ModuleType

from alembic import context, op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

CHANGES = {
    "= unfinished_jobs - 1": "= greatest(unfinished_jobs - 1, 0)",
    "= spent_tokens - NEW.refunded_tokens": "= greatest(spent_tokens - NEW.refunded_tokens, 0)",
}


def upgrade() -> None:
    function = module_of_keys().COUNT_ENDED_JOB
    for old, new in CHANGES.items():
        assert function.count(old) == 1, old
        function = function.replace(old, new)
    replace(function)
    op.execute(f"{module_of_keys().violations_before()} {module_of_keys().VIOLATIONS_OF_COUNTERS}")


def downgrade() -> None:
    replace(module_of_keys().COUNT_ENDED_JOB)


def replace(function: str) -> None:
    """Also says anew with whose rights it works: to replace a function takes that away."""
    op.execute(function)
    op.execute(module_of_keys().module_before().AS_OWNER.format(function="count_ended_job()"))


def module_of_keys() -> ModuleType:
    found = context.script.get_revision("0015")
    assert found is not None
    return found.module
