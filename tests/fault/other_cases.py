"""The fault points that no job passes: payments, keys, commands, and the sweep at the start of a runner."""

import time
from typing import Any
from uuid import uuid4

from tests.builders import COST_TOKENS
from tests.fault.job_cases import POLLED, Case, at_fal, both
from tests.fault.world import BALANCE_TOKENS, TEXT_TO_IMAGE, Story, World

SWEEPS_MAX = 20


def credits_once(world: World, armed: str) -> None:
    """The provider delivers until it hears 200."""
    story, event_id = Story(world), str(uuid4())
    world.process.arm(armed)
    assert story.top_up(event_id) is None
    world.die()
    is_credited = world.sql("SELECT 1 FROM payment_events WHERE event_id = $1", event_id) == [1]
    assert is_credited == armed.startswith("credit.after")
    world.run()
    for _ in range(2):
        answer = story.top_up(event_id)
        assert answer is not None
        assert answer.status_code == 200
        assert story.balance() == 2 * BALANCE_TOKENS
    story.assert_nothing_is_left()


def sends_reversal(story: Story, event_id: str, **body: object) -> Any:
    """What the provider hears; None: the service died."""
    answer = story.world.send(
        "POST",
        "/webhook/reversal",
        json=body,
        headers={"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": event_id},
    )
    return None if answer is None else (answer.status_code, answer.json())


def reverses_once(world: World, armed: str) -> None:
    """Of a payment that is known, and of one that comes later; the provider delivers until it is heard."""
    for is_early in (False, True):
        story, payment_id, refund_id = Story(world), str(uuid4()), str(uuid4())
        if not is_early:
            assert story.top_up(payment_id) is not None
        taken = {"payment_event_id": payment_id, "amount": BALANCE_TOKENS - 1}
        world.process.arm(armed)
        assert sends_reversal(story, refund_id, **taken) is None
        world.die()
        is_recorded = world.sql("SELECT 1 FROM reversal_events WHERE event_id = $1", refund_id) == [1]
        assert is_recorded == armed.startswith("reverse.after")
        booked = world.sql(
            "SELECT amount FROM ledger_entries WHERE kind = 'REVERSAL' AND payment_event_id = $1", payment_id
        )
        assert booked == ([BALANCE_TOKENS - 1] if is_recorded and not is_early else [])
        world.run()
        told = {"ok": True, "reversed_tokens": BALANCE_TOKENS - 1, "balance_tokens": BALANCE_TOKENS + 1}
        for _ in range(2):
            heard = sends_reversal(story, refund_id, **taken)
            assert heard == ((202, {"ok": True, "pending": True}) if is_early else (200, told))
        if is_early:
            assert story.top_up(payment_id) is not None
        assert story.balance() == BALANCE_TOKENS + 1
        won = sends_reversal(story, str(uuid4()), payment_event_id=payment_id, withdraws=refund_id)
        assert won == (200, {"ok": True, "reversed_tokens": 0, "balance_tokens": 2 * BALANCE_TOKENS})
        story.assert_nothing_is_left()
    # The table counts one a case.
    world.kills -= 1


def credits_what_was_reversed_before(world: World, armed: str) -> None:
    """The credit and what stands against it are one transaction."""
    story, payment_id = Story(world), str(uuid4())
    assert sends_reversal(story, str(uuid4()), payment_event_id=payment_id, amount=30) is not None
    world.process.arm(armed)
    assert story.top_up(payment_id) is None
    world.die()
    kinds = world.sql("SELECT kind FROM ledger_entries WHERE payment_event_id = $1 ORDER BY seq", payment_id)
    assert kinds == (["CREDIT", "REVERSAL"] if armed.startswith("credit.after") else [])
    world.run()
    for _ in range(2):
        assert story.top_up(payment_id).status_code == 200  # type: ignore[union-attr]
        assert story.balance() == 2 * BALANCE_TOKENS - 30
    story.assert_nothing_is_left()


def adjusts_once(world: World, armed: str) -> None:
    story, ticket = Story(world), str(uuid4())
    words = ("--reason", "why", "--actor", "who", "--event-id", ticket)
    command = ("tokens", "adjust", story.user_id, str(-BALANCE_TOKENS - 7), *words)
    die_in_command(world, armed, *command)
    assert story.balance() == (-7 if armed.startswith("adjust.after") else BALANCE_TOKENS)
    for _ in range(2):
        assert world.launch(*command).finish() == 0
        assert story.balance() == -7
    story.assert_nothing_is_left()


