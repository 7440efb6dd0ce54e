"""Deaths around webhooks: what was to be delivered comes all the same, by the same id."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fault.job_cases import both
from tests.fault.other_cases import ask_and_die
from tests.fault.world import Story, World

# As if so much time had passed that no claim holds any more, and everything is due.
LET_TIME_PASS = (
    "UPDATE deliveries SET due_at = now() WHERE state = 'pending'",
    "UPDATE webhook_endpoints SET next_due_at = now(), backs_off_until = NULL",
)
STATES = "SELECT state FROM deliveries WHERE endpoint_id::text = $1 ORDER BY event_seq"


class Hooks:
    """Takes webhooks, and knows the ids of those that came."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        self.ids: list[str] = []


@contextmanager
def hooks() -> Iterator[Hooks]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            taken.ids.append(self.headers["webhook-id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken = Hooks(server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()


def endpoint_of(story: Story, url: str, **more: object) -> dict[str, Any]:
    made = story.world.http.post("/webhook-endpoints", json={"url": url, **more}, headers=story.headers)
    return dict(made.raise_for_status().json())


def endpoints_of(story: Story) -> list[dict[str, Any]]:
    listed = story.world.http.get("/webhook-endpoints", headers=story.headers).raise_for_status()
    return list(listed.json()["items"])


def waits_for_a_deliverer(world: World, url: str) -> tuple[Story, str]:
    """A story with an endpoint, to which something is to be delivered by a service that comes later."""
    world.use(RUNNER="external")
    world.process.wait_until_ready(world.url)
    story = Story(world)
    world.until(lambda: world.sql("SELECT count(*) FROM event_inbox") == [0], "what was before is told")
    endpoint = endpoint_of(story, url)["id"]
    assert story.top_up("another payment of " + story.user_id) is not None
    world.until(lambda: world.sql(STATES, endpoint) == ["pending"], "the event is addressed")
    world.stop()
    return story, endpoint


def is_delivered(world: World, armed: str) -> None:
    with hooks() as taken:
        _, endpoint = waits_for_a_deliverer(world, taken.url)
        world.use(armed=[armed])
        world.die()
        is_over = armed == "record_deliveries.after_commit"
        assert world.sql(STATES, endpoint) == ["delivered" if is_over else "pending"]
        assert len(taken.ids) == armed.startswith("record_deliveries")
        for statement in LET_TIME_PASS:
            world.sql(statement)
        world.run()
        world.until(lambda: world.sql(STATES, endpoint) == ["delivered"], "it is delivered")
        assert len(set(taken.ids)) == 1
        assert len(taken.ids) == 1 + (armed == "record_deliveries.before_commit")


def is_replayed(world: World, armed: str) -> None:
    with hooks() as taken:
        story, endpoint = waits_for_a_deliverer(world, taken.url)
        world.run()
        world.until(lambda: world.sql(STATES, endpoint) == ["delivered"], "it is delivered")
        world.use(RUNNER="external")
        world.process.wait_until_ready(world.url)
        path = f"/webhook-endpoints/{endpoint}/replay"
        world.http.post(path, json={"after": 0}, headers=story.headers).raise_for_status()
        world.stop()
        world.use(armed=[armed])
        world.die()
        world.run()
        # Also what was before the endpoint.
        world.until(lambda: world.sql(STATES, endpoint) == ["delivered"] * 2, "all of it is delivered")
        world.until(lambda: not endpoints_of(story)[0]["is_replaying"], "the replay is over")
        assert len(set(taken.ids)) == 2


def creates_an_endpoint(world: World, armed: str) -> None:
    """Nobody has seen the secret of the first one, so it is deleted."""
    with hooks() as taken:
        story = Story(world)
        body = {"url": taken.url}
        is_made = ask_and_die(story, armed, "POST", "/webhook-endpoints", json=body)
        assert len(endpoints_of(story)) == int(is_made)
        for endpoint in endpoints_of(story):
            world.http.delete(f"/webhook-endpoints/{endpoint['id']}", headers=story.headers).raise_for_status()
        endpoint_of(story, taken.url)
        assert len(endpoints_of(story)) == 1


def changes_an_endpoint(world: World, armed: str) -> None:
    with hooks() as taken:
        story = Story(world)
        path = f"/webhook-endpoints/{endpoint_of(story, taken.url)['id']}"
        is_over = ask_and_die(story, armed, "PATCH", path, json={"is_enabled": False})
        assert endpoints_of(story)[0]["is_enabled"] != is_over
        again = world.http.patch(path, json={"is_enabled": False}, headers=story.headers).raise_for_status().json()
        assert (again["is_enabled"], again["disabled_reason"]) == (False, "by_you")


def rotates_an_endpoint(world: World, armed: str) -> None:
    with hooks() as taken:
        story = Story(world)
        endpoint = endpoint_of(story, taken.url)
        path = f"/webhook-endpoints/{endpoint['id']}/rotate-secret"
        is_over = ask_and_die(story, armed, "POST", path, json={"overlap_seconds": 60})
        kept = "SELECT secret FROM webhook_endpoints WHERE id::text = $1"
        assert (world.sql(kept, endpoint["id"]) != [endpoint["secret"]]) == is_over
        again = world.http.post(path, json={"overlap_seconds": 60}, headers=story.headers).raise_for_status().json()
        assert world.sql(kept, endpoint["id"]) == [again["secret"]]


def deletes_an_endpoint(world: World, armed: str) -> None:
    with hooks() as taken:
        story = Story(world)
        path = f"/webhook-endpoints/{endpoint_of(story, taken.url)['id']}"
        is_gone = ask_and_die(story, armed, "DELETE", path)
        assert len(endpoints_of(story)) == int(not is_gone)
        assert world.http.delete(path, headers=story.headers).status_code == (404 if is_gone else 204)


def is_tested(world: World, armed: str) -> None:
    with hooks() as taken:
        story = Story(world)
        path = f"/webhook-endpoints/{endpoint_of(story, taken.url, types=['balance.low'])['id']}/test"
        is_over = ask_and_die(story, armed, "POST", path)
        assert world.http.post(path, headers=story.headers).status_code == 202
        world.until(lambda: len(set(taken.ids)) == 1 + is_over, "each test has come")


def begins_a_replay(world: World, armed: str) -> None:
    with hooks() as taken:
        story = Story(world)
        world.until(lambda: world.sql("SELECT count(*) FROM event_inbox") == [0], "what was before is told")
        path = f"/webhook-endpoints/{endpoint_of(story, taken.url)['id']}/replay"
        is_over = ask_and_die(story, armed, "POST", path, json={"after": 0})
        if is_over:
            world.until(lambda: taken.ids, "it goes on by itself")
        world.http.post(path, json={"after": 0}, headers=story.headers).raise_for_status()
        world.until(lambda: not endpoints_of(story)[0]["is_replaying"], "the replay is over")
        world.until(lambda: len(set(taken.ids)) == 1, "the payment is told of")


def redelivers(world: World, armed: str) -> None:
    with hooks() as taken:
        story, endpoint = waits_for_a_deliverer(world, taken.url)
        world.run()
        world.until(lambda: world.sql(STATES, endpoint) == ["delivered"], "it is delivered")
        path = f"/webhook-endpoints/{endpoint}/deliveries/{taken.ids[0]}/redeliver"
        is_over = ask_and_die(story, armed, "POST", path)
        if is_over:
            world.until(lambda: len(taken.ids) == 2, "it came once more")
        assert world.http.post(path, headers=story.headers).status_code == 202
        world.until(lambda: len(taken.ids) == 2 + is_over, "and again")
        assert len(set(taken.ids)) == 1


def rotates_the_accounts_secret(world: World, armed: str) -> None:
    story = Story(world)
    before = world.http.get("/webhook-secret", headers=story.headers).raise_for_status().json()["secret"]
    is_over = ask_and_die(story, armed, "POST", "/webhook-secret/rotate", json={"overlap_seconds": 60})
    after = world.http.get("/webhook-secret", headers=story.headers).raise_for_status().json()
    assert (after["secret"] != before, after["old_secret_until"] is not None) == (is_over, is_over)


def forgets_deliveries(world: World, armed: str) -> None:
    """Dies in the sweep at its start."""
    with hooks() as taken:
        story, endpoint = waits_for_a_deliverer(world, taken.url)
        world.run()
        world.until(lambda: world.sql(STATES, endpoint) == ["delivered"], "it is delivered")
        world.http.delete(f"/webhook-endpoints/{endpoint}", headers=story.headers).raise_for_status()
        world.stop()
        world.use(armed=[armed])
        world.die()
        assert (world.sql(STATES, endpoint) == []) == (armed != "forget_deliveries.before_commit")
        world.run()
        gone = "SELECT count(*) FROM webhook_endpoints WHERE id::text = $1"
        world.until(lambda: world.sql(gone, endpoint) == [0], "the endpoint is gone")


def looks_for_what_was_lost(world: World, armed: str) -> None:
    """Dies in the sweep at its start."""
    with hooks() as taken:
        _, endpoint = waits_for_a_deliverer(world, taken.url)
        world.sql("TRUNCATE due_endpoints")
        world.use(armed=[armed])
        world.die()
        world.run()
        world.until(lambda: world.sql(STATES, endpoint) == ["delivered"], "it is delivered")


WEBHOOK_CASES = [
    *both("claim_deliveries", is_delivered),
    *both("record_deliveries", is_delivered),
    *both("advance_replay", is_replayed),
    *both("create_endpoint", creates_an_endpoint),
    *both("change_endpoint", changes_an_endpoint),
    *both("rotate_endpoint", rotates_an_endpoint),
    *both("delete_endpoint", deletes_an_endpoint),
    *both("test_endpoint", is_tested),
    *both("replay_endpoint", begins_a_replay),
    *both("redeliver", redelivers),
    *both("rotate_webhook_secret", rotates_the_accounts_secret),
    *both("forget_deliveries", forgets_deliveries),
    *both("forget_endpoints", forgets_deliveries),
    *both("requeue_deliveries", looks_for_what_was_lost),
]
