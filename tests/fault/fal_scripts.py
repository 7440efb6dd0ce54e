"""How the jobs of a row go on. Each script leaves every job where its row says it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID, uuid4

from app.application.execution.steps import CANCEL_ORPHANS
from tests.builders import COST_TOKENS, open_account
from tests.fault.fal_world import EVENT_SECONDS_MAX, FAL_KEY, Script, World

AT_ONCE_MAX = 16
RUN_SECONDS = 600
TEXT_TO_IMAGE = "/fal-ai/wan-25-preview/text-to-image"
SENT = frozenset({"SUBMITTED", "SUBMITTING"})
HEARD_AT_ONCE = SENT | {"COMPLETED", "FAILED"}
STATUSES_BY_LOOK = frozenset({"SUBMITTED", "IN_QUEUE", "IN_PROGRESS"})

ForOne = Callable[[World, UUID], Awaitable[None]]


async def for_all(world: World, job_ids: Sequence[UUID], act: ForOne) -> None:
    places = asyncio.Semaphore(AT_ONCE_MAX)

    async def act_in_turn(job_id: UUID) -> None:
        async with places:
            await act(world, job_id)

    await asyncio.gather(*(act_in_turn(job_id) for job_id in job_ids))


def each(act: ForOne) -> Script:
    async def script(world: World, job_ids: Sequence[UUID]) -> None:
        await for_all(world, job_ids, act)

    return script


def then(*scripts: Script) -> Script:
    """One after the other, each for all jobs."""

    async def script(world: World, job_ids: Sequence[UUID]) -> None:
        for part in scripts:
            await part(world, job_ids)

    return script


def advance(seconds: float) -> Script:
    async def script(world: World, _: Sequence[UUID]) -> None:
        await world.advance(seconds)

    return script


def until_status(*statuses: str) -> Script:
    async def act(world: World, job_id: UUID) -> None:
        status = await world.drive(job_id, until_status=frozenset(statuses))
        assert status in statuses, status

    return each(act)


@each
async def to_the_end(world: World, job_id: UUID) -> None:
    await world.drive(job_id)


sent = until_status("SUBMITTED")


@each
async def looks_change_nothing(world: World, job_id: UUID) -> None:
    before = await world.columns(job_id)
    await world.look(job_id, times=3)
    after = await world.columns(job_id)
    assert not after["is_final"], after
    assert after["fal_request_id"] == before["fal_request_id"]


@each
async def is_never_posted_again(world: World, job_id: UUID) -> None:
    posts = len(await world.posts_of(job_id))
    await world.submit(job_id)
    # Not even where the process that posted it seems to be gone.
    await world.set_back(job_id, "claimed_at", 3600)
    await world.submit(job_id)
    assert len(await world.posts_of(job_id)) == posts


@each
async def pass_the_deadline(world: World, job_id: UUID) -> None:
    await world.pass_the_deadline(job_id)
    await world.look(job_id)


@each
async def is_not_final(world: World, job_id: UUID) -> None:
    assert not await world.is_final(job_id)


unknown = then(until_status("SUBMITTING"), looks_change_nothing, is_never_posted_again)
unknown_until_the_deadline = then(unknown, pass_the_deadline)


def given_up(*, answered: bool) -> Script:
    """Followed in vain: nothing happens before the time limit, nor within the grace after it."""

    async def pass_the_grace(world: World, job_id: UUID) -> None:
        await world.pass_the_grace(job_id, answered=answered)

    return then(
        until_status(*STATUSES_BY_LOOK), looks_change_nothing, pass_the_deadline, is_not_final, each(pass_the_grace)
    )


@each
async def told_to_stop(world: World, job_id: UUID) -> None:
    assert (await world.columns(job_id))["cancel_sent_at"] is not None


def stays_waiting(reason: str, *, posts_max: int) -> Script:
    """Nothing fails, fal is spared more of the same, and everybody says why."""

    async def script(world: World, job_ids: Sequence[UUID]) -> None:
        posts = 0
        for job_id in job_ids:
            for _ in range(posts_max + 3):
                assert await world.submit(job_id), "it must come back"
            columns = await world.columns(job_id)
            assert columns["status"] == "QUEUED"
            assert columns["status_reason"] == f"{reason} (submissions of this account pause)"
            posts += len(await world.posts_of(job_id))
        assert posts == posts_max
        _, check = await world.readiness()
        assert check["ok"]
        assert check["detail"].startswith("submissions go on; those of ")
        assert check["detail"].endswith(f" account(s) pause, of the last one because: {reason}")

    return script


def canceled_at(*statuses: str) -> Script:
    async def ask(world: World, job_id: UUID) -> None:
        await world.cancel(job_id)

    return then(until_status(*statuses), each(ask))


@each
async def pass_the_cancel_grace(world: World, job_id: UUID) -> None:
    await world.set_back(job_id, "cancel_sent_at", 90)
    await world.look(job_id)
    assert not await world.is_final(job_id), "given up before the grace was over"
    await world.set_back(job_id, "cancel_sent_at", 121)
    await world.look(job_id)


posted = until_status(*HEARD_AT_ONCE)


@each
async def heard(world: World, job_id: UUID) -> None:
    """The event alone brings the end: nobody looks."""
    await world.until_final(job_id)


def event_answered(status_code: int) -> Script:
    async def act(world: World, job_id: UUID) -> None:
        assert await world.until_event(job_id) == status_code

    return each(act)


refused_event = then(posted, event_answered(401), is_not_final, to_the_end)


def postponed(reason: str) -> Script:
    """fal seems to have refused the submission."""

    async def act(world: World, job_id: UUID) -> None:
        assert await world.submit(job_id)
        columns = await world.columns(job_id)
        assert (columns["status"], columns["status_reason"]) == ("QUEUED", reason)

    async def script(world: World, job_ids: Sequence[UUID]) -> None:
        # One after the other, and each after the pause of the one before.
        for job_id in job_ids:
            await act(world, job_id)
            await asyncio.sleep(0.05)

    return script


@each
async def has_a_late_result(world: World, job_id: UUID) -> None:
    async with asyncio.timeout(EVENT_SECONDS_MAX):
        while (await world.columns(job_id))["late_result"] is None:  # noqa: ASYNC110 - the database sets no event
            await asyncio.sleep(0.02)


@each
async def the_wrong_event_is_refused(world: World, job_id: UUID) -> None:
    """Signed by fal for a request of ours, but under a token that no job has."""
    own_url = (await world.simulator.get("/_sim/requests", params={"limit": 1})).json()["requests"][0]
    address = own_url["attempt"]["webhook_url"].rpartition("/")[0]
    answer = await world.simulator.post(
        TEXT_TO_IMAGE,
        params={"fal_webhook": f"{address}/{uuid4()}"},
        json={"prompt": "of somebody else"},
        headers={"Authorization": f"Key {FAL_KEY}"},
    )
    request_id = answer.json()["request_id"]
    async with asyncio.timeout(EVENT_SECONDS_MAX):
        while True:
            sent_events = (await world.simulator.get("/_sim/webhooks")).json()["webhooks"]
            codes = [event["status_code"] for event in sent_events if event["request_id"] == request_id]
            if codes:
                break
            await asyncio.sleep(0.05)
    assert codes[-1] == 401
    assert job_id is not None


async def named_like_another(world: World, job_ids: Sequence[UUID]) -> None:
    """fal gives two submissions the same request id. The job that had it first keeps it, and is not disturbed."""
    others = []
    for job_id in job_ids:
        other = await world.accept(f"[slow:{RUN_SECONDS}]", customer=await open_account(world.engine, COST_TOKENS))
        others.append(other)
        await world.drive(other, until_status=frozenset({"SUBMITTED"}))
        request_id = (await world.columns(other))["fal_request_id"]
        await world.submit(job_id)
        columns = await world.columns(job_id)
        assert (columns["status"], columns["fal_request_id"]) == ("SUBMITTING", None)
        assert columns["submit_unknown_at"] is not None
        assert (await world.columns(other))["fal_request_id"] == request_id
    await world.advance(RUN_SECONDS)
    for other in others:
        assert await world.drive(other) == "COMPLETED"


@each
async def posted_a_second_time(world: World, job_id: UUID) -> None:
    assert await world.drive(job_id, until_status=frozenset({"SUBMITTED"})) == "SUBMITTED"


@each
async def orphans_seen_to(world: World, job_id: UUID) -> None:
    await world.step(CANCEL_ORPHANS, job_id)


def delivered_by(number: int) -> Script:
    """The attempt of this number wins: the job has its request, and the other one is an orphan."""

    async def act(world: World, job_id: UUID) -> None:
        columns, rows = await world.columns(job_id), await world.attempts(job_id)
        winner = rows[number - 1]
        assert (columns["status"], columns["attempt_token"]) == ("COMPLETED", winner["token"])
        assert columns["fal_request_id"] == winner["fal_request_id"]
        assert winner["fal_request_id"] in str(columns["result"]), "the pictures of the other run"
        assert winner["orphaned_at"] is None

    return each(act)


def the_other_is_stopped(number: int) -> Script:
    """The run of this attempt is told to stop by a step of its own, and seen to its end."""

    async def act(world: World, job_id: UUID) -> None:
        row = (await world.attempts(job_id))[number - 1]
        assert row["orphaned_at"] is not None
        assert await world.sql.fetchval("SELECT 1 FROM pgqueuer WHERE dedupe_key = $1", f"attempt.cancel:{job_id}")
        await world.step(CANCEL_ORPHANS, job_id)
        row = (await world.attempts(job_id))[number - 1]
        assert None not in (row["cancel_sent_at"], row["closed_at"])
        requests = (await world.simulator.get("/_sim/requests")).json()["requests"]
        told = {request["request_id"]: request["cancel_requested_at"] is not None for request in requests}
        assert told[row["fal_request_id"]]

    return each(act)


def over_and_noted(number: int) -> Script:
    """What this attempt delivered comes too late: it is neither charged nor shown, but known."""

    async def act(world: World, job_id: UUID) -> None:
        async with asyncio.timeout(EVENT_SECONDS_MAX):
            while (await world.attempts(job_id))[number - 1]["closed_at"] is None:  # noqa: ASYNC110 - no event is set
                await asyncio.sleep(0.02)
        row = (await world.attempts(job_id))[number - 1]
        assert row["fal_request_id"] != (await world.columns(job_id))["fal_request_id"]
        assert row["orphaned_at"] is not None
        assert row["cancel_sent_at"] is None, "it is over"
        assert (await world.columns(job_id))["late_result"] is None

    return each(act)
