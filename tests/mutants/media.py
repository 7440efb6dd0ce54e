"""Mistakes by which somebody gets a file that is not his, or as something that it is not, or one that was deleted."""

from app.application import media
from app.application.execution import copy_outputs, erase
from app.infrastructure.postgres.media import copies, deletion
from app.presentation.http import downloads
from tests.mutants.changes import Change, Mutant, source_of

LINKS, STEP, ERASE = map(source_of, (media, copy_outputs, erase))
COPIES, DELETION, DOWNLOADS = map(source_of, (copies, deletion, downloads))
REVISION = "alembic/versions/0023_outputs.py"
TEST = "tests/integration/test_outputs.py"
TEST_LINKS = "tests/unit/test_media_links.py"
TEST_STEP = "tests/unit/test_copy_outputs.py"
TEST_DOWNLOADS = "tests/unit/test_downloads.py"
# Of outputs: that of files has other names.
ERASING = "        if self.store is not None:\n            try:\n                await self.store.delete(output_id"

MEDIA_MUTANTS = (
    Mutant(
        "a link to media need not be signed",
        (Change(LINKS, "if not self.links.is_signed(media_id, int(expires), signature):", "if not signature:"),),
        (f"{TEST_LINKS}::test_a_link_that_is_not_signed_leads_nowhere",),
    ),
    Mutant(
        "a link to media never ends",
        (Change(LINKS, "if now.timestamp() >= expires:", "if now.timestamp() < 0:"),),
        (f"{TEST_LINKS}::test_a_link_ends_before_its_output_does",),
    ),
    Mutant(
        "a link leads to media whose time is over",
        (Change(LINKS, "if now >= kept.expires_at:", "if now < kept.expires_at and not expires:"),),
        (f"{TEST_LINKS}::test_an_output_that_is_over_is_told_of_as_one_that_was_deleted",),
    ),
    Mutant(
        "a link leads to media that were deleted",
        (Change(LINKS, "if kept.deleted_at is not None:", "if kept.deleted_at is not None and not expires:"),),
        (f"{TEST_LINKS}::test_an_output_that_is_over_is_told_of_as_one_that_was_deleted",),
    ),
    Mutant(
        "media are what fal says that they are",
        (Change(DOWNLOADS, "return None if found is None else found.content_type", "return output.content_type"),),
        (f"{TEST_DOWNLOADS}::test_what_fal_has_is_shown_as_what_it_is",),
    ),
    Mutant(
        "media of any type are shown",
        (Change(DOWNLOADS, "f'attachment; filename=", "f'inline; filename="),),
        (f"{TEST_DOWNLOADS}::test_what_may_not_be_shown_is_downloaded",),
    ),
    Mutant(
        "media may run scripts where a browser takes them for a page",
        (Change(DOWNLOADS, "\"default-src 'none'; sandbox\"", "\"default-src 'self'\""),),
        (f"{TEST_DOWNLOADS}::test_what_may_not_be_shown_is_downloaded",),
    ),
    Mutant(
        "a place of a download of media is kept after its end",
        (Change(DOWNLOADS, "            async with self._held:\n", "            if self._held:\n"),),
        (f"{TEST_DOWNLOADS}::test_a_caller_who_takes_nothing_gives_his_place_back",),
    ),
    Mutant(
        "a copy of media is recorded although they were deleted",
        (
            Change(
                COPIES,
                "_IS_TO_COPY, jobs.c.id == _O.job_id)\n                .values(\n",
                "_O.stored_at.is_(None), jobs.c.id == _O.job_id)\n                .values(\n",
            ),
            Change(REVISION, "    IF OLD.deleted_at IS NOT NULL AND", "    IF false AND"),
            Change(COPIES, "_O.stored_at.is_not(None), _O.deleted_at.is_(None))", "_O.stored_at.is_not(None))"),
        ),
        (f"{TEST}::test_of_a_copy_and_a_deletion_that_meet_the_later_one_sees_the_other",),
    ),
    Mutant(
        "what was put into the store of media stays there although it was deleted meanwhile",
        (
            Change(
                STEP, "            await store.delete(output.id.store_key)\n            return", "            return"
            ),
        ),
        (f"{TEST_STEP}::test_what_was_deleted_meanwhile_does_not_stay_in_the_store",),
    ),
    Mutant(
        "media count as erased before they are",
        (Change(ERASE, ERASING, f"        await self.outputs.record_erased(output_id)\n{ERASING}"),),
        (f"{TEST_STEP}::test_an_object_goes_before_that_is_written_down",),
    ),
    Mutant(
        "media that were never stored are erased for good at once",
        (Change(COPIES, "interval '1 day'", "interval '0 days'"),),
        (f"{TEST}::test_what_was_stored_is_erased_at_once_and_what_was_not_a_day_later",),
    ),
    Mutant(
        "the URLs of media that were deleted stay in the job",
        (Change(DELETION, "            await _forget_urls(connection, [job_id])\n", ""),),
        (f"{TEST}::test_its_owner_deletes_an_output_and_nobody_else_does",),
    ),
    Mutant(
        "anybody may delete media",
        (
            Change(
                DELETION,
                "        if account_id is not None:\n",
                "        if account_id is not None and account_id == job_id:\n",
            ),
        ),
        (f"{TEST}::test_its_owner_deletes_an_output_and_nobody_else_does",),
    ),
    Mutant(
        "a copy of media ends their time earlier than was said",
        (Change(COPIES, "func.greatest(_O.expires_at, jobs", "func.greatest(jobs"),),
        (f"{TEST}::test_its_time_never_ends_earlier",),
    ),
    Mutant(
        "copies of media go on while the store is away",
        (Change(STEP, "if self.pause.is_on:", "if self.pause.is_on and not account_id:"),),
        (f"{TEST_STEP}::test_while_the_store_is_away_one_copy_at_a_time_tries_it",),
    ),
    Mutant(
        "a final job may have any result without URLs of media",
        (Change(REVISION, "THEN without_urls(OLD.result)", "THEN without_urls(NEW.result)"),),
        (f"{TEST}::test_a_final_result_changes_to_nothing_but_itself_without_urls",),
    ),
)
