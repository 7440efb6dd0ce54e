"""The client of fal as several files open and call it."""

import ssl
from typing import Any

from app.application.ports.provider import Provider, ProviderRequest
from app.infrastructure.fal.exchange import HttpLimits
from tests.builders import IMAGES_SHAPE
from tests.fal_stub import MODEL_ID

KEY = "key-id:key-secret"
IMAGE = IMAGES_SHAPE
# To load the certificates of the system for each client takes longer than most tests.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SHORT_LIMITS = HttpLimits(read_seconds=0.2, submit_seconds=0.4, exchange_seconds=0.4)


async def submit(client: Provider, **parameters: Any) -> ProviderRequest:
    return await client.submit(MODEL_ID, {"prompt": "a lighthouse", **parameters})
