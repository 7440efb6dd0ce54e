"""One attempt: what is sent, and what is made of what comes back."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks import Webhook

from app.application.deliver import ANSWER_LENGTH_MAX, ATTEMPT_SECONDS_MAX, Deliver
from app.application.ports.webhooks import NotReached, Received
from app.domain.errors import DatabaseUnavailable
from app.domain.events import Event, EventType
from app.domain.webhook_signatures import new_secret
from app.domain.webhooks import Attempt, ClaimedDelivery, DeliveryState, Verdict
from tests.unit.presentation_stand_ins import NOW

EVENT = Event(seq=7, type=EventType.WEBHOOK_TEST, account_id=uuid4(), created_at=NOW, facts={})
CLAIMED = ClaimedDelivery(
    endpoint_id=uuid4(),
    event_seq=EVENT.seq,
    claim=uuid4(),
    account_id=EVENT.account_id,
    is_of_job=False,
    attempts=0,
    url="https://hooks.example.com/",
    secrets=[new_secret()],
    event=EVENT,
)


@dataclass
class Queue:
    recorded: list[tuple[Attempt, Verdict]] = field(default_factory=list)
    failure: Exception | None = None

    async def claim(self, endpoints_max: int, *, leave_out: Collection[UUID]) -> Sequence[ClaimedDelivery]:
        raise NotImplementedError

    async def record(self, delivery: ClaimedDelivery, attempt: Attempt, verdict: Verdict) -> None:
        if self.failure is not None:
            raise self.failure
        self.recorded.append((attempt, verdict))

    async def give_back(self, delivery: ClaimedDelivery) -> None:
        raise NotImplementedError


@dataclass
class Sender:
    answer: Received | NotReached
    sent: list[tuple[str, bytes, Mapping[str, str], dict[str, Any]]] = field(default_factory=list)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, seconds_max: float, owner: UUID | None
    ) -> Received:
        self.sent.append((url, body, headers, {"seconds_max": seconds_max, "owner": owner}))
        if isinstance(self.answer, NotReached):
            raise self.answer
        return self.answer


def message_of(event: Event, external_user_id: UUID | None) -> bytes:
    whose = {} if external_user_id is None else {"of": str(external_user_id)}
    return json.dumps({"id": event.id, **whose}).encode()


async def attempt_on(
    status: int = 500, body: bytes = b"", claimed: ClaimedDelivery = CLAIMED, **headers: str
) -> tuple[Attempt, Verdict]:
    queue = Queue()
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    sender = Sender(Received(status=status, headers=named, body=body))
    verdict = await Deliver(queue, sender, message_of)(claimed)
    assert [verdict] == [recorded for _, recorded in queue.recorded]
    return queue.recorded[0]


async def test_sends_the_message_signed_by_every_secret_in_force() -> None:
    sender, secrets = Sender(Received(status=200, headers={}, body=b"")), [new_secret(), new_secret()]

    await Deliver(Queue(), sender, message_of)(replace(CLAIMED, secrets=secrets))

    ((url, body, headers, more),) = sender.sent
    assert (url, more) == (CLAIMED.url, {"seconds_max": ATTEMPT_SECONDS_MAX, "owner": CLAIMED.account_id})
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-id"] == EVENT.id
    for secret in secrets:
        assert Webhook(secret).verify(body, dict(headers)) == {"id": EVENT.id}


async def test_each_attempt_has_the_same_id_and_a_time_of_its_own() -> None:
    now_seconds = iter([1000.9, 2000.0])
    sender = Sender(Received(status=500, headers={}, body=b""))
    deliver = Deliver(Queue(), sender, message_of, clock=lambda: next(now_seconds))

    for attempts in range(2):
        await deliver(replace(CLAIMED, attempts=attempts))

    heard = [headers for _, _, headers, _ in sender.sent]
    assert [headers["webhook-timestamp"] for headers in heard] == ["1000", "2000"]
    assert {headers["webhook-id"] for headers in heard} == {EVENT.id}
    assert heard[0]["webhook-signature"] != heard[1]["webhook-signature"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_delivered_whatever_it_says(status: int) -> None:
    attempt, verdict = await attempt_on(status, b"<p>thanks", Retry_After="60")

    assert verdict == Verdict(state=DeliveryState.DELIVERED)
    assert (attempt.status, attempt.error, attempt.answer) == (status, None, None)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_that_says_what_to_do(status: int) -> None:
    attempt, verdict = await attempt_on(status, Location="https://elsewhere.example.com/")

    sentence = f"The endpoint answered {status}: redirects are not followed. Change the URL to where it leads."
    assert attempt.error == sentence
    assert verdict.state is DeliveryState.PENDING


async def test_a_failure_is_recorded_with_how_its_answer_begins() -> None:
    attempt, verdict = await attempt_on(500, "Ошибка\x00\x1b[31m\nв\u202e базе".encode() + b"\xff" + b"x" * 1000)

    assert attempt.error == "The endpoint answered 500, and not 2xx."
    assert attempt.answer is not None
    assert attempt.answer.startswith("Ошибка  [31m в  базе\ufffdxxx")
    assert len(attempt.answer) == ANSWER_LENGTH_MAX
    assert attempt.answer.isprintable()
    assert verdict.retry_seconds == pytest.approx(5, rel=0.1)
    assert (await attempt_on(500))[0].answer is None


async def test_an_endpoint_that_cannot_be_reached_is_a_failure_with_its_reason() -> None:
    queue = Queue()

    verdict = await Deliver(queue, Sender(NotReached("No such host.")), message_of)(CLAIMED)

    assert verdict.state is DeliveryState.PENDING
    assert (queue.recorded[0][0].status, queue.recorded[0][0].error) == (None, "No such host.")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("999999999", 999_999_999),
        ("9999999999", None),
        ("-1", None),
        ("1.5", 1.5),
        ("1e3", None),
        ("²", None),
        ("٣", None),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
        ("Sat, 01 Jan 2300 00:00:00 GMT", pytest.approx(8.6e9, rel=0.1)),
        ("Sat, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
async def test_retry_after_is_read_in_both_its_forms(text: str, seconds: float | None) -> None:
    attempt, _ = await attempt_on(503, Retry_After=text)

    assert attempt.retry_after_seconds == seconds


async def test_what_was_answered_410_is_gone() -> None:
    _, verdict = await attempt_on(410)

    assert (verdict.state, verdict.is_gone) == (DeliveryState.PENDING, True)


async def test_an_event_that_is_not_kept_is_given_up_without_a_word() -> None:
    queue, sender = Queue(), Sender(Received(status=200, headers={}, body=b""))

    verdict = await Deliver(queue, sender, message_of)(replace(CLAIMED, event=None))

    assert verdict == Verdict(state=DeliveryState.EXHAUSTED)
    assert sender.sent == []
    assert queue.recorded[0][0].error is not None


async def test_an_event_of_another_account_says_whose_it_is() -> None:
    sender, user = Sender(Received(status=200, headers={}, body=b"")), uuid4()

    await Deliver(Queue(), sender, message_of)(replace(CLAIMED, account_id=None, external_user_id=user))

    assert json.loads(sender.sent[0][1])["of"] == str(user)


async def test_a_message_that_cannot_be_written_is_our_fault_and_tried_again() -> None:
    def broken(event: Event, external_user_id: UUID | None) -> bytes:
        raise KeyError(event.id)

    queue, sender = Queue(), Sender(Received(status=200, headers={}, body=b""))

    verdict = await Deliver(queue, sender, broken)(CLAIMED)

    assert (verdict.state, sender.sent) == (DeliveryState.PENDING, [])
    assert queue.recorded[0][0].error == "The event could not be written as a message: this is our fault."


async def test_an_attempt_that_cannot_be_recorded_is_made_again_later() -> None:
    sender = Sender(Received(status=200, headers={}, body=b""))

    with pytest.raises(DatabaseUnavailable):
        await Deliver(Queue(failure=DatabaseUnavailable()), sender, message_of)(CLAIMED)

    assert len(sender.sent) == 1


async def test_says_how_long_the_answer_took() -> None:
    attempt, _ = await attempt_on(200)

    assert 0 <= attempt.milliseconds < 1000 * ATTEMPT_SECONDS_MAX
