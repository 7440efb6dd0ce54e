"""`python -m app catalogue compare`: what it says of what fal tells over HTTP, true or not."""

import json
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from app.application.ports.provider import ProviderUnavailable
from app.cli import app
from app.domain.models import Model
from app.domain.offers import differences
from app.infrastructure.fal.offers import FalOffers
from tests.contract.fal_calls import PLAIN
from tests.simulator_server import running_simulator
from tests.unit.catalogue_files import MODEL, catalogue_of

KEY = "key:secret"
PAINTER = "house/painter"


@pytest.fixture(scope="module")
def simulator_url() -> Iterator[str]:
    with running_simulator() as url:
        yield url


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAL_KEY", "FAL_API_URL", "CATALOGUE_DIR", "TOKEN_PRICES_JSON", "APP_ENV", "HOST"):
        monkeypatch.setenv(name, "")


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["catalogue", *words], env=environment, terminal_width=200)


def compare(api_url: str, *words: str, **environment: str) -> Result:
    result = run("compare", *words, FAL_KEY=KEY, FAL_API_URL=f"{api_url}/v1", **environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_compare_needs_a_key() -> None:
    result = run("compare")

    assert (result.exit_code, "FAL_KEY is not set" in result.output) == (1, True)


def test_compare_finds_nothing_wrong_with_our_models(simulator_url: str) -> None:
    result = compare(simulator_url)

    assert result.exit_code == 0, [line for line in result.output.splitlines() if line.startswith("wrong")]
    assert "new   fal-ai/flux-2-pro/edit: fal has this model of IMAGE_TO_IMAGE, and we do not sell it" in result.output


def test_compare_names_what_is_sold_below_cost(simulator_url: str) -> None:
    result = compare(simulator_url, "--token-usd", "0.01")

    assert result.exit_code == 1
    assert "wrong fal-ai/wan-25-preview/text-to-video: sold below cost" in result.output


def test_compare_names_an_operators_model_that_fal_does_not_have(simulator_url: str, tmp_path: Path) -> None:
    (tmp_path / "house.toml").write_text(MODEL)

    result = compare(simulator_url, CATALOGUE_DIR=str(tmp_path))

    assert result.exit_code == 1
    assert f"wrong {PAINTER}: fal has withdrawn it" in result.output


class Liar(ThreadingHTTPServer):
    """Answers by what is asked for: what is listed, what is expanded, and the prices."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.listed: Any = {"models": []}
        self.expanded: Any = {"models": []}
        self.prices: Any = {"prices": []}
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Liar

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        is_expanded = "expand" in parse_qs(parts.query)
        prices = self.server.prices
        answer = (
            prices if parts.path.endswith("pricing") else self.server.expanded if is_expanded else self.server.listed
        )
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def painter(properties: Any, *, required: Any = ("prompt",), **metadata: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Input"}}}
    document = {
        "components": {"schemas": {"Input": schema}},
        "paths": {f"/{PAINTER}": {"post": {"requestBody": {"content": content}}}},
    }
    told = {"category": "text-to-image", "status": "active", **metadata}
    return {"models": [{"endpoint_id": PAINTER, "metadata": told, "openapi": document}]}


FIELDS: dict[str, Any] = {
    "prompt": {"type": "string", "minLength": 1, "maxLength": 4000},
    "negative_prompt": {"type": "string"},
    "size": {"anyOf": [{"enum": ["1K", 2048]}, {"type": "null"}], "default": "1K"},
    "generate_audio": {"type": "boolean"},
    "num_images": {"enum": ["1", "2", "3", "4"], "type": "string"},
    "image_size": {"anyOf": [{"type": "object"}, {"type": "string", "enum": ["square"]}]},
    "mode": {"type": "string"},
}


def lines_about_painter(liar: Liar, directory: Path, *words: str) -> list[str]:
    (directory / "house.toml").write_text(MODEL)
    lines = compare(liar.url, *words, CATALOGUE_DIR=str(directory)).output.splitlines()
    return [line.replace(f"{PAINTER}: ", "") for line in lines if PAINTER in line]


def a_price(usd: Any = 0.03, unit: Any = "images") -> dict[str, Any]:
    return {"prices": [{"endpoint_id": PAINTER, "unit_price": usd, "unit": unit, "currency": "USD"}]}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, None),
        ({"mode": None}, "wrong mode: fal has no such field any more, and we always send it"),
        ({"negative_prompt": None}, "wrong negative_prompt: fal has no such field any more"),
        ({"size": {"enum": ["1K"]}}, "wrong size: fal does not take 2048"),
        ({"size": {"enum": ["1K", "2048"]}}, "wrong size: fal does not take 2048"),
        ({"size": {"enum": ["1K", 2048, "4K"]}}, "new   size: fal also takes 4K"),
        ({"size": {"enum": ["1K", 2048], "default": 2048}}, "new   size: fal's default is 2048, and we assume 1K"),
        ({"num_images": {"type": "integer"}}, "wrong num_images: fal does not take 1"),
        ({"generate_audio": {"type": "string"}}, "wrong generate_audio: fal does not take false"),
        ({"prompt": {"type": "array"}}, "wrong prompt: fal wants array, and we send string"),
        ({"prompt": {"type": "string", "maxLength": 9}}, "wrong prompt: fal's most characters is 9, and ours 4000"),
        ({"image_size": {"enum": ["square"]}}, "wrong image_size: fal takes no width and height any more"),
        ({"strength": {"type": "number"}}, "new   fal also has strength"),
        ({"\x1b[2J": {"type": "number"}}, 'new   fal also has "\\u001b[2J"'),
    ],
)
def test_compare_tells_each_change(liar: Liar, tmp_path: Path, changes: dict[str, Any], line: str | None) -> None:
    fields = {name: value for name, value in {**FIELDS, **changes}.items() if value is not None}
    liar.expanded, liar.prices = painter(fields), a_price()

    lines = lines_about_painter(liar, tmp_path)

    assert line is None or line in lines
    assert line is not None or lines == []


def test_compare_tells_a_field_that_has_become_required(liar: Liar, tmp_path: Path) -> None:
    fields = {**FIELDS, "strength": {"type": "number"}}
    liar.expanded, liar.prices = painter(fields, required=["prompt", "strength", "negative_prompt"]), a_price()

    assert lines_about_painter(liar, tmp_path) == [
        "wrong negative_prompt: fal requires it, and we let it be left out",
        "wrong strength: fal requires this field, and we do not send it",
    ]


@pytest.mark.parametrize(
    ("price", "token_usd", "line"),
    [
        (a_price(0.09), "1", "wrong fal's price has risen from 0.03 USD to 0.09 USD: correct cost_usd"),
        (a_price(0.09), "0.01", "wrong sold below cost: 4 tokens for 0.09 USD; a token must be worth 0.0225 USD"),
        (a_price(1, "parsecs"), "1", "new   fal names 1 USD for a unit by which we do not count: look at its page"),
        (a_price(True), "1", "new   fal does not tell its price: look at its page"),
        (a_price("0.03"), "1", "new   fal does not tell its price: look at its page"),
        (a_price(-1), "1", "new   fal does not tell its price: look at its page"),
        (a_price(0.03, ["images"]), "1", "new   fal does not tell its price: look at its page"),
        (a_price(10**400), "1", "new   fal does not tell its price: look at its page"),
    ],
)
def test_compare_tells_a_price(liar: Liar, tmp_path: Path, price: Any, token_usd: str, line: str) -> None:
    liar.expanded, liar.prices = painter(FIELDS), price

    assert line in lines_about_painter(liar, tmp_path, "--token-usd", token_usd)


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        ({"status": "deprecated"}, "wrong fal has withdrawn it: remove it from the catalogue"),
        ({"category": "image-to-video"}, "wrong fal lists it as IMAGE_TO_VIDEO, and we as TEXT_TO_IMAGE"),
    ],
)
def test_compare_tells_a_model_that_has_gone_or_moved(
    liar: Liar, tmp_path: Path, metadata: dict[str, Any], line: str
) -> None:
    liar.expanded, liar.prices = painter(FIELDS, **metadata), a_price()

    assert lines_about_painter(liar, tmp_path)[0] == line


LOOP = {"$ref": "#/components/schemas/Input"}
JUNK: list[Any] = [None, True, 0, 1.5, "text", "\x1b[2J", [], [None, 1, {}], {}, LOOP, {"a": {}}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    found = catalogue_of(tmp_path_factory.mktemp("house"), MODEL).get(PAINTER)
    assert found is not None
    return found


async def told(liar: Liar, model: Model) -> list[str]:
    """What is said of the model, or the one sentence for an answer that is none."""
    async with FalOffers.open(api_url=f"{liar.url}/v1", key=KEY, ssl_context=PLAIN) as offers:
        try:
            await offers.listed()
            found, prices = await offers.of([PAINTER]), await offers.prices([PAINTER])
        except ProviderUnavailable as error:
            return [str(error)]
    return [it.text for it in differences(model, found.get(PAINTER), prices.get(PAINTER), Fraction(1, 100))]


@pytest.mark.parametrize("junk", [*JUNK, {"anyOf": [LOOP, LOOP, {"anyOf": [LOOP] * 60}]}, {"enum": JUNK}], ids=repr)
async def test_whatever_fal_says_is_read_or_skipped(liar: Liar, model: Model, junk: Any) -> None:
    entry = painter(FIELDS)["models"][0]
    keys = ("type", "enum", "const", "default", "minimum", "maxLength", "anyOf", "$ref", "minItems")
    answers: list[Any] = [junk, {"models": junk}, {"models": [junk]}, painter(junk)]
    answers += [{"models": [{**entry, key: junk}]} for key in entry]
    answers += [{"models": [{**entry, "openapi": {**entry["openapi"], key: junk}}]} for key in entry["openapi"]]
    answers += [painter({**FIELDS, "prompt": {key: junk}, "size": {key: junk}}) for key in keys]
    for answer in answers:
        liar.expanded = liar.listed = answer
        for line in await told(liar, model):
            assert line.isprintable(), line
    liar.expanded = liar.listed = painter(FIELDS)
    for prices in (junk, {"prices": junk}, {"prices": [junk]}, a_price(junk), a_price(1, junk)):
        liar.prices = prices
        for line in await told(liar, model):
            assert line.isprintable(), line


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"{}", "refuses the key (401)"),
        (429, b"{}", "answered 429"),
        (200, b"<html>", "no list of models"),
        (200, b"[" * 100_000, "no list of models"),
        (200, b" " * (16 * 1024 * 1024 + 1), "too large"),
        (200, {"models": [], "next_cursor": "again", "has_more": True}, "longer than 50 pages"),
        (200, {"models": [], "next_cursor": 7, "has_more": True}, "does not say where"),
        (200, {"models": [], "next_cursor": "x" * 2000, "has_more": True}, "does not say where"),
    ],
)
def test_compare_ends_with_a_line_where_fal_does_not_answer(liar: Liar, status: int, body: Any, said: str) -> None:
    liar.status, liar.listed = status, body

    result = compare(liar.url)

    assert result.exit_code == 1
    assert said in result.output


def test_compare_ends_with_a_line_where_nobody_is() -> None:
    result = compare("http://127.0.0.1:9")

    assert (result.exit_code, "cannot be reached" in result.output) == (1, True)
