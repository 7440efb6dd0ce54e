"""The key pair of the webhooks: fal's signature and key set."""

import base64
import hashlib
import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


class SigningKey:
    def __init__(self, private_key: Ed25519PrivateKey | None = None) -> None:
        self._private_key = private_key or Ed25519PrivateKey.generate()

    @classmethod
    def kept_in(cls, path: Path) -> "SigningKey":
        """The key of an earlier start, since clients keep the key set for up to a day; at first a fresh one."""
        if not path.exists():
            key = cls()
            key._write(path)
            return key
        private_key = load_pem_private_key(path.read_bytes(), password=None)
        assert isinstance(private_key, Ed25519PrivateKey)
        return cls(private_key)

    @property
    def jwk(self) -> dict[str, str]:
        """The public half, named by its thumbprint (RFC 7638)."""
        members = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(self._private_key.public_key().public_bytes_raw())}
        canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
        return members | {"kid": _base64url(hashlib.sha256(canonical).digest())}

    def signature(self, request_id: str, user_id: str, timestamp: str, body: bytes) -> str:
        message = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest()))
        return self._private_key.sign(message.encode()).hex()

    def _write(self, path: Path) -> None:
        pem = self._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # Renamed when it is complete: a kill leaves no half of a key.
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        unfinished.rename(path)


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
