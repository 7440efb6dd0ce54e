"""What the simulator says on the wire of the endpoints in its files, and of fal's catalogue of them."""

import base64
import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from simulator.listed import LISTED
from simulator.models import ENDPOINTS, app_id_of

MODELS = "/v1/models"
PRICES = "/v1/models/pricing"
ADMIN = {"Authorization": "Key admin:secret"}
SCHNELL = "fal-ai/flux/schnell"


def result(fal_http: httpx.Client, endpoint_id: str, **arguments: Any) -> httpx.Response:
    submitted = fal_http.post(f"/{endpoint_id}", json={"prompt": "a boat"} | arguments)
    assert submitted.status_code == 200, submitted.text
    assert submitted.json()["response_url"].startswith(
        str(fal_http.base_url.join(f"/{app_id_of(endpoint_id)}/requests/"))
    )
    return fal_http.get(submitted.json()["response_url"])


def listing(fal_http: httpx.Client, **query: Any) -> dict[str, Any]:
    answer = fal_http.get(MODELS, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_accepts_a_wrong_type_and_answers_422_at_the_result(fal_http: httpx.Client) -> None:
    response = result(fal_http, "fal-ai/veo3.1", duration=8, no_such_field=True)

    (detail,) = response.json()["detail"]
    assert (response.status_code, response.headers["x-fal-billable-units"]) == (422, "0")
    assert (detail["loc"], detail["type"], detail["input"]) == (["body", "duration"], "one_of", 8)
    assert detail["url"] == "https://docs.fal.ai/errors/#one_of"


@pytest.mark.parametrize(("size", "error_type"), [((320, 299), "image_too_small"), ((1000, 390), "value_error")])
def test_refuses_a_picture_that_the_model_cannot_take(
    fal_http: httpx.Client, size: tuple[int, int], error_type: str
) -> None:
    content = io.BytesIO()
    Image.new("RGB", size).save(content, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"

    kling = result(fal_http, "fal-ai/kling-video/v3/pro/image-to-video", start_image_url=url)
    veo = result(fal_http, "fal-ai/veo3.1/image-to-video", image_url=url)

    (detail,) = kling.json()["detail"]
    assert (kling.status_code, detail["loc"], detail["type"]) == (422, ["body", "start_image_url"], error_type)
    assert veo.status_code == 200


def test_draws_a_large_picture_in_its_size(fal_http: httpx.Client) -> None:
    response = result(fal_http, "fal-ai/bytedance/seedream/v4.5/text-to-image")

    (image,) = response.json()["images"]
    assert (image["width"], image["height"]) == (None, None)
    with Image.open(io.BytesIO(fal_http.get(image["url"]).content)) as picture:
        assert picture.size == (2048, 2048)


def test_delivers_every_picture_of_several_generations(fal_http: httpx.Client) -> None:
    response = result(fal_http, "fal-ai/bytedance/seedream/v4.5/text-to-image", num_images=4, max_images=3)

    images = response.json()["images"]
    assert (len(images), response.headers["x-fal-billable-units"]) == (12, "12")
    assert fal_http.head(images[-1]["url"]).status_code == 200


def test_delivers_a_film_with_what_its_model_tells(fal_http: httpx.Client) -> None:
    response = result(fal_http, "alibaba/wan-3.0/text-to-video", duration=2, resolution="720p", seed=7)

    body = response.json()
    assert (body["seed"], body["duration"], body["video"]["duration"]) == (7, 2, 2.0)
    assert fal_http.get(body["video"]["url"]).headers["content-type"] == "video/mp4"


def test_bills_a_run_at_the_price_that_it_names(fal_http: httpx.Client) -> None:
    result(fal_http, "fal-ai/veo3.1/fast", duration="4s", generate_audio=False)

    (price,) = fal_http.get(PRICES, params={"endpoint_id": "fal-ai/veo3.1/fast"}).json()["prices"]
    (row,) = fal_http.get("/v1/models/billing-events", headers=ADMIN).json()["billing_events"]
    assert price == {"endpoint_id": "fal-ai/veo3.1/fast", "unit_price": 0.15, "unit": "seconds", "currency": "USD"}
    assert (row["unit_price"], row["cost_total"]) == (0.15, pytest.approx(0.4))
    assert row["output_units"] == pytest.approx(4 * 0.10 / 0.15)


def test_names_up_to_50_prices_at_once(fal_http: httpx.Client) -> None:
    ids = [*ENDPOINTS, *LISTED]

    body = fal_http.get(PRICES, params={"endpoint_id": ids[:50]}).json()
    too_many = fal_http.get(PRICES, params={"endpoint_id": ",".join(ids[:51])})
    unknown = fal_http.get(PRICES, params={"endpoint_id": "fal-ai/nothing"})

    assert [row["endpoint_id"] for row in body["prices"]] == ids[:50]
    assert all(row["unit_price"] > 0 for row in body["prices"])
    assert (too_many.status_code, unknown.status_code) == (400, 404)


def test_lists_every_endpoint_by_pages(fal_http: httpx.Client) -> None:
    found, cursor = [], None
    while True:
        page = listing(fal_http, limit=40, **({"cursor": cursor} if cursor else {}))
        found += [model["endpoint_id"] for model in page["models"]]
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            break

    assert found == [*ENDPOINTS, *LISTED]


def test_names_the_model_and_its_category(fal_http: httpx.Client) -> None:
    (model,) = listing(fal_http, endpoint_id=SCHNELL)["models"]

    assert model["metadata"]["display_name"] == "FLUX.1 [schnell]"
    assert (model["metadata"]["category"], model["metadata"]["status"]) == ("text-to-image", "active")
    assert "openapi" not in model


def test_searches_by_category_words_and_status(fal_http: httpx.Client) -> None:
    films = listing(fal_http, category="image-to-video", limit=1000)["models"]
    named = listing(fal_http, q="KLING", category="text-to-video")["models"]

    assert {model["metadata"]["category"] for model in films} == {"image-to-video"}
    assert named
    assert all("kling" in model["endpoint_id"] for model in named)
    assert listing(fal_http, status="deprecated")["models"] == []
    assert fal_http.get(MODELS, params={"status": "old"}).status_code == 400


def test_expands_the_schema_of_every_endpoint(fal_http: httpx.Client) -> None:
    ids = [*ENDPOINTS, *LISTED]
    for start in range(0, len(ids), 10):
        page = listing(fal_http, endpoint_id=ids[start : start + 10], expand="openapi-3.0")
        assert [model["endpoint_id"] for model in page["models"]] == ids[start : start + 10]
        for model in page["models"]:
            document = model["openapi"]
            schemas = document["components"]["schemas"]
            body = document["paths"][f"/{model['endpoint_id']}"]["post"]["requestBody"]["content"]["application/json"]
            properties = schemas[body["schema"]["$ref"].rpartition("/")[2]]["properties"]
            assert document["openapi"] == "3.0.4"
            assert "prompt" in properties
            assert set(_references(json.dumps(document))) <= set(schemas)


def test_expands_types_ranges_and_defaults(fal_http: httpx.Client) -> None:
    (model,) = listing(fal_http, endpoint_id=SCHNELL, expand="openapi-3.0")["models"]

    schema = model["openapi"]["components"]["schemas"]["FluxSchnellInput"]
    assert schema["required"] == ["prompt"]
    steps = schema["properties"]["num_inference_steps"]
    assert (steps["type"], steps["minimum"], steps["maximum"], steps["default"]) == ("integer", 1, 12, 4)
    assert schema["properties"]["acceleration"]["enum"] == ["none", "regular", "high"]
    assert schema["properties"]["image_size"]["default"] == "landscape_4_3"


def test_expands_ten_at_most(fal_http: httpx.Client) -> None:
    page = listing(fal_http, expand="openapi-3.0")

    assert (len(page["models"]), page["has_more"]) == (10, True)
    assert fal_http.get(MODELS, params={"expand": "openapi-3.0", "limit": 50}).status_code == 400


def test_names_an_unknown_id_without_metadata(fal_http: httpx.Client) -> None:
    page = listing(fal_http, endpoint_id=["fal-ai/nothing", SCHNELL], expand="openapi-3.0")

    unknown, known = page["models"]
    assert (unknown["endpoint_id"], unknown["openapi"]["error"]["code"]) == ("fal-ai/nothing", "expansion_failed")
    assert "metadata" not in unknown
    assert known["endpoint_id"] == SCHNELL


def test_searches_without_a_key_but_not_with_a_bad_one(fal_http: httpx.Client, fal_simulator: str) -> None:
    bad = fal_http.get(MODELS, headers={"Authorization": "Key unknown:secret"})

    assert httpx.get(f"{fal_simulator}{MODELS}", timeout=60).status_code == 200
    assert httpx.get(f"{fal_simulator}{PRICES}", timeout=60).status_code == 401
    assert (bad.status_code, bad.json()["error"]["type"]) == (401, "authorization_error")


def _references(text: str) -> list[str]:
    return [part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]]
