"""Deaths around the places at fal, in a service that has only one: nobody waits for a place that nobody holds."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.application.execution.breaker import OWN_FAILURES_MAX
from tests.fault.job_cases import Case, both
from tests.fault.world import Story, World

PLACES = "SELECT count(*) FROM places"
HOLDERS = "SELECT job_id::text FROM places WHERE job_id IS NOT NULL"
TRIES_MAX = 5


@contextmanager
def with_one_place(world: World) -> Iterator[None]:
    """What comes after it has a service without a bound again."""
    bound = {"FAL_CONCURRENCY": "1"}
    world.environment |= bound
    world.stop()
    world.run()
    try:
        yield
    finally:
        world.stop()
        for name in bound:
            del world.environment[name]


def is_made(world: World, armed: str) -> None:
    world.run()
    world.sql("DELETE FROM places")
    world.use(armed=[armed], FAL_CONCURRENCY="2")
    world.die()
    assert world.sql(PLACES) == [2 if armed.startswith("prepare_places.after") else 0]
    with with_one_place(world):
        story = Story(world)
        story.start()
        story.assert_right("COMPLETED", posts=1)
        assert world.sql(HOLDERS) == []


def is_given_with_the_item(world: World, armed: str) -> None:
    with with_one_place(world):
        story = Story(world)
        world.process.arm(armed)
        story.start()
        world.die()
        is_given = armed.startswith("take_places.after")
        holders = world.sql(HOLDERS)
        assert len(holders) == int(is_given)
        assert story.disk() == "QUEUED"
        world.run()
        story.assert_right("COMPLETED", posts=1)
        assert world.sql(HOLDERS) == []


def is_given_back_while_the_account_pauses(world: World, armed: str) -> None:
    with with_one_place(world):
        story = Story(world, f"[submit:429x{OWN_FAILURES_MAX}]")
        world.process.arm(armed)
        story.start()
        world.die()
        assert story.disk() == "QUEUED"
        assert len(world.sql(HOLDERS)) == int(armed.startswith("give_back_place.before"))
        world.run()
        story.assert_right("COMPLETED", posts=1)
        assert world.sql(HOLDERS) == []


def is_taken_over_from_a_job_that_was_claimed(world: World, armed: str) -> None:
    """The only place is held by the job whose process died: its item is taken all the same, and the next one goes."""
    with with_one_place(world):
        for _ in range(TRIES_MAX):
            story, next_one = Story(world, "[slow:1]"), Story(world)
            world.process.arm(armed)
            story.start()
            world.die()
            if story.disk() == "SUBMITTING":
                break
            # What stood before it in the queue died there, or the step came so late that its place was given back, and
            # its claim was granted nothing. The table counts one.
            assert story.disk() in (None, "QUEUED"), f"{story.disk()}: {world.log.read_text()[-3000:]}"
            world.kills -= 1
            world.run()
            story.start_and_reach("COMPLETED")
        else:
            raise AssertionError(world.log.read_text()[-3000:])
        assert world.sql(HOLDERS) == [str(story.column("id"))]
        world.run()
        next_one.start()
        is_posted = armed.startswith("submit")
        if not is_posted:
            story.until("SUBMITTING unknown")
            story.let_the_time_limit_pass()
        end = "COMPLETED" if is_posted else "FAILED unknown refunded"
        story.until(end)
        next_one.assert_right("COMPLETED", posts=1)
        story.assert_right(end, posts=int(is_posted))
        assert world.sql(HOLDERS) == []


PLACE_CASES = [
    Case("claim.after_commit", is_taken_over_from_a_job_that_was_claimed, "in the only place at fal"),
    Case("submit.after_post", is_taken_over_from_a_job_that_was_claimed, "in the only place at fal"),
    *both("prepare_places", is_made),
    *both("take_places", is_given_with_the_item),
    *both("give_back_place", is_given_back_while_the_account_pauses),
]
