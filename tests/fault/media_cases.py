"""Deaths around media: each output is stored once, and of what was deleted nothing is left in the store."""

import hashlib
from typing import Any

from tests.builders import COST_TOKENS
from tests.fault.job_cases import Case, both
from tests.fault.other_cases import ask_and_die, told_of
from tests.fault.world import BALANCE_TOKENS, Story, World

TWO_IMAGES = {"num_images": 2}
OF_STORY = "job_id IN (SELECT jobs.id FROM jobs JOIN accounts ON accounts.id = account_id WHERE external_user_id = $1)"
LIVE = """
SELECT job_id || '-' || number || ' ' || encode(sha256, 'hex') FROM outputs
 WHERE stored_at IS NOT NULL AND deleted_at IS NULL
"""
LOOK_AGAIN = "UPDATE pgqueuer SET execute_after = now() WHERE entrypoint = 'media.erase' AND status = 'queued'"


def make_it_so(world: World, change: str) -> None:
    """Time passes, which the database lets nobody write otherwise."""
    for statement in (
        "ALTER TABLE outputs DISABLE TRIGGER USER",
        f"UPDATE outputs SET {change}",
        "ALTER TABLE outputs ENABLE TRIGGER USER",
    ):
        world.sql(statement)


def number_of(story: Story, condition: str) -> int:
    (count,) = story.world.sql(f"SELECT count(*) FROM outputs WHERE {condition} AND {OF_STORY}", story.user_id)
    return int(count)


def until_both(story: Story, condition: str) -> None:
    story.world.until(lambda: number_of(story, condition) == 2, condition)


def objects_in_store(world: World) -> set[str]:
    """Each file of the store, by its name and digest, whatever it is."""
    files = [path for path in (world.log.parent / "media").rglob("*") if path.is_file()]
    return {f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files}


def objects_of(story: Story) -> int:
    return sum(name.startswith(story.job_id) for name in objects_in_store(story.world))


def assert_store_is_right(world: World) -> None:
    assert objects_in_store(world) == set(world.sql(LIVE))


def job_of(story: Story) -> dict[str, Any]:
    answer = story.world.http.get(f"/generations/{story.job_id}", headers=story.headers)
    return dict(answer.raise_for_status().json())


def links_of(story: Story) -> list[str]:
    return [output["url"] for output in job_of(story)["outputs"]]


def statuses_of(story: Story, links: list[str]) -> list[int]:
    return [story.world.http.get(link).status_code for link in links]


def path_of(story: Story) -> str:
    return f"/generations/{story.job_id}/media"


def stored(world: World) -> Story:
    story = Story(world, asked_for=TWO_IMAGES)
    story.start()
    until_both(story, "stored_at IS NOT NULL")
    return story


def assert_charged_once(story: Story) -> None:
    assert story.balance() == BALANCE_TOKENS - 2 * COST_TOKENS
    assert len(story.requests()) == 1
    story.assert_nothing_is_left()


def assert_gone(story: Story, links: list[str]) -> None:
    until_both(story, "erased_at IS NOT NULL")
    assert statuses_of(story, links) == [410, 410]
    assert objects_of(story) == 0
    assert_store_is_right(story.world)
    assert [image["url"] for image in job_of(story)["result"]["images"]] == [None, None]
    assert_charged_once(story)


def is_copied(world: World, armed: str) -> None:
    story = Story(world, asked_for=TWO_IMAGES)
    world.process.arm(armed)
    story.start()
    world.die()
    assert story.disk() == "COMPLETED"
    assert number_of(story, "stored_at IS NOT NULL") == int(armed == "record_stored_output.after_commit")
    assert objects_of(story) == int(armed != "copy.before_put")
    world.run()
    until_both(story, "stored_at IS NOT NULL")
    assert statuses_of(story, links_of(story)) == [200, 200]
    assert_store_is_right(world)
    world.until(lambda: told_of(story, "output.stored") == 2, "each copy is told of")
    assert world.sql("SELECT count(*) FROM event_inbox WHERE type = 'output.stored'") == [0]
    assert_charged_once(story)


def is_deleted_before_its_copy_is_recorded(world: World, armed: str) -> None:
    """What the dead process has put there is found, although nobody has written that it is there."""
    story = Story(world, asked_for=TWO_IMAGES)
    world.process.arm(armed)
    story.start()
    world.die()
    world.use(RUNNER="external")
    world.process.wait_until_ready(world.url)
    links = links_of(story)
    world.http.delete(path_of(story), headers=story.headers).raise_for_status()
    assert objects_of(story) == int(armed != "copy.before_put")
    world.stop()
    world.run()
    world.until(lambda: objects_of(story) == 0, "it is erased")
    assert number_of(story, "erased_at IS NOT NULL") == 0
    world.stop()
    make_it_so(world, "deleted_at = now() - interval '25 hours' WHERE deleted_at IS NOT NULL")
    world.sql(LOOK_AGAIN)
    world.run()
    assert_gone(story, links)


