import pytest

from simulator.behaviours import ORDINARY, WORDS, behaviour_of, help_text


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
    assert behaviour.submit_refusal is not None
    assert (behaviour.submit_refusal.answer.status_code, behaviour.submit_refusal.times) == (429, 2)
