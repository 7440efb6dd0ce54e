"""Where media are kept, for how long, and whose files are fetched."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from app.infrastructure.media_store.urls import checked_store_url

NO_STORE = "none"
# For so long fal keeps what it made, and a link says so before our copy is there: no time moves to an earlier one.
MEDIA_DAYS_MIN = 3
# An end may be heard of late: after the longest time limit, or once the service is back from an outage of days.
DAYS_TO_HEAR_MAX = 4
# A domain with a dot in it, perhaps with all that are below it; no address, no port.
_HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def _store(url: str) -> str:
    return url if url == NO_STORE else checked_store_url(url)


def _hosts(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    hosts = [host.strip().lower() for host in value.split(",") if host.strip()]
    if not hosts or not all(_HOST.fullmatch(host) for host in hosts):
        # Whoever may put a file there could have it served from here: * alone would be everybody.
        raise ValueError("must be hosts with commas between them, such as fal.media,*.fal.media; * alone is not taken")
    return tuple(hosts)


class MediaSettings(BaseModel):
    media_url: Annotated[str, AfterValidator(_store)] | None = None
    media_days: Annotated[int, Field(ge=MEDIA_DAYS_MIN, le=3650)] = 30
    media_redirect: bool = False
    files_bytes_max: Annotated[int, Field(ge=1, le=2**53 - 1)] = 1024**3
    # Not storage.googleapis.com, where fal had files once: anybody can have a bucket there. Nor fal.ai, which is fal's
    # own pages and API, and no files.
    fal_media_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_hosts)] = ("fal.media", "*.fal.media")