def keeps_a_refused_payment(world: World, armed: str) -> None:
    """The provider delivers until it hears 409, and is on the list by then."""
    story, event_id = Story(world), str(uuid4())
    assert story.top_up(event_id).status_code == 200  # type: ignore[union-attr]
    world.process.arm(armed)
    assert story.top_up(event_id, amount=BALANCE_TOKENS + 1) is None
    world.die()
    deliveries = "SELECT deliveries FROM refused_payments WHERE event_id = $1"
    is_kept = armed.startswith("record_refusal.after")
    assert world.sql(deliveries, event_id) == ([1] if is_kept else [])
    world.run()
    answer = story.top_up(event_id, amount=BALANCE_TOKENS + 1)
    assert answer is not None
    assert answer.status_code == 409
    assert world.sql(deliveries, event_id) == [1 + is_kept]
    assert story.balance() == 2 * BALANCE_TOKENS


def resolves_a_refused_payment(world: World, armed: str) -> None:
    story, event_id = Story(world), str(uuid4())
    for amount in (BALANCE_TOKENS, BALANCE_TOKENS + 1):
        assert story.top_up(event_id, amount=amount) is not None
    (refusal,) = world.sql("SELECT id FROM refused_payments WHERE event_id = $1", event_id)
    die_in_command(world, armed, "payments", "resolve", str(refusal))
    is_resolved = armed.startswith("resolve_refusals.after")
    waiting = "SELECT count(*) FROM refused_payments WHERE event_id = $1 AND resolved_at IS NULL"
    assert world.sql(waiting, event_id) == [int(not is_resolved)]
    assert world.launch("payments", "resolve", str(refusal)).finish() == int(is_resolved)
    assert world.sql(waiting, event_id) == [0]


def issues_one_first_key(world: World, armed: str) -> None:
    user_id = str(uuid4())
    world.run()
    world.process.arm(armed)
    assert world.send("POST", "/auth", json={"external_user_id": user_id}) is None
    world.die()
    keys = world.sql(
        "SELECT count(*) FROM api_keys JOIN accounts ON accounts.id = account_id WHERE external_user_id = $1", user_id
    )
    is_stored = armed.startswith("add_first_key.after")
    assert keys == [int(is_stored)]
    world.run()
    answer = world.send("POST", "/auth", json={"external_user_id": user_id})
    assert answer is not None
    assert answer.status_code == (409 if is_stored else 201)
    # Whose key is lost asks the operator.
    assert_opens(world, rotated_key(world, user_id) if is_stored else answer.json()["api_key"])


def replaces_a_key(world: World, armed: str) -> None:
    story = Story(world)
    world.process.arm(armed)
    body = {"external_user_id": story.user_id, "rotate": True}
    assert world.send("POST", "/auth", json=body, headers=story.headers) is None
    world.die()
    is_replaced = armed.startswith("replace_key.after")
    world.run()
    answer = world.send("POST", "/auth", json=body, headers=story.headers)
    assert answer is not None
    assert answer.status_code == (401 if is_replaced else 201)
    key = rotated_key(world, story.user_id) if is_replaced else answer.json()["api_key"]
    assert_opens(world, key, BALANCE_TOKENS)
    live = "SELECT count(*) FROM api_keys JOIN accounts ON accounts.id = account_id"
    assert world.sql(f"{live} WHERE external_user_id = $1 AND revoked_at IS NULL", story.user_id) == [1]


def revokes_a_key(world: World, armed: str) -> None:
    story = Story(world)
    die_in_command(world, armed, "keys", "revoke", story.user_id)
    answer = world.http.get("/balance", headers=story.headers)
    is_revoked = armed.startswith("revoke_keys.after")
    assert answer.status_code == (401 if is_revoked else 200)
    assert world.launch("keys", "revoke", story.user_id).finish() == int(is_revoked)
    assert world.http.get("/balance", headers=story.headers).status_code == 401
    assert_opens(world, rotated_key(world, story.user_id), BALANCE_TOKENS)


BUDGET = {"tokens": 7, "per": "ever"}


def keys_of(story: Story) -> list[dict[str, Any]]:
    listed = story.world.http.get("/keys", headers=story.headers).raise_for_status()
    return list(listed.json()["items"])[1:]


