import gzip
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from app.presentation.http.body_room import LARGE_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX
from tests.unit.presentation_stand_ins import World, problem_of

PATH = "/generations/images/text-to-image"


async def post(world: World, content: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    _, key = await world.a_user(tokens=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.client().post(PATH, content=content, headers=key | {"Content-Type": "application/json"} | named)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"<a/>",
        b"{'prompt': 'a fox'}",
        b'{"prompt": "a fox"} and more',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"prompt": "a fox"}',
        '{"prompt": "a fox"}'.encode("utf-16"),
        '{"prompt": "a fox"}'.encode("utf-16-le"),
        b'{"prompt": "a fox", "prompt": "a cat"}',
        b'{"prompt": "a fox", "image_size": {"width": 400, "width": 500, "height": 400}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 2_000,
        b"[" * 2_000 + b"]" * 2_000,
        b"[" + b"[]," * 1_000_000 + b"[]]",
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_answers_400_to_what_is_not_json(body: bytes) -> None:
    response = await post(World(), body)

    assert response.status_code == 400
    assert problem_of(response)["code"] == "invalid_json"


@pytest.mark.parametrize("body", ["[]", "null", "5", '"prompt"', "NaN", "true", '[{"prompt": "a fox"}]'])
async def test_answers_422_to_json_that_is_no_object(body: str) -> None:
    response = await post(World(), body.encode())

    assert response.status_code == 422
    assert problem_of(response)["errors"] == [
        {"pointer": "", "detail": "This must be a JSON object.", "code": "not_an_object"}
    ]


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "application/json; charset=utf-16",
        "application/jsonx",
    ],
)
async def test_answers_415_to_another_media_type(media_type: str) -> None:
    response = await post(World(), b'{"prompt": "a fox"}', Content_Type=media_type)

    assert response.status_code == 415
    assert problem_of(response)["code"] == "unsupported_media_type"
    assert response.headers["accept"] == "application/json"


async def test_answers_415_to_no_media_type() -> None:
    world = World()
    _, key = await world.a_user()

    response = await world.client().post(PATH, content=b'{"prompt": "a fox"}', headers=key)

    assert response.status_code == 415


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Application/JSON", "application/json;charset=UTF-8", 'application/json ; charset="utf-8"'],
)
async def test_takes_json_in_utf_8(media_type: str) -> None:
    response = await post(World(), '{"prompt": "Füchse 🦊"}'.encode(), Content_Type=media_type)

    assert response.status_code == 202


async def test_answers_415_to_a_compressed_body() -> None:
    response = await post(World(), gzip.compress(b'{"prompt": "a fox"}'), Content_Encoding="gzip")

    assert response.status_code == 415
    assert problem_of(response)["code"] == "unsupported_content_encoding"


async def test_answers_413_to_a_body_that_declares_too_much() -> None:
    response = await post(World(), b"", Content_Length=str(LARGE_BODY_BYTES_MAX + 1))

    assert response.status_code == 413
    assert problem_of(response)["code"] == "request_body_too_large"


async def test_answers_413_to_a_chunked_body_and_stops_reading_it() -> None:
    chunks_read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal chunks_read
        while True:
            chunks_read += 1
            yield b" " * 1024 * 1024

    response = await post(World(), chunks())

    assert response.status_code == 413
    assert problem_of(response)["code"] == "request_body_too_large"
    assert chunks_read == 17


async def test_keeps_small_bodies_small() -> None:
    body = json.dumps({"external_user_id": str(uuid4())}).ljust(SMALL_BODY_BYTES_MAX + 1).encode()

    refused = await World().client().post("/auth", content=body, headers={"Content-Type": "application/json"})
    taken = await World().client().post("/auth", content=body[:-1], headers={"Content-Type": "application/json"})

    assert (refused.status_code, taken.status_code) == (413, 201)


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"prompt": ""}'])
async def test_asks_for_the_key_before_it_judges_the_body(body: bytes) -> None:
    response = await World().client().post(PATH, content=body)

    assert response.status_code == 401
    assert problem_of(response)["code"] == "invalid_api_key"


async def test_lists_the_first_twenty_errors_and_never_quotes_the_input() -> None:
    fields = {f"field_{number}": "what I sent" for number in range(1000)}

    response = await post(World(), json.dumps({"prompt": "a fox", **fields}).encode())

    assert response.status_code == 422
    assert len(problem_of(response)["errors"]) == 20
    assert "what I sent" not in response.text


@pytest.mark.parametrize("name", ["<script>", "a" * 65, "a/b", "", "\ud800", "поле"])
async def test_does_not_quote_an_odd_field_name(name: str) -> None:
    response = await post(World(), json.dumps({"prompt": "a fox", name: 1}).encode())

    assert response.status_code == 422
    assert [error["pointer"] for error in problem_of(response)["errors"]] == [""]
