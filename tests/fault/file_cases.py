"""Deaths around files: what counts is what is there, jobs go on or are refunded, and nothing is left in the store."""

import hashlib
from base64 import b64encode
from typing import Any
from uuid import uuid4

from tests.fault.job_cases import Case, both
from tests.fault.media_cases import stored
from tests.fault.other_cases import ask_and_die
from tests.fault.world import BALANCE_TOKENS, Story, World
from tests.media_samples import four_corners, saved

IMAGE_TO_IMAGE = "/generations/images/image-to-image"
PICTURE = saved(four_corners(640, 480), "PNG")
OF_STORY = "account_id = (SELECT id FROM accounts WHERE external_user_id = $1)"
LIVE = """
SELECT id || ' ' || encode(sha256, 'hex') FROM files
 WHERE stored_at IS NOT NULL AND deleted_at IS NULL AND origin <> 'output'
"""
MISCOUNTED = """
SELECT external_user_id FROM accounts LEFT JOIN files
    ON account_id = accounts.id AND deleted_at IS NULL AND origin <> 'output'
 GROUP BY accounts.id HAVING files_bytes <> coalesce(sum(size_bytes), 0)
"""
LOOK_AGAIN = "UPDATE pgqueuer SET execute_after = now() WHERE entrypoint = 'file.erase' AND status = 'queued'"
NOWHERE = "http://127.0.0.1:9"


def number_of(story: Story, condition: str = "true") -> int:
    (count,) = story.world.sql(f"SELECT count(*) FROM files WHERE {condition} AND {OF_STORY}", story.user_id)
    return int(count)


def make_it_so(world: World, change: str) -> None:
    """Time passes, which the database lets nobody write otherwise."""
    for statement in (
        "ALTER TABLE files DISABLE TRIGGER USER",
        f"UPDATE files SET {change}",
        "ALTER TABLE files ENABLE TRIGGER USER",
    ):
        world.sql(statement)


def objects_in_store(world: World) -> set[str]:
    paths = [path for path in (world.log.parent / "media" / "files").rglob("*") if path.is_file()]
    return {f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths}


def objects_of(story: Story) -> int:
    ids = set(story.world.sql(f"SELECT id::text FROM files WHERE {OF_STORY}", story.user_id))
    return sum(name.partition(" ")[0] in ids for name in objects_in_store(story.world))


def assert_counted(world: World) -> None:
    assert world.sql(MISCOUNTED) == []


def assert_right(world: World) -> None:
    """Row for row what is in the store, and byte for byte what counts."""
    assert_counted(world)
    assert objects_in_store(world) == set(world.sql(LIVE))


def data_uri(picture: bytes) -> str:
    return f"data:image/png;base64,{b64encode(picture).decode()}"


def send_file(story: Story) -> Any:
    """What the user hears; None: the service died."""
    headers = story.headers | {"Content-Type": "image/png"}
    return story.world.send("POST", "/files", content=PICTURE, headers=headers)


def uploaded(story: Story) -> str:
    answer = send_file(story)
    assert answer is not None
    assert answer.status_code == 201, answer.text
    return str(answer.json()["file_id"])


def with_file(world: World) -> tuple[Story, str]:
    story = Story(world)
    file_id = uploaded(story)
    story.ask_for(IMAGE_TO_IMAGE, image_urls=[f"file:{file_id}"])
    return story, file_id


def assert_done_once(story: Story) -> None:
    story.until("COMPLETED")
    story.start()
    assert {answer.json()["job_id"] for answer in story.answers} == {story.job_id}
    job = story.world.http.get(f"/generations/{story.job_id}", headers=story.headers).raise_for_status().json()
    assert story.balance() == BALANCE_TOKENS - job["cost_tokens"]
    assert len(story.requests()) == 1
    story.assert_nothing_is_left()