def key_of(story: Story) -> dict[str, Any]:
    """A further key of the user."""
    body = {"name": "further", "scopes": ["generate", "read"]}
    made = story.world.http.post("/keys", json=body, headers=story.headers).raise_for_status()
    return dict(made.json())


def ask_and_die(story: Story, armed: str, method: str, path: str, **request: Any) -> bool:
    """Whether it was done all the same."""
    story.world.process.arm(armed)
    assert story.world.send(method, path, **({"headers": story.headers} | request)) is None
    story.world.die()
    story.world.run()
    return armed.endswith("after_commit")


def creates_a_key(world: World, armed: str) -> None:
    """The repeat makes no second key; what nobody saw of the first one is replaced."""
    story = Story(world)
    body = {"name": "further", "scopes": ["read"], "budget": BUDGET}
    headers = story.headers | {"Idempotency-Key": str(uuid4())}
    is_made = ask_and_die(story, armed, "POST", "/keys", json=body, headers=headers)
    assert len(keys_of(story)) == int(is_made)
    repeat = world.http.post("/keys", json=body, headers=headers).raise_for_status().json()
    assert (repeat["api_key"] is None) == is_made
    assert [key["id"] for key in keys_of(story)] == [repeat["id"]]
    rotated = world.http.post(f"/keys/{repeat['id']}/rotate", json={}, headers=story.headers).raise_for_status()
    assert_opens(world, rotated.json()["api_key"], BALANCE_TOKENS)


def changes_a_key(world: World, armed: str) -> None:
    story = Story(world)
    key = key_of(story)
    spent = world.send("POST", TEXT_TO_IMAGE, json={"prompt": story.prompt}, headers={"X-API-Key": key["api_key"]})
    assert spent is not None
    assert spent.status_code == 202
    story.until("COMPLETED")
    is_over = ask_and_die(story, armed, "PATCH", f"/keys/{key['id']}", json={"budget": BUDGET})
    is_changed = is_over and not armed.startswith(("count_sum", "sum_windows"))
    assert [found["budget"] is not None for found in keys_of(story)] == [is_changed]
    repeat = world.http.patch(f"/keys/{key['id']}", json={"budget": BUDGET}, headers=story.headers).raise_for_status()
    assert repeat.json()["budget"] == {**BUDGET, "spent_tokens": COST_TOKENS, "renews_at": None}
    story.assert_nothing_is_left()


def rotates_a_key(world: World, armed: str) -> None:
    story = Story(world)
    key = key_of(story)
    path, body = f"/keys/{key['id']}/rotate", {"overlap_seconds": 0}
    is_rotated = ask_and_die(story, armed, "POST", path, json=body)
    old = world.http.get("/balance", headers={"X-API-Key": key["api_key"]})
    assert old.status_code == (401 if is_rotated else 200)
    again = world.http.post(path, json=body, headers=story.headers).raise_for_status().json()
    assert again["id"] == key["id"]
    assert_opens(world, again["api_key"], BALANCE_TOKENS)


def deletes_a_key(world: World, armed: str) -> None:
    story = Story(world)
    key = key_of(story)
    is_deleted = ask_and_die(story, armed, "DELETE", f"/keys/{key['id']}")
    assert len(keys_of(story)) == int(not is_deleted)
    again = world.http.delete(f"/keys/{key['id']}", headers=story.headers)
    assert again.status_code == (404 if is_deleted else 204)
    assert world.http.get("/balance", headers={"X-API-Key": key["api_key"]}).status_code == 401


def ends_its_own_key(world: World, armed: str) -> None:
    story = Story(world)
    own = {"X-API-Key": key_of(story)["api_key"]}
    is_ended = ask_and_die(story, armed, "DELETE", "/keys/current", headers=own)
    assert world.http.delete("/keys/current", headers=own).status_code == (401 if is_ended else 204)
    assert world.http.get("/balance", headers=own).status_code == 401
    assert keys_of(story) == []


def sets_limits(world: World, armed: str) -> None:
    story = Story(world)
    command = ("accounts", "limits", story.user_id, "--weight", "7")
    die_in_command(world, armed, *command)
    weight = "SELECT weight FROM accounts WHERE external_user_id = $1"
    assert world.sql(weight, story.user_id) == [7 if armed.endswith("after_commit") else None]
    assert world.launch(*command).finish() == 0
    assert world.sql(weight, story.user_id) == [7]


