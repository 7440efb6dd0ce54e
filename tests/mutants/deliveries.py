"""Mistakes by which a delivery is lost, comes too early or too often, or holds up somebody else's."""

from app.application import retry_after
from app.domain import webhooks
from app.infrastructure.background import deliverer
from app.infrastructure.postgres.webhooks import delivery_queue, endpoints, recording, replays, upkeep
from tests.mutants.changes import Change, Mutant, source_of

QUEUE, RECORDING, ENDPOINTS, REPLAYS, UPKEEP = map(source_of, (delivery_queue, recording, endpoints, replays, upkeep))
LOOP, PLAN, RETRY_AFTER = map(source_of, (deliverer, webhooks, retry_after))
REVISION = "alembic/versions/0022_webhooks.py"
TEST = "tests/integration/test_deliveries.py"
TEST_ENDPOINTS = "tests/integration/test_webhook_endpoints.py"
TEST_LOOP = "tests/integration/test_deliverer.py"

DELIVERY_MUTANTS = (
    Mutant(
        "a delivery overtakes those before it of its job",
        (Change(QUEUE, "before.event_seq < due.event_seq", "before.event_seq < 0"),),
        (f"{TEST}::test_a_delivery_waits_for_those_before_it_of_the_same_job_and_no_other_does",),
    ),
    Mutant(
        "whoever has lost its claim of a delivery writes all the same",
        (Change(RECORDING, " WHERE held.claim = said.claim\n", ""),),
        (f"{TEST}::test_who_lost_its_claim_writes_nothing",),
    ),
    Mutant(
        "an endpoint has as many deliveries under way as are due",
        (Change(QUEUE, "ORDER BY event_seq) <= places", "ORDER BY event_seq) <= 100"),),
        (f"{TEST}::test_one_that_hangs_has_a_few_places_and_holds_up_no_other",),
    ),
    Mutant(
        "deliveries of one look may all be of one account",
        (Change(LOOP, "max(1, int(SHARE * free) // AT_ONCE_MAX)", "free // AT_ONCE_MAX"),),
        (f"{TEST_LOOP}::test_one_account_does_not_have_all_places",),
    ),
    Mutant(
        "deliveries go on to an endpoint that is gone",
        (Change(PLAN, "if any(verdict.is_gone for", "if not verdicts and any(verdict.is_gone for"),),
        (f"{TEST}::test_one_that_is_gone_is_disabled_and_says_so",),
    ),
    Mutant(
        "an endpoint may fail for ever",
        (Change(PLAN, "self.failing_since < now - FAILING", "self.failing_since > now"),),
        (f"{TEST}::test_five_days_of_failures_disable_it_and_a_replay_brings_what_it_missed",),
    ),
    Mutant(
        "a replay of deliveries ends after its first portion",
        (Change(REPLAYS, "THEN paged.last_seq", "THEN NULL"),),
        (f"{TEST}::test_a_replay_also_brings_what_was_delivered_and_in_portions",),
    ),
    Mutant(
        "deliveries are not signed with the secret before",
        (Change(QUEUE, '[secret] if row["old_secret"] is None else [secret, row["old_secret"]]', "[secret]"),),
        (f"{TEST}::test_while_a_secret_is_exchanged_both_sign_and_then_the_new_one_alone",),
    ),
    Mutant(
        "what an endpoint asks for between deliveries is not heard",
        (Change(RETRY_AFTER, "return float(value)", "return 0.0"),),
        (f"{TEST}::test_it_waits_as_long_as_it_is_asked_to",),
    ),
    Mutant(
        "deliveries to an endpoint that always fails have no pauses",
        (Change(PLAN, "if failures < FAILURES_MIN:", "if failures < 1000:"),),
        (f"{TEST}::test_one_that_fails_again_and_again_is_tried_by_one_at_a_time_with_pauses",),
    ),
    Mutant(
        "deliveries of one account are shown to another one",
        (
            Change(
                ENDPOINTS,
                "_SHOWN.where(_E.id == endpoint_id, is_of(account_id), IS_LIVE))",
                "_SHOWN.where(_E.id == endpoint_id))",
            ),
        ),
        (f"{TEST_ENDPOINTS}::test_what_is_another_accounts_is_unknown",),
    ),
    Mutant(
        "a test is delivered to every endpoint of the account",
        (Change(REVISION, "event.facts ->> 'endpoint_id' = endpoint.id::text", "true"),),
        (f"{TEST}::test_a_test_goes_to_its_endpoint_alone_whatever_types_it_wants",),
    ),
    Mutant(
        "endpoints go while deliveries are addressed to them",
        (Change(UPKEEP, "        await connection.execute(_ADDRESS_NOTHING)\n", ""),),
        (f"{TEST_ENDPOINTS}::test_nothing_goes_while_events_are_addressed",),
    ),
    Mutant(
        "a delivery undoes what a rate limiter asked for",
        (Change(PLAN, "return Health(asked_until=asked_until)", "return Health()"),),
        (f"{TEST}::test_a_success_does_not_shorten_what_was_asked_for",),
    ),
    Mutant(
        "what the old URL answers to a delivery disables the new one",
        (
            Change(
                RECORDING,
                'one.verdict for one in some if row["url"] in (None, one.delivery.url)',
                "one.verdict for one in some",
            ),
        ),
        (f"{TEST}::test_what_an_old_url_answers_says_nothing_of_the_new_one",),
    ),
    Mutant(
        "a URL that nothing can be delivered to stops the log",
        (
            Change(
                REVISION,
                "integrity_constraint_violation OR data_exception THEN\n    FOR one",
                "division_by_zero THEN\n    FOR one",
            ),
        ),
        (f"{TEST}::test_a_url_that_cannot_be_addressed_stops_nobody",),
    ),
    Mutant(
        "a replay of deliveries does not wait for whoever is giving events their places",
        (Change(ENDPOINTS, "select(event_log.c.last_seq).with_for_update(read=True)", "select(event_log.c.last_seq)"),),
        (f"{TEST_ENDPOINTS}::test_a_replay_brings_what_got_its_place_just_before_the_endpoint_was_enabled",),
    ),
    Mutant(
        "deliveries wait for the next look",
        (
            Change(LOOP, "                self._due.clear()\n                if", "                if"),
            Change(LOOP, "self._due.wait(), LOOK_SECONDS", "asyncio.Event().wait(), LOOK_SECONDS"),
        ),
        (f"{TEST_LOOP}::test_it_hears_of_what_happens_at_once",),
    ),
)
