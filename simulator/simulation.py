"""Everything that one running simulator holds. With a journal, requests and their inputs outlive it."""

import asyncio
import itertools
import math
import re
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
import uuid_utils

from simulator import answers, journal
from simulator.answers import Answer, Refused
from simulator.behaviours import Behaviour, behaviour_of
from simulator.clock import Clock
from simulator.config import SimulatorConfig
from simulator.faults import Circumstances, FaultyCall, content_of
from simulator.inputs import PICTURE_TYPE, InputPictures
from simulator.journal import Journal
from simulator.listed import LISTED
from simulator.media import render
from simulator.models import ENDPOINTS
from simulator.requests import Attempt, Outcome, Phase, QueueRequest, RequestStore
from simulator.runs import finish
from simulator.signing import SigningKey
from simulator.storage import FileStore, Storage, StoredFile
from simulator.webhook_message import WebhookSigner
from simulator.webhooks import Post, Webhooks

RENDERS_AT_ONCE = 2
# How long a poll waits for a run that is over but still has to load its inputs.
FINISH_WAIT_SECONDS = 1.0
COUNTED_CALLS_MAX = 20_000
POSTS_LISTED_MAX = 10_000
LARGE_RESULT_BYTES = 10_000
# As long as fal keeps a result, and so tries to deliver it.
WEBHOOK_LIFETIME_SECONDS = 3600

_MEDIA_NAME = re.compile(r"(?P<request_id>[0-9a-f-]{36})-(?P<number>\d{1,2})\.(?:png|mp4)")


@dataclass(frozen=True, slots=True)
class SubmitPost:
    """One POST of a submit, as `/_sim/posts` lists it. 200: it was queued, whatever was answered."""

    seen_at: float
    prompt: object
    key_id: str
    status_code: int
    request_id: str | None = None


