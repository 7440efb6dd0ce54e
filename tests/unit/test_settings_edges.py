import pytest

from app.infrastructure.process import TooFewDescriptors, connections_within
from app.infrastructure.settings import SettingsError, load_settings
from tests.unit.settings_environment import SIGNING_SECRET, WEBHOOK_SECRET

OF_OUR_OWN = {"payment_webhook_secret": WEBHOOK_SECRET, "signing_secret": SIGNING_SECRET}
pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("0:0:0:0:0:0:0:0", "[::1]"),
        ("::ffff:0.0.0.0", "127.0.0.1"),
        ("10.1.2.3", "10.1.2.3"),
        ("fd00::1", "[fd00::1]"),
        ("service.internal", "service.internal"),
    ],
)
def test_no_link_leads_to_the_unspecified_address(host: str, shown: str) -> None:
    settings = load_settings(host=host, port=8001, root_path="/ai", **OF_OUR_OWN)

    assert settings.links_url == f"http://{shown}:8001/ai"


@pytest.mark.parametrize(("given", "path"), [("/ai", "/ai"), ("/ai/v2/", "/ai/v2"), ("/a.b~c_d-e", "/a.b~c_d-e")])
def test_reads_a_root_path(given: str, path: str) -> None:
    assert load_settings(root_path=given).root_path == path


@pytest.mark.parametrize(
    "given", ["ai", "/", "//ai", "/ai//v2", "/a b", "/ai?x", "/../ai", "/ai/.", "https://a/ai", "/%61"]
)
def test_refuses_what_is_no_root_path(given: str) -> None:
    with pytest.raises(SettingsError, match="ROOT_PATH"):
        load_settings(root_path=given)


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("https://app.example.com", ("https://app.example.com",)),
        (" https://A.example.com/ ,http://localhost:5173, ", ("https://a.example.com", "http://localhost:5173")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
    ],
)
def test_reads_origins(given: str, origins: tuple[str, ...]) -> None:
    assert load_settings(cors_origins=given).cors_origins == origins


@pytest.mark.parametrize(
    "given", ["*", "null", "app.example.com", "https://a/b", "https://*.a.com", "https://a b", "ftp://a"]
)
def test_refuses_what_is_no_origin(given: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ORIGINS"):
        load_settings(cors_origins=given)


@pytest.mark.parametrize("given", [0, 3601, "soon"])
def test_refuses_an_idle_time_that_helps_nobody(given: object) -> None:
    with pytest.raises(SettingsError, match="KEEP_ALIVE_SECONDS"):
        load_settings(keep_alive_seconds=given)


@pytest.mark.parametrize(
    ("descriptors", "connections"), [(128, 32), (256, 64), (1_024, 256), (8_192, 6_892), (65_536, 20_000)]
)
def test_leaves_descriptors_for_the_runner(descriptors: int, connections: int) -> None:
    assert connections_within(descriptors) == connections


def test_does_not_start_with_next_to_no_descriptors() -> None:
    with pytest.raises(TooFewDescriptors, match="may open 64 files, but needs 128"):
        connections_within(64)
