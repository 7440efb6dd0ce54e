import pytest

from simulator.behaviours import ORDINARY, WORDS, behaviour_of, help_text
from simulator.faults import FaultyCall


@pytest.mark.parametrize("usage", [word.usage for word in WORDS])
def test_reads_every_word_of_the_table(usage: str) -> None:
    assert behaviour_of(f"a boat {usage} at sea").words == (usage,)
    assert usage in help_text()


@pytest.mark.parametrize(
    "prompt",
    [
        "a boat",
        "[boat]",
        "[slow]",
        "[slow:soon]",
        "[slow:-1]",
        "[stuck:1]",
        "[fail:200]",
        "[submit:200]",
        "[submit]",
        "[submit:drop:1]",
        "[submit:hang:soon]",
        "[submit:without]",
        "[submit:99]",
        "[submit:429y2]",
        "[submit:sometimes]",
        "[status:302]",
        "[result:200]",
        "[cancel:large:x]",
        "[webhook:drop]",
        "[webhook:429]",
        "[webhook]",
        "[webhook:sometimes]",
        "[webhook:delay]",
        "[webhook:duplicate:1]",
        "[webhook:duplicate:101]",
        "[nsfw:x]",
        None,
        7,
    ],
)
def test_takes_anything_else_as_ordinary_text(prompt: object) -> None:
    assert behaviour_of(prompt) == ORDINARY


def test_combines_words() -> None:
    behaviour = behaviour_of("[slow:1.5] [partial:2] [nsfw:1,3] [submit:429x2]")

    assert (behaviour.run_seconds, behaviour.images_max) == (1.5, 2)
    assert [behaviour.flags(number) for number in (1, 2, 3)] == [True, False, True]
    (fault,) = behaviour.faults
    assert fault.refusal is not None
    assert (fault.operation, fault.refusal.status_code, fault.calls_max) == ("submit", 429, 2)


def test_combines_words_that_share_a_name() -> None:
    behaviour = behaviour_of("[submit:hang:2] [submit:drop] [webhook:delay:1.5] [webhook:duplicate:10] [webhook:stale]")

    call = FaultyCall(behaviour.faults)
    assert (call.hang_seconds, call.is_dropped, call.refusal) == (2, True, None)
    assert (behaviour.webhook_delay_seconds, behaviour.webhook_copies, behaviour.webhook_is_stale) == (1.5, 10, True)
