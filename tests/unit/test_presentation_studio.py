"""The page at `/`: what is served of it, by which policy, and who may have a key made."""

import gzip
import re
from collections.abc import AsyncIterator
from math import prod
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.domain.files import FILE_BYTES_MAX
from app.presentation.http.api import create_api
from app.presentation.http.studio import DIRECTORY
from tests.builders import BUILT_IN
from tests.unit.presentation_stand_ins import problem_of

KEY = "tgk_" + "x" * 49
OWN = {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}
# As it is sent. Twice that before the first picture is what the page may weigh at most, with its requests and answers.
WEIGHT_BYTES_MAX = 100_000


def api_of(*, has_newcomers: bool = True, root_path: str = "") -> FastAPI:
    async def welcome() -> str:
        return KEY

    api = create_api(BUILT_IN, version="1", has_newcomers=has_newcomers, root_path=root_path)
    api.state.welcome = welcome
    return api


def client_of(api: FastAPI, address: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(api, client=(address, 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(api_of()) as client:
        yield client


def policy_of(page: httpx.Response) -> dict[str, str]:
    return dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))


def loaded_by(page: httpx.Response) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]+)"', page.text)


async def test_the_page_loads_nothing_inline_and_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/")

    policy = policy_of(page)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "'none'"
    assert policy["img-src"] == policy["media-src"] == "'self'"
    assert (page.headers["referrer-policy"], page.headers["cross-origin-opener-policy"]) == (
        "no-referrer",
        "same-origin",
    )
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "://" not in page.text
    assert "<style" not in page.text
    assert "style=" not in page.text
    assert re.findall(r"<script[^>]*>([^<]*)", page.text) == [""]


async def test_it_shows_what_the_store_serves_itself_and_nothing_else_from_there() -> None:
    """Where MEDIA_REDIRECT sends whoever follows a link to a bucket."""
    api, origin = api_of(), "https://bucket.s3.eu-west-3.amazonaws.com"
    async with client_of(api) as client:
        before = policy_of(await client.get("/"))
        api.state.media_origin = origin
        after = policy_of(await client.get("/"))

    assert after == {**before, "img-src": f"'self' {origin}", "media-src": f"'self' {origin}"}
    assert origin not in str(before)


