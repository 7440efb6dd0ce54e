import pytest

from app.infrastructure.fal.urls import QueueUrls, host_of

FAL = "https://queue.fal.run"


@pytest.mark.parametrize(
    "queue_url",
    [
        "",
        "queue.fal.run",
        "ftp://queue.fal.run",
        "https://",
        "https://user:secret@queue.fal.run",
        "https://queue.fal.run?x=1",
        "https://queue.fal.run#x",
        "https://queue.fal.run:port",
        "https://queue.fal.run:65536",
        "https://queue.fal.run:-1",
        "https://queue.fal.run:4_4_3",
        "https://queue.fal.run:\u0664\u0664\u0663",
        "https://:443",
        "https:queue.fal.run",
        "//queue.fal.run",
        "https://:@queue.fal.run",
        "https://:secret@queue.fal.run",
        "https://queue.fal.run@evil.example",
        "https://queue.fal.run:443@evil.example",
        "https://queue.fal.run\\@evil.example",
        "https://evil.example#@queue.fal.run",
        "https://evil.example?@queue.fal.run",
        "https://queue.\nfal.run",
        "https://queue.\tfal.run",
        "\x00https://queue.fal.run",
        "https://queue.fal.run/fal\x7f",
        "http://[::1",
        "http://::1",
        "http://[::1]x",
        "http://evil.example[::1]",
        "http://[::1]@evil.example",
        "http://[127.0.0.1]",
        "http://[localhost]",
        "http://[v1.x]",
        "http://999.0.0.1",
        "http://0127.0.0.1",
        "http://\uff11\uff12\uff17.0.0.1",
        "http://\uff4cocalhost",
        "https://queue\u3002fal.run\u2044x",
        "https://queue\u200b.fal.run",
        "https://\u2603.example",
        "https://xn--n3h.example",
        "https://xn--a",
    ],
)
def test_refuses_an_unusable_queue_url(queue_url: str) -> None:
    with pytest.raises(ValueError, match="the queue URL"):
        QueueUrls(queue_url)


