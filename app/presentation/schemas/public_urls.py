"""URLs of public servers, as far as the text alone can tell: nothing is resolved here.

A URL is taken apart by one regular expression, with nothing between `//` and the path but a host name and a port.
"""

import re
from urllib.parse import quote

from app.presentation.schemas.public_hosts import NotPublic, public_host

URL_LENGTH_MAX = 2048
# Printable ASCII without # and \, the latter because some parsers read it as another /.
_PATH = r'([/?][!-"$-\[\]-~]*)?'
_HOST_PATTERN = r"([A-Za-z0-9_-]+\.)+[A-Za-z][A-Za-z0-9-]*"
URL_PATTERN = rf"https?://{_HOST_PATTERN}(:80|:443)?{_PATH}"
# From 1 to 65535.
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
HTTPS_URL_PATTERN = rf"https://{_HOST_PATTERN}(:{_PORT})?{_PATH}"
_URL = re.compile(URL_PATTERN.replace("(:80|:443)?", "(:[0-9]{1,5})?"), re.ASCII | re.IGNORECASE)
LOOPBACK_URL = re.compile(rf"http://(127\.0\.0\.1|localhost|\[::1\])(:{_PORT})?{_PATH}", re.ASCII | re.IGNORECASE)
_PARTS = re.compile(
    r"(?P<scheme>https?://)(?P<host>\[[^\]]*\]|[^/?#:\[\]]*)(?P<port>:[^/?#]*)?(?P<path>[/?].*)?", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TOO_LONG = f"The URL must have at most {URL_LENGTH_MAX} characters, percent-encoded."
PORTS = ("", ":80", ":443")
PORT_MAX = 65_535


def public_url(given: str, *, takes_any_port: bool = False) -> str:
    """The URL in ASCII; unchanged if it was that already. Raises NotPublic."""
    _refuse_characters(given)
    parts = _PARTS.fullmatch(given)
    if parts is None:
        raise NotPublic(
            "This must be a URL that begins with https:// or http://, a data: URI, file:<file_id> or output:<job_id>/0."
        )
    if "@" in parts["host"] or "@" in (parts["port"] or ""):
        raise NotPublic("The URL must not have a user name or password in it.")
    host = public_host(parts["host"])
    port = parts["port"] or ""
    if not takes_any_port and port not in PORTS:
        raise NotPublic("The URL must use port 80 or 443, or name none.")
    if port[1:].isdecimal() and not 0 < int(port[1:]) <= PORT_MAX:
        raise NotPublic("The URL has a port that does not exist.")
    path = parts["path"] or ""
    # What is ASCII already stays as it is: it may be percent-encoded, and a signature may be over it.
    path = re.sub(r"[^!-~]+", lambda run: quote(run[0], safe=""), path)
    url = f"{parts['scheme']}{host}{port}{path}"
    if len(url) > URL_LENGTH_MAX:
        raise NotPublic(_TOO_LONG)
    if not _URL.fullmatch(url):
        raise NotPublic("This is not a URL of a public server.")
    return url


def _refuse_characters(given: str) -> None:
    if len(given) > URL_LENGTH_MAX:
        raise NotPublic(_TOO_LONG)
    if _CONTROL.search(given):
        raise NotPublic("The URL has a line break or another control character in it.")
    if "#" in given:
        raise NotPublic("The URL must not have a fragment: leave out the # and what follows.")
    if "\\" in given:
        raise NotPublic("The URL must not have a backslash in it.")
