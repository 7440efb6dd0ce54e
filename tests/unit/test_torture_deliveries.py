"""What the torture says of webhooks must be able to fail: by each kind of broken delivery."""

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import pytest
from standardwebhooks import Webhook

from torture.delivery_owners import Endpoint
from torture.delivery_receiver import GONE_EVERY, Hook, Mood, Receipt, Receiver, open_receiver
from torture.delivery_truth import Delivered, delivery_checks
from torture.event_truth import Told, Truth

MISSED = "webhooks: nothing is missed"
OTHERWISE = "webhooks: nothing is told that the log has not, or otherwise"
SIGNED = "every signature is right, and each webhook-id is its event's"
FOREIGN = "each webhook is of its own account, and wanted"
ORDER = "a job's next webhook comes once those before it were taken"
SAID = "what is said to be delivered was taken"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BEFORE = Told(5, "balance.credited", "first")
LOG = [
    BEFORE,
    Told(10, "generation.submitted", "job"),
    Told(20, "generation.started", "job"),
    Told(30, "balance.low", "145 below or above 150"),
    Told(40, "generation.completed", "job"),
]


@dataclass
class Case:
    """An endpoint that has everything since it was made, and one of a job, for a test to spoil."""

    all: Hook = field(default_factory=lambda: Hook("user", Mood.STEADY))
    of_job: Hook = field(default_factory=lambda: Hook("user", Mood.OF_JOBS))
    receiver: Receiver = field(default_factory=lambda: Receiver("seed"))
    missed: list[tuple[int, int]] = field(default_factory=list)
    exhausted: set[int] = field(default_factory=set)
    said: set[int] = field(default_factory=lambda: {10, 20})

    def __post_init__(self) -> None:
        self.all.receipts += [Receipt(told, is_accepted=True) for told in LOG[1:]]
        self.of_job.receipts.append(Receipt(LOG[4], is_accepted=True))

    def refuse(self, number: int) -> None:
        self.all.receipts[number] = self.all.receipts[number]._replace(is_accepted=False)

    def broken_claims(self) -> set[str]:
        delivered = [
            Delivered(Endpoint(self.all, BEFORE.seq, self.missed), self.exhausted, (), self.said),
            Delivered(Endpoint(self.of_job, BEFORE.seq), (), {"job"}, ()),
        ]
        checks = delivery_checks(delivered, self.receiver, Truth({}, {}, {}, {"user": LOG}))
        assert all(check.examined for check in checks)
        return {check.claim for check in checks if check.violations}


def lose_one(case: Case) -> None:
    del case.all.receipts[2]


def take_none(case: Case) -> None:
    case.refuse(2)


def lose_that_of_a_job(case: Case) -> None:
    case.of_job.receipts.clear()


def get_what_was_before(case: Case) -> None:
    case.all.receipts.append(Receipt(BEFORE, is_accepted=False))


def get_what_is_not_there(case: Case) -> None:
    case.all.receipts.append(Receipt(Told(999, "balance.low", "of somebody else"), is_accepted=True))


def get_it_otherwise(case: Case) -> None:
    told = case.all.receipts[2].told._replace(subject="144 below or above 150")
    case.all.receipts[2] = Receipt(told, is_accepted=True)


def stray(case: Case) -> None:
    case.receiver.strays.append("/nobody")


def get_a_start_of_a_job(case: Case) -> None:
    case.of_job.receipts.append(Receipt(LOG[2], is_accepted=True))


def forge(case: Case) -> None:
    case.all.refused.append("a signature")


def come_too_early(case: Case) -> None:
    receipts = case.all.receipts
    receipts[1], receipts[3] = receipts[3], receipts[1]


def come_while_another_is_refused(case: Case) -> None:
    case.refuse(1)
    case.all.receipts.append(case.all.receipts[1]._replace(is_accepted=True))


def say_too_much(case: Case) -> None:
    case.refuse(0)


BREAKS: dict[Callable[[Case], None], set[str]] = {
    lose_one: {MISSED},
    take_none: {MISSED},
    lose_that_of_a_job: {MISSED},
    get_what_was_before: {FOREIGN},
    get_what_is_not_there: {FOREIGN, OTHERWISE},
    get_it_otherwise: {FOREIGN, OTHERWISE, MISSED},
    stray: {FOREIGN},
    get_a_start_of_a_job: {FOREIGN, OTHERWISE},
    forge: {SIGNED},
    come_too_early: {ORDER},
    come_while_another_is_refused: {ORDER},
    say_too_much: {MISSED, SAID, ORDER},
}


def come_again(case: Case) -> None:
    case.all.receipts += case.all.receipts[:2]


def come_again_after_a_refusal(case: Case) -> None:
    case.all.receipts.append(case.all.receipts[3])
    case.refuse(3)


def give_up(case: Case) -> None:
    case.refuse(2)
    case.exhausted.add(30)


def give_up_and_go_on(case: Case) -> None:
    case.refuse(1)
    case.exhausted.add(20)
    case.said.remove(20)


def replay(case: Case) -> None:
    come_too_early(case)
    case.missed.append((15, 20))


@pytest.mark.parametrize(("spoil", "claims"), BREAKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_broken_deliveries_are_noticed(spoil: Callable[[Case], None], claims: set[str]) -> None:
    case = Case()

    spoil(case)

    assert case.broken_claims() == claims


@pytest.mark.parametrize("happen", [come_again, come_again_after_a_refusal, give_up, give_up_and_go_on, replay])
def test_what_may_happen_breaks_no_claim(happen: Callable[[Case], None]) -> None:
    case = Case()

    happen(case)

    assert case.broken_claims() == set()


def test_moods_are_bad_until_all_are_well() -> None:
    rng = random.Random(1)
    told = LOG[1]
    for mood in (Mood.FAILING, Mood.GONE, Mood.HANGING, Mood.OF_JOBS, Mood.DOWN):
        hook = Hook("user", mood, receipts=[])
        answers: set[int | None] = set()
        for _ in range(10 * GONE_EVERY):
            answers.add(hook.status(told.seq, rng))
            hook.receipts.append(Receipt(told, is_accepted=False))
        assert answers - {200, 204}, mood
        hook.is_well = True
        assert {hook.status(told.seq, rng) for _ in range(100)} == {200, 204}


def signed(secret: str, event: dict[str, object], name: str) -> tuple[str, dict[str, str]]:
    body = json.dumps(event)
    headers = {"webhook-id": name, "webhook-timestamp": str(int(time.time()))}
    headers["webhook-signature"] = Webhook(secret).sign(name, datetime.now(UTC), body)
    return body, headers


async def test_the_receiver_takes_what_is_signed_for_it() -> None:
    event: dict[str, object] = {"id": "evt_7", "seq": 7, "type": "generation.started", "data": {"job_id": "one"}}
    async with open_receiver("seed") as receiver, aiohttp.ClientSession() as session:
        hook = Hook("user", Mood.STEADY)
        url = receiver.add(hook)

        async def post(to: str, secret: str, name: str = "evt_7") -> int:
            body, headers = signed(secret, event, name)
            async with session.post(to, data=body, headers=headers) as response:
                return response.status

        assert await post(url, SECRET) == 503
        hook.secret = SECRET
        assert await post(url, SECRET) in {200, 204}
        assert await post(url, SECRET[:-1] + "x") == 401
        assert await post(url, SECRET, "evt_8") == 401
        assert await post(f"{receiver.url}/nobody", SECRET) == 404

    assert hook.receipts == [Receipt(Told(7, "generation.started", "one"), is_accepted=True)]
    assert (len(hook.refused), len(receiver.strays)) == (2, 1)