class Simulation:
    def __init__(
        self,
        config: SimulatorConfig,
        directory: Path,
        client: httpx.AsyncClient,
        post_webhook: Post,
        *,
        clock: Callable[[], float] = time.time,
        is_stopping: Callable[[], bool] = lambda: False,
        is_kept: bool = False,
    ) -> None:
        self._config_at_start = config
        self.clock = Clock(clock)
        self.is_stopping = is_stopping
        self.config = config
        self.storage = Storage(self._file_store(directory / "uploads"))
        self._renders = self._file_store(directory / "renders")
        self._input_files = self._file_store(directory / "inputs")
        self._rendering = asyncio.Semaphore(RENDERS_AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._start_empty()
        self.webhooks = Webhooks(
            post_webhook,
            WebhookSigner(SigningKey.kept_in(directory / "webhook-key.pem") if is_kept else SigningKey()),
            config=lambda: self.config,
            now=self.now,
            # A receiver compares it with its own clock, which nobody moves.
            signed_at=clock,
            outcome_of=self.outcome_of,
            on_settled=self._settle_webhook,
        )
        self._journal = self._go_on(directory / "journal.jsonl") if is_kept else None
        self.pictures = InputPictures(self._input_files, client, self._journal)

    def _file_store(self, directory: Path) -> FileStore:
        return FileStore(directory, files_kept=self.config.files_kept, bytes_kept=self.config.file_bytes_kept)

    def _go_on(self, path: Path) -> Journal:
        requests, inputs = journal.read(path)
        self._input_files.restore(inputs, PICTURE_TYPE)
        self._renders.restore({}, PICTURE_TYPE)
        for request in requests:
            self.requests.add(request, self.now())
            if not request.is_webhook_settled and request.ended_at > self.now() - WEBHOOK_LIFETIME_SECONDS:
                self.webhooks.schedule(request)
        return journal.rewrite(path, requests, self._input_files.paths())

    async def close(self) -> None:
        await self.webhooks.close()
        if self._journal is not None:
            self._journal.close()

    def _start_empty(self) -> None:
        self.requests = RequestStore(self.config.requests_kept)
        self.posts: Counter[str] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()
        self._submit_posts: deque[SubmitPost] = deque(maxlen=POSTS_LISTED_MAX)
        self._counted_calls: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def reset(self) -> None:
        """Forget requests, files and counts, and go back to the settings of the start."""
        self.config = self._config_at_start
        self.clock.reset()
        for store in (self.storage, self._renders, self._input_files):
            store.clear()
        self.webhooks.clear()
        self._start_empty()
        if self._journal is not None:
            self._journal.clear()

    def now(self) -> float:
        return self.clock.now()

    def move_clock(self, advance_seconds: float, *, is_held: bool | None = None) -> None:
        if is_held is not None:
            (self.clock.hold if is_held else self.clock.release)()
        self.clock.advance(advance_seconds)
        self.webhooks.look()

    def record_post(self, post: SubmitPost) -> None:
        self.posts[str(post.status_code)] += 1
        self._submit_posts.append(post)

    def newest_posts(self, count: int | None = None) -> Iterable[SubmitPost]:
        return itertools.islice(reversed(self._submit_posts), count)

    def faulty_call(self, operation: str, prompt: object, request: QueueRequest | None = None) -> FaultyCall:
        """The faults of this call, which counts: submits per prompt, everything else per request."""
        faults = behaviour_of(prompt).faults + behaviour_of(self.config.faults).faults
        faults = tuple(fault for fault in faults if fault.operation == operation)
        if not faults:
            return FaultyCall(())
        now = self.now()
        key = (operation, request.request_id if request else str(prompt))
        count, first_at = self._counted_calls.pop(key, (0, request.submitted_at if request else now))
        self._counted_calls[key] = (count + 1, first_at)
        if len(self._counted_calls) > COUNTED_CALLS_MAX:
            self._counted_calls.popitem(last=False)
        return FaultyCall(
            tuple(fault for fault in faults if fault.is_in_force(count + 1, now - first_at)),
            Circumstances(call_number=count + 1, foreign_url=self.config.foreign_url),
        )

    def is_result_kept(self, request: QueueRequest, outcome: Outcome) -> bool:
        age_seconds = self.now() - request.ended_at
        if age_seconds <= min(self.config.result_seconds_kept, self.config.large_result_seconds_kept):
            return True
        is_large = len(content_of(outcome.answer)) >= LARGE_RESULT_BYTES
        config = self.config
        return age_seconds <= (config.large_result_seconds_kept if is_large else config.result_seconds_kept)

    async def submit(
        self,
        *,
        endpoint_id: str,
        app_id: str,
        arguments: object,
        base_url: str,
        attempt: Attempt | None,
        key_id: str,
        start_seconds_max: float = math.inf,
        media_seconds: float | None = None,
    ) -> QueueRequest:
        behaviour = behaviour_of(prompt_of(arguments))
        arguments = await self.pictures.remember_data_uris(arguments)
        now = self.now()
        started_at, ended_at = self._schedule(endpoint_id, behaviour, now)
        misses_start = started_at - now > start_seconds_max
        if misses_start:
            started_at, ended_at = math.inf, now + start_seconds_max
        request = QueueRequest(
            request_id=str(uuid_utils.uuid7()),
            endpoint_id=endpoint_id,
            app_id=app_id,
            base_url=base_url,
            input=arguments,
            behaviour=behaviour,
            attempt=attempt,
            key_id=key_id,
            submitted_at=now,
            started_at=started_at,
            ended_at=ended_at,
            misses_start=misses_start,
            media_seconds=media_seconds,
        )
        self.requests.add(request, now)
        if self._journal is not None:
            self._journal.record_request(request)
        if behaviour.webhook_is_early:
            await self.webhooks.deliver_now(request)
        else:
            self.webhooks.schedule(request)
        return request

    async def outcome_of(self, request: QueueRequest) -> Outcome | None:
        """None while it runs, also while its inputs are still being loaded."""
        if request.outcome is None and request.phase(self.now()) is Phase.COMPLETED:
            task = self._task(f"finish {request.request_id}", lambda: self._finish(request))
            done, _ = await asyncio.wait({task}, timeout=FINISH_WAIT_SECONDS)
            for finished in done:
                finished.result()
        return request.outcome

    async def cancel(self, request: QueueRequest) -> Answer:
        if await self.outcome_of(request) is not None:
            return answers.ALREADY_COMPLETED
        now = self.now()
        request.cancel_requested_at = now
        if not request.behaviour.ignores_cancel:
            if request.phase(now) is Phase.IN_QUEUE:
                request.started_at = math.inf
            request.ended_at = min(now, request.ended_at)
            request.outcome = Outcome(answers.infrastructure_error("client_cancelled"))
            self.webhooks.schedule(request)
        if self._journal is not None:
            self._journal.record_cancel(request)
        return answers.CANCELLATION_REQUESTED

    async def media_file(self, name: str) -> tuple[QueueRequest, StoredFile]:
        """Whose output it is, and the file behind its URL, drawn when it is first asked for.

        Raises: Refused (404) for a name that no finished request has, and for what is kept no longer.
        """
        match = _MEDIA_NAME.fullmatch(name)
        request = self.requests.find(match["request_id"]) if match else None
        outcome = await self.outcome_of(request) if request else None
        number = int(match["number"]) if match else 0
        is_there = outcome is not None and 1 <= number <= len(outcome.media)
        if request is None or outcome is None or not is_there or self.now() >= request.media_gone_at:
            raise Refused(answers.FILE_NOT_FOUND)
        if self._renders.find(name) is None:
            # One client that goes away must not stop the drawing for the others.
            await asyncio.shield(self._task(f"render {name}", lambda: self._render(name, outcome, number)))
        file = self._renders.find(name)
        if file is None:
            raise Refused(answers.FILE_NOT_FOUND)
        return request, file

    def _schedule(self, endpoint_id: str, behaviour: Behaviour, now: float) -> tuple[float, float]:
        if behaviour.webhook_is_early:
            return now, now
        if behaviour.is_stuck:
            return math.inf, math.inf
        config = self.config
        endpoint = ENDPOINTS.get(endpoint_id) or LISTED.get(endpoint_id)
        run_seconds = behaviour.run_seconds
        if run_seconds is None:
            makes_video = endpoint is not None and endpoint.makes_video
            run_seconds = config.run_seconds_video if makes_video else config.run_seconds_image
        started_at = now + config.queue_seconds / config.speed
        return started_at, started_at + run_seconds / config.speed

    async def _finish(self, request: QueueRequest) -> None:
        outcome = await finish(request, self.pictures)
        # A cancel may have come while the inputs were loading.
        if request.outcome is None:
            request.outcome = outcome

    def _settle_webhook(self, request: QueueRequest) -> None:
        request.is_webhook_settled = True
        if self._journal is not None:
            self._journal.record_settled_webhook(request)

    async def _render(self, name: str, outcome: Outcome, number: int) -> None:
        media = outcome.media[number - 1]
        path = self._renders.new_path()
        async with self._rendering:
            try:
                await asyncio.to_thread(render, media, path)
            except FileNotFoundError:
                # The input picture has made room for newer ones.
                return
        file = self._renders.add(name, path, media.content_type)
        outcome.files[number - 1]["file_size"] = file.size_bytes

    def _task(self, key: str, start: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        """One task per piece of work, however many clients wait for it."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(start())
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return task


def prompt_of(arguments: object) -> object:
    return arguments.get("prompt") if isinstance(arguments, dict) else None