def let_time_pass(story: Story) -> None:
    """A day and more, in which whatever was not stored goes."""
    world = story.world
    world.stop()
    make_it_so(world, "expires_at = now() - interval '1 second' WHERE stored_at IS NULL AND deleted_at IS NULL")
    world.run()
    world.until(lambda: number_of(story, "stored_at IS NULL AND deleted_at IS NULL") == 0, "it is over")
    world.until(lambda: objects_in_store(world) == set(world.sql(LIVE)), "what came into the store is erased")
    assert_counted(world)
    world.stop()
    make_it_so(world, "deleted_at = now() - interval '25 hours' WHERE deleted_at IS NOT NULL AND erased_at IS NULL")
    world.sql(LOOK_AGAIN)
    world.run()
    world.until(lambda: number_of(story, "deleted_at IS NOT NULL AND erased_at IS NULL") == 0, "it is erased for good")
    assert_right(world)


def is_kept(world: World, armed: str) -> None:
    story = Story(world)
    world.process.arm(armed)
    assert send_file(story) is None
    world.die()
    is_put = armed in ("keep_file.after_put", "record_stored_file.before_commit", "record_stored_file.after_commit")
    assert number_of(story) == int(armed != "reserve_file.before_commit")
    assert number_of(story, "stored_at IS NOT NULL") == int(armed == "record_stored_file.after_commit")
    assert objects_of(story) == int(is_put)
    assert_counted(world)
    world.run()
    file_id = uploaded(story)
    let_time_pass(story)
    story.ask_for(IMAGE_TO_IMAGE, image_urls=[f"file:{file_id}"])
    story.start()
    assert_done_once(story)


def is_deleted(world: World, armed: str) -> None:
    story, file_id = with_file(world)
    is_over = ask_and_die(story, armed, "DELETE", f"/files/{file_id}")
    answer = world.http.get(f"/files/{file_id}", headers=story.headers)
    assert answer.status_code == (410 if is_over else 200)
    assert world.http.delete(f"/files/{file_id}", headers=story.headers).status_code == 204
    assert_gone(story)


def assert_gone(story: Story) -> None:
    story.world.until(lambda: number_of(story, "erased_at IS NOT NULL") == 1, "it is erased")
    assert objects_of(story) == 0
    assert_right(story.world)


def is_over(world: World, armed: str) -> None:
    """Dies in the sweep at its start."""
    story, file_id = with_file(world)
    world.stop()
    # Those of other stories go account by account, each in a transaction of its own.
    make_it_so(world, "expires_at = now() + interval '1 day' WHERE deleted_at IS NULL")
    make_it_so(world, f"expires_at = now() - interval '1 second' WHERE id = '{file_id}'")
    world.use(armed=[armed])
    world.die()
    assert number_of(story, "deleted_because = 'expired'") == int(armed.endswith("after_commit"))
    assert objects_of(story) == 1
    assert_counted(world)
    world.run()
    assert_gone(story)


def is_erased(world: World, armed: str) -> None:
    story, file_id = with_file(world)
    world.process.arm(armed)
    world.send("DELETE", f"/files/{file_id}", headers=story.headers)
    world.die()
    assert number_of(story, "erased_at IS NOT NULL") == int(armed.endswith("after_commit"))
    # The object goes first: what is written down as erased never comes to light again.
    assert objects_of(story) == 0
    world.run()
    assert_gone(story)


def is_forgotten(world: World, armed: str) -> None:
    """A month after it was erased."""
    story, file_id = with_file(world)
    world.http.delete(f"/files/{file_id}", headers=story.headers).raise_for_status()
    assert_gone(story)
    world.stop()
    make_it_so(world, f"erased_at = now() - interval '31 days' WHERE id = '{file_id}'")
    world.use(armed=[armed])
    world.die()
    assert number_of(story) == int(armed.endswith("before_commit"))
    world.run()
    world.until(lambda: number_of(story) == 0, "it is forgotten")
    assert world.http.get(f"/files/{file_id}", headers=story.headers).status_code == 404
    assert_right(world)


