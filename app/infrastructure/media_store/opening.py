"""Opens the store that a URL names.

Buckets get their credentials, region and endpoint from the environment, by the names that every tool takes:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL, the roles of containers and machines, and
their like at Google and Azure (AZURE_STORAGE_ACCOUNT_NAME).
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from app.application.ports.media_store import MediaStore
from app.infrastructure.media_store.bucket import COMPLETE_SECONDS, Bucket
from app.infrastructure.media_store.folder import Folder
from app.infrastructure.media_store.presigning import Presigner
from app.infrastructure.media_store.reasons import unavailable
from app.infrastructure.media_store.urls import folder_of

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

# The one that counts stands first.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
# A silent store is given up after READ_SECONDS, because nothing is tried again later than RETRY_SECONDS after the first
# time; one that refuses is tried twice more.
CONNECT_SECONDS = 3
READ_SECONDS = 8
RETRY_SECONDS = 4
# Of a whole answer. It is only there because there must be one: a slow reader takes as long as he takes.
_ANSWER_SECONDS = 86_400


def open_store(url: str) -> MediaStore:
    """`url` is one that `checked_store_url` lets through. Raises StoreUnavailable, and asks no bucket anything yet."""
    folder = folder_of(url)
    if folder is not None:
        return Folder(folder)
    try:
        store, uploads = _open(url, READ_SECONDS), _open(url, COMPLETE_SECONDS)
    except (BaseError, OSError, ValueError) as error:
        raise unavailable(error) from error
    return Bucket(store, uploads, _presigner() if isinstance(store, S3Store) else None)


def _open(url: str, read_seconds: int) -> S3Store | GCSStore | AzureStore:
    store = from_url(url, client_options=_client_options(read_seconds), retry_config=_retry_config())
    assert isinstance(store, S3Store | GCSStore | AzureStore), "the settings let no other URL through"
    return store


def _client_options(read_seconds: int) -> "ClientConfig":
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    return {
        # Only where the operator says so.
        "allow_http": endpoint.lower().startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=read_seconds),
        "timeout": timedelta(seconds=_ANSWER_SECONDS),
    }


def _retry_config() -> "RetryConfig":
    return {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(milliseconds=200),
            "max_backoff": timedelta(seconds=1),
            "base": 2,
        },
    }


def _presigner() -> Presigner | None:
    """None for the credentials of a role: they change, and obstore keeps them to itself."""
    access_key_id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return Presigner(access_key_id, secret) if access_key_id and secret else None
