"""How a job comes to each fault point on its way, what is on disk after the death, and how it ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.application.execution.breaker import OWN_FAILURES_MAX
from tests.fault.world import Story, World

Act = Callable[[Story], object]
AT_FAL = ("SUBMITTED", "IN_QUEUE", "IN_PROGRESS")
# Without webhooks only looks see the end.
POLLED = "[webhook:never]"
STUCK = f"[stuck] {POLLED}"
REFUNDED = "FAILED refunded"
UNSEEN = "FAILED unknown refunded"
LATE = "FAILED unknown late refunded"


@dataclass(frozen=True)
class Case:
    point: str
    run: Callable[[World, str], None]
    note: str = ""


def nothing(_: Story) -> None:
    pass


def start(story: Story) -> None:
    story.start()


def cancel(story: Story) -> None:
    story.cancel()


def cancel_again(story: Story) -> None:
    answer = story.cancel()
    assert answer is not None
    assert answer.status_code == 200, answer.text


def cancel_of_the_ended_is_refused(story: Story) -> None:
    answer = story.cancel()
    assert answer is not None
    assert answer.status_code == 400, answer.text


def pass_the_time_limit(story: Story) -> None:
    story.let_the_time_limit_pass()


def pass_the_time_limit_once_unknown(story: Story) -> None:
    story.until("SUBMITTING unknown")
    story.let_the_time_limit_pass()


def at_fal(story: Story) -> None:
    story.start_and_reach(*AT_FAL)


def in_queue(story: Story) -> None:
    story.start_and_reach("IN_QUEUE")


def in_progress(story: Story) -> None:
    story.start_and_reach("IN_PROGRESS")


def held_back(story: Story) -> None:
    """Accepted, and refused by fal for now."""
    story.start()
    story.world.until(lambda: story.column("status_reason"), "held back")


def overdue_and_given_up(story: Story) -> None:
    story.start_and_reach("SUBMITTING unknown")
    story.let_the_time_limit_pass()
    story.until(UNSEEN)


def told_to_stop(story: Story) -> None:
    assert [request["cancel_requested_at"] is None for request in story.requests()] == [False]


def heard_again(story: Story) -> None:
    """fal got no receipt for its first delivery, and one for a later one."""

    def receipts() -> list[int | None]:
        posts = story.world.fal.get("/_sim/webhooks", params={"limit": 50}).json()["webhooks"]
        own = {request["request_id"] for request in story.requests()}
        return [post["status_code"] for post in posts if post["request_id"] in own]

    story.world.until(lambda: receipts()[:1] == [200], "the receipt of the event")
    assert receipts()[-1] != 200


def job(
    point: str,
    *words: str,
    end: str,
    disk: str | Sequence[str] | None = AT_FAL,
    posts: int = 1,
    before: Act = nothing,
    act: Act = start,
    after: Act = nothing,
    then: Act = nothing,
    note: str = "",
) -> Case:
    """`before` with a healthy service, `act` kills it, `after` with the next one, `then` at the end."""
    disks = (disk,) if disk is None or isinstance(disk, str) else tuple(disk)

    def run(world: World, armed: str) -> None:
        story = Story(world, " ".join(words))
        before(story)
        world.process.arm(armed)
        act(story)
        world.die()
        found = story.disk()
        assert found in disks
        world.run()
        if found is None:
            story.start()
        after(story)
        story.assert_right(end, posts=posts)
        then(story)
        story.assert_nothing_is_left()

    return Case(point, run, note)


LOST_SUBMITS = [
    job("accept.before_commit", disk=None, end="COMPLETED"),
    job("accept.after_commit", disk="QUEUED", end="COMPLETED"),
    job("claim.before_commit", disk="QUEUED", end="COMPLETED"),
    job("claim.after_commit", disk="SUBMITTING", posts=0, end=UNSEEN, after=pass_the_time_limit_once_unknown),
    job("submit.before_post", disk="SUBMITTING", posts=0, end=UNSEEN, after=pass_the_time_limit_once_unknown),
    job("submit.after_post", disk="SUBMITTING", end="COMPLETED", note="an event adopts it"),
    job(
        "submit.after_post",
        POLLED,
        disk="SUBMITTING",
        end=UNSEEN,
        after=pass_the_time_limit_once_unknown,
        note="no event comes",
    ),
    job("record_submission.before_commit", disk="SUBMITTING", end="COMPLETED"),
    job("record_submission.after_commit", disk="SUBMITTED", end="COMPLETED"),
    job("record_submit_unknown.before_commit", "[submit:drop] [slow:1]", disk="SUBMITTING", end="COMPLETED"),
    job("record_submit_unknown.after_commit", "[submit:drop] [slow:1]", disk="SUBMITTING unknown", end="COMPLETED"),
    job(
        "release.before_commit",
        "[submit:429x1]",
        disk="SUBMITTING",
        posts=0,
        end=UNSEEN,
        after=pass_the_time_limit_once_unknown,
    ),
    job("release.after_commit", "[submit:429x1]", disk="QUEUED", end="COMPLETED"),
]

# The first POST is answered by the ingress, and runs all the same; its event comes while the second one runs.
TWICE = "[submit:done-503x1] [slow:3]"


def the_other_run_is_seen_to(story: Story) -> None:
    """One of the two delivered, and nothing is left to do with the other one."""

    def ends() -> list[str]:
        return story.world.sql(
            "SELECT concat_ws(' ', CASE WHEN attempts.fal_request_id = jobs.fal_request_id THEN 'followed' END,"
            " CASE WHEN closed_at IS NOT NULL THEN 'closed' END) FROM attempts JOIN jobs ON jobs.id = job_id"
            " WHERE jobs.id = $1",
            story.job_id,
        )

    story.world.until(lambda: sorted(ends()) == ["closed", "followed"], f"the other run is seen to, but {ends()}")


ORPHANS = [
    job(
        "submit.after_post",
        TWICE,
        disk="SUBMITTING",
        posts=2,
        end="COMPLETED",
        then=the_other_run_is_seen_to,
        note="an earlier attempt delivers",
    ),
    *(
        job(
            f"{operation}.{half}_commit",
            f"{TWICE} [webhook:null]",
            posts=2,
            end="COMPLETED",
            then=the_other_run_is_seen_to,
        )
        for operation in ("record_orphan", "update_orphan")
        for half in ("before", "after")
    ),
]

LOOKS = [
    job("observe.before_status", POLLED, end="COMPLETED"),
    job("observe.before_result", POLLED, end="COMPLETED"),
    job("record_progress.before_commit", POLLED, "[slow:3]", disk="SUBMITTED", end="COMPLETED"),
    job("record_progress.after_commit", POLLED, "[slow:3]", disk=("IN_QUEUE", "IN_PROGRESS"), end="COMPLETED"),
    job("look_now.before_commit", "[webhook:null] [slow:0.5]", end="COMPLETED", then=heard_again),
    job("look_now.after_commit", "[webhook:null] [slow:0.5]", end="COMPLETED", then=heard_again),
]

ENDS = [
    job("settle.before_commit", POLLED, end="COMPLETED", note="a result that a look saw"),
    job("settle.after_commit", POLLED, disk="COMPLETED", end="COMPLETED", note="a result that a look saw"),
    job("settle.before_commit", POLLED, "[fail]", end=REFUNDED, note="a failure that a look saw"),
    job("settle.after_commit", POLLED, "[fail]", disk=REFUNDED, end=REFUNDED, note="a failure that a look saw"),
    job("settle.before_commit", "[slow:0.5]", end="COMPLETED", then=heard_again, note="a result that an event told"),
    job(
        "settle.after_commit",
        "[slow:0.5]",
        disk="COMPLETED",
        end="COMPLETED",
        then=heard_again,
        note="a result that an event told",
    ),
    job(
        "settle.before_commit",
        "[submit:422]",
        disk="SUBMITTING",
        posts=0,
        end=UNSEEN,
        after=pass_the_time_limit_once_unknown,
        note="a refusal of the submission",
    ),
    job(
        "record_late_result.before_commit",
        "[submit:drop] [slow:2]",
        before=overdue_and_given_up,
        act=nothing,
        disk=UNSEEN,
        end=LATE,
    ),
    job(
        "record_late_result.after_commit",
        "[submit:drop] [slow:2]",
        before=overdue_and_given_up,
        act=nothing,
        disk=LATE,
        end=LATE,
        then=heard_again,
    ),
]

CANCELED = "CANCELED wished told refunded"
CANCELS = [
    job("request_cancel.before_commit", STUCK, before=in_queue, act=cancel, after=cancel_again, end=CANCELED),
    job(
        "request_cancel.after_commit",
        STUCK,
        before=in_queue,
        act=cancel,
        disk="IN_QUEUE wished",
        end=CANCELED,
        then=told_to_stop,
    ),
    job(
        "request_cancel.before_commit",
        "[submit:403]",
        before=held_back,
        act=cancel,
        disk="QUEUED",
        posts=0,
        after=cancel_again,
        end="CANCELED refunded",
        note="before anything was sent",
    ),
    job(
        "request_cancel.after_commit",
        "[submit:403]",
        before=held_back,
        act=cancel,
        disk="CANCELED refunded",
        posts=0,
        after=cancel_of_the_ended_is_refused,
        end="CANCELED refunded",
        note="before anything was sent",
    ),
    job(
        "cancel.before_put", STUCK, before=in_queue, act=cancel, disk="IN_QUEUE wished", end=CANCELED, then=told_to_stop
    ),
    job("cancel.after_put", STUCK, before=in_queue, act=cancel, disk="IN_QUEUE wished", end=CANCELED),
    job(
        "cancel.after_put",
        POLLED,
        "[ignore-cancel] [slow:4]",
        before=in_progress,
        act=cancel,
        disk="IN_PROGRESS wished",
        end="COMPLETED wished told",
        note="fal finishes all the same",
    ),
    job("record_cancel_sent.before_commit", STUCK, before=in_queue, act=cancel, disk="IN_QUEUE wished", end=CANCELED),
    job(
        "record_cancel_sent.after_commit", STUCK, before=in_queue, act=cancel, disk="IN_QUEUE wished told", end=CANCELED
    ),
    job(
        "record_cancel_sent.after_commit",
        STUCK,
        "[ignore-cancel]",
        before=in_queue,
        act=pass_the_time_limit,
        disk="IN_QUEUE overdue told",
        end="FAILED overdue told refunded",
        note="at the time limit, and fal goes on",
    ),
    job(
        "record_overdue.before_commit",
        STUCK,
        before=in_queue,
        act=pass_the_time_limit,
        disk="IN_QUEUE",
        end="FAILED overdue told refunded",
    ),
    job(
        "record_overdue.after_commit",
        STUCK,
        before=in_queue,
        act=pass_the_time_limit,
        disk="IN_QUEUE overdue",
        end="FAILED overdue told refunded",
    ),
]


def waits_for_the_breaker(world: World, armed: str) -> None:
    """fal refuses the key to two accounts, and so to everybody."""
    refused, waiting = [Story(world, "[submit:403x1]") for _ in range(2)], Story(world)
    for story in refused:
        held_back(story)
        cancel_again(story)
    world.process.arm(armed)
    waiting.start()
    world.die()
    assert waiting.disk() == "QUEUED"
    world.run()
    waiting.assert_right("COMPLETED", posts=1)
    for story in refused:
        story.assert_right("CANCELED refunded", posts=0)


def waited_for_too_long(world: World, armed: str) -> None:
    """Dies while it ends a job that fal has not taken for two days: end and refund are one, or there is no answer."""
    story = Story(world, "[submit:429]")
    held_back(story)
    world.stop()
    world.sql("UPDATE jobs SET provider_waiting_since = now() - interval '2 days' WHERE NOT is_final")
    world.use(armed=[armed])
    world.die()
    is_ended = armed.endswith("after_commit")
    assert story.disk() == (REFUNDED if is_ended else "SUBMITTING")
    world.run()
    if not is_ended:
        story.until("SUBMITTING unknown")
        story.let_the_time_limit_pass()
    story.assert_right(REFUNDED if is_ended else UNSEEN, posts=0)


def waits_for_its_own_breaker(world: World, armed: str) -> None:
    """fal takes nothing of the account, until the job itself is what comes back while that pauses."""
    story = Story(world, f"[submit:429x{OWN_FAILURES_MAX}]")
    world.process.arm(armed)
    story.start()
    world.die()
    assert story.disk() == "QUEUED"
    world.run()
    story.assert_right("COMPLETED", posts=1)


def both(operation: str, run: Callable[[World, str], None]) -> list[Case]:
    return [Case(f"{operation}.before_commit", run), Case(f"{operation}.after_commit", run)]


JOB_CASES = [
    *LOST_SUBMITS,
    *ORPHANS,
    *LOOKS,
    *ENDS,
    *CANCELS,
    *both("record_waiting", waits_for_the_breaker),
    *(Case(case.point, case.run, "after too long") for case in both("release", waited_for_too_long)),
    *both("put_off_submissions", waits_for_its_own_breaker),
]
