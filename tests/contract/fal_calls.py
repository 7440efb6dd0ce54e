"""The client of fal as several files open and call it."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from app.application.ports.provider import Provider, ProviderRequest
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.exchange import HttpLimits
from tests.builders import IMAGES_SHAPE
from tests.fal_stub import MODEL_ID, Behaviour, FalStub, drip, hang

KEY = "key-id:key-secret"
IMAGE = IMAGES_SHAPE
# To load the certificates of the system for each client takes longer than most tests.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# A busy machine keeps any short limit waiting, so only the one that a test is about is short.
PATIENT = HttpLimits(connect_seconds=30, pool_seconds=30, read_seconds=30, submit_seconds=30, exchange_seconds=30)
SHORT_READS = replace(PATIENT, read_seconds=0.5)
SHORT_EXCHANGES = replace(PATIENT, submit_seconds=1, exchange_seconds=1)


def limits_for(behaviour: Behaviour) -> HttpLimits:
    """Those that end an answer which never comes or never ends, and no other one."""
    if behaviour is hang:
        return SHORT_READS
    return SHORT_EXCHANGES if behaviour is drip else PATIENT


@asynccontextmanager
async def client_of(stub: FalStub, limits: HttpLimits) -> AsyncIterator[FalClient]:
    async with FalClient.open(queue_url=stub.url, key=KEY, limits=limits, ssl_context=PLAIN) as fal:
        yield fal


async def submit(client: Provider, **parameters: Any) -> ProviderRequest:
    return await client.submit(MODEL_ID, {"prompt": "a lighthouse", **parameters})