def is_handed_over(world: World, armed: str) -> None:
    story, _ = with_file(world)
    world.process.arm(armed)
    story.start()
    world.die()
    assert story.disk() == "QUEUED"
    assert number_of(story, "sent_url IS NOT NULL") == int(armed == "record_sent_file.after_commit")
    world.run()
    assert_done_once(story)
    assert_right(world)


def is_uploaded_to_fal(world: World, armed: str) -> None:
    """Nobody reaches us: at worst fal has the file twice."""
    story, _ = with_file(world)
    before = len(uploads(world))
    world.use(PUBLIC_URL="")
    world.process.wait_until_ready(world.url)
    world.process.arm(armed)
    story.start()
    world.die()
    assert story.disk() == "QUEUED"
    assert len(uploads(world)) == before + 1
    world.use(PUBLIC_URL="")
    world.process.wait_until_ready(world.url)
    story.until("COMPLETED")
    assert len(uploads(world)) == before + 2
    world.stop()
    world.run()
    assert_done_once(story)
    assert_right(world)


def uploads(world: World) -> list[Any]:
    return list(world.fal.get("/_sim/uploads").raise_for_status().json()["uploads"])


def is_given_back(world: World, armed: str) -> None:
    """fal's storage cannot be reached."""
    story, _ = with_file(world)
    world.use(PUBLIC_URL="", FAL_REST_URL=NOWHERE)
    world.process.wait_until_ready(world.url)
    world.process.arm(armed)
    story.start()
    world.die()
    assert story.disk() == "QUEUED"
    assert number_of(story, "sent_url IS NULL") == 1
    assert number_of(story, "handed_over_until IS NULL") == int(armed.endswith("after_commit"))
    world.run()
    assert_done_once(story)
    assert_right(world)


def is_used_again(world: World, armed: str) -> None:
    """An output of the user's own becomes an input."""
    story = stored(world)
    order: dict[str, Any] = {
        "headers": story.headers | {"Idempotency-Key": str(uuid4())},
        "json": {"prompt": f"again {story.prompt}", "image_urls": [f"output:{story.job_id}/0"]},
    }
    world.process.arm(armed)
    assert world.send("POST", IMAGE_TO_IMAGE, **order) is None
    world.die()
    assert number_of(story) == int(armed.endswith("after_commit"))
    world.run()
    job_ids = {world.http.post(IMAGE_TO_IMAGE, **order).raise_for_status().json()["job_id"] for _ in range(2)}
    (job_id,) = job_ids
    is_completed = "SELECT status = 'COMPLETED' FROM jobs WHERE id::text = $1"
    world.until(lambda: world.sql(is_completed, job_id) == [True], "the second job is completed")
    assert number_of(story, "origin = 'output' AND sent_url IS NOT NULL") == 1
    assert_right(world)
    story.assert_nothing_is_left()


def comes_with_its_job(world: World, armed: str) -> None:
    """A data: URI becomes a file before its job is there."""
    story = Story(world)
    story.ask_for(IMAGE_TO_IMAGE, image_urls=[data_uri(PICTURE)])
    world.process.arm(armed)
    story.start()
    world.die()
    is_accepted = armed == "accept.after_commit"
    assert (story.disk(), number_of(story, "stored_at IS NOT NULL")) == ("QUEUED" if is_accepted else None, 1)
    assert_counted(world)
    world.run()
    if not is_accepted:
        story.start()
    assert_done_once(story)
    assert number_of(story) == 2 - is_accepted
    world.stop()
    over = "expires_at = now() - interval '1 second' WHERE origin = 'data' AND deleted_at IS NULL"
    make_it_so(world, over)
    world.run()
    # That of the job stays for a day after its end.
    world.until(lambda: number_of(story, "erased_at IS NOT NULL") == 1 - is_accepted, "one without a job goes")
    world.until(lambda: number_of(story, "deleted_at IS NULL AND expires_at > now()") == 1, "the other one stays")
    assert_right(world)
    world.stop()
    world.sql("ALTER TABLE jobs DISABLE TRIGGER USER")
    world.sql("UPDATE jobs SET updated_at = now() - interval '25 hours' WHERE id::text = $1", story.job_id)
    world.sql("ALTER TABLE jobs ENABLE TRIGGER USER")
    make_it_so(world, over)
    world.run()
    world.until(lambda: number_of(story, "erased_at IS NULL") == 0, "it goes, too")
    assert objects_of(story) == 0
    assert_right(world)


