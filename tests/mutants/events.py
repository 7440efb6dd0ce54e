"""Mistakes by which an event is lost, told twice, or told to somebody who may not hear of it."""

from app.infrastructure.postgres import event_feed, events
from app.presentation.http import event_streams, streams
from tests.mutants.changes import Change, Mutant, source_of

FEED, LOG, WHAT_IS_TOLD, STREAMS = map(source_of, (event_feed, events, event_streams, streams))
REVISION = "alembic/versions/0021_events.py"
TEST_FEED = "tests/integration/test_event_feed.py"
TEST_LOG = "tests/integration/test_event_log.py"
TEST_STREAMS = "tests/integration/test_event_streams.py"

EVENT_MUTANTS = (
    Mutant(
        "two sequencers work at once",
        (Change(REVISION, "IF NOT pg_try_advisory_xact_lock(", "IF false AND pg_try_advisory_xact_lock("),),
        (f"{TEST_LOG}::test_a_sequencer_that_dies_between_its_steps_loses_nothing",),
    ),
    Mutant(
        "the place of an event does not follow the clock",
        (Change(REVISION, "extract(epoch FROM clock_timestamp())", "0"),),
        (f"{TEST_LOG}::test_after_a_restore_new_events_have_larger_numbers_than_lost_ones",),
    ),
    Mutant(
        "the place of an event follows the clock alone",
        (Change(REVISION, "greatest(last_seq, ", "greatest(0, "),),
        (f"{TEST_LOG}::test_numbers_rise_where_the_clock_does_not",),
    ),
    Mutant(
        "a job starts whenever fal works on it again",
        (Change(REVISION, "OLD.started_at IS NULL AND NEW.started_at IS NOT NULL", "NEW.status = 'IN_PROGRESS'"),),
        (f"{TEST_LOG}::test_a_job_starts_once_however_often_fal_queues_it_again",),
    ),
    Mutant(
        "what was forgotten is missing without a word",
        (Change(LOG, "        raise EventsForgotten\n", "        return\n"),),
        (f"{TEST_LOG}::test_a_place_behind_which_something_was_forgotten_is_told_of",),
    ),
    Mutant(
        "who begins to listen misses what is being told",
        (
            Change(FEED, "                    self._place = rows[-1].seq\n", "                    pass\n"),
            Change(
                FEED,
                "        return len(rows)\n",
                "        self._place = rows[-1].seq if rows else self._place\n        return len(rows)\n",
            ),
        ),
        (f"{TEST_FEED}::test_who_begins_to_listen_while_others_are_told_finds_it_in_the_log",),
    ),
    Mutant(
        "what could not be told is lost",
        (Change(FEED, "                self._send_to_the_log()\n", "                pass\n"),),
        (f"{TEST_FEED}::test_who_listens_is_sent_to_the_log_where_it_could_not_be_told",),
    ),
    Mutant(
        "who falls behind misses what it has not read",
        (Change(FEED, "            self.miss()\n", "            self._held.clear()\n"),),
        (f"{TEST_STREAMS}::test_a_reader_that_falls_behind_misses_nothing",),
    ),
    Mutant(
        "a stream begins where it is opened, whatever was read before",
        (
            Change(
                WHAT_IS_TOLD,
                "            subscription.has_missed = True\n        yield",
                "            pass\n        yield",
            ),
        ),
        (f"{TEST_STREAMS}::test_a_stream_goes_on_where_another_one_ended",),
    ),
    Mutant(
        "a stream outlives its key",
        (
            Change(
                STREAMS,
                "            stream.is_locked_out = True\n            stream.end()\n",
                "            stream.is_locked_out = True\n",
            ),
        ),
        (f"{TEST_STREAMS}::test_a_key_that_expires_ends_its_streams",),
    ),
)
