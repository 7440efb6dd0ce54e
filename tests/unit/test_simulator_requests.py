import math

from simulator.answers import infrastructure_error
from simulator.behaviours import behaviour_of
from simulator.requests import Outcome, Phase, QueueRequest, RequestStore


def a_request(request_id: str, started_at: float = 10, ended_at: float = 20, prompt: str = "") -> QueueRequest:
    return QueueRequest(
        request_id=request_id,
        endpoint_id="fal-ai/wan-25-preview/text-to-image",
        app_id="fal-ai/wan-25-preview",
        base_url="http://127.0.0.1:9000",
        input={},
        behaviour=behaviour_of(prompt),
        attempt=None,
        key_id="id",
        submitted_at=0,
        started_at=started_at,
        ended_at=ended_at,
    )


def test_moves_on_with_the_clock() -> None:
    request = a_request("a")

    assert [request.phase(now) for now in (0, 10, 19, 20)] == [
        Phase.IN_QUEUE,
        Phase.IN_PROGRESS,
        Phase.IN_PROGRESS,
        Phase.COMPLETED,
    ]


def test_counts_who_waits_ahead() -> None:
    store = RequestStore(requests_kept=10)
    first, stuck, second, third = (
        a_request("a", started_at=10),
        a_request("b", math.inf, math.inf, prompt="[stuck]"),
        a_request("c", started_at=11),
        a_request("d", started_at=12),
    )
    for request in (first, stuck, second, third):
        store.add(request, now=0)

    assert [store.position(request, 0) for request in (first, stuck, second, third)] == [0, 0, 1, 2]
    assert [store.position(request, 10.5) for request in (stuck, second, third)] == [0, 0, 1]
    second.outcome = Outcome(infrastructure_error("client_cancelled"))
    assert store.position(third, 10.5) == 0
    assert store.waiting_count(10.5) == 1


def test_forgets_the_oldest_finished_request_when_there_are_too_many() -> None:
    store = RequestStore(requests_kept=2)
    for request in (a_request("running", 0, 100), a_request("finished", 0, 1), a_request("new", 5, 6)):
        store.add(request, now=5)

    assert store.find("finished") is None
    assert [request.request_id for request in store.newest()] == ["new", "running"]