def is_left_at_fal(world: World, armed: str) -> None:
    """There is no store."""
    story = Story(world, asked_for=TWO_IMAGES)
    world.use(MEDIA_URL="none")
    world.process.wait_until_ready(world.url)
    world.process.arm(armed)
    story.start()
    world.die()
    assert number_of(story, "given_up_at IS NOT NULL") == int(armed == "give_up_output.after_commit")
    world.use(MEDIA_URL="none")
    # Whoever goes on does not know for how long fal was asked to keep it.
    until_both(story, "given_up_at IS NOT NULL AND stored_at IS NULL AND expires_at > now() + interval '2 days'")
    assert statuses_of(story, links_of(story)) == [200, 200]
    assert objects_of(story) == 0
    world.stop()
    world.run()
    assert_charged_once(story)
    assert_store_is_right(world)


def is_erased(world: World, armed: str) -> None:
    story = stored(world)
    links = links_of(story)
    world.process.arm(armed)
    world.send("DELETE", path_of(story), headers=story.headers)
    world.die()
    assert number_of(story, "deleted_at IS NOT NULL") == 2
    assert number_of(story, "erased_at IS NOT NULL") == int(armed == "record_erased_output.after_commit")
    # The object goes first: what is written down as erased never comes to light again.
    assert objects_of(story) == 1
    world.run()
    assert_gone(story, links)


def is_deleted(world: World, armed: str) -> None:
    story = stored(world)
    links = links_of(story)
    is_over = ask_and_die(story, armed, "DELETE", path_of(story))
    assert statuses_of(story, links) == ([410, 410] if is_over else [200, 200])
    again = world.http.delete(path_of(story), headers=story.headers).raise_for_status().json()
    assert [output["deleted_because"] for output in again["outputs"]] == ["requested"] * 2
    assert_gone(story, links)


def is_over(world: World, armed: str) -> None:
    """Dies in the sweep at its start."""
    story = stored(world)
    links = links_of(story)
    world.stop()
    make_it_so(world, f"expires_at = now() WHERE job_id = '{story.job_id}'")
    world.use(armed=[armed])
    world.die()
    assert number_of(story, "deleted_at IS NOT NULL") == (2 if armed.endswith("after_commit") else 0)
    assert objects_of(story) == 2
    world.run()
    until_both(story, "deleted_because = 'expired'")
    assert_gone(story, links)


def is_kept_as_of_a_release_before(world: World, armed: str) -> None:
    """Dies in the sweep at its start."""
    story = stored(world)
    world.stop()
    world.sql(f"DELETE FROM outputs WHERE {OF_STORY}", story.user_id)
    world.use(armed=[armed])
    world.die()
    assert number_of(story, "true") == (2 if armed.endswith("after_commit") else 0)
    world.run()
    until_both(story, "stored_at IS NOT NULL")
    assert_charged_once(story)
    assert_store_is_right(world)


def loses_a_late_result(world: World, armed: str) -> None:
    """Dies in the sweep at its start."""
    story = stored(world)
    world.stop()
    late = """{"images": [{"url": "https://fal.media/late.png"}]}"""
    world.sql(
        "UPDATE jobs SET late_result = $2, updated_at = now() - interval '40 days' WHERE id = $1::uuid",
        story.job_id,
        late,
    )
    has_url = "SELECT late_result::text LIKE '%fal.media%' FROM jobs WHERE id::text = $1"
    world.use(armed=[armed])
    world.die()
    assert world.sql(has_url, story.job_id) == [not armed.endswith("after_commit")]
    world.run()
    world.until(lambda: world.sql(has_url, story.job_id) == [False], "its URL is gone")


MEDIA_CASES = [
    Case("copy.before_put", is_copied),
    Case("copy.after_put", is_copied),
    Case("copy.before_put", is_deleted_before_its_copy_is_recorded, note="deleted meanwhile"),
    Case("copy.after_put", is_deleted_before_its_copy_is_recorded, note="deleted meanwhile"),
    *both("record_stored_output", is_copied),
    *both("give_up_output", is_left_at_fal),
    *both("record_erased_output", is_erased),
    *both("delete_media", is_deleted),
    *both("delete_expired_media", is_over),
    *both("keep_older_outputs", is_kept_as_of_a_release_before),
    *both("forget_late_results", loses_a_late_result),
]
