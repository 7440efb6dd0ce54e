"""The page at `/`: what this is, the words, and the last requests with what came out, as they change."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from simulator.behaviours import WORDS
from simulator.http import simulation_of
from simulator.media import Film
from simulator.requests import QueueRequest
from simulator.simulation import Simulation

REQUESTS_SHOWN_MAX = 20
PROMPT_LENGTH_MAX = 300
STREAM_LOOK_SECONDS = 0.25

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>fal simulator</title>
<link rel="icon" href="data:,">
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }}
  .loud {{ background: #7a1f1f; color: white; padding: 1rem 1.5rem; border-radius: .5rem; }}
  table {{ border-collapse: collapse; width: 100%; }}
  td {{ border-top: 1px solid #ccc; padding: .4rem .8rem .4rem 0; vertical-align: top; }}
  td:first-child {{ white-space: nowrap; }}
  img, video {{ height: 6rem; margin-right: .4rem; }}
</style>
<h1>fal simulator</h1>
<p class="loud"><strong>This is a simulator.</strong> No model runs here: every picture and film is a drawing
of its own request, nothing leaves this machine for fal.ai, nothing costs money, and everything is forgotten
when the program stops.</p>
<h2>Words for a prompt</h2>
<table>{words}</table>
<p>For tests: <code>GET</code> <a href="/_sim/requests">/_sim/requests</a>,
<a href="/_sim/webhooks">/_sim/webhooks</a>, <a href="/_sim/stats">/_sim/stats</a>,
<a href="/_sim/posts">/_sim/posts</a>, <a href="/_sim/calls">/_sim/calls</a>,
<a href="/_sim/config">/_sim/config</a>, <a href="/_sim/help">/_sim/help</a>;
<code>POST</code> /_sim/config, /_sim/clock, /_sim/reset.</p>
<h2>The last requests</h2>
<table><tbody id="requests">{requests}</tbody></table>
<script>{script}</script>
</html>
"""

# The newest request is the first row, and no row ever moves: those that are as they were are left alone, so that a
# film plays on.
SCRIPT = """
  const table = document.getElementById("requests");
  new EventSource("_sim/page").onmessage = ({data}) => {
    const rows = JSON.parse(data);
    rows.forEach(([id, cells], place) => {
      let row = document.getElementById(id);
      if (!row) {
        row = document.createElement("tr");
        row.id = id;
        table.insertBefore(row, table.rows[place] ?? null);
      }
      if (row.shown !== cells) {
        row.innerHTML = row.shown = cells;
      }
    });
    while (table.rows.length > rows.length) {
      table.deleteRow(-1);
    }
  };
"""


async def show_page(request: Request) -> Response:
    rows = await _rows(simulation_of(request))
    shown = "".join(f'<tr id="{row_id}">{cells}</tr>' for row_id, cells in rows)
    words = [f"<tr>{_cells(f'<code>{escape(word.usage)}</code>', escape(word.meaning))}</tr>" for word in WORDS]
    return HTMLResponse(PAGE.format(words="".join(words), requests=shown, script=SCRIPT))


async def follow_page(request: Request) -> Response:
    """The rows of the page, whenever one of them has changed. A browser that lost them asks again by itself."""
    return StreamingResponse(
        _changes(simulation_of(request)), headers={"cache-control": "no-store"}, media_type="text/event-stream"
    )


async def _changes(simulation: Simulation) -> AsyncIterator[str]:
    sent = None
    while not simulation.is_stopping():
        rows = await _rows(simulation)
        if rows != sent:
            sent = rows
            yield f"data: {json.dumps(rows)}\n\n"
        await asyncio.sleep(STREAM_LOOK_SECONDS)


async def _rows(simulation: Simulation) -> list[tuple[str, str]]:
    """The id and the cells of each row."""
    newest = list(simulation.requests.newest(REQUESTS_SHOWN_MAX))
    # At once: a run whose inputs are slow to load does not hold up the others.
    await asyncio.gather(*map(simulation.outcome_of, newest))
    now = simulation.now()
    return [(request.request_id, _request_cells(request, now)) for request in newest] or [("none", _cells("none yet"))]


def _request_cells(request: QueueRequest, now: float) -> str:
    prompt = request.input.get("prompt") if isinstance(request.input, dict) else request.input
    outcome = request.outcome
    result = f" {outcome.answer.status_code}" if outcome else ""
    media = zip(outcome.media, outcome.files, strict=True) if outcome else ()
    return _cells(
        f"{datetime.fromtimestamp(request.submitted_at, UTC):%H:%M:%S} UTC",
        f"{escape(request.endpoint_id)}<br><small>{request.request_id}</small>",
        escape(str(prompt)[:PROMPT_LENGTH_MAX]),
        f"{request.phase(now)}{result}",
        "".join(_media_element(escape(file["url"]), is_film=isinstance(item, Film)) for item, file in media),
    )


def _media_element(url: str, *, is_film: bool) -> str:
    if is_film:
        return f'<video src="{url}" controls loop muted preload="none"></video>'
    return f'<a href="{url}"><img src="{url}" alt="" loading="lazy"></a>'


def _cells(*cells: str) -> str:
    return "".join(f"<td>{cell}</td>" for cell in cells)


routes = [Route("/", show_page), Route("/_sim/page", follow_page)]
