"""`make demo`: the main job of the service, over HTTP, as a customer's backend would do it."""

import asyncio
import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from app.infrastructure.settings import Settings
from devtools import DevtoolError

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "spheres.jpg"
TOPUP_TOKENS = 200
JOB_SECONDS_MAX = 600
POLL_SECONDS = 0.5
STEPS = ("QUEUED", "SUBMITTED", "IN_QUEUE", "IN_PROGRESS", "COMPLETED")


@dataclass(frozen=True, slots=True)
class Order:
    title: str
    path: str
    body: dict[str, Any]


def _orders() -> list[Order]:
    picture = "data:image/jpeg;base64," + base64.b64encode(PICTURE.read_bytes()).decode()
    return [
        Order(
            "text to image",
            "/generations/images/text-to-image",
            {"prompt": "A lighthouse on a cliff at dawn, oil painting", "num_images": 2, "seed": 7},
        ),
        Order(
            "image to image",
            "/generations/images/image-to-image",
            {"prompt": "The same spheres, made of blown glass", "image_urls": [picture], "seed": 11},
        ),
        Order(
            "text to video",
            "/generations/videos/text-to-video",
            {"prompt": "Waves rolling onto a beach at sunset", "resolution": "480p", "seed": 13},
        ),
        Order(
            "image to video",
            "/generations/videos/image-to-video",
            {"prompt": "The camera circles the spheres", "image_url": picture, "resolution": "480p", "seed": 17},
        ),
    ]


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
            console.print(f"[bold]2. A payment[/bold] of {TOPUP_TOKENS} tokens, delivered twice and credited once")
            await _pay(client, user, settings)
            console.print("[bold]3. Four generations[/bold], one of each kind")
            saved = await _generate(client, folder, console)
            for path in saved:
                console.print(f"   saved {path}")
            balance = (await _send(client, "GET", "/balance"))["balance_tokens"]
            console.print(f"[bold]4. The balance[/bold] is now {balance} tokens; the ledger:")
    except httpx.TransportError as error:
        raise DevtoolError(f"nothing answers on {base_url}: start the service with `make run` first") from error
    return user


async def _get_key(client: httpx.AsyncClient, user: UUID, settings: Settings) -> str:
    headers = {"X-Auth-Secret": settings.service_secrets[0]} if settings.service_secrets else {}
    answer = await _send(client, "POST", "/auth", json={"external_user_id": str(user)}, headers=headers)
    return str(answer["api_key"])


async def _pay(client: httpx.AsyncClient, user: UUID, settings: Settings) -> None:
    headers = {"X-Webhook-Secret": settings.webhook_secret, "X-Event-Id": f"demo-{uuid4()}"}
    for _ in range(2):
        await _send(
            client,
            "POST",
            "/webhook/topup",
            json={"external_user_id": str(user), "amount": TOPUP_TOKENS},
            headers=headers,
        )


async def _generate(client: httpx.AsyncClient, folder: Path, console: Console) -> list[Path]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = [(order, progress.add_task(order.title, total=len(STEPS))) for order in _orders()]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_follow(client, order, folder, progress, bar)) for order, bar in bars]
    return [path for task in tasks for path in task.result()]


async def _follow(client: httpx.AsyncClient, order: Order, folder: Path, progress: Progress, bar: TaskID) -> list[Path]:
    job = await _send(client, "POST", order.path, json=order.body)
    async with asyncio.timeout(JOB_SECONDS_MAX):
        while job["status"] not in ("COMPLETED", "FAILED", "CANCELED"):
            _show(progress, bar, order, job["status"])
            await asyncio.sleep(POLL_SECONDS)
            job = await _send(client, "GET", f"/generations/{job['job_id']}")
    if job["status"] != "COMPLETED":
        progress.update(bar, description=f"{order.title}: {job['status']}, {job['error_message']}")
        return []
    _show(progress, bar, order, f"COMPLETED for {job['cost_tokens']} tokens")
    media = job["result"].get("images") or [job["result"]["video"]]
    name = order.title.replace(" ", "-")
    return [await _save(client, item["url"], folder / f"{name}-{index}") for index, item in enumerate(media, 1)]


def _show(progress: Progress, bar: TaskID, order: Order, status: str) -> None:
    step = STEPS.index(status.split(maxsplit=1)[0]) + 1 if status.split(maxsplit=1)[0] in STEPS else 0
    progress.update(bar, completed=step, description=f"{order.title}: {status}")


async def _save(client: httpx.AsyncClient, url: str, stem: Path) -> Path:
    # A request of its own: the API key is not for the host that stores the media.
    async with httpx.AsyncClient(timeout=client.timeout, trust_env=False, follow_redirects=True) as anonymous:
        answer = await anonymous.get(url)
    if answer.status_code != httpx.codes.OK:
        raise DevtoolError(f"{url} answers {answer.status_code}")
    path = stem.with_suffix(Path(urlsplit(url).path).suffix)
    path.write_bytes(answer.content)
    return path


async def _send(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> dict[str, Any]:
    answer = await client.request(method, path, **request)
    body: dict[str, Any] = answer.json()
    if answer.is_error:
        raise DevtoolError(f"{method} {path} answers {answer.status_code}: {body.get('detail')}")
    return body
