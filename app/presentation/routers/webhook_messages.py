"""What the service sends to webhook endpoints, for its document: nothing here is called."""

from typing import Annotated, Any

from fastapi import FastAPI, Header

from app.presentation.http.bodies import SCHEMA_REFERENCE
from app.presentation.http.openapi import schemas_of
from app.presentation.schemas.events import EventMessage
from app.presentation.schemas.examples import EVENT

_NAME = "event"


def describe(api: FastAPI) -> None:
    api.webhooks.post(
        _NAME,
        operation_id="receive_event",
        summary="An event, as your server gets it",
        tags=["Webhooks"],
        status_code=204,
        response_description="Delivered. So is any other 2xx that comes within 15 seconds",
    )(_receive_event)


def complete_message(document: dict[str, Any]) -> None:
    """Say what the body holds. FastAPI would take it for one that is read, with schemas of its own, and would drop
    every null from the example.
    """
    operation = document["webhooks"][_NAME]["post"]
    example = {**EVENT, "timestamp": EVENT["created_at"], "is_shortened": False}
    schema = {"$ref": SCHEMA_REFERENCE.format(model=EventMessage.__name__)}
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": schema, "example": example}},
    }
    # What FastAPI says of each of its own routes.
    del operation["responses"]["422"]
    schemas = document["components"]["schemas"]
    schemas.update(schemas_of([EventMessage]) | schemas)


async def _receive_event(
    webhook_id: Annotated[str, Header(description="The `id` of the event, the same in each attempt.")],
    webhook_timestamp: Annotated[str, Header(description="When this attempt was made, in seconds since 1970.")],
    webhook_signature: Annotated[
        str,
        Header(description="`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`; one for each secret."),
    ],
) -> None:
    """Verify it with the secret before you believe it, answer at once, and pass over an id that you know already: each
    event comes at least once.
    """
