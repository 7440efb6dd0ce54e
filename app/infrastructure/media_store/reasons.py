"""What obstore's errors mean. It tells little by their types, and everything in their texts."""

import re

from app.application.ports.media_store import StoreUnavailable

# FileNotFoundError also says that there is no bucket. That is nothing about the object: it must not count as lost.
_NO_BUCKET = ("<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>")
# The store's own code for it: the object ends before the range begins.
_BEYOND_THE_END = "<Code>InvalidRange</Code>"
_LENGTH_MAX = 300


def is_missing(error: Exception) -> bool:
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return not any(code in text for code in _NO_BUCKET)
    return _BEYOND_THE_END in text


def unavailable(error: Exception) -> StoreUnavailable:
    """The first line of the text, which has a dump of everything below it, with the code of the store or of the client.

    Without queries, which hold signatures.
    """
    if type(error) is TimeoutError:
        return StoreUnavailable("The store did not answer in time.")
    text = str(error)
    first = re.sub(r"\?\S*", "", text.partition("\n")[0].partition(": <")[0])[:_LENGTH_MAX]
    code = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"\bkind: (\w+)", text)
    return StoreUnavailable(f"{first} ({code[1]})." if code else f"{first}.")
