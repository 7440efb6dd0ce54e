import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter

from app.presentation.http.api import create_api
from app.presentation.http.bodies import JsonBody
from app.presentation.http.keyed_routes import KeyedRoute
from app.presentation.http.openapi import answer, complete
from app.presentation.http.routing import DirectRoute, calls_of
from app.presentation.routers import (
    account,
    auth,
    events,
    files,
    jobs,
    keys,
    ledger,
    payments,
    reversals,
    system,
    webhook_secrets,
    webhooks,
)
from app.presentation.routers.generations import generations_router
from app.presentation.routers.models import models_router
from app.presentation.routers.quotes import quotes_router
from app.presentation.schemas.events import EventMessage
from tests.builders import BUILT_IN
from tests.unit.presentation_stand_ins import World

DOCUMENT = create_api(BUILT_IN, version="1.2.3").openapi()
OPERATIONS: dict[str, dict[str, Any]] = {
    operation["operationId"]: operation for path in DOCUMENT["paths"].values() for operation in path.values()
}


def values_of(node: Any, key: str) -> Iterator[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and key in node:
        yield node[key]
    for child in children:
        yield from values_of(child, key)


def test_documents_every_route_and_its_answers() -> None:
    assert {name: sorted(operation["responses"]) for name, operation in OPERATIONS.items()} == {
        "upload_file": ["201", "400", "401", "402", "403", "408", "409", "413", "415", "422", "429", "503"],
        "list_files": ["200", "401", "403", "422", "429", "503"],
        "get_file": ["200", "401", "403", "404", "410", "429", "503"],
        "delete_file": ["204", "401", "403", "404", "429", "503"],
        "issue_key": ["201", "400", "401", "408", "409", "413", "415", "422", "429", "503"],
        "create_key": ["201", "400", "401", "403", "408", "409", "413", "415", "422", "429", "503"],
        "list_keys": ["200", "401", "403", "429", "503"],
        "get_current_key": ["200", "401", "429", "503"],
        "delete_current_key": ["204", "401", "429", "503"],
        "get_key": ["200", "401", "403", "404", "429", "503"],
        "change_key": ["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "503"],
        "delete_key": ["204", "401", "403", "404", "429", "503"],
        "rotate_key": ["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "503"],
        "list_webhook_endpoints": ["200", "401", "403", "429", "503"],
        "create_webhook_endpoint": ["201", "400", "401", "403", "408", "409", "413", "415", "422", "429", "503"],
        "get_webhook_secret": ["200", "401", "403", "429", "503"],
        "rotate_webhook_secret": ["200", "400", "401", "403", "408", "413", "415", "422", "429", "503"],
        "get_webhook_endpoint": ["200", "401", "403", "404", "429", "503"],
        "change_webhook_endpoint": ["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "503"],
        "delete_webhook_endpoint": ["204", "401", "403", "404", "429", "503"],
        "list_deliveries": ["200", "401", "403", "404", "422", "429", "503"],
        "redeliver": ["202", "401", "403", "404", "409", "429", "503"],
        "replay_events": ["202", "400", "401", "403", "404", "408", "409", "410", "413", "415", "422", "429", "503"],
        "rotate_webhook_endpoint_secret": ["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "503"],
        "test_webhook_endpoint": ["202", "401", "403", "404", "409", "429", "503"],
        "get_balance": ["200", "401", "403", "429", "503"],
        "list_ledger_entries": ["200", "401", "403", "422", "429", "503"],
        "stream_events": ["200", "401", "403", "410", "422", "429", "503"],
        "stream_generation": ["200", "204", "401", "403", "404", "410", "422", "429", "503"],
        "get_account": ["200", "401", "403", "429", "503"],
        "change_account": ["200", "400", "401", "403", "408", "413", "415", "422", "429", "503"],
        "list_events": ["200", "401", "403", "404", "410", "422", "429", "503"],
        "top_up": ["200", "400", "401", "408", "409", "413", "415", "422", "429", "503"],
        "top_up_from_source": ["200", "400", "401", "408", "409", "413", "415", "422", "429", "503"],
        "reverse_payment": ["200", "202", "400", "401", "408", "409", "413", "415", "422", "429", "503"],
        "reverse_payment_of_source": ["200", "202", "400", "401", "408", "409", "413", "415", "422", "429", "503"],
        "start_text_to_image": ["202", "400", "401", "402", "403", "408", "409", "413", "415", "422", "429", "503"],
        "start_image_to_image": ["202", "400", "401", "402", "403", "408", "409", "413", "415", "422", "429", "503"],
        "start_text_to_video": ["202", "400", "401", "402", "403", "408", "409", "413", "415", "422", "429", "503"],
        "start_image_to_video": ["202", "400", "401", "402", "403", "408", "409", "413", "415", "422", "429", "503"],
        "receive_provider_event": ["200", "401", "408", "413", "429", "503"],
        "list_generations": ["200", "401", "403", "404", "422", "429", "503"],
        "get_generation": ["200", "401", "403", "404", "422", "429", "503"],
        "cancel_generation": ["200", "400", "401", "403", "404", "409", "422", "429", "503"],
        "list_models": ["200", "422"],
        "get_model": ["200", "404"],
        "make_quote": ["200", "400", "401", "403", "408", "413", "415", "422", "429", "503"],
        "get_media": ["200", "206", "302", "304", "403", "404", "410", "416", "429", "503"],
        "delete_generation_media": ["200", "401", "403", "404", "409", "422", "429", "503"],
        "get_health": ["200"],
        "get_readiness": ["200", "503"],
    }


@pytest.mark.parametrize("name", OPERATIONS)
def test_describes_an_operation_with_examples(name: str) -> None:
    operation = OPERATIONS[name]

    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    for status, response in operation["responses"].items():
        assert response["description"]
        assert "X-Request-Id" in response["headers"]
        is_problem = "application/problem+json" in response.get("content", {})
        assert ("Retry-After" in response["headers"]) == (is_problem and status in ("429", "503"))
        assert ("RateLimit" in response["headers"]) == ("RateLimit-Policy" in response["headers"]) == (status == "429")
        assert ("content" in response) == (status not in ("204", "302", "304"))
        for content in response.get("content", {}).values():
            is_file = content["schema"].get("format") == "binary"
            assert is_file or "$ref" in content["schema"] or "text/event-stream" in response["content"]
            assert is_file or {"example", "examples"} & content.keys() or name == "get_health"


def test_says_how_to_authenticate() -> None:
    needed = {name: operation.get("security", []) for name, operation in OPERATIONS.items()}
    key: list[dict[str, list[str]]] = [{"ApiKey": []}, {"Authorization": []}]

    assert needed.pop("issue_key") == [{"AuthSecret": []}, *key, {}]
    assert needed.pop("top_up") == needed.pop("reverse_payment") == [{"WebhookSecret": []}]
    assert needed.pop("top_up_from_source") == needed.pop("reverse_payment_of_source") == [{"SourceSecret": []}]
    assert needed.pop("list_models") == needed.pop("get_model") == needed.pop("get_media") == []
    assert needed.pop("get_health") == needed.pop("get_readiness") == needed.pop("receive_provider_event") == []
    assert all(security == key for security in needed.values())
    schemes = dict(DOCUMENT["components"]["securitySchemes"])
    assert schemes.pop("Authorization")["scheme"] == "bearer"
    assert {name: (scheme["type"], scheme["in"], scheme["name"]) for name, scheme in schemes.items()} == {
        "ApiKey": ("apiKey", "header", "X-API-Key"),
        "AuthSecret": ("apiKey", "header", "X-Auth-Secret"),
        "WebhookSecret": ("apiKey", "header", "X-Webhook-Secret"),
        "SourceSecret": ("apiKey", "header", "X-Webhook-Secret"),
    }


def test_refers_to_nothing_that_is_missing() -> None:
    for reference in values_of(DOCUMENT, "$ref"):
        node = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_documents_errors_in_our_shape_only() -> None:
    assert "HTTPValidationError" not in json.dumps(DOCUMENT)
    for operation in OPERATIONS.values():
        for status, response in operation["responses"].items():
            if status >= "400" and operation["operationId"] != "get_readiness":
                assert response["content"].keys() == {"application/problem+json"}


def test_documents_where_an_accepted_job_is_found() -> None:
    assert "Location" in OPERATIONS["start_text_to_image"]["responses"]["202"]["headers"]


TAKES_JSON = sorted(
    name
    for name, operation in OPERATIONS.items()
    if "application/json" in operation.get("requestBody", {}).get("content", {})
)


def test_takes_json_wherever_it_takes_a_body_but_where_it_takes_a_file() -> None:
    assert {name for name in OPERATIONS if "requestBody" in OPERATIONS[name]} - {*TAKES_JSON} == {"upload_file"}
    content = OPERATIONS["upload_file"]["requestBody"]["content"]
    assert content.keys() == {"application/octet-stream", "multipart/form-data"}


@pytest.mark.parametrize("operation_id", TAKES_JSON)
def test_gives_examples_of_bodies_that_the_service_takes(operation_id: str) -> None:
    routers = (
        keys.router,
        webhooks.router,
        webhook_secrets.router,
        account.router,
        auth.router,
        payments.router,
        reversals.router,
        generations_router(BUILT_IN),
        quotes_router(BUILT_IN),
    )
    routes = {route.operation_id: route for router in routers for route in router.routes}  # type: ignore[attr-defined]
    (body,) = [call for call in calls_of(routes[operation_id].dependant) if isinstance(call, JsonBody)]  # type: ignore[attr-defined]
    content = OPERATIONS[operation_id]["requestBody"]["content"]["application/json"]
    schemas = content["schema"].get("oneOf", [content["schema"]])

    assert [schema["$ref"].rpartition("/")[2] for schema in schemas] == [model.__name__ for model in body.models]
    assert content["examples"]
    for example in content["examples"].values():
        body.model.model_validate(example["value"], context={"allow_private_media_urls": False})


def test_gives_examples_of_answers_that_the_service_gives() -> None:
    generations = generations_router(BUILT_IN)
    priced = (generations, quotes_router(BUILT_IN), models_router(BUILT_IN))
    for router in (
        keys.router,
        webhooks.router,
        webhook_secrets.router,
        auth.router,
        ledger.router,
        events.router,
        files.router,
        account.router,
        payments.router,
        reversals.router,
        jobs.router,
        system.router,
        *priced,
    ):
        for route in router.routes:
            if route.status_code == 204:  # type: ignore[attr-defined]
                continue
            operation = OPERATIONS[route.operation_id]  # type: ignore[attr-defined]
            content = operation["responses"][str(route.status_code or 200)]["content"]  # type: ignore[attr-defined]
            if "example" in content.get("application/json", {}):
                example = content["application/json"]["example"]
                TypeAdapter(route.response_model).validate_python(example)  # type: ignore[attr-defined]


def test_is_the_same_each_time_and_carries_the_version() -> None:
    again = create_api(BUILT_IN, version="1.2.3").openapi()

    assert json.dumps(again) == json.dumps(DOCUMENT)
    assert DOCUMENT["info"]["version"] == "1.2.3"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_serves_the_documentation_without_the_internet(path: str) -> None:
    client = World().client()

    page = await client.get(path)

    assert page.status_code == 200
    assert "://" not in page.text.replace("http://www.w3.org", "")
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert (await client.get(asset)).status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


async def test_serves_the_document() -> None:
    response = await World().client().get("/openapi.json")

    assert response.json() == DOCUMENT


def test_describes_the_message_that_it_sends_as_it_is_sent() -> None:
    operation = DOCUMENT["webhooks"]["event"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    schema = DOCUMENT["components"]["schemas"]["EventMessage"]

    assert content["schema"] == {"$ref": "#/components/schemas/EventMessage"}
    assert content["example"].keys() == set(schema["required"]) == schema["properties"].keys() - {"external_user_id"}
    EventMessage.model_validate(content["example"])
    assert content["example"]["data"]["error_code"] is None
    assert operation["responses"].keys() == {"204"}
    assert {parameter["name"] for parameter in operation["parameters"] if parameter["required"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    assert not any(name.endswith(("-Input", "-Output")) for name in DOCUMENT["components"]["schemas"])


def test_request_bodies_refuse_unknown_fields() -> None:
    requests = {name: schema for name, schema in DOCUMENT["components"]["schemas"].items() if name.endswith("Request")}

    # Its other fields are those of the generation that is asked about.
    assert requests.pop("QuoteRequest")["additionalProperties"] is True
    assert len(requests) == 13 + len(BUILT_IN)
    assert all(schema["additionalProperties"] is False for schema in requests.values())


class Page(BaseModel):
    parent: str | None


def a_router(**options: Any) -> APIRouter:
    router = APIRouter(**options)

    @router.delete("/nothing/{number}", status_code=204, tags=["Metrics", "Accounts"])
    async def delete_it(number: int) -> None: ...

    @router.get("/metrics", response_class=PlainTextResponse)
    async def get_metrics() -> str:
        raise NotImplementedError

    @router.get("/page", tags=["Metrics"], responses={200: answer({"parent": None}), 304: {"description": "Not new"}})
    async def get_page() -> Page:
        raise NotImplementedError

    @router.get("/range", tags=["Accounts"], responses={"4xx": answer({"a": None}), "default": answer({})})
    async def get_range() -> Page:
        raise NotImplementedError

    @router.get("/hidden", include_in_schema=False, responses={200: answer({})})
    async def get_hidden() -> Page:
        raise NotImplementedError

    return router


@pytest.mark.parametrize("route_class", [APIRoute, DirectRoute, KeyedRoute])
@pytest.mark.parametrize("prefix", ["", "/x/y"])
def test_documents_whatever_fastapi_lets_a_route_be(prefix: str, route_class: type[APIRoute]) -> None:
    api = create_api(BUILT_IN, version="1.2.3")
    api.include_router(a_router(route_class=route_class), prefix=prefix)
    api.include_router(a_router(route_class=route_class), prefix="/again", include_in_schema=False)

    document = api.openapi()

    paths = {path.removeprefix(prefix): operations for path, operations in document["paths"].items()}
    new = {path: operations for path, operations in paths.items() if path not in DOCUMENT["paths"]}
    assert [*new] == ["/range", "/metrics", "/page", "/nothing/{number}"]
    deleted = new["/nothing/{number}"]["delete"]
    assert deleted["tags"] == ["Metrics", "Accounts"]
    assert "content" not in deleted["responses"]["204"]
    assert deleted["responses"]["422"]["content"].keys() == {"application/problem+json"}
    assert new["/metrics"]["get"]["responses"]["200"]["content"].keys() == {"text/plain"}
    assert new["/page"]["get"]["responses"]["200"]["content"]["application/json"]["example"] == {"parent": None}
    refused = new["/range"]["get"]["responses"]["4XX"]
    assert refused["content"]["application/json"]["example"] == {"a": None}
    for operations in new.values():
        for operation in operations.values():
            assert all("X-Request-Id" in response["headers"] for response in operation["responses"].values())
    assert {name: paths[name] for name in DOCUMENT["paths"]} == DOCUMENT["paths"]


def test_documents_an_application_of_one_route_without_models() -> None:
    api = FastAPI()

    @api.get("/")
    async def get_nothing() -> Response:
        raise NotImplementedError

    document = api.openapi()
    complete(document, api.routes)

    assert document["components"]["schemas"].keys() == {"Problem", "InvalidRequestProblem", "ProblemField"}


def test_documents_a_route_that_is_added_after_the_document_was_read() -> None:
    api = create_api(BUILT_IN, version="1.2.3")
    before = api.openapi()
    api.include_router(a_router(), prefix="/x")

    after = api.openapi()

    assert after["paths"].keys() > before["paths"].keys()
    assert api.openapi() is after
    assert after["paths"]["/balance"] == before["paths"]["/balance"]


async def test_gives_every_page_a_policy_wherever_it_is() -> None:
    api = create_api(BUILT_IN, version="1")
    pages = APIRouter()

    @pages.get("/studio")
    async def get_studio() -> Response:
        return HTMLResponse("<p>")

    @pages.get("/own")
    async def get_own() -> Response:
        return HTMLResponse("<p>", headers={"Content-Security-Policy": "default-src 'none'"})

    api.include_router(pages, prefix="/x")
    transport = httpx.ASGITransport(api, root_path="/behind")
    async with httpx.AsyncClient(transport=transport, base_url="http://tollgate") as client:
        answers = [await client.get(path) for path in ("/behind/docs", "/behind/x/studio", "/behind/x/own")]

    policies = [answer.headers.get_list("content-security-policy") for answer in answers]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert policies[0] == policies[1]
    assert policies[0][0].startswith("default-src 'self'")
    assert policies[2] == ["default-src 'none'"]
