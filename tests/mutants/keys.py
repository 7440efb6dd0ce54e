"""Mistakes that let somebody in who does not belong there any more."""

from app.infrastructure.postgres.jobs import purses, reader, writing_orders
from app.presentation.http import keyed_routes
from tests.mutants.changes import Change, Mutant, source_of

PURSES, READER, WRITING, ROUTES = map(source_of, (purses, reader, writing_orders, keyed_routes))
TEST_REMEMBERED = "tests/integration/test_remembered_callers.py"
TEST_ENDED = f"{TEST_REMEMBERED}::test_what_has_ended_opens_nothing"
TEST_FRESH = f"{TEST_REMEMBERED}::test_whatever_does_not_look_at_the_version_looks_the_key_up"

KEY_MUTANTS = (
    Mutant(
        "a job is told to whoever is remembered",
        (
            Change(
                READER,
                "accounts.c.keys_version == func.coalesce(_WANTED.c.keys_version, accounts.c.keys_version)",
                "accounts.c.keys_version == accounts.c.keys_version",
            ),
        ),
        (f"{TEST_ENDED}[look-delete]",),
    ),
    Mutant(
        "a job is written for whoever is remembered",
        (
            Change(WRITING, "            (_DUE.c.oldest_keys != _ACCOUNT.c.keys_version),\n", ""),
            Change(WRITING, "            (_DUE.c.newest_keys != _ACCOUNT.c.keys_version),\n", ""),
        ),
        (f"{TEST_ENDED}[start-delete]",),
    ),
    Mutant(
        "a key is asked for again, and not its secret",
        (Change(PURSES, '"digests"), IS_LIVE_SECRET, IS_LIVE_KEY)', '"digests"), IS_LIVE_KEY)'),),
        (f"{TEST_ENDED}[start-rotate]",),
    ),
    Mutant(
        "a refusal is told to whoever is remembered",
        (
            Change(
                ROUTES,
                "                _check_scope(request, await authenticate(presented), scope)\n                raise\n",
                "                raise\n",
            ),
        ),
        (f"{TEST_ENDED}[wrong body-delete]",),
    ),
    Mutant(
        "every route lets in whoever is remembered",
        (Change(ROUTES, "    takes_remembered = False\n", "    takes_remembered = True\n"),),
        (f"{TEST_FRESH}[balance]",),
    ),
    Mutant(
        "the repeat of a request is answered to whoever is remembered",
        (Change(ROUTES, ' or "idempotency-key" in request.headers', ""),),
        (f"{TEST_FRESH}[named]",),
    ),
)
