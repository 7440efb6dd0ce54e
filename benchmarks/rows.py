"""The routes that users call, each beside the endpoint that does nothing; accept also beside pgbench."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.figures import Bar, Figures
from benchmarks.load import Load, LoadError, http_request, measure
from benchmarks.measuring import Measure, Options, Run
from benchmarks.pgbench import pgbench
from benchmarks.seed import User
from benchmarks.stage import WEBHOOK_SECRET, Stage
from tests.builders import connect

ACCEPT_PATH = "/generations/images/text-to-image"
ACCEPT_BODY = {"prompt": "a lighthouse at dawn"}
# More than any service here can answer in a second: these rows send each request once.
ONCE_PER_SECOND = 4000

BARS = (
    *(
        Bar(
            f"accept, {callers} callers: of doing nothing",
            f"accept c={callers}",
            f"nothing/accept c={callers}",
            ">=",
            b,
        )
        for callers, b in ((32, 0.40), (128, 0.40))
    ),
    *(
        Bar(f"accept, {callers} callers: of pgbench", f"accept c={callers}", f"pgbench c={callers}", ">=", 1.5)
        for callers in (32, 128)
    ),
    Bar("accept, 1 caller: median latency of the unbatched", "accept c=1", "unbatched c=1", "<=", 1.5, "p50_ms"),
    Bar("accept, one hot account: of many accounts", "hot c=32", "accept c=32", ">=", 0.5),
    Bar("status: of doing nothing", "status c=32", "nothing/status c=32", ">=", 0.60),
    Bar("balance: of doing nothing", "balance c=32", "nothing/balance c=32", ">=", 0.60),
)


def accept_requests(users: Sequence[User]) -> list[str]:
    return [http_request("POST", ACCEPT_PATH, user.headers, ACCEPT_BODY) for user in users]


def status_requests(users: Sequence[User]) -> list[str]:
    return [http_request("GET", f"/generations/{user.job_id}", user.headers) for user in users]


def get_requests(path: str) -> Callable[[Sequence[User]], list[str]]:
    return lambda users: [http_request("GET", path, user.headers) for user in users]


def topup_requests(users: Sequence[User], count: int) -> list[str]:
    return [
        http_request(
            "POST",
            "/webhook/topup",
            {"X-Webhook-Secret": WEBHOOK_SECRET, "X-Event-Id": str(uuid4())},
            {"external_user_id": str(user.external_user_id), "amount": 10},
        )
        for user in itertools.islice(itertools.cycle(users), count)
    ]


@dataclass(frozen=True, slots=True)
class Route:
    callers: Sequence[int]
    requests: Callable[[Sequence[User]], list[str]]
    status: int = 200
    has_floor: bool = True


ROUTES = {
    "accept": Route((1, 32, 128), accept_requests, 202),
    "hot": Route((32,), lambda users: accept_requests(users[:1]), 202, has_floor=False),
    "status": Route((1, 32, 128), status_requests),
    "balance": Route((32, 128), get_requests("/balance")),
    "list": Route((32,), get_requests("/generations?limit=20")),
    "ledger": Route((32,), get_requests("/ledger?limit=20")),
}
ONCE = ("topup", "cancel")
NAMES = (*ROUTES, *ONCE)


def estimate_seconds(options: Options) -> float:
    measured = [name for name, route in ROUTES.items() for _ in route.callers if options.wants(name)]
    floors = {"accept": 4, "hot": 1}
    loads = sum(floors.get(name, 2) for name in measured) + sum(2 * options.wants(name) for name in ONCE)
    return 15 + options.rounds * loads * (options.seconds + 1)


async def run_routes(stage: Stage, run: Run) -> None:
    async with stage.database() as dsn:
        with ExitStack() as stack:
            port = stack.enter_context(stage.service(dsn)).port
            answers = await real_answers(port, stage.users[0])
            nothing = stack.enter_context(stage.nothing(answers))
            unbatched = stack.enter_context(stage.floor("unbatched", dsn))
            measures = measures_of(stage, run, dsn, Ports(port, nothing, unbatched))
            await warm_up(stage.users, port, nothing, unbatched)
            await run.in_turn("routes", measures)
            if run.options.wants("callers"):
                await _measure_the_callers(stage, run)


@dataclass(frozen=True, slots=True)
class Ports:
    service: int
    nothing: int
    unbatched: int


def measures_of(stage: Stage, run: Run, dsn: str, ports: Ports) -> dict[str, Measure]:
    seconds, users = run.options.seconds, stage.users

    def loaded(to: int, route: Route, callers: int) -> Measure:
        load = Load(to, callers, route.requests(users), route.status, seconds)
        return lambda: measure(load)

    def of_pgbench(callers: int) -> Measure:
        return lambda: pgbench(dsn, callers, seconds, stage.directory)

    measures: dict[str, Measure] = {}
    for name, route in ROUTES.items():
        for callers in route.callers if run.options.wants(name) else ():
            measures[f"{name} c={callers}"] = loaded(ports.service, route, callers)
            if route.has_floor:
                measures[f"nothing/{name} c={callers}"] = loaded(ports.nothing, route, callers)
            if name == "accept":
                measures[f"pgbench c={callers}"] = of_pgbench(callers)
                measures[f"unbatched c={callers}"] = loaded(ports.unbatched, route, callers)
    if run.options.wants("topup"):
        measures["topup c=32"] = lambda: _topup(users, ports.service, seconds)
        measures["nothing/topup c=32"] = lambda: _topup(users, ports.nothing, seconds)
    if run.options.wants("cancel"):
        measures["cancel c=32"] = lambda: _cancel(users, dsn, ports, ports.service, seconds)
        measures["nothing/cancel c=32"] = lambda: _cancel(users, dsn, ports, ports.nothing, seconds)
    return measures


async def real_answers(port: int, user: User) -> dict[str, str]:
    """What the service answers, for the floor to answer the same."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=user.headers, trust_env=False) as http:
        topup = http.post(
            "/webhook/topup",
            headers={"X-Webhook-Secret": WEBHOOK_SECRET, "X-Event-Id": str(uuid4())},
            json={"external_user_id": str(user.external_user_id), "amount": 10},
        )
        answers: dict[str, Any] = {
            "topup": await topup,
            "status": await http.get(f"/generations/{user.job_id}"),
            "balance": await http.get("/balance"),
            "list": await http.get("/generations?limit=20"),
            "ledger": await http.get("/ledger?limit=20"),
            "accept": await http.post(ACCEPT_PATH, json=ACCEPT_BODY),
        }
        answers["cancel"] = await http.post(f"/generations/{answers['accept'].json()['job_id']}/cancel")
    for name, answer in answers.items():
        if answer.is_error:
            raise RuntimeError(f"{name} answers {answer.status_code}: {answer.text}")
    return {name: answer.text for name, answer in answers.items()}


