"""Each event comes to each endpoint that wants it, at least once, whatever the endpoint answers in between."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from standardwebhooks.webhooks import WebhookVerificationError

from app.application import deliver
from app.application.webhooks import EndpointWithSecret
from app.domain.jobs import JobStatus
from app.domain.webhooks import (
    AT_ONCE_MAX,
    ATTEMPTS_MAX,
    FAILURES_MIN,
    RETRY_SECONDS,
    Attempt,
    Delivery,
    DeliveryState,
    DisabledReason,
    Verdict,
)
from app.infrastructure.postgres.webhooks.delivery_queue import CLAIM_SECONDS
from app.infrastructure.postgres.webhooks.upkeep import PostgresDeliveryUpkeep
from tests.builders import OUTCOMES, Connection, Customer, job_in, jobs_of, open_account, open_crowd
from tests.deliveries import Lab, open_lab
from tests.webhook_receiver import Answers

DAY_SECONDS = 86_400.0
ENOUGH_SECONDS = 1.2 * DAY_SECONDS


@pytest.fixture
async def lab(engine: AsyncEngine) -> AsyncIterator[Lab]:
    async with open_lab(engine) as lab:
        yield lab


async def deliveries_of(lab: Lab, customer: Customer, endpoint: EndpointWithSecret) -> list[Delivery]:
    """The oldest first."""
    page = await lab.webhooks.deliveries.page(
        customer.account_id, endpoint.endpoint.id, state=None, before=None, limit=100
    )
    return list(reversed(page.deliveries))


async def test_the_customer_gets_what_the_log_has_and_can_verify_it(lab: Lab) -> None:
    customer = await open_account(lab.engine, 100)
    await lab.sequence()
    endpoint = await lab.add(customer)

    job_id = await job_in(lab.engine, customer, JobStatus.COMPLETED)
    await lab.sequence()
    await lab.deliver_due()

    submitted, completed = [taken.event(endpoint.secret) for taken in lab.receiver.taken]
    assert (submitted["type"], completed["type"]) == ("generation.submitted", "generation.completed")
    assert completed["data"]["job_id"] == str(job_id)
    assert completed["data"]["result"] is not None
    assert completed["timestamp"] == completed["created_at"]
    assert [taken.id for taken in lab.receiver.taken] == [submitted["id"], completed["id"]]
    assert await lab.states() == ["delivered", "delivered"]
    (first, _) = await deliveries_of(lab, customer, endpoint)
    assert (first.attempts, first.attempt_log[0]["status"], first.attempt_log[0]["error"]) == (1, 200, None)
    for taken in lab.receiver.taken:
        with pytest.raises(WebhookVerificationError):
            taken.event((await lab.add(customer)).secret)


async def test_an_endpoint_hears_of_its_own_account_and_types_and_the_operators_of_all(lab: Lab) -> None:
    one, other = await open_account(lab.engine), await open_account(lab.engine)
    await lab.add(one, "/some", ["balance.low"])
    await lab.add(other, "/others")
    await lab.add(None, "/all")

    await lab.note(one, "balance.low", "balance.recovered")
    await lab.note(other, "balance.credited")
    await lab.deliver_due()

    paths = sorted((taken.path, json.loads(taken.body)["type"]) for taken in lab.receiver.taken)
    assert paths == [
        ("/all", "balance.credited"),
        ("/all", "balance.low"),
        ("/all", "balance.recovered"),
        ("/others", "balance.credited"),
        ("/some", "balance.low"),
    ]


async def test_what_a_job_names_hears_of_its_end_alone_signed_with_the_accounts_secret(
    lab: Lab, sql: Connection
) -> None:
    customer, other = await open_account(lab.engine, 100), await open_account(lab.engine, 100)
    for owner, path in ((customer, "/own"), (other, "/others")):
        job_id = await job_in(lab.engine, owner, JobStatus.IN_PROGRESS)
        await sql.execute("UPDATE jobs SET webhook_url = $2 WHERE id = $1", job_id, lab.receiver.url + path)
        assert await jobs_of(lab.engine).settle(job_id, OUTCOMES[JobStatus.FAILED])
    await lab.sequence()
    await lab.deliver_due()

    assert sorted(taken.path for taken in lab.receiver.taken) == ["/others", "/own"]
    for taken, owner in zip(sorted(lab.receiver.taken, key=lambda it: it.path), (other, customer), strict=True):
        secret = (await lab.webhooks.secrets.get(owner.account_id)).secret
        assert taken.event(secret)["type"] == "generation.failed"
    assert await lab.webhooks.endpoints.live(customer.account_id) == []


async def test_a_failure_is_tried_again_after_each_time_of_the_plan_and_then_given_up(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    lab.receiver.answers["/hook"] = Answers(500, text="no\x00room\x1b")
    await lab.note(customer, "balance.low")

    for planned_seconds in RETRY_SECONDS:
        assert len(await lab.deliver_due()) == 1
        (delivery,) = await deliveries_of(lab, customer, endpoint)
        assert (delivery.state, delivery.ended_at) == ("pending", None)
        await lab.pass_time(planned_seconds * 0.99)
        assert await lab.deliver_due() == []
        await lab.pass_time(planned_seconds * 0.2 + 400)

    await others_were_delivered(lab)
    await lab.deliver_due()
    (delivery,) = await deliveries_of(lab, customer, endpoint)
    assert (delivery.state, delivery.attempts, delivery.next_attempt_at) == ("exhausted", ATTEMPTS_MAX, None)
    assert {taken.id for taken in lab.receiver.taken} == {lab.receiver.taken[0].id}
    assert len(lab.receiver.taken) == ATTEMPTS_MAX
    last = delivery.attempt_log[-1]
    assert (last["status"], last["error"]) == (500, "The endpoint answered 500, and not 2xx.")
    assert last["answer"] == "no room "

    # By hand it begins anew.
    lab.receiver.answers["/hook"] = Answers(204)
    await lab.webhooks.deliveries.redeliver(customer.account_id, endpoint.endpoint.id, delivery.event_seq)
    await lab.deliver_due()
    assert await lab.states() == ["delivered"]


async def others_were_delivered(lab: Lab) -> None:
    """Shortly before now."""
    async with lab.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE webhook_endpoints SET failing_since = now()")


async def test_what_fails_last_as_the_endpoint_is_disabled_comes_once_it_is_enabled(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    lab.receiver.answers["/hook"] = Answers(500)
    await lab.note(customer, "balance.low")
    while (await lab.webhooks.endpoints.get(customer.account_id, endpoint.endpoint.id)).disabled_at is None:
        await lab.deliver_due()
        await lab.pass_time(ENOUGH_SECONDS)
    lab.receiver.answers["/hook"] = Answers(200)
    await lab.webhooks.change(customer.account_id, endpoint.endpoint.id, {"is_enabled": True})
    await lab.deliver_due()
    assert await lab.states() == ["delivered"]


async def test_a_delivery_waits_for_those_before_it_of_the_same_job_and_no_other_does(lab: Lab) -> None:
    customer, job_id = await open_account(lab.engine), uuid4()
    await lab.add(customer)
    lab.receiver.answers["/hook"] = Answers(500)
    await lab.note(customer, "a", job_id=job_id)
    await lab.deliver_due()
    lab.receiver.answers["/hook"] = Answers(200)

    await lab.note(customer, "b", "c", job_id=job_id)
    await lab.note(customer, "of no job")
    await lab.note(customer, "of another job", job_id=uuid4())
    await lab.deliver_due()
    types = [json.loads(taken.body)["type"] for taken in lab.receiver.taken]
    assert sorted(types) == ["a", "of another job", "of no job"]

    await lab.pass_time(10)
    await lab.deliver_due()
    types = [json.loads(taken.body)["type"] for taken in lab.receiver.taken]
    assert types[3:] == ["a", "b", "c"]


async def test_what_is_given_up_lets_the_next_of_its_job_go(lab: Lab) -> None:
    customer, job_id = await open_account(lab.engine), uuid4()
    await lab.add(customer)
    lab.receiver.answers["/hook"] = Answers(500)
    await lab.note(customer, "a", "b", job_id=job_id)
    for number in range(ATTEMPTS_MAX):
        assert len(set(lab.receiver.ids("/hook"))) == min(number, 1)
        await others_were_delivered(lab)
        assert len(await lab.deliver_due()) == 1
        await lab.pass_time(ENOUGH_SECONDS)
    lab.receiver.answers["/hook"] = Answers(200)
    await lab.deliver_due()

    assert await lab.states() == ["exhausted", "delivered"]


async def test_one_that_hangs_has_a_few_places_and_holds_up_no_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "ATTEMPT_SECONDS_MAX", 0.3)
    customer, other = await open_account(lab.engine), await open_account(lab.engine)
    await lab.add(customer, "/hang")
    await lab.add(customer, "/fine")
    await lab.add(other, "/others")
    await lab.note(customer, *["balance.low"] * 20)
    await lab.note(other, *["balance.low"] * 20)

    first = await lab.claim()
    hanging = [delivery for delivery in first if delivery.url.endswith("/hang")]
    assert len(hanging) == AT_ONCE_MAX
    assert [one for one in await lab.claim() if one.url.endswith("/hang")] == []

    attempts = [asyncio.create_task(lab.deliver(delivery)) for delivery in first]
    await lab.deliver_due()
    await asyncio.gather(*attempts)
    await lab.pass_time(CLAIM_SECONDS)
    await lab.deliver_due()
    assert len(lab.receiver.ids("/fine")) >= 20
    assert set(lab.receiver.ids("/others")) == {f"evt_{seq}" for seq in await seqs_of(lab, other)}
    assert lab.receiver.at_once_max["/hang"] <= AT_ONCE_MAX


async def seqs_of(lab: Lab, customer: Customer) -> list[int]:
    async with lab.engine.connect() as connection:
        found = await connection.exec_driver_sql("SELECT seq FROM events WHERE account_id = $1", (customer.account_id,))
        return [row.seq for row in found]


async def test_one_that_fails_again_and_again_is_tried_by_one_at_a_time_with_pauses(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    await lab.add(customer)
    lab.receiver.answers["/hook"] = Answers(500)
    await lab.note(customer, *["balance.low"] * 100)

    await lab.deliver_due()
    tried = len(lab.receiver.taken)
    assert tried <= FAILURES_MIN + AT_ONCE_MAX
    await lab.pass_time(3)
    assert await lab.deliver_due() == []
    await lab.pass_time(57)
    assert len(await lab.deliver_due()) == 1

    lab.receiver.answers["/hook"] = Answers(200)
    await lab.pass_time(400)
    await lab.deliver_due()
    await lab.pass_time(400)
    await lab.deliver_due()
    assert set(await lab.states()) == {"delivered"}


@pytest.mark.parametrize("status", [429, 503])
async def test_it_waits_as_long_as_it_is_asked_to(lab: Lab, status: int) -> None:
    customer = await open_account(lab.engine)
    await lab.add(customer)
    await lab.note(customer, "balance.low")
    lab.receiver.answers["/hook"] = Answers(status, {"Retry-After": "100"})
    assert len(await lab.deliver_due()) == 1

    # And nothing else is sent meanwhile.
    await lab.note(customer, "balance.recovered")
    await lab.pass_time(90)
    assert await lab.deliver_due() == []
    lab.receiver.answers["/hook"] = Answers(200)
    await lab.pass_time(20)
    assert len(await lab.deliver_due()) == 2


async def test_one_that_is_gone_is_disabled_and_says_so(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    await lab.note(customer, "balance.low")
    await lab.note(customer, "balance.recovered", job_id=uuid4())
    lab.receiver.answers["/hook"] = Answers(410)

    claimed = await lab.claim()
    await lab.deliver(claimed[0])
    shown = await lab.webhooks.endpoints.get(customer.account_id, endpoint.endpoint.id)
    assert (shown.disabled_reason, shown.disabled_at is not None) == (DisabledReason.GONE, True)
    assert await lab.claim() == []

    # What was under way, and what waits, goes on once it is enabled.
    await lab.pass_time(CLAIM_SECONDS)
    lab.receiver.answers["/hook"] = Answers(200)
    await lab.webhooks.change(customer.account_id, endpoint.endpoint.id, {"is_enabled": True})
    await lab.deliver_due()
    assert await lab.states() == ["delivered", "delivered"]


async def test_a_url_of_a_job_that_is_gone_is_given_up(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine, 100)
    job_id = await job_in(lab.engine, customer, JobStatus.IN_PROGRESS)
    await sql.execute("UPDATE jobs SET webhook_url = $2 WHERE id = $1", job_id, lab.receiver.url + "/own")
    lab.receiver.answers["/own"] = Answers(410)
    assert await jobs_of(lab.engine).settle(job_id, OUTCOMES[JobStatus.FAILED])
    await lab.sequence()
    await lab.deliver_due()
    assert await lab.states() == ["exhausted"]
    assert await sql.fetchval("SELECT disabled_at FROM webhook_endpoints") is None


async def test_what_an_old_url_answers_says_nothing_of_the_new_one(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer, "/old")
    await lab.note(customer, "balance.low")
    (claimed,) = await lab.claim()
    lab.receiver.answers["/old"] = Answers(410)
    await lab.webhooks.change(customer.account_id, endpoint.endpoint.id, {"url": lab.receiver.url + "/new"})
    await lab.deliver(claimed)
    shown = await lab.webhooks.endpoints.get(customer.account_id, endpoint.endpoint.id)
    assert (shown.disabled_at, shown.failing_since) == (None, None)
    await lab.pass_time(10)
    await lab.deliver_due()
    assert [taken.path for taken in lab.receiver.taken] == ["/old", "/new"]


async def test_a_success_does_not_shorten_what_was_asked_for(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    await lab.add(customer)
    await lab.note(customer, *["balance.low"] * 6)
    claimed = await lab.claim()
    lab.receiver.answers["/hook"] = Answers(429, {"Retry-After": "3600"})
    await lab.deliver(claimed[0])
    lab.receiver.answers["/hook"] = Answers(200)
    for delivery in claimed[1:]:
        await lab.deliver(delivery)
    assert await lab.claim() == []
    await lab.pass_time(3700)
    await lab.deliver_due()
    assert set(await lab.states()) == {"delivered"}


async def test_what_waits_is_due_at_once_when_its_endpoint_is_enabled_again(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    lab.receiver.answers["/hook"] = Answers(500)
    await lab.note(customer, "balance.low")
    for _ in range(4):
        await lab.deliver_due()
        await lab.pass_time(2000)
    for is_enabled in (False, True):
        await lab.webhooks.change(customer.account_id, endpoint.endpoint.id, {"is_enabled": is_enabled})
    # Whoever does that again and again writes no delivery anew.
    written = "SELECT xmin::text FROM deliveries"
    async with lab.engine.connect() as connection:
        before = (await connection.exec_driver_sql(written)).all()
    for is_enabled in (False, True):
        await lab.webhooks.change(customer.account_id, endpoint.endpoint.id, {"is_enabled": is_enabled})
    async with lab.engine.connect() as connection:
        assert (await connection.exec_driver_sql(written)).all() == before
    lab.receiver.answers["/hook"] = Answers(200)
    assert len(await lab.deliver_due()) == 1


async def test_what_is_given_back_disables_nothing(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    await lab.note(customer, "balance.low")
    await sql.execute("UPDATE webhook_endpoints SET failing_since = now() - interval '6 days', last_failed_at = now()")
    (claimed,) = await lab.claim()
    await lab.queue.give_back(claimed)
    assert (await lab.webhooks.endpoints.get(customer.account_id, endpoint.endpoint.id)).disabled_at is None


async def test_whoever_fails_after_a_quiet_time_begins_to_fail(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    await lab.note(customer, "balance.low")
    await sql.execute(
        "UPDATE webhook_endpoints SET failing_since = now() - interval '9 days', last_failed_at = now() - interval"
        " '7 days', failures = 3"
    )
    lab.receiver.answers["/hook"] = Answers(500)
    await lab.deliver_due()
    assert (await lab.webhooks.endpoints.get(customer.account_id, endpoint.endpoint.id)).disabled_at is None


@pytest.mark.parametrize("url", ["HTTPS://Hooks.example.com/x", "ftp:", "https:///x", ""])
async def test_a_url_that_cannot_be_addressed_stops_nobody(lab: Lab, sql: Connection, url: str) -> None:
    customer, other = await open_account(lab.engine, 100), await open_account(lab.engine)
    await lab.add(other)
    job_id = await job_in(lab.engine, customer, JobStatus.IN_PROGRESS)
    await sql.execute("UPDATE jobs SET webhook_url = $2 WHERE id = $1", job_id, url)
    assert await jobs_of(lab.engine).settle(job_id, OUTCOMES[JobStatus.FAILED])
    await lab.note(other, "balance.low")
    await lab.deliver_due()
    assert await sql.fetchval("SELECT count(*) FROM event_inbox") == 0
    assert len(lab.receiver.ids("/hook")) == 1


async def test_an_event_that_cannot_be_read_holds_up_no_other(lab: Lab, sql: Connection) -> None:
    customer, other = await open_account(lab.engine), await open_account(lab.engine)
    await lab.add(customer)
    await lab.add(other)
    await lab.note(customer, "balance.low", "balance.recovered")
    await lab.note(other, "balance.low")
    await sql.execute("UPDATE events SET facts = '[1]' WHERE seq = (SELECT min(seq) FROM events)")

    await lab.deliver_due()

    assert sorted(await lab.states()) == ["delivered", "delivered", "pending"]
    # It was not the endpoint's fault, and comes once it can be read.
    await sql.execute('UPDATE events SET facts = \'{"balance_tokens": 1, "balance_low_tokens": 2}\'')
    await lab.pass_time(CLAIM_SECONDS)
    await lab.deliver_due()
    assert set(await lab.states()) == {"delivered"}


@pytest.mark.alone
async def test_many_that_are_due_cost_a_look_no_more_than_a_few(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    await sql.execute(
        "INSERT INTO deliveries (endpoint_id, event_seq, job_id, due_at, state, ended_at) SELECT $1, n,"
        " gen_random_uuid(), now(), 'delivered', now() FROM generate_series(1, 50000) AS n",
        endpoint.endpoint.id,
    )
    await sql.execute("ANALYZE deliveries")
    await sql.execute(
        "INSERT INTO deliveries (endpoint_id, event_seq, job_id, due_at) SELECT $1, n,"
        " gen_random_uuid(), now() FROM generate_series(60001, 65000) AS n",
        endpoint.endpoint.id,
    )
    await sql.execute("UPDATE webhook_endpoints SET next_due_at = now()")
    async with asyncio.timeout(2):
        assert len(await lab.claim()) == AT_ONCE_MAX


async def test_what_was_lost_sight_of_is_found(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    await lab.add(customer)
    await lab.note(customer, "balance.low")
    await sql.execute("TRUNCATE due_endpoints")
    assert await lab.claim() == []
    upkeep = PostgresDeliveryUpkeep(lab.engine, 30)
    assert [await upkeep.requeue_lost() for _ in range(2)] == [1, 0]
    assert len(await lab.deliver_due()) == 1
    assert await upkeep.requeue_lost() == 0


async def test_five_days_of_failures_disable_it_and_a_replay_brings_what_it_missed(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    lab.receiver.answers["/hook"] = Answers(500)
    await lab.note(customer, "balance.low")
    for _ in range(6):
        await lab.deliver_due()
        await lab.pass_time(DAY_SECONDS)
        await lab.note(customer, "balance.recovered")
    await lab.deliver_due()
    shown = await lab.webhooks.endpoints.get(customer.account_id, endpoint.endpoint.id)
    assert shown.disabled_reason == DisabledReason.FAILING
    assert shown.missed_after is not None

    waiting = len(await lab.states())
    await lab.note(customer, *["balance.low"] * 7)
    assert len(await lab.states()) == waiting

    lab.receiver.answers["/hook"] = Answers(200)
    enabled = await lab.webhooks.change(customer.account_id, endpoint.endpoint.id, {"is_enabled": True})
    assert (enabled.disabled_at, enabled.missed_after, enabled.failing_since) == (None, shown.missed_after, None)
    replayed = await lab.webhooks.endpoints.replay(customer.account_id, endpoint.endpoint.id, shown.missed_after)
    assert (replayed.is_replaying, replayed.missed_after) == (True, None)
    while await lab.replays.advance():
        pass
    await lab.deliver_due()
    await lab.pass_time(ENOUGH_SECONDS)
    await lab.deliver_due()
    delivered = {taken.id for taken in lab.receiver.taken}
    assert delivered == {f"evt_{seq}" for seq in await seqs_of(lab, customer)}
    assert set(await lab.states()) == {"delivered"}
    assert not (await lab.webhooks.endpoints.get(customer.account_id, endpoint.endpoint.id)).is_replaying


async def test_a_replay_also_brings_what_was_delivered_and_in_portions(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    await lab.note(customer, "balance.low")
    endpoint = await lab.add(customer)
    async with lab.engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO event_inbox (account_id, type) SELECT $1, 'balance.low' FROM generate_series(1, 1200)",
            (customer.account_id,),
        )
    await lab.sequence()
    taken = "UPDATE deliveries SET state = 'delivered', ended_at = now() WHERE state = 'pending'"
    await sql.execute(taken)

    await lab.webhooks.endpoints.replay(customer.account_id, endpoint.endpoint.id, 0)
    assert await lab.replays.advance()
    assert await lab.replays.advance()
    # Enough waits for the endpoint already.
    assert not await lab.replays.advance()
    count = 0
    while (await lab.webhooks.endpoints.get(customer.account_id, endpoint.endpoint.id)).is_replaying:
        count += int((await sql.execute(taken)).split()[1])
        await lab.replays.advance()
    count += int((await sql.execute(taken)).split()[1])
    assert count == 1201


async def test_claims_that_race_take_each_delivery_once(lab: Lab) -> None:
    customers = [await open_account(lab.engine) for _ in range(5)]
    for customer in customers:
        for number in range(3):
            await lab.add(customer, f"/{number}")
        await lab.note(customer, *["balance.low"] * 4)

    claimed = [delivery for found in await asyncio.gather(*(lab.claim(4) for _ in range(12))) for delivery in found]

    keys = [(delivery.endpoint_id, delivery.event_seq) for delivery in claimed]
    assert len(keys) == len(set(keys))
    rest = await lab.claim()
    assert len(keys) + len(rest) == 5 * 3 * 4


async def test_who_lost_its_claim_writes_nothing(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    await lab.add(customer)
    await lab.note(customer, "balance.low")
    (late,) = await lab.claim()
    assert await lab.claim() == []
    await lab.pass_time(CLAIM_SECONDS + 1)
    (now,) = await lab.claim()
    assert (late.event_seq, late.claim == now.claim) == (now.event_seq, False)

    await lab.deliver(late)
    assert await lab.states() == ["pending"]
    await lab.deliver(now)
    assert await lab.states() == ["delivered"]


async def test_what_is_given_back_is_due_at_once_and_counts_nothing(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    await lab.note(customer, "balance.low")
    (claimed,) = await lab.claim()
    await lab.queue.give_back(claimed)
    (delivery,) = await deliveries_of(lab, customer, endpoint)
    assert (delivery.attempts, list(delivery.attempt_log)) == (0, [])
    assert len(await lab.deliver_due()) == 1


async def test_while_a_secret_is_exchanged_both_sign_and_then_the_new_one_alone(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    new = await lab.webhooks.rotate_secret(customer.account_id, endpoint.endpoint.id, overlap_seconds=100)
    await lab.note(customer, "balance.low")
    await lab.deliver_due()
    await lab.pass_time(101)
    await lab.note(customer, "balance.low")
    await lab.deliver_due()

    during, after = lab.receiver.taken
    for secret in (endpoint.secret, new.secret):
        assert during.event(secret)["type"] == "balance.low"
    assert after.event(new.secret)["type"] == "balance.low"
    with pytest.raises(WebhookVerificationError):
        after.event(endpoint.secret)


async def test_an_address_that_is_not_public_is_named_as_the_reason(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer)
    await sql.execute("UPDATE webhook_endpoints SET url = 'https://10.1.2.3/hook'")
    await lab.note(customer, "balance.low")
    await lab.deliver_due()
    (delivery,) = await deliveries_of(lab, customer, endpoint)
    error = delivery.attempt_log[0]["error"]
    assert "not public" in error
    assert "10.1" not in error


async def test_a_test_goes_to_its_endpoint_alone_whatever_types_it_wants(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = await lab.add(customer, "/one", ["balance.low"])
    await lab.add(customer, "/other")
    await lab.webhooks.endpoints.test(customer.account_id, endpoint.endpoint.id)
    await lab.sequence()
    await lab.deliver_due()
    (taken,) = lab.receiver.taken
    event = taken.event(endpoint.secret)
    assert (taken.path, event["type"]) == ("/one", "webhook.test")
    assert event["data"] == {"endpoint_id": str(endpoint.endpoint.id)}


STUCK = """
SELECT count(*) FROM webhook_endpoints AS lane JOIN deliveries ON endpoint_id = id
 WHERE state = 'pending' AND claim IS NULL AND due_at <= now() AND next_due_at > now() + interval '1 second'
   AND NOT EXISTS (SELECT FROM deliveries AS held WHERE held.endpoint_id = lane.id AND held.claim IS NOT NULL)
   AND NOT EXISTS (SELECT FROM due_endpoints WHERE due_endpoints.endpoint_id = lane.id)
"""


async def test_what_is_addressed_while_others_are_taken_is_looked_for(database: str, sql: Connection) -> None:
    async with open_crowd(database, 12) as engine, open_lab(engine) as lab:
        customer = await open_account(engine)
        for number in range(5):
            await lab.add(customer, f"/{number}")
        is_over = False

        async def take() -> None:
            while not is_over:
                for delivery in await lab.claim():
                    delivered = Verdict(state=DeliveryState.DELIVERED)
                    await lab.queue.record(delivery, Attempt(milliseconds=1, status=200), delivered)

        takers = [asyncio.create_task(take()) for _ in range(3)]
        for _ in range(200):
            await lab.note(customer, "balance.low")
            await asyncio.sleep(0.01)
            assert await sql.fetchval(STUCK) == 0
        is_over = True
        await asyncio.gather(*takers)
