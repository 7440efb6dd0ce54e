"""What the connections to fal trust."""

import ssl
from pathlib import Path

import certifi
import httpx
import pytest

from app.infrastructure.egress import Egress


def test_checks_certificates_as_httpx_does() -> None:
    ours, theirs = Egress().verifying_tls(), httpx.create_ssl_context(trust_env=False)

    for name in ("verify_mode", "check_hostname", "verify_flags", "minimum_version", "maximum_version", "options"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_ca_certs(binary_form=True) == theirs.get_ca_certs(binary_form=True)
    assert ours.get_ciphers() == theirs.get_ciphers()


def test_refuses_what_is_not_certified_for_the_host_and_old_tls() -> None:
    context = Egress().verifying_tls()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_trusts_certifis_list_whatever_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    expected = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    expected.load_verify_locations(certifi.where())

    assert Egress().verifying_tls().get_ca_certs(binary_form=True) == expected.get_ca_certs(binary_form=True) != []