def verifies_the_books(world: World, armed: str) -> None:
    Story(world)
    die_in_command(world, armed, "ledger", "verify")
    assert world.launch("ledger", "verify").finish() == 0


def recounts(world: World, armed: str) -> None:
    story = Story(world)
    world.sql("UPDATE accounts SET unfinished_jobs = 7 WHERE external_user_id = $1", story.user_id)
    die_in_command(world, armed, "ledger", "recount")
    counted = "SELECT unfinished_jobs FROM accounts WHERE external_user_id = $1"
    assert world.sql(counted, story.user_id) == [0 if armed == "recount.after_commit" else 7]
    assert world.launch("ledger", "recount").finish() == 0
    assert world.sql(counted, story.user_id) == [0]


def finds_a_lost_job(world: World, armed: str) -> None:
    """Dies in the sweep at its start."""
    # So long, and without a word from fal, that a slow machine stops the service before it hears of the end.
    story = Story(world, f"[slow:4] {POLLED}")
    at_fal(story)
    world.stop()
    world.sql("DELETE FROM pgqueuer")
    is_found = armed.startswith("requeue_lost.after")
    # Of this job alone: copies that earlier stories had not made yet are found as well.
    items_of_job = "SELECT entrypoint FROM pgqueuer WHERE status = 'queued' AND payload = uuid_send($1)"
    for _ in range(SWEEPS_MAX):
        world.use(armed=[armed])
        world.die()
        items = world.sql(items_of_job, story.job_id)
        if items or not is_found:
            break
        # The upkeep of media passes the same point. It was first, and the table counts one death a case.
        world.kills -= 1
    assert items == (["generation.follow"] if is_found else [])
    world.run()
    story.assert_right("COMPLETED", posts=1)


