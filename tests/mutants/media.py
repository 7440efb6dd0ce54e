"""Mistakes by which somebody gets a file that is not his, or as something that it is not, or one that was deleted."""

from app.application import files, media
from app.application.execution import copy_outputs, erase
from app.infrastructure import spool
from app.infrastructure.postgres.files import own_outputs, records, sending
from app.infrastructure.postgres.jobs import claiming
from app.infrastructure.postgres.media import copies, deletion
from app.presentation.http import downloads
from tests.mutants.changes import Change, Mutant, source_of

LINKS, STEP, ERASE = map(source_of, (media, copy_outputs, erase))
COPIES, DELETION, DOWNLOADS = map(source_of, (copies, deletion, downloads))
KEEP, FILES, OWN_OUTPUTS, SENDING, CLAIMING = map(source_of, (files, records, own_outputs, sending, claiming))
SPOOL = source_of(spool)
REVISION = "alembic/versions/0023_outputs.py"
REVISION_FILES = "alembic/versions/0024_files.py"
TEST = "tests/integration/test_outputs.py"
TEST_FILES = "tests/integration/test_files.py"
TEST_OWN = "tests/integration/test_own_outputs.py"
TEST_KEEP = "tests/integration/test_keep_file.py"
TEST_HAND_OVER = "tests/integration/test_hand_over.py"
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
    Mutant(
        "an account of kept files is looked at before it is locked",
        (
            Change(
                FILES,
                "accounts.c.id == file.account_id).with_for_update(key_share=True)",
                "accounts.c.id == file.account_id)",
            ),
        ),
        (f"{TEST_FILES}::test_of_many_that_reserve_at_once_as_many_fit_as_fit",),
    ),
    Mutant(
        "kept files count although they were deleted",
        (
            Change(
                REVISION_FILES,
                "AND OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL)",
                "AND OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL)",
            ),
        ),
        (f"{TEST_FILES}::test_what_is_deleted_counts_no_more_and_is_erased",),
    ),
    Mutant(
        "a job is claimed although fal has no URL of its kept files",
        (Change(CLAIMING, "        _FILES_ARE_SENT,\n", ""),),
        (f"{TEST_HAND_OVER}::test_no_job_is_claimed_before_each_of_its_files_has_a_url",),
    ),
    Mutant(
        "a URL of kept files is sent until its last moment",
        (Change(CLAIMING, "SENT_AHEAD = \"interval '1 day'\"", "SENT_AHEAD = \"interval '0 days'\""),),
        (f"{TEST_HAND_OVER}::test_a_url_that_is_good_for_less_than_a_day_is_made_again",),
    ),
    Mutant(
        "kept files are handed over by everybody at once",
        (Change(SENDING, "_LACKS_URL, is_free)", "_LACKS_URL)"),),
        (f"{TEST_HAND_OVER}::test_only_one_hands_a_file_over_until_its_time_is_over",),
    ),
    Mutant(
        "kept files of data: URIs go while their jobs wait",
        (Change(FILES, "            await connection.execute(_PUT_OFF, ids)\n", ""),),
        (f"{TEST_FILES}::test_the_file_of_a_data_uri_stays_while_its_job_is_unfinished",),
    ),
    Mutant(
        "fal's URL of kept files stays after their deletion",
        (
            Change(
                FILES,
                "deleted_because=because.value, sent_url=None, sent_until=None)",
                "deleted_because=because.value)",
            ),
            Change(
                REVISION_FILES, "CHECK (deleted_at IS NULL OR sent_url IS NULL)", "CHECK (deleted_at IS NULL OR true)"
            ),
        ),
        (f"{TEST_HAND_OVER}::test_a_job_whose_file_was_deleted_ends_with_one_refund",),
    ),
    Mutant(
        "kept files are anybody's to use",
        (
            Change(
                FILES,
                'any_of(F.id, "file_ids"), F.account_id == account_id, F.origin',
                'any_of(F.id, "file_ids"), F.origin',
            ),
        ),
        (f"{TEST_FILES}::test_nobody_else_finds_a_file",),
    ),
    Mutant(
        "outputs are anybody's to use as kept files",
        (Change(OWN_OUTPUTS, "if found is None or found[0] != account_id:", "if found is None:"),),
        (f"{TEST_OWN}::test_an_output_of_somebody_else_is_none_and_leaves_no_row",),
    ),
    Mutant(
        "kept files can be used before they are in the store",
        (
            Change(
                KEEP,
                "        put = asyncio.create_task(self.store.put(",
                "        await self.records.record_stored(file.id)\n        put = asyncio.create_task(self.store.put(",
            ),
        ),
        (f"{TEST_KEEP}::test_a_file_can_be_used_once_it_is_in_the_store_and_not_before",),
    ),
    Mutant(
        "kept files count although they did not come into the store",
        (
            Change(
                KEEP,
                "await asyncio.shield(self.records.delete(file.id, DeletedBecause.REQUESTED))",
                "await asyncio.sleep(0)",
            ),
        ),
        (f"{TEST_KEEP}::test_what_does_not_come_into_the_store_counts_no_more",),
    ),
    Mutant(
        "kept files count as erased before they are",
        (
            Change(
                ERASE,
                ERASING.replace("output_id", "FileId("),
                "        await self.files.record_erased(file_id)\n" + ERASING.replace("output_id", "FileId("),
            ),
        ),
        (f"{TEST_FILES}::test_what_was_stored_is_erased_at_once_and_the_object_goes_first",),
    ),
    Mutant(
        "kept files that were never stored are erased for good at once",
        (
            Change(
                FILES,
                "_MAY_COME = literal_column(\"interval '1 day'\"",
                "_MAY_COME = literal_column(\"interval '0 days'\"",
            ),
        ),
        (f"{TEST_FILES}::test_what_may_still_be_on_its_way_is_looked_for_during_a_day",),
    ),
    Mutant(
        "kept files of held jobs are handed over",
        (
            Change(
                CLAIMING,
                "(_IS_QUEUED & jobs.c.held_at.is_(None) & IS_KNOWN & ~_FILES_ARE_SENT)",
                "(_IS_QUEUED & ~_FILES_ARE_SENT)",
            ),
        ),
        (f"{TEST_HAND_OVER}::test_a_job_that_is_held_is_not_made_ready_for_fal",),
    ),
    Mutant(
        "a job that was claimed ends for kept files that are gone",
        (Change(SENDING, "jobs.c.id == job_id, jobs.c.status == JobStatus.QUEUED.value)", "jobs.c.id == job_id)"),),
        (f"{TEST_HAND_OVER}::test_a_job_that_somebody_has_claimed_does_not_end_for_a_file",),
    ),
    Mutant(
        "a URL of kept files is good for the one and not for the other",
        (Change(OWN_OUTPUTS, "interval '25 hours'", "interval '23 hours'"),),
        (f"{TEST_HAND_OVER}::test_a_url_is_judged_by_the_clock_of_the_database_alone",),
    ),
    Mutant(
        "kept files are received although the disk is full",
        (Change(SPOOL, ".free < FREE_BYTES_MIN:", ".free < 0:"),),
        (f"{TEST_KEEP}::test_nothing_is_received_while_the_disk_is_nearly_full",),
    ),
    Mutant(
        "outputs stay in use as kept files where they were deleted by the release before",
        (
            Change(
                REVISION_FILES,
                "OR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE",
                "OR EACH ROW WHEN (false) EXECUTE",
            ),
        ),
        (f"{TEST_OWN}::test_an_output_that_a_process_of_the_release_before_deletes_is_used_no_more",),
    ),
    Mutant(
        "outputs that nobody has for long are used as kept files",
        (Change(OWN_OUTPUTS, 'if not output.kept.is_stored and not row["is_at_provider"]:', "if False:"),),
        (f"{TEST_OWN}::test_an_output_that_only_fal_has_and_not_for_long_is_refused_before_the_debit",),
    ),
    Mutant(
        "kept files that a job needs to hear of are forgotten",
        (Change(FILES, "            ids -= set(", "            ids -= set() and set("),),
        (f"{TEST_FILES}::test_a_file_is_told_of_for_a_month_after_it_was_erased_and_then_forgotten",),
    ),
    Mutant(
        "kept files that are over lock all accounts at once",
        (
            Change(
                FILES,
                "        for account_id in sorted({row.account_id for row in found}):\n"
                "            count += await self._delete_over("
                "[row.id for row in found if row.account_id == account_id])\n",
                "        count += await self._delete_over([row.id for row in found])\n",
            ),
        ),
        (f"{TEST_FILES}::test_files_of_many_accounts_that_are_over_lock_one_account_at_a_time",),
    ),
    Mutant(
        "kept files in use go at their time",
        (Change(FILES, "until = func.greatest(F.expires_at, func.now() + _FOR_A_JOB)", "until = F.expires_at"),),
        (f"{TEST_FILES}::test_a_file_in_use_is_kept_on",),
    ),
    Mutant(
        "kept files can be uploaded without a token",
        (Change(FILES, "if row.balance_tokens < 1:", "if row.balance_tokens < 0:"),),
        (f"{TEST_FILES}::test_who_has_nothing_to_spend_uploads_nothing",),
    ),
    Mutant(
        "kept files are uploaded without a count",
        (
            Change(
                FILES,
                "            await count_write(connection, account_id, self.limits)\n            row",
                "            row",
            ),
        ),
        (f"{TEST_FILES}::test_an_upload_is_a_write_before_it_is_read_and_a_data_uri_is_one_with_its_job",),
    ),
)
