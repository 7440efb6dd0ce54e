"""What a secret is made of, and whether somebody could guess it."""

import re
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import parse_qsl, quote, unquote

LENGTH_MIN = 32
# So much of a random secret of LENGTH_MIN characters is always left once everything that follows from what stands
# before it is taken away; of a pattern there is less, however long it is.
_UNFORESEEN_MIN = 16
_DISTINCT_MIN = 6
_REPEAT_LENGTH_MIN = 3
# The search takes the square of it, and what is random is so at its beginning.
_LENGTH_SEARCHED = 256
# For a laptop only; whoever reads the documentation knows it.
DEVELOPMENT_WEBHOOK_SECRET = "development-webhook-secret"  # noqa: S105
_PUBLIC = (DEVELOPMENT_WEBHOOK_SECRET, "changeme", "change-me", "change_me", "openssl rand")

_ROWS = (
    "0123456789abcdef",
    "1234567890",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
)
_NEIGHBOURS = frozenset(pair for row in _ROWS for one, other in pairwise(row) for pair in (one + other, other + one))


def parts_of(secret: str) -> Iterator[str]:
    """The secret, and whatever of it opens something by itself: the password of a DSN, each half of a key of fal."""
    yield secret
    scheme, is_url, rest = secret.partition("://")
    if is_url and scheme.replace("+", "").isalnum():
        yield from _passwords_in(rest)
    elif ":" in secret:
        yield from (half for half in secret.split(":", 1) if half)


def _passwords_in(rest: str) -> Iterator[str]:
    """From what follows the `://`; not by urllib, which gives up where a password was not percent-encoded."""
    # The first is right wherever the URL is.
    for part in (re.split("[/?#]", rest, maxsplit=1)[0], rest):
        yield from _forms_of(part.rpartition("@")[0].partition(":")[2])
    for name, value in parse_qsl(rest.partition("?")[2]):
        if name.lower() in ("password", "sslpassword"):
            yield from _forms_of(value)


def _forms_of(password: str) -> Iterator[str]:
    """As it stands in a URL, and as the driver and its messages have it."""
    plain = unquote(password)
    yield from {form for form in (password, plain, quote(plain, safe="")) if form}


def is_guessable(secret: str) -> bool:
    """Whether it is short, known to the public, or follows a pattern."""
    text = secret.casefold()
    return (
        len(text) < LENGTH_MIN
        or any(known in text for known in _PUBLIC)
        or len(set(text)) < _DISTINCT_MIN
        or _unforeseen(text) < _UNFORESEEN_MIN
    )


def _unforeseen(text: str) -> int:
    """Counts the characters that nobody could foresee: a repeat of what was there before counts as one, and of a row
    of the alphabet, of the digits or of the keyboard only its beginning counts, also where two rows take turns.
    """
    text = text[:_LENGTH_SEARCHED]
    count = place = 0
    while place < len(text):
        length = _repeat_length(text, place)
        if length >= _REPEAT_LENGTH_MIN:
            count += 1
            place += length
        else:
            count += not _goes_on(text, place)
            place += 1
    return count


def _repeat_length(text: str, place: int) -> int:
    """How much from `place` on stands somewhere before, or goes on with itself."""
    longest = 0
    for start in range(place):
        length = 0
        while place + length < len(text) and text[start + length] == text[place + length]:
            length += 1
        longest = max(longest, length)
    return longest


def _goes_on(text: str, place: int) -> bool:
    return any(
        place > distance
        and _are_neighbours(text[place - distance], text[place])
        and _are_neighbours(text[place - distance - 1], text[place - 1])
        for distance in (1, 2)
    )


def _are_neighbours(one: str, other: str) -> bool:
    return one == other or one + other in _NEIGHBOURS
