"""Links to media: their signature is all that is asked for, so that a page can show what they lead to."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime

# What the key is derived for: what was signed for another purpose is no link.
_PURPOSE = b"media link 1"


class SignedMediaLinks:
    def __init__(self, secrets: Sequence[str]) -> None:
        """The newest first: it signs, and each of them is good."""
        assert secrets, "the settings see to a secret"
        self._keys = [hmac.digest(secret.encode(), _PURPOSE, "sha256") for secret in secrets]

    def query_for(self, media_id: str, expires_at: datetime) -> str:
        expires = int(expires_at.timestamp())
        return f"expires={expires}&signature={_signature(self._keys[0], media_id, expires)}"

    def is_signed(self, media_id: str, expires: int, signature: str) -> bool:
        given = signature.encode("utf-8", "replace")
        return any(hmac.compare_digest(_signature(key, media_id, expires).encode(), given) for key in self._keys)


def _signature(key: bytes, media_id: str, expires: int) -> str:
    # Ids have no line breaks, so that no other pair has this text.
    signed = hmac.digest(key, f"{media_id}\n{expires}".encode(), "sha256")
    return urlsafe_b64encode(signed).rstrip(b"=").decode()
