"""The OpenAPI document of one endpoint, in the form in which fal's platform API expands it."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

_ADDRESS = {"in": "path", "name": "request_id", "required": True, "schema": {"type": "string"}}
_OUTPUTS: dict[str, dict[str, Any]] = {
    "seed": {"type": "integer"},
    "seeds": {"type": "array", "items": {"type": "integer"}},
    "has_nsfw_concepts": {"type": "array", "items": {"type": "boolean"}},
    "timings": {"type": "object", "additionalProperties": {"type": "number"}},
    "duration": {"type": "number"},
}


@dataclass(frozen=True, slots=True)
class OutputShape:
    makes_video: bool
    sizes: str
    """`told`, `null` or `absent`: width and height of the files."""

    fields: tuple[str, ...]


def openapi_document(
    endpoint_id: str, category: str, arguments: type[BaseModel], output: OutputShape
) -> dict[str, Any]:
    schema = arguments.model_json_schema(ref_template="#/components/schemas/{model}")
    input_name = arguments.__name__ if arguments.__name__.endswith("Input") else f"{arguments.__name__}Input"
    output_name = f"{input_name.removesuffix('Input')}Output"
    file_name = "VideoFile" if output.makes_video else "Image"
    schemas = schema.pop("$defs", {}) | {
        input_name: schema | {"x-fal-order-properties": list(schema["properties"])},
        output_name: _output(output, file_name),
        file_name: _file(output),
        "QueueStatus": _queue_status(),
    }
    result = f"/{endpoint_id}/requests/{{request_id}}"
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {endpoint_id}",
            "version": "1.0.0",
            "description": f"The OpenAPI schema for the {endpoint_id} queue.",
            "x-fal-metadata": {"endpointId": endpoint_id, "category": category},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"apiKeyAuth": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
        "paths": {
            f"/{endpoint_id}": {
                "post": {
                    "requestBody": {"required": True, "content": _json(input_name)},
                    "responses": {"200": {"description": "The request status.", "content": _json("QueueStatus")}},
                }
            },
            f"{result}/status": {"get": _reading("The request status.", "QueueStatus")},
            result: {"get": _reading("Result of the request.", output_name)},
        },
        "servers": [{"url": "https://queue.fal.run"}],
        "security": [{"apiKeyAuth": []}],
    }


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _reading(description: str, name: str) -> dict[str, Any]:
    return {"parameters": [_ADDRESS], "responses": {"200": {"description": description, "content": _json(name)}}}


def _output(output: OutputShape, file_name: str) -> dict[str, Any]:
    file = {"$ref": f"#/components/schemas/{file_name}"}
    files: dict[str, Any] = {"video": file} if output.makes_video else {"images": {"type": "array", "items": file}}
    properties = files | {name: _OUTPUTS.get(name, {"type": "string"}) for name in output.fields}
    return {"type": "object", "properties": properties, "required": list(files)}


def _file(output: OutputShape) -> dict[str, Any]:
    properties: dict[str, Any] = {"url": {"type": "string"}}
    for name, kind in (("content_type", "string"), ("file_name", "string"), ("file_size", "integer")):
        properties[name] = {"anyOf": [{"type": kind}, {"type": "null"}]}
    if output.sizes == "absent":
        return {"type": "object", "properties": properties, "required": ["url"]}
    for name in ("width", "height"):
        properties[name] = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    return {"type": "object", "properties": properties, "required": ["url"]}


def _queue_status() -> dict[str, Any]:
    words = {"type": "string", "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]}
    texts = {name: {"type": "string"} for name in ("request_id", "response_url", "status_url", "cancel_url")}
    properties = {"status": words, **texts, "queue_position": {"type": "integer"}}
    return {"type": "object", "properties": properties, "required": ["status", "request_id"]}
