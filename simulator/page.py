"""The page at `/`: what this is, the words, and the last requests with what came out."""

from datetime import UTC, datetime
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from simulator.behaviours import WORDS
from simulator.http import simulation_of
from simulator.media import Film
from simulator.requests import QueueRequest

REQUESTS_SHOWN_MAX = 20
PROMPT_LENGTH_MAX = 300

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>fal simulator</title>
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
<table>{requests}</table>
</html>
"""


async def show_page(request: Request) -> Response:
    simulation = simulation_of(request)
    rows = []
    for shown in simulation.requests.newest(REQUESTS_SHOWN_MAX):
        await simulation.outcome_of(shown)
        rows.append(_request_row(shown, simulation.now()))
    words = [_row(f"<code>{escape(word.usage)}</code>", escape(word.meaning)) for word in WORDS]
    return HTMLResponse(PAGE.format(words="".join(words), requests="".join(rows) or _row("none yet")))


def _request_row(request: QueueRequest, now: float) -> str:
    prompt = request.input.get("prompt") if isinstance(request.input, dict) else request.input
    outcome = request.outcome
    result = f" {outcome.answer.status_code}" if outcome else ""
    media = zip(outcome.media, outcome.files, strict=True) if outcome else ()
    return _row(
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


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


routes = [Route("/", show_page)]
