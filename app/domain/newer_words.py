"""Words that a newer release may have written."""

from enum import StrEnum
from typing import TypeVar

Word = TypeVar("Word", bound=StrEnum)


def known(words: type[Word], text: str) -> Word | str:
    """The word, or the text itself if this release does not know it: it is shown as it is and never acted on."""
    try:
        return words(text)
    except ValueError:
        return text
