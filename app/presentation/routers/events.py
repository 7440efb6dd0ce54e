from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.domain.errors import JobNotFound
from app.domain.events import EventsForgotten, EventType
from app.domain.limits import TooManyStreams
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.event_streams import events_of_account
from app.presentation.http.keyed_routes import CurrentAccount, CurrentCaller, KeyedRoute, StreamRoute
from app.presentation.http.openapi import DATABASE_ERRORS, READ_ERRORS, answer, event_stream, problems
from app.presentation.http.output_links import links_in
from app.presentation.http.state import UseCases, state_of
from app.presentation.http.stream_parameters import LastEventId
from app.presentation.http.streams import EventStream, open_stream
from app.presentation.schemas.events import EventPageView, EventView, Seq
from app.presentation.schemas.examples import EVENT, JOB_ID
from app.presentation.schemas.fields import CanonicalUuid, PageSize

router = APIRouter(tags=["Events"], route_class=KeyedRoute)

_Types = Annotated[
    list[EventType] | None,
    Query(alias="type", max_length=len(EventType), description="Only these; left out, all."),
]


@router.get(
    "/events",
    operation_id="list_events",
    summary="Read what happened",
    response_description="The oldest events first",
    responses={
        200: answer({"items": [EVENT], "next_after": 1795515341654321, "has_more": False}),
        **problems(*READ_ERRORS, JobNotFound, EventsForgotten, InvalidRequest, *DATABASE_ERRORS),
    },
)
async def list_events(
    request: Request,
    account: CurrentAccount,
    use_cases: UseCases,
    *,
    after: Annotated[
        Seq | None,
        Query(description="`next_after` of the page before, or the `seq` of an event; left out, the oldest events."),
    ] = None,
    types: _Types = None,
    job_id: Annotated[CanonicalUuid | None, Query(description=f"Only of this job, such as `{JOB_ID}`.")] = None,
    limit: Annotated[PageSize, Query(description="How many events.")] = 20,
) -> EventPageView:
    """Everything that happened to your generations and your balance, in an order that never changes.

    Ask again with `next_after` as `after`, and you miss nothing and read nothing twice, whatever happens at the same
    time. Events are kept for some weeks; a place in the log that is older is answered with 410 `events_forgotten`.
    """
    page = await use_cases.events.page(
        account.id, after=after, types=frozenset(types or ()), job_id=job_id, limit=limit
    )
    link_to = links_in(request)
    items = [EventView.of(event, link_to) for event in page.events]
    return EventPageView(items=items, next_after=page.next_after, has_more=page.has_more)


async def stream_events(
    request: Request,
    caller: CurrentCaller,
    use_cases: UseCases,
    *,
    last_event_id: LastEventId,
    after: Annotated[
        Seq | None,
        Query(description="Begin after this `seq`, 0 for the oldest event; left out, with what happens from now on."),
    ] = None,
    types: _Types = None,
) -> Response:
    """The same as `GET /events`, as it happens, as server-sent events.

    A connection that ends, as it does when a process of the service is exchanged, is opened again with the last `id`
    as `Last-Event-ID`: nothing is missed, and nothing comes twice. Browsers do so by themselves.
    """
    place = after if last_event_id is None else last_event_id
    stream = open_stream(request, caller)
    streams, chosen = state_of(request.scope).streams, frozenset(types or ())
    log, feed, link_to = use_cases.events, use_cases.event_feed, links_in(request)
    chunks = events_of_account(stream, streams, log, feed, after=place, types=chosen, link_to=link_to)
    return EventStream(stream, chunks)


router.add_api_route(
    "/events/stream",
    stream_events,
    methods=["GET"],
    route_class_override=StreamRoute,
    operation_id="stream_events",
    summary="Hear what happens",
    response_class=Response,
    responses={
        200: event_stream(
            "Each event as a message: its `seq` as `id`, its type as `event`, and the event as `GET /events` has it as "
            "`data`. A comment comes every 15 seconds.",
            EVENT,
        ),
        **problems(*READ_ERRORS, EventsForgotten, InvalidRequest, TooManyStreams, *DATABASE_ERRORS),
    },
)