async def warm_up(users: Sequence[User], *ports: int) -> None:
    """Caches, statistics and code paths that only the first requests would meet."""
    requests = accept_requests(users)
    for port in ports:
        await measure(Load(port, 32, requests, 202, 1.0))


async def _topup(users: Sequence[User], port: int, seconds: float) -> Figures:
    requests = topup_requests(users, round(seconds * ONCE_PER_SECOND))
    return await measure(Load(port, 32, requests, 200, seconds, is_once=True))


async def _cancel(users: Sequence[User], dsn: str, ports: Ports, port: int, seconds: float) -> Figures:
    """Jobs that are QUEUED; where there are too few of them, as many more are accepted first."""
    count = round(seconds * ONCE_PER_SECOND / 2)
    queued = await _queued_jobs(users, dsn, count)
    if len(queued) < count:
        more = list(itertools.islice(itertools.cycle(accept_requests(users)), count - len(queued)))
        await measure(Load(ports.service, 64, more, 202, 120, is_once=True))
        queued = await _queued_jobs(users, dsn, count)
    requests = [http_request("POST", f"/generations/{job}/cancel", user.headers) for user, job in queued]
    if not requests:
        raise LoadError("no job is QUEUED")
    return await measure(Load(port, 32, requests, 200, seconds, is_once=True))


async def _queued_jobs(users: Sequence[User], dsn: str, count: int) -> list[tuple[User, str]]:
    by_id = {str(user.external_user_id): user for user in users}
    async with connect(dsn) as connection:
        found = await connection.fetch(
            "SELECT j.id::text AS job, a.external_user_id::text AS user FROM jobs j JOIN accounts a"
            " ON a.id = j.account_id WHERE j.status = 'QUEUED' AND NOT j.is_final LIMIT $1",
            count,
        )
    return [(by_id[row["user"]], row["job"]) for row in found]


async def _measure_the_callers(stage: Stage, run: Run) -> None:
    """What the callers could ask at most, of a server that costs next to nothing."""
    with stage.floor("constant") as port:
        load = Load(port, 32, [http_request("GET", "/")], 200, run.options.seconds)
        await asyncio.sleep(0.2)
        await run.in_turn("the callers themselves", {"callers c=32": lambda: measure(load)})
