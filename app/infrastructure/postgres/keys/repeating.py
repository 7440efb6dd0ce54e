"""Changes whose COMMIT may get no answer."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.domain.errors import CommitUnknown, Unavailable

T = TypeVar("T")


async def until_known(write: Callable[[], Awaitable[T]], again: Callable[[], Awaitable[T]] | None = None) -> T:
    """Try again if the COMMIT got no answer: the key may be live, and if it were refused, nobody would know it.

    The second try, `again` where it differs, waits for the account, so for the end of the first one, and finds there
    what that has written. Raises CommitUnknown if it cannot tell either.
    """
    try:
        return await write()
    except CommitUnknown:
        try:
            return await (again or write)()
        except Unavailable as error:
            raise CommitUnknown from error