async def test_what_it_loads_is_there_and_kept_for_a_year(client: httpx.AsyncClient) -> None:
    paths = loaded_by(await client.get("/"))
    assert len(paths) == 4

    for path in paths:
        assert not path.startswith("/")
        answer = await client.get(f"/{path}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert re.match(r"(text/javascript|text/css|image/svg\+xml)", answer.headers["content-type"])


async def test_every_module_imports_what_is_there_and_by_no_other_name_than_a_relative_one() -> None:
    for path in DIRECTORY.rglob("*.js"):
        for name in re.findall(r'(?:from|import)\s*"([^"]+)"', path.read_text(encoding="utf-8")):
            assert name.startswith("./"), f"{path.name} imports {name}"
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


@pytest.mark.parametrize(("language", "other"), [("en", "ru"), ("ru", "en")])
async def test_is_light(language: str, other: str) -> None:
    """For a reader of either language: the other one's sentences are not loaded."""
    files = [path for path in DIRECTORY.rglob("*") if path.suffix in (".js", ".css")]
    weights = {path.name: len(gzip.compress(path.read_bytes(), mtime=0)) for path in files}
    read = {name: weight for name, weight in weights.items() if not name.endswith(f".{other}.js")}

    assert f"text.{language}.js" in read
    assert len(read) < len(weights)
    assert sum(read.values()) <= WEIGHT_BYTES_MAX, read


@pytest.mark.parametrize("name", ["nothing.js", "../api.py", "..%2Fapi.py", "", "vendor"])
async def test_serves_nothing_beside_it(client: httpx.AsyncClient, name: str) -> None:
    directory = loaded_by(await client.get("/"))[0].rpartition("/")[0]

    assert (await client.get(f"/{directory}/{name}")).status_code == 404
    assert (await client.get("/studio/0000000000000000/main.js")).status_code == 404


async def test_works_behind_the_path_of_a_proxy() -> None:
    async with client_of(api_of(root_path="/ai")) as client:
        for path in ("/ai/", "/"):
            page = await client.get(path)
            assert page.status_code == 200
            assert all(loaded.startswith("/ai/studio/") for loaded in loaded_by(page))
        assert (await client.get(loaded_by(page)[0])).status_code == 200


async def test_is_no_part_of_the_document() -> None:
    assert not [path for path in api_of().openapi()["paths"] if path == "/" or path.startswith("/studio")]


async def test_makes_a_key_for_a_page_of_this_machine(client: httpx.AsyncClient) -> None:
    made = await client.post("/studio/newcomers", headers=OWN)
    page = await client.get("/")

    assert (made.status_code, made.json()) == (201, {"api_key": KEY})
    assert made.headers["cache-control"] == "no-store"
    assert 'content="yes"' in page.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1:8000"},
        {**OWN, "Origin": "null"},
        {**OWN, "Origin": "http://127.0.0.1:3000"},
        {**OWN, "Origin": "https://127.0.0.1:8000"},
        {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"},
        {"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"},
        {**OWN, "X-Forwarded-For": "203.0.113.9"},
        {**OWN, "X-Forwarded-Host": "127.0.0.1:8000"},
        {**OWN, "X-Real-IP": "127.0.0.1"},
        {**OWN, "Via": "1.1 proxy"},
        {**OWN, "Forwarded": "for=203.0.113.9"},
    ],
)
async def test_makes_none_for_other_pages_and_names(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.post("/studio/newcomers", headers=headers)

    assert (answer.status_code, problem_of(answer)["code"]) == (403, "loopback_only")


@pytest.mark.parametrize(("address", "made"), [("::1", True), ("::ffff:127.0.0.1", True), ("192.168.1.7", False)])
async def test_makes_one_for_loopback_alone(address: str, made: bool) -> None:
    async with client_of(api_of(), address) as client:
        answer = await client.post("/studio/newcomers", headers=OWN)
        page = await client.get("/")

    assert (answer.status_code == 201) == made
    assert ('content="yes"' in page.text) == made


async def test_has_no_such_route_in_production() -> None:
    async with client_of(api_of(has_newcomers=False)) as client:
        assert (await client.post("/studio/newcomers", headers=OWN)).status_code == 404
        assert 'content="no"' in (await client.get("/")).text


def test_it_knows_how_large_a_file_may_be() -> None:
    (found,) = re.findall(r"const FILE_BYTES_MAX = ([\d *]+);", (DIRECTORY / "media.js").read_text(encoding="utf-8"))

    assert prod(int(factor) for factor in found.split("*")) == FILE_BYTES_MAX


def _sentences(name: str) -> dict[str, str]:
    text = (DIRECTORY / name).read_text(encoding="utf-8")
    return dict(re.findall(r'^  "([^"]+)": (.+),$', text, re.MULTILINE))


def _used(path: Path) -> set[str]:
    return set(re.findall(r'\bt\("([^"]+)"', path.read_text(encoding="utf-8")))


def test_both_languages_have_each_sentence_and_its_words() -> None:
    english, russian = _sentences("text.en.js"), _sentences("text.ru.js")
    of_codes = ("error.", "field.", "job.", "line.")

    assert english.keys() <= russian.keys()
    assert all(name.startswith(of_codes) for name in russian.keys() - english.keys())
    for name, sentence in english.items():
        words = [set(re.findall(r"\{(\w+)\}", text)) for text in (sentence, russian[name])]
        assert words[0] == words[1], name


def test_every_sentence_that_the_page_says_is_in_the_catalogue() -> None:
    english = _sentences("text.en.js")
    used = set[str]().union(*map(_used, DIRECTORY.glob("*.js")))

    assert used
    assert used - english.keys() == set()