def forgets_old_keys(world: World, armed: str) -> None:
    story = Story(world)
    story.start_and_reach("COMPLETED")
    world.stop()
    world.sql("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    world.use(armed=[armed])
    world.die()
    kept = world.sql("SELECT count(*) FROM idempotency_keys")
    assert (kept == [0]) == armed.startswith("forget_idempotency_keys.after")
    world.run()
    world.until(lambda: world.sql("SELECT count(*) FROM idempotency_keys") == [0], "the keys are forgotten")


OLD_EVENTS = "SELECT count(*) FROM events WHERE seq < (extract(epoch FROM now()) - 24 * 60 * 60) * 1000000"


def told_of(story: Story, kind: str) -> int:
    """How many such events the log of the story's account has."""
    is_own = "account_id = (SELECT id FROM accounts WHERE external_user_id = $1)"
    (count,) = story.world.sql(f"SELECT count(*) FROM events WHERE type = $2 AND {is_own}", story.user_id, kind)
    return int(count)


def changes_an_account(world: World, armed: str) -> None:
    story = Story(world)
    is_over = ask_and_die(story, armed, "PATCH", "/account", json={"balance_low_tokens": 10**6})
    before = world.http.get("/account", headers=story.headers).raise_for_status().json()
    assert (before["balance_low_tokens"] == 10**6) == is_over
    world.http.patch("/account", json={"balance_low_tokens": 10**6}, headers=story.headers).raise_for_status()
    world.until(lambda: world.sql("SELECT count(*) FROM event_inbox") == [0], "all is told")
    assert told_of(story, "balance.low") == 1


def tells_of_a_budget(world: World, armed: str) -> None:
    story = Story(world)
    key = key_of(story)
    path = f"/keys/{key['id']}"
    world.http.patch(path, json={"budget": {"tokens": 1, "per": "ever"}}, headers=story.headers).raise_for_status()
    headers, body = {"X-API-Key": key["api_key"]}, {"prompt": story.prompt}
    ask_and_die(story, armed, "POST", TEXT_TO_IMAGE, json=body, headers=headers)
    assert world.http.post(TEXT_TO_IMAGE, json=body, headers=headers).status_code == 402
    world.until(lambda: told_of(story, "key.budget_exceeded") == 1, "the refusal is told")
    assert world.http.post(TEXT_TO_IMAGE, json=body, headers=headers).status_code == 402
    assert world.sql("SELECT count(*) FROM budget_notices WHERE key_id::text = $1", key["id"]) == [1]


def forgets_old_events(world: World, armed: str) -> None:
    story = Story(world)
    story.start_and_reach("COMPLETED")
    world.until(lambda: world.sql("SELECT count(*) >= 3 FROM events") == [True], "the job is told of")
    world.stop()
    world.sql("DELETE FROM forgotten_events")
    world.sql("UPDATE events SET seq = seq - 40 * 24 * 60 * 60 * 1000000::bigint")
    world.use(armed=[armed])
    world.die()
    is_done = armed.startswith("forget_events.after")
    assert (world.sql(OLD_EVENTS) == [0]) == is_done
    assert world.sql("SELECT count(*) > 0 FROM forgotten_events") == [is_done]
    world.run()
    world.until(lambda: world.sql(OLD_EVENTS) == [0], "the events are forgotten")
    assert world.sql("SELECT count(*) > 0 FROM forgotten_events") == [True]


LARGE_INPUT = """
UPDATE jobs SET input_forgotten_at = NULL, input_bytes = {marked}, parameters = parameters || jsonb_build_object(
    'image_url', 'data:image/png;base64,' || (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) AS i))
 WHERE is_final AND fal_request_id IS NOT NULL
"""
LEFT = "SELECT count(*) FROM jobs WHERE parameters ->> 'image_url' LIKE 'data:%'"


def forgets_an_input(world: World, armed: str) -> None:
    """Dies in the step, or in the sweep that finds what an older release accepted."""
    story = Story(world)
    story.start_and_reach("COMPLETED")
    world.stop()
    world.sql(LARGE_INPUT.format(marked="NULL" if armed.startswith("mark_older") else 9_000))
    (before,) = world.sql(LEFT)
    world.use(armed=[armed])
    world.die()
    # Two are forgotten at a time, and the other one may be done by then.
    assert world.sql(LEFT) == [before] or armed == "forget_input.after_commit"
    world.run()
    # The walk has found it, and the next sweep queues the step.
    world.sql("UPDATE jobs SET input_bytes = 9000 WHERE input_bytes IS NULL")
    world.stop()
    world.run()
    world.until(lambda: world.sql(LEFT) == [0], "the input is forgotten")


def forgets_what_was_waited_for(world: World, armed: str) -> None:
    """Dies in the sweep at its start: the job has been due for long, and nothing pauses."""
    story = waiting(world)
    world.sql("UPDATE jobs SET waiting_for = 'provider', provider_waiting_since = now() - interval '1 hour'")
    world.sql("UPDATE pgqueuer SET execute_after = now() - interval '1 minute' WHERE status = 'queued'")
    world.sql("INSERT INTO heartbeats VALUES (gen_random_uuid(), 'submissions', 'worker', 'another', now())")
    world.use(armed=[armed])
    world.die()
    assert (story.column("provider_waiting_since") is None) == armed.startswith("forget_waits.after")
    world.run()
    story.assert_right("COMPLETED", posts=1)


def waiting(world: World) -> Story:
    """A job that nobody submits, in a service without a runner."""
    world.run()
    world.use(RUNNER="external")
    world.process.wait_until_ready(world.url)
    story = Story(world)
    story.start_and_reach("QUEUED")
    world.stop()
    return story


def lets_go(world: World, story: Story, *, posts: int = 1) -> None:
    assert world.launch("restore-release").finish() == 0
    story.assert_right("COMPLETED", posts=posts)


def notices_a_restore(world: World, armed: str) -> None:
    """Dies in the sweep at its start; what the restored backup has as waiting is not submitted by the next one."""
    story = waiting(world)
    world.sql("UPDATE installation SET identity = 'another database'")
    world.use(armed=[armed])
    world.die()
    assert (story.column("held_at") is not None) == armed.endswith("after_commit")
    world.run()
    world.until(lambda: story.column("held_at"), "the job is held")
    time.sleep(1)
    assert (story.disk(), story.requests()) == ("QUEUED", [])
    lets_go(world, story)


def holds_by_command(world: World, armed: str) -> None:
    story = waiting(world)
    world.launch("restore-check", "--hold", armed=[armed]).die()
    world.kills += 1
    assert (story.column("held_at") is not None) == armed.endswith("after_commit")
    assert world.launch("restore-check", "--hold").finish() == 0
    world.run()
    lets_go(world, story)


def ends_by_command(world: World, armed: str) -> None:
    story = waiting(world)
    assert world.launch("restore-check", "--hold").finish() == 0
    world.launch("restore-release", "--refund", armed=[armed]).die()
    world.kills += 1
    assert (story.disk() == "FAILED refunded") == armed.endswith("after_commit")
    assert world.launch("restore-release", "--refund").finish() == 0
    world.run()
    story.assert_right("FAILED refunded", posts=0)


def releases_by_command(world: World, armed: str) -> None:
    story = waiting(world)
    assert world.launch("restore-check", "--hold").finish() == 0
    world.launch("restore-release", armed=[armed]).die()
    world.kills += 1
    is_released = armed.endswith("after_commit") or "queue_released" in armed
    assert (story.column("held_at") is None) == is_released
    world.run()
    lets_go(world, story)


def adopts_after_a_restore(world: World, armed: str) -> None:
    """fal has run the job since the backup: it is found, and not run again, however often the command dies."""
    story = waiting(world)
    fal = f"{world.environment['FAL_QUEUE_URL']}"
    ran = world.fal.post(
        "/fal-ai/wan-25-preview/text-to-image",
        json={"prompt": story.prompt, "num_images": 1, "seed": 7},
        headers={"Authorization": "Key id:secret"},
    )
    ended = ran.raise_for_status().json()["status_url"]
    world.until(lambda: world.fal.get(ended, headers={"Authorization": "Key id:secret"}).status_code == 200, "it ran")
    history = {"FAL_ADMIN_KEY": "admin:any", "FAL_API_URL": f"{fal}/v1"}
    adopt = ("restore-check", "--adopt", f"{story.job_id}={ran.json()['request_id']}")
    world.launch(*adopt, "--hold", armed=[armed], **history).die()
    world.kills += 1
    assert story.disk() == "QUEUED"
    world.run()
    assert world.launch(*adopt, **history).finish() == 0
    story.assert_right("COMPLETED", posts=1)


def die_in_command(world: World, armed: str, *arguments: str) -> None:
    world.run()
    world.launch(*arguments, armed=[armed]).die()
    world.kills += 1


def rotated_key(world: World, user_id: str) -> str:
    before = world.log.stat().st_size
    assert world.launch("keys", "rotate", user_id).finish() == 0
    printed = world.log.read_text()[before:]
    return next(line for line in printed.splitlines() if line.startswith("tgk_"))


def assert_opens(world: World, key: str, balance_tokens: int = 0) -> None:
    answer = world.http.get("/balance", headers={"X-API-Key": key})
    assert (answer.status_code, answer.json()["balance_tokens"]) == (200, balance_tokens)


OTHER_CASES = [
    *both("credit", credits_once),
    *both("reverse", reverses_once),
    Case("credit.before_commit", credits_what_was_reversed_before, "of what was reversed before"),
    Case("credit.after_commit", credits_what_was_reversed_before, "of what was reversed before"),
    *both("adjust", adjusts_once),
    *both("record_refusal", keeps_a_refused_payment),
    *both("resolve_refusals", resolves_a_refused_payment),
    *both("add_first_key", issues_one_first_key),
    *both("replace_key", replaces_a_key),
    *both("revoke_keys", revokes_a_key),
    *both("create_key", creates_a_key),
    *both("count_sum", changes_a_key),
    *both("sum_windows", changes_a_key),
    *both("change_key", changes_a_key),
    *both("rotate_key", rotates_a_key),
    *both("delete_key", deletes_a_key),
    *both("end_own_key", ends_its_own_key),
    *both("set_limits", sets_limits),
    *both("change_account", changes_an_account),
    *both("note_budget", tells_of_a_budget),
    *both("violations", verifies_the_books),
    *both("sum_running_windows", recounts),
    *both("recount", recounts),
    *both("requeue_lost", finds_a_lost_job),
    *both("forget_idempotency_keys", forgets_old_keys),
    *both("forget_events", forgets_old_events),
    *both("forget_input", forgets_an_input),
    *both("mark_older_inputs", forgets_an_input),
    *both("forget_waits", forgets_what_was_waited_for),
    *both("notice_restore", notices_a_restore),
    *both("hold_jobs", holds_by_command),
    *both("end_held", ends_by_command),
    *both("release_held", releases_by_command),
    *both("queue_released", releases_by_command),
    *both("name_restored_attempt", adopts_after_a_restore),
]
