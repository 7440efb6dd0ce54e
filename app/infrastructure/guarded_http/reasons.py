"""Why no answer came, in words for the customer who owns the URL: nothing of them is secret or internal."""

import errno
import ssl
from typing import Self

import aiohttp

from app.infrastructure.guarded_http.lookups import NotPermitted

# OpenSSL's X509_V_ERR_*, as SSLCertVerificationError.verify_code gives them.
_EXPIRED = 10
_OF_ANOTHER_HOST = (62, 64)
_WITHOUT_MEANS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# The first that fits counts, so that the narrower come first.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (NotPermitted, "The host leads to an address that is not public."),
    (aiohttp.ClientConnectorDNSError, "The name could not be resolved."),
    (aiohttp.ClientProxyConnectionError, "This service found no way out."),
    (aiohttp.ClientHttpProxyError, "The host could not be reached."),
    (ConnectionRefusedError, "The connection was refused."),
    (aiohttp.ClientSSLError, "No TLS connection could be made."),
    (aiohttp.ClientConnectorError, "The host could not be reached."),
    (aiohttp.ClientResponseError, "What came was not an answer of HTTP."),
    (aiohttp.ClientPayloadError, "The answer broke off."),
    # What is left of aiohttp's errors: the host closed the connection.
    (aiohttp.ClientError, "The connection broke before the answer came."),
    (OSError, "The host could not be reached."),
)


class NotReached(Exception):
    """No answer came, or not all of it. `reason` is one sentence for who owns the URL, whose fault it may not be."""

    def __init__(self, reason: str, *, is_own_fault: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_own_fault = is_own_fault

    @classmethod
    def because_of(cls, error: Exception) -> Self:
        return cls(reason_of(error), is_own_fault=is_own_fault(error))


class TooLong(NotReached):
    """There is more to the body than the caller takes."""


def reason_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _of_certificate(error.certificate_error)
    below = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    # A proxy that refuses us is not the customer's host.
    is_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
    candidates = (error,) if is_proxy else (error, below)
    reasons = (reason for kind, reason in _REASONS if any(isinstance(candidate, kind) for candidate in candidates))
    return next(reasons, "The connection broke before the answer came.")


def is_own_fault(error: Exception) -> bool:
    """There was no way out, or nothing to go it with: the host has done nothing wrong."""
    below = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    is_without_means = isinstance(below, OSError) and below.errno in _WITHOUT_MEANS
    return isinstance(error, aiohttp.ClientProxyConnectionError) or is_without_means


def _of_certificate(error: Exception) -> str:
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else None
    if code in _OF_ANOTHER_HOST:
        return "The certificate is not valid for the host."
    if code == _EXPIRED:
        return "The certificate has expired."
    return "The certificate is not from an authority that is trusted, or lacks one of those in between."