def is_taken_back(world: World, armed: str) -> None:
    """The second picture is too small for the model, so that the first one has no job."""
    story = Story(world)
    story.ask_for(IMAGE_TO_IMAGE, image_urls=[data_uri(PICTURE), data_uri(saved(four_corners(), "PNG"))])
    world.process.arm(armed)
    story.start()
    world.die()
    assert story.disk() is None
    assert number_of(story, "deleted_at IS NULL") == (0 if armed.endswith("after_commit") else 2)
    assert_counted(world)
    make_it_so(world, "expires_at = now() - interval '1 second' WHERE origin = 'data' AND deleted_at IS NULL")
    world.run()
    world.until(lambda: number_of(story, "erased_at IS NOT NULL") == 2, "both are erased")
    assert_right(world)
    assert story.balance() == BALANCE_TOKENS
    story.assert_nothing_is_left()


def is_admitted(world: World, armed: str) -> None:
    """Before a byte of it is read."""
    story = Story(world)
    world.process.arm(armed)
    assert send_file(story) is None
    world.die()
    assert number_of(story) == objects_of(story) == 0
    world.run()
    uploaded(story)
    assert_right(world)


def is_kept_on(world: World, armed: str) -> None:
    """Its time would end while the job waits."""
    story, file_id = with_file(world)
    make_it_so(world, f"expires_at = now() + interval '1 hour' WHERE id = '{file_id}'")
    world.process.arm(armed)
    story.start()
    world.die()
    assert story.disk() is None
    assert number_of(story, "expires_at > now() + interval '1 day'") == int(armed.endswith("after_commit"))
    world.run()
    story.start()
    assert_done_once(story)
    assert number_of(story, "expires_at > now() + interval '1 day'") == 1
    assert_right(world)


def is_gone_before_its_job(world: World, armed: str) -> None:
    """While fal takes no files the user deletes it."""
    story, file_id = with_file(world)
    world.use(PUBLIC_URL="", FAL_REST_URL=NOWHERE)
    world.process.wait_until_ready(world.url)
    story.start()
    world.process.arm(armed)
    world.send("DELETE", f"/files/{file_id}", headers=story.headers)
    world.die()
    assert story.disk() == ("FAILED refunded" if armed.endswith("after_commit") else "QUEUED")
    world.run()
    story.until("FAILED refunded")
    assert story.balance() == BALANCE_TOKENS
    assert story.requests() == []
    assert_gone(story)


FILE_CASES = [
    *both("admit_upload", is_admitted),
    *both("keep_file_on", is_kept_on),
    *both("end_queued", is_gone_before_its_job),
    *both("reserve_file", is_kept),
    Case("keep_file.after_reserve", is_kept),
    Case("keep_file.after_put", is_kept),
    *both("record_stored_file", is_kept),
    *both("delete_file", is_deleted),
    *both("delete_files_that_are_over", is_over),
    *both("take_files_back", is_taken_back),
    *both("record_erased_file", is_erased),
    *both("forget_erased_files", is_forgotten),
    *both("begin_to_hand_over", is_handed_over),
    Case("hand_over.after_url", is_handed_over),
    Case("hand_over.after_url", is_uploaded_to_fal, note="uploaded to fal"),
    *both("record_sent_file", is_handed_over),
    *both("give_back_file", is_given_back),
    *both("use_output", is_used_again),
    *(Case(case.point, case.run, "with a data: URI") for case in both("accept", comes_with_its_job)),
]
