"""Endpoints as their owners make and change them, and what goes with them when they go."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.webhooks import CustomerWebhooks
from app.domain.budgets import AccountLimits
from app.domain.events import EventsForgotten
from app.domain.limits import TooManyWrites
from app.domain.webhooks import (
    ENDPOINTS_MAX,
    DeliveryNotFound,
    DeliveryState,
    EndpointDisabled,
    EndpointNotFound,
    TooManyEndpoints,
)
from app.infrastructure.postgres.webhooks.deliveries import PostgresDeliveries
from app.infrastructure.postgres.webhooks.endpoints import PostgresWebhookEndpoints
from app.infrastructure.postgres.webhooks.secrets import PostgresWebhookSecrets
from app.infrastructure.postgres.webhooks.upkeep import PostgresDeliveryUpkeep
from tests.builders import Connection, begin_minute_of_writes, blocked, open_account
from tests.deliveries import Lab, open_lab

URL = "https://hooks.example.com/tollgate"


@pytest.fixture
async def lab(engine: AsyncEngine) -> AsyncIterator[Lab]:
    async with open_lab(engine) as lab:
        yield lab


async def test_an_account_has_at_most_so_many_however_many_ask_at_once(crowd: AsyncEngine) -> None:
    customer = await open_account(crowd)
    webhooks = CustomerWebhooks(
        PostgresWebhookEndpoints(crowd), PostgresDeliveries(crowd), PostgresWebhookSecrets(crowd)
    )

    outcomes = await asyncio.gather(
        *(webhooks.create(customer.account_id, URL, None, None) for _ in range(ENDPOINTS_MAX + 5)),
        return_exceptions=True,
    )

    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert [type(outcome) for outcome in refused] == [TooManyEndpoints] * 5
    live = await webhooks.endpoints.live(customer.account_id)
    assert len(live) == ENDPOINTS_MAX
    await webhooks.delete(customer.account_id, live[0].id)
    await webhooks.create(customer.account_id, URL, None, None)


async def test_what_is_another_accounts_is_unknown(lab: Lab) -> None:
    owner, other = await open_account(lab.engine), await open_account(lab.engine)
    endpoint = (await lab.add(owner)).endpoint
    await lab.note(owner, "balance.low")
    (event,) = await lab.claim()
    operators = (await lab.add(None)).endpoint
    endpoints, deliveries = lab.webhooks.endpoints, lab.webhooks.deliveries

    for endpoint_id in (endpoint.id, operators.id, uuid4()):
        for asked in (
            endpoints.get(other.account_id, endpoint_id),
            endpoints.change(other.account_id, endpoint_id, {"url": URL}),
            endpoints.rotate_secret(other.account_id, endpoint_id, "whsec_x", overlap_seconds=0),
            endpoints.delete(other.account_id, endpoint_id),
            endpoints.test(other.account_id, endpoint_id),
            endpoints.replay(other.account_id, endpoint_id, 0),
            deliveries.page(other.account_id, endpoint_id, state=None, before=None, limit=1),
            deliveries.redeliver(other.account_id, endpoint_id, event.event_seq),
        ):
            with pytest.raises(EndpointNotFound):
                await asked
    assert (await endpoints.get(owner.account_id, endpoint.id)).url == endpoint.url
    assert await endpoints.live(other.account_id) == []
    mine = (await lab.add(other)).endpoint
    with pytest.raises(DeliveryNotFound):
        await deliveries.redeliver(other.account_id, mine.id, event.event_seq)


async def test_a_change_changes_what_it_names_and_an_enabled_one_is_not_enabled_anew(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    endpoint = (await lab.add(customer, types=["balance.low"])).endpoint
    await sql.execute("UPDATE webhook_endpoints SET failures = 7, backs_off_until = 'infinity', failing_since = now()")

    changed = await lab.webhooks.change(customer.account_id, endpoint.id, {"description": "x", "is_enabled": True})
    assert (changed.description, changed.types, changed.url) == ("x", ["balance.low"], endpoint.url)
    assert await sql.fetchval("SELECT failures FROM webhook_endpoints") == 7
    off = await lab.webhooks.change(customer.account_id, endpoint.id, {"is_enabled": False})
    again = await lab.webhooks.change(customer.account_id, endpoint.id, {"is_enabled": False, "types": None})
    assert (again.disabled_at, again.missed_after) == (off.disabled_at, off.missed_after)
    assert (again.disabled_reason, again.types) == ("by_you", None)
    for asked in (
        lab.webhooks.endpoints.test(customer.account_id, endpoint.id),
        lab.webhooks.endpoints.replay(customer.account_id, endpoint.id, 0),
    ):
        with pytest.raises(EndpointDisabled):
            await asked
    on = await lab.webhooks.change(customer.account_id, endpoint.id, {"is_enabled": True})
    assert (on.disabled_at, on.disabled_reason, on.missed_after) == (None, None, off.missed_after)
    assert await sql.fetchval("SELECT failures FROM webhook_endpoints") == 0


async def test_changes_count_as_writes_and_reading_does_not(lab: Lab, sql: Connection) -> None:
    customer, limits = await open_account(lab.engine), AccountLimits(0, 3)
    webhooks = CustomerWebhooks(
        PostgresWebhookEndpoints(lab.engine, limits),
        PostgresDeliveries(lab.engine, limits),
        PostgresWebhookSecrets(lab.engine, limits),
    )
    await begin_minute_of_writes(sql)
    endpoint = (await webhooks.create(customer.account_id, URL, None, None)).endpoint
    await webhooks.endpoints.test(customer.account_id, endpoint.id)
    await webhooks.rotate_own_secret(customer.account_id, overlap_seconds=0)
    with pytest.raises(TooManyWrites):
        await webhooks.change(customer.account_id, endpoint.id, {"description": "x"})
    with pytest.raises(TooManyWrites):
        await webhooks.create(customer.account_id, URL, None, None)
    assert len(await webhooks.endpoints.live(customer.account_id)) == 1
    # What takes something away is never refused for it.
    await webhooks.delete(customer.account_id, endpoint.id)


async def test_an_accounts_secret_is_made_once_and_exchanged(crowd: AsyncEngine) -> None:
    customer, secrets = await open_account(crowd), PostgresWebhookSecrets(crowd)
    first, *others = await asyncio.gather(*(secrets.get(customer.account_id) for _ in range(20)))
    assert {secret.secret for secret in others} == {first.secret}
    webhooks = CustomerWebhooks(PostgresWebhookEndpoints(crowd), PostgresDeliveries(crowd), secrets)
    second = await webhooks.rotate_own_secret(customer.account_id, overlap_seconds=60)
    assert second.secret != first.secret
    assert second.old_secret_until is not None
    assert (await secrets.get(customer.account_id)).secret == second.secret
    third = await webhooks.rotate_own_secret(customer.account_id, overlap_seconds=0)
    assert third.old_secret_until is None


async def test_a_replay_of_what_is_forgotten_is_refused(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    endpoint = (await lab.add(customer)).endpoint
    await sql.execute("INSERT INTO forgotten_events VALUES ($1, 1000)", customer.account_id)
    with pytest.raises(EventsForgotten):
        await lab.webhooks.endpoints.replay(customer.account_id, endpoint.id, 999)
    for after in (0, 1000):
        await lab.webhooks.endpoints.replay(customer.account_id, endpoint.id, after)


async def test_pages_of_deliveries_hold_each_once(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    endpoint = (await lab.add(customer)).endpoint
    await lab.note(customer, *["balance.low"] * 7)
    await lab.deliver_due()
    await lab.note(customer, "balance.recovered")
    found: list[int] = []
    before = None
    while True:
        page = await lab.webhooks.deliveries.page(customer.account_id, endpoint.id, state=None, before=before, limit=3)
        found += [delivery.event_seq for delivery in page.deliveries]
        before = page.next_before
        if before is None:
            break
    assert (len(found), found) == (8, sorted(set(found), reverse=True))
    waiting = await lab.webhooks.deliveries.page(
        customer.account_id, endpoint.id, state=DeliveryState.PENDING, before=None, limit=3
    )
    assert [delivery.event_type for delivery in waiting.deliveries] == ["balance.recovered"]


async def test_what_goes_takes_its_deliveries_with_it_and_nothing_else_goes(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    gone, kept = (await lab.add(customer)).endpoint, (await lab.add(customer)).endpoint
    await lab.note(customer, *["balance.low"] * 3)
    await lab.webhooks.delete(customer.account_id, gone.id)
    with pytest.raises(EndpointNotFound):
        await lab.webhooks.delete(customer.account_id, gone.id)
    assert {delivery.endpoint_id for delivery in await lab.claim()} == {kept.id}
    await sql.execute(
        "INSERT INTO webhook_endpoints (id, account_id, origin, created_at) VALUES"
        " (gen_random_uuid(), $1, 'https://young', now()), (gen_random_uuid(), $1, 'https://old', '2020-01-01')",
        customer.account_id,
    )

    upkeep = PostgresDeliveryUpkeep(lab.engine, 30)
    while await upkeep.forget():
        pass

    left = await sql.fetch("SELECT url, origin FROM webhook_endpoints ORDER BY origin")
    assert [tuple(row) for row in left] == [(None, "https://young"), (kept.url, None)]
    assert await sql.fetchval("SELECT count(*) FROM deliveries") == 3
    await sql.execute("UPDATE deliveries SET event_seq = 1 WHERE event_seq = (SELECT min(event_seq) FROM deliveries)")
    await upkeep.forget()
    assert await sql.fetchval("SELECT count(*) FROM deliveries") == 2


async def test_nothing_goes_while_events_are_addressed(lab: Lab, sql: Connection) -> None:
    customer = await open_account(lab.engine)
    await sql.execute(
        "INSERT INTO webhook_endpoints (id, account_id, origin, created_at)"
        " VALUES (gen_random_uuid(), $1, 'https://old', '2020-01-01')",
        customer.account_id,
    )
    async with sql.transaction():
        await sql.execute("SELECT pg_advisory_xact_lock(hashtext('sequence_events'), hashtext(current_schema()))")
        forgetting = asyncio.create_task(PostgresDeliveryUpkeep(lab.engine, 30).forget())
        await blocked(sql)
        assert await sql.fetchval("SELECT count(*) FROM webhook_endpoints") == 1
    assert await forgetting == 1


async def test_a_replay_brings_what_got_its_place_just_before_the_endpoint_was_enabled(lab: Lab) -> None:
    customer = await open_account(lab.engine)
    await lab.sequence()
    endpoint = (await lab.add(customer)).endpoint
    off = await lab.webhooks.change(customer.account_id, endpoint.id, {"is_enabled": False})
    assert off.missed_after is not None
    facts = '{"balance_tokens": 1, "balance_low_tokens": 2}'
    note = "INSERT INTO event_inbox (account_id, type, facts) VALUES (:account, 'balance.low', CAST(:facts AS jsonb))"
    async with lab.engine.begin() as connection:
        await connection.execute(text(note), {"account": customer.account_id, "facts": facts})

    async with lab.engine.begin() as sequencer:
        assert await sequencer.scalar(text("SELECT sequence_events(100)")) == 1
        await lab.webhooks.change(customer.account_id, endpoint.id, {"is_enabled": True})
        replay = asyncio.create_task(lab.webhooks.endpoints.replay(customer.account_id, endpoint.id, off.missed_after))
        await asyncio.sleep(0.2)
        assert not replay.done()
    await replay
    while await lab.replays.advance():
        pass
    await lab.deliver_due()

    assert len(lab.receiver.taken) == 1
