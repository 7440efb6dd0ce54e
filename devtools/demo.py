"""`make demo`: the main job of the service, over HTTP, as a customer's backend would do it."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from app.bootstrap.catalogue import load_catalogue
from app.domain.catalogue import Catalogue
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.domain.parameters import ParameterType
from app.infrastructure.settings import Settings
from devtools import DevtoolError

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "spheres.jpg"
TOPUP_STEP_TOKENS = 100
JOB_SECONDS_MAX = 600
# A comment comes every 15 s where nothing happens.
STREAM_TIMEOUT = httpx.Timeout(30)
STEPS = ("QUEUED", "SUBMITTED", "IN_QUEUE", "IN_PROGRESS", "COMPLETED")
# For the default of each type and whoever else gets our picture; all others are asked for their examples.
WISHES: Mapping[GenerationKind, Mapping[str, Any]] = {
    GenerationKind.TEXT_TO_IMAGE: {"prompt": "A lighthouse on a cliff at dawn, oil painting", "num_images": 2},
    GenerationKind.IMAGE_TO_IMAGE: {"prompt": "The same spheres, made of blown glass"},
    GenerationKind.TEXT_TO_VIDEO: {"prompt": "Waves rolling onto a beach at sunset"},
    GenerationKind.IMAGE_TO_VIDEO: {"prompt": "The camera circles the spheres"},
}


@dataclass(frozen=True, slots=True)
class Order:
    model: Model
    parameters: Mapping[str, Any]

    @property
    def title(self) -> str:
        return self.model.title

    @property
    def path(self) -> str:
        kind = self.model.kind
        return f"/generations/{'videos' if kind.is_video else 'images'}/{kind.value.lower().replace('_', '-')}"

    @property
    def body(self) -> Mapping[str, Any]:
        return {"model": self.model.id, **self.parameters}

    @property
    def tokens(self) -> int:
        return self.model.tokens(self.model.completed(self.parameters))

    @property
    def file_name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.model.id.lower())


def _orders(catalogue: Catalogue, picture: str) -> Sequence[Order]:
    """The default of each type, and the cheapest model of each other family, as cheap as it gets."""
    defaults = [catalogue.default_of(kind) for kind in GenerationKind]
    cheapest: dict[str, Model] = {}
    for model in sorted(catalogue, key=lambda model: model.from_tokens):
        cheapest.setdefault(model.family, model)
    families = {model.family for model in defaults}
    others = [model for family, model in cheapest.items() if family not in families]
    return [_order(model, picture) for model in (*defaults, *others)]


def _order(model: Model, picture: str) -> Order:
    takes_picture = any(each.type in (ParameterType.IMAGE, ParameterType.IMAGES) for each in model.parameters.values())
    wish = WISHES[model.kind] if model.is_default or takes_picture else {}
    given = {name: value for name, value in model.example.items() if model.parameters[name].is_required}
    combination = min(model.combinations(), key=model.tokens)
    told = {
        name: value
        for name, value in {**given, **combination, **wish}.items()
        if name in model.parameters and value is not None
    }
    return Order(model, {name: _ours(model.parameters[name].type, value, picture) for name, value in told.items()})


def _ours(kind: ParameterType, value: Any, picture: str) -> Any:
    """The pictures of examples are nowhere."""
    match kind:
        case ParameterType.IMAGE:
            return picture
        case ParameterType.IMAGES:
            return [picture]
    return value


async def run_demo(settings: Settings, console: Console) -> UUID:
    """Returns the demo user. Raises DevtoolError."""
    base_url = settings.base_url
    folder = settings.data_dir / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    user = uuid4()
    try:
        async with httpx.AsyncClient(base_url=base_url, timeout=30, trust_env=False) as client:
            console.print(f"[bold]1. A key[/bold] for the new user {user}")
            client.headers["X-API-Key"] = await _get_key(client, user, settings)
            catalogue = load_catalogue(settings)
            cost_tokens = sum(order.tokens for order in _orders(catalogue, "the picture, which has no price"))
            topup_tokens = -(-cost_tokens // TOPUP_STEP_TOKENS) * TOPUP_STEP_TOKENS
            console.print(f"[bold]2. A payment[/bold] of {topup_tokens} tokens, delivered twice and credited once")
            await _pay(client, user, topup_tokens, settings)
            console.print(f"[bold]3. An upload[/bold]: {PICTURE.name}, for all generations that start from a picture")
            orders = _orders(catalogue, await _upload(client))
            console.print(
                f"[bold]4. {len(orders)} generations[/bold] at once, of each type and by a model of each family, "
                f"for {cost_tokens} tokens"
            )
            saved = await _generate(client, orders, folder, console)
            console.print(f"   saved in {folder}:", soft_wrap=True)
            for path in saved:
                console.print(f"   {path.name}", soft_wrap=True)
            balance = (await _send(client, "GET", "/balance"))["balance_tokens"]
            console.print(f"[bold]5. The balance[/bold] is now {balance} tokens; the ledger:")
    except httpx.TransportError as error:
        raise DevtoolError(f"nothing answers on {base_url}: start the service with `make run` first") from error
    return user


async def _get_key(client: httpx.AsyncClient, user: UUID, settings: Settings) -> str:
    headers = {"X-Auth-Secret": settings.auth_secrets[0]} if settings.auth_secrets else {}
    answer = await _send(client, "POST", "/auth", json={"external_user_id": str(user)}, headers=headers)
    return str(answer["api_key"])


async def _upload(client: httpx.AsyncClient) -> str:
    """Where there is no store, the picture goes along with each job that needs it."""
    picture = PICTURE.read_bytes()
    answer = await client.post("/files", content=picture, headers={"Content-Type": "image/jpeg"})
    if answer.status_code == httpx.codes.CONFLICT:
        return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    return f"file:{_body_of(answer)['file_id']}"


async def _pay(client: httpx.AsyncClient, user: UUID, tokens: int, settings: Settings) -> None:
    headers = {"X-Webhook-Secret": settings.webhook_secrets[0], "X-Event-Id": f"demo-{uuid4()}"}
    for _ in range(2):
        await _send(
            client,
            "POST",
            "/webhook/topup",
            json={"external_user_id": str(user), "amount": tokens},
            headers=headers,
        )


async def _generate(client: httpx.AsyncClient, orders: Sequence[Order], folder: Path, console: Console) -> list[Path]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = [(order, progress.add_task(order.title, total=len(STEPS))) for order in orders]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_follow(client, order, folder, progress, bar)) for order, bar in bars]
    return [path for task in tasks for path in task.result()]


async def _follow(client: httpx.AsyncClient, order: Order, folder: Path, progress: Progress, bar: TaskID) -> list[Path]:
    job = await _send(client, "POST", order.path, json=order.body)
    async with asyncio.timeout(JOB_SECONDS_MAX):
        while job["status"] not in ("COMPLETED", "FAILED", "CANCELED"):
            async for told in _told(client, job["job_id"]):
                job = told
                _show(progress, bar, order, job["status"])
    if job["status"] != "COMPLETED":
        progress.update(bar, description=f"{order.title}: {job['status']}, {job['error_message']}")
        return []
    _show(progress, bar, order, f"COMPLETED for {job['cost_tokens']} tokens")
    urls = [output["url"] for output in job["outputs"]]
    names = [f"{order.file_name}-{number}" for number, _ in enumerate(urls, 1)]
    return [await _save(client, url, folder, name) for url, name in zip(urls, names, strict=True)]


async def _told(client: httpx.AsyncClient, job_id: str) -> AsyncIterator[dict[str, Any]]:
    """The job as it stands and at each event, until the stream ends: at the job's end, or with the process."""
    async with client.stream("GET", f"/generations/{job_id}/stream", timeout=STREAM_TIMEOUT) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "data":
                told = json.loads(value)
                # An event has the job as its data.
                yield told.get("data", told)


def _show(progress: Progress, bar: TaskID, order: Order, status: str) -> None:
    step = STEPS.index(status.split(maxsplit=1)[0]) + 1 if status.split(maxsplit=1)[0] in STEPS else 0
    progress.update(bar, completed=step, description=f"{order.title}: {status}")


async def _save(client: httpx.AsyncClient, url: str, folder: Path, name: str) -> Path:
    # A request of its own: a link needs no key, and may lead to a bucket.
    async with httpx.AsyncClient(timeout=client.timeout, trust_env=False, follow_redirects=True) as anonymous:
        answer = await anonymous.get(url)
    if answer.status_code != httpx.codes.OK:
        raise DevtoolError(f"{url} answers {answer.status_code}")
    path = folder / f"{name}{Path(urlsplit(url).path).suffix}"
    path.write_bytes(answer.content)
    return path


async def _send(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> dict[str, Any]:
    return _body_of(await client.request(method, path, **request))


def _body_of(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    if answer.is_error:
        asked = f"{answer.request.method} {answer.request.url.path}"
        raise DevtoolError(f"{asked} answers {answer.status_code}: {body.get('detail')}")
    return body