@pytest.mark.parametrize(
    ("queue_url", "submit_url"),
    [
        (FAL, "https://queue.fal.run/fal-ai/flux/dev"),
        ("https://queue.fal.run/", "https://queue.fal.run/fal-ai/flux/dev"),
        ("HTTPS://Queue.Fal.Run", "https://queue.fal.run/fal-ai/flux/dev"),
        ("https://queue.fal.run:443", "https://queue.fal.run/fal-ai/flux/dev"),
        ("HTTPS://queue.fal.run:443", "https://queue.fal.run/fal-ai/flux/dev"),
        ("https://queue.fal.run:", "https://queue.fal.run/fal-ai/flux/dev"),
        (" https://queue.fal.run\n", "https://queue.fal.run/fal-ai/flux/dev"),
        ("https://@queue.fal.run?#", "https://queue.fal.run/fal-ai/flux/dev"),
        ("https://queue.fal.run.", "https://queue.fal.run./fal-ai/flux/dev"),
        ("http://queue.fal.run:443", "http://queue.fal.run:443/fal-ai/flux/dev"),
        ("http://127.0.0.1:80", "http://127.0.0.1/fal-ai/flux/dev"),
        ("http://127.0.0.1:08001", "http://127.0.0.1:8001/fal-ai/flux/dev"),
        ("http://fal_proxy", "http://fal_proxy/fal-ai/flux/dev"),
        ("https://B\u00dcCHER.example:8443", "https://xn--bcher-kva.example:8443/fal-ai/flux/dev"),
        ("https://stra\u00dfe.example", "https://xn--strae-oqa.example/fal-ai/flux/dev"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example/fal-ai/flux/dev"),
        ("http://[fe80::1%25eth0]:8001", "http://[fe80::1%25eth0]:8001/fal-ai/flux/dev"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001/fal-ai/flux/dev"),
        ("http://[::1]:8001", "http://[::1]:8001/fal-ai/flux/dev"),
        ("http://proxy.internal/fal/", "http://proxy.internal/fal/fal-ai/flux/dev"),
    ],
)
def test_submits_to_the_whole_model_id(queue_url: str, submit_url: str) -> None:
    assert QueueUrls(queue_url).submit("fal-ai/flux/dev") == submit_url


@pytest.mark.parametrize(
    ("model_id", "base"),
    [
        ("fal-ai/flux", "https://queue.fal.run/fal-ai/flux/requests/r-1"),
        ("fal-ai/wan-25-preview/text-to-image", "https://queue.fal.run/fal-ai/wan-25-preview/requests/r-1"),
        ("workflows/owner/app", "https://queue.fal.run/workflows/owner/app/requests/r-1"),
        ("comfy/owner/app/sub/path", "https://queue.fal.run/comfy/owner/app/requests/r-1"),
    ],
)
def test_rebuilds_urls_as_fal_forms_them(model_id: str, base: str) -> None:
    request = QueueUrls(FAL).rebuild(model_id, "r-1")
    assert (request.status_url, request.response_url, request.cancel_url) == (f"{base}/status", base, f"{base}/cancel")
    assert all(map(QueueUrls(FAL).is_allowed, (request.status_url, request.response_url, request.cancel_url)))


@pytest.mark.parametrize(
    ("queue_url", "url"),
    [
        (FAL, "https://queue.fal.run/fal-ai/flux/requests/019e1951-c778-7120-8f00-000000000000/status"),
        (FAL, "https://queue.falrun.com/fal-ai/flux/requests/r-1"),
        (FAL, "https://queue.fal.run/a/b/requests/r-1/status?logs=0"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001/a/b/requests/r-1/"),
        ("http://[::1]:8001", "http://[::1]:8001/a/b/requests/r-1"),
    ],
)
def test_allows_the_urls_of_the_queue(queue_url: str, url: str) -> None:
    assert QueueUrls(queue_url).is_allowed(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://queue.fal.run/a",
        "https://queue.fal.run",
        "https://queue.fal.run:8443/a",
        "https://queue.fal.run.evil.example/a",
        "https://queue.fal.run@evil.example/a",
        "https://queue.fal.run:443@evil.example/a",
        "https://queue.fal.run\\@evil.example/a",
        "https://evil.example/https://queue.fal.run/a",
        "https://evil.example#https://queue.fal.run/a",
        "https://queue.fal.run/a b",
        "https://queue.fal.run/a\n",
        "https://queue.fal.run/a\r\nX-Injected: 1",
        "https://queue.fal.run/\u00e9",
        "https://queue.fal.run/a#fragment",
        " https://queue.fal.run/a",
        "//queue.fal.run/a",
        "/a",
        "",
        "https://queue.fal.run/" + "a" * 2048,
        None,
        5,
        b"https://queue.fal.run/a",
        ["https://queue.fal.run/a"],
    ],
)
def test_refuses_every_other_url(url: object) -> None:
    assert not QueueUrls(FAL).is_allowed(url)


@pytest.mark.parametrize("queue_url", ["http://127.0.0.1:8001", "https://proxy.internal"])
def test_knows_fals_own_hosts_only_beside_fals_queue(queue_url: str) -> None:
    assert not QueueUrls(queue_url).is_allowed("https://queue.fal.run/a/b/requests/r-1")
    assert not QueueUrls(queue_url).is_allowed("https://queue.falrun.com/a/b/requests/r-1")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user:secret@evil.example:8443/path?q", "evil.example"),
        ("https://" + "a" * 300, "a" * 255),
        ("http://[::1/x", None),
        ("nothing", None),
        (None, None),
    ],
)
def test_names_the_host_alone(url: object, host: str | None) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize("path", ["/a+b", "/a;b", "/@", "/queue/\u00e9"])
def test_refuses_a_queue_whose_urls_could_never_be_looked_at(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        QueueUrls(f"https://proxy.example.com{path}")
