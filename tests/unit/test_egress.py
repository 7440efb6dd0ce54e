"""Through which proxy a request goes, and what is shown of it."""

import json
from pathlib import Path

import pytest

from app.infrastructure.egress import Egress, Proxy, is_this_machine
from app.infrastructure.settings import SettingsError, load_settings
from tests.certificates import self_signed

pytestmark = pytest.mark.usefixtures("bare_environment")

PROXY = Proxy(url="http://proxy:3128")
OTHER = Proxy(url="http://other:3128")


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("https://queue.fal.run/x", "", PROXY),
        ("http://queue.fal.run/x", "", OTHER),
        ("https://queue.fal.run/x", "queue.fal.run", None),
        ("https://queue.fal.run/x", "example.com, QUEUE.fal.run", None),
        ("https://queue.fal.run/x", ".fal.run", None),
        ("https://queue.fal.run/x", "fal.run", None),
        ("https://queue.fal.run/x", "*.fal.run", None),
        ("https://queue.fal.run/x", "*", None),
        ("https://queue.fal.run/x", "al.run", PROXY),
        ("https://queue.fal.run/x", "queue.fal.run:8443", PROXY),
        ("https://queue.fal.run:8443/x", "queue.fal.run:8443", None),
        ("https://queue.fal.run/x", " , ,", PROXY),
        ("https://10.1.2.3/x", "10.0.0.0/8", None),
        ("https://10.1.2.3/x", "192.168.0.0/16", PROXY),
        ("http://127.0.0.1:9000/x", "", None),
        ("http://localhost:9000/x", "", None),
        ("http://[::1]:9000/x", "", None),
    ],
)
def test_chooses_the_proxy(url: str, no_proxy: str, expected: Proxy | None) -> None:
    assert Egress(https_proxy=PROXY, http_proxy=OTHER, no_proxy=no_proxy).proxy_for(url) == expected


@pytest.mark.parametrize(
    "host", ["localhost", "localhost.", "a.localhost", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0"]
)
def test_knows_this_machine(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_reads_the_names_that_everybody_uses(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy:3128")

    assert load_settings().egress.proxy_for("https://queue.fal.run/") == PROXY


@pytest.mark.parametrize("given", ["proxy:3128", " http://proxy:3128/ ", "http://us%65r:p%40ss@proxy:3128"])
def test_takes_a_proxy_as_people_write_it(given: str) -> None:
    assert Proxy.parse(given).url == "http://proxy:3128"


def test_hides_the_credentials_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:p%40ss-4711@proxy:3128")

    settings = load_settings()

    assert settings.https_proxy == Proxy.parse("http://user:p%40ss-4711@proxy:3128")
    assert settings.model_dump(mode="json")["https_proxy"] == "http://proxy:3128 (credentials hidden)"
    assert "4711" not in repr(settings) + str(settings) + json.dumps(settings.model_dump(mode="json"))
    assert "p@ss-4711" in settings.secrets


@pytest.mark.parametrize(
    "value",
    [
        "socks5://user:secret-4711@proxy:1080",
        "https://user:secret-4711@proxy",
        "http://user:secret-4711@proxy:x",
        "http://",
    ],
)
def test_refuses_a_proxy_that_cannot_be_used_without_quoting_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)

    with pytest.raises(SettingsError) as refused:
        load_settings()

    assert str(refused.value).startswith("ALL_PROXY: must be")
    assert "4711" not in str(refused.value)


def test_trusts_whom_the_operator_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = self_signed(tmp_path / "own.pem", "proxy.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(own))

    assert load_settings().egress.verifying_tls().cert_store_stats()["x509"] == 1
    assert Egress().verifying_tls().cert_store_stats()["x509"] > 50


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_refuses_a_file_without_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "none.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    with pytest.raises(SettingsError, match=r"^SSL_CERT_FILE: must be a file"):
        load_settings()
