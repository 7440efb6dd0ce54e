"""Where webhooks go: https to a public host. In development also to a program on this machine.

What the name leads to is looked at when something is sent, each time anew.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from app.presentation.schemas.media_urls import ValidationContext
from app.presentation.schemas.public_hosts import NotPublic
from app.presentation.schemas.public_urls import HTTPS_URL_PATTERN, LOOPBACK_URL, URL_LENGTH_MAX, public_url

_OF_THIS_MACHINE = re.compile(r"http://([^/?#]*@)?(127\.0\.0\.1|localhost|\[::1\])(?![\w.-])", re.ASCII | re.IGNORECASE)


def checked_url(given: str, *, allows_loopback: bool) -> str:
    """The URL in ASCII, its scheme and host in lower case. Raises NotPublic."""
    text = given.strip()
    if allows_loopback and LOOPBACK_URL.fullmatch(text):
        return _lowered(text)
    if allows_loopback and _OF_THIS_MACHINE.match(text):
        raise NotPublic("A URL of this machine may have a port from 1 to 65535, a path and a query, and nothing else.")
    if not text.lower().startswith("https://"):
        raise NotPublic("The URL must begin with https://.")
    return _lowered(public_url(text, takes_any_port=True))


def _lowered(url: str) -> str:
    """Two spellings of one server would be two queues. The standard port is left out for the same reason."""
    scheme, rest = url.split("://", 1)
    host = re.split(r"[/?]", rest, maxsplit=1)[0]
    standard_port = ":443" if scheme.lower() == "https" else ":80"
    return f"{scheme.lower()}://{host.lower().removesuffix(standard_port)}{rest[len(host) :]}"


def webhook_url_as_taken(value: str) -> str:
    """What the field makes of a URL that it takes. Any other stays as it is."""
    try:
        return checked_url(value, allows_loopback=True)
    except NotPublic:
        return value


def _webhook_url(value: str, info: ValidationInfo) -> str:
    context: ValidationContext | None = info.context
    try:
        return checked_url(value, allows_loopback=context is not None and context["allow_private_media_urls"])
    except NotPublic as error:
        raise PydanticCustomError("url_not_allowed", "URL", {"reason": str(error)}) from None


WebhookUrl = Annotated[
    str,
    AfterValidator(_webhook_url),
    # What always works. What is written otherwise is put right where its meaning is clear.
    Field(max_length=URL_LENGTH_MAX, json_schema_extra={"pattern": f"^{HTTPS_URL_PATTERN}$"}),
]
