"""The URLs of stores, as the operator writes them: what they may say, and which folder one names."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_BUCKET = re.compile(r"(?:s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*/?", re.ASCII)
_FORMS = "file:///absolute/path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


def checked_store_url(text: str) -> str:
    """Raises ValueError, whose message does not quote the text: it may hold a password."""
    try:
        parts = urlsplit(text)
        has_credentials = "@" in parts.netloc
    except ValueError:
        raise ValueError(f"must be {_FORMS}") from None
    if has_credentials:
        raise ValueError("must not hold credentials: those of S3 are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    is_folder = text.startswith("file:///") and text.isprintable() and not (parts.query or parts.fragment)
    if not is_folder and not _BUCKET.fullmatch(text):
        raise ValueError(f"must be {_FORMS}")
    if {".", ".."} & set(unquote(parts.path).split("/")):
        raise ValueError("must not have . or .. between its slashes")
    return text


def folder_of(url: str) -> Path | None:
    """None for what is not a folder."""
    return Path(unquote(urlsplit(url).path)) if url.startswith("file:///") else None
