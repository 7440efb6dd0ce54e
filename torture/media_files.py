"""Users who send pictures, start jobs with them, with data: URIs and with own outputs, and delete them again."""

import asyncio
import base64
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torture.callers import RETRY_SECONDS, Answer, Book, Callers, Order
from torture.media_pictures import SIDES_TOO_SMALL, Sample, as_form, broken, sample
from torture.media_users import past_the_guard, until_final
from torture.pace import Pace
from torture.wishes import Wish

START = "/generations/images/image-to-image"
PRICE_TOKENS = 6
# So few that users come to the end of it.
BYTES_MAX = 250_000
ROOM_TRIES_MAX = 6
AS_FORM = 0.5
BY_TWO_APIS = 0.5
STORIES = {
    "use": 20,
    "use and delete": 10,
    "delete while jobs wait": 20,
    "delete at once": 6,
    "expire": 8,
    "bring as data": 16,
    "bring a file and data": 6,
    "use an output": 10,
    "send what is broken": 6,
    "use what is too small": 5,
    "try another's": 8,
}
# Whether a file of it was deleted in time is a claim of its own.
WISH = Wish("[size:160x160]", {"COMPLETED": 1, "FAILED": 0}, price_tokens=PRICE_TOKENS)
SOURCE = Wish("[size:400x400]", {"COMPLETED": 1})
_EXPIRE = """
    UPDATE files SET expires_at = now() - interval '1 second'
     WHERE id = $1::text::uuid AND stored_at IS NOT NULL AND deleted_at IS NULL
    RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a user was answered with 201."""

    book: Book
    view: Mapping[str, Any]
    sample: Sample


@dataclass(slots=True)
class FileUsers:
    callers: Sequence[Callers]
    books: Sequence[Book]
    dsn: str
    rng: random.Random
    pace: Pace
    begun: int = 0
    done: Counter[str] = field(default_factory=Counter)
    told: dict[str, Told] = field(default_factory=dict)
    """By file."""
    given_up: set[str] = field(default_factory=set)
    """Files and outputs that somebody asked to be deleted, or whose time was over."""
    refusals: list[Answer] = field(default_factory=list)
    """Of what is not taken, and to strangers."""
    wrong: list[str] = field(default_factory=list)
    full: list[Answer] = field(default_factory=list)

    async def run(self) -> None:
        await self.pace.keep(self._one)

    async def _one(self, number: int) -> None:
        self.begun += 1
        book = self.books[number % len(self.books)]
        (story,) = self.rng.choices([*STORIES], [*STORIES.values()])
        tales: Mapping[str, Callable[[Book, int], Awaitable[None]]] = {
            "use": self._use,
            "use and delete": self._use_and_delete,
            "delete while jobs wait": self._delete_while_jobs_wait,
            "delete at once": self._delete_at_once,
            "expire": self._expire,
            "bring as data": self._bring_as_data,
            "bring a file and data": self._bring_both,
            "use an output": self._use_an_output,
            "send what is broken": self._send_what_is_broken,
            "use what is too small": self._use_what_is_too_small,
            "try another's": self._try_anothers,
        }
        await tales[story](book, number)
        self.done[story] += 1

    async def _use(self, book: Book, number: int) -> None:
        file_id = await self._upload(book)
        if file_id is not None:
            await self._start(book, f"file {number}", [f"file:{file_id}"])

    async def _use_and_delete(self, book: Book, number: int) -> None:
        file_id = await self._upload(book)
        if file_id is not None:
            await self._start(book, f"file {number}", [f"file:{file_id}"])
            await asyncio.sleep(self.rng.uniform(0, 5))
            await self._delete(book, file_id)

    async def _delete_while_jobs_wait(self, book: Book, number: int) -> None:
        """Two jobs need the same file, and one of them another one, too."""
        first, second = await asyncio.gather(self._upload(book), self._upload(book))
        if first is None or second is None:
            return
        await asyncio.gather(
            self._start(book, f"file {number} a", [f"file:{first}"], is_waited_for=False),
            self._start(book, f"file {number} b", [f"file:{second}", f"file:{first}"], is_waited_for=False),
        )
        await asyncio.sleep(self.rng.choice((0, self.rng.random())))
        await self._delete(book, self.rng.choice((first, second)))

    async def _delete_at_once(self, book: Book, number: int) -> None:
        file_id = await self._upload(book)
        if file_id is not None:
            await self._delete(book, file_id)
            await self._start_in_vain(book, f"file {number}", f"file:{file_id}")

    async def _expire(self, book: Book, number: int) -> None:
        file_id = await self._upload(book)
        if file_id is not None:
            self.given_up.add(file_id)
            self.done["files expired"] += len(await past_the_guard(self.dsn, _EXPIRE, file_id))
            # Until the house is kept again it is there.
            await self._start(book, f"file {number}", [f"file:{file_id}"])

    async def _bring_as_data(self, book: Book, number: int) -> None:
        await self._start(book, f"file {number}", [self._data()])

    async def _bring_both(self, book: Book, number: int) -> None:
        file_id = await self._upload(book)
        if file_id is not None:
            await self._start(book, f"file {number}", [self._data(), f"file:{file_id}"])

    async def _use_an_output(self, book: Book, number: int) -> None:
        order = Order(f"source {number} {SOURCE.words}", SOURCE, str(uuid.uuid4()))
        book.orders.append(order)
        job_id = await self._caller.place(book, order)
        job = None if job_id is None else await until_final(self.callers, self.rng, book, order, job_id)
        if job_id is None or job is None or job["status"] != "COMPLETED":
            return
        is_deleted = self.rng.random() < 0.5
        await self._start(book, f"file {number}", [f"output:{job_id}/0"], is_waited_for=not is_deleted)
        if is_deleted:
            self.given_up.add(f"{job_id}-0")
            path = f"/generations/{job_id}/media"
            await self._caller.insist("DELETE", path, frozenset({200}), headers=book.headers)
            await self._start_in_vain(book, f"file {number} late", f"output:{job_id}/0")

    async def _send_what_is_broken(self, book: Book, number: int) -> None:
        content = broken(self.rng)
        answer = await self._send(book, content, frozenset({422}))
        self._refused(answer, 422, "file_not_taken")
        uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        await self._start_in_vain(book, f"file {number}", uri, codes=("input_not_taken", "invalid_request"))

    async def _use_what_is_too_small(self, book: Book, number: int) -> None:
        file_id = await self._upload(book, sample(self.rng, SIDES_TOO_SMALL))
        if file_id is not None:
            await self._start_in_vain(book, f"file {number}", f"file:{file_id}")

    async def _try_anothers(self, book: Book, number: int) -> None:
        file_id = await self._upload(book)
        if file_id is None:
            return
        stranger = self.books[(number + 1) % len(self.books)]
        for method in ("GET", "DELETE"):
            path = f"/files/{file_id}"
            answer = await self._caller.insist(method, path, frozenset({404}), headers=stranger.headers)
            self._refused(answer, 404, "file_not_found")
        await self._start_in_vain(stranger, f"file {number}", f"file:{file_id}")

    @property
    def _caller(self) -> Callers:
        return self.rng.choice(self.callers)

    def _data(self) -> str:
        picture = sample(self.rng)
        return f"data:{picture.content_type};base64,{base64.b64encode(picture.content).decode()}"

    async def _upload(self, book: Book, picture: Sample | None = None) -> str | None:
        """None: there is no room, and none could be made."""
        picture = picture or sample(self.rng)
        for _ in range(ROOM_TRIES_MAX):
            answer = await self._send(book, picture.content, frozenset({201, 409}))
            if answer.status == 201:
                file_id = str(answer.body["file_id"])
                self.told[file_id] = Told(book, answer.body, picture)
                return file_id
            await self._make_room(book, answer)
        return None

    async def _send(self, book: Book, content: bytes, allowed: frozenset[int]) -> Answer:
        is_form = self.rng.random() < AS_FORM
        body, content_type = as_form(content) if is_form else (content, "application/octet-stream")
        headers = book.headers | {"Content-Type": content_type}
        return await self._in_turn("POST", "/files", allowed, headers=headers, content=body)

    async def _in_turn(self, method: str, path: str, allowed: frozenset[int], **more: Any) -> Answer:
        """Again, where too many are sent at once."""
        while True:
            answer = await self._caller.insist(method, path, allowed | {429}, **more)
            if answer.status != 429 and answer.body.get("code") != "idempotency_key_in_use":
                return answer
            if answer.status == 429 and answer.body["code"] != "too_many_uploads":
                self.wrong.append(f"{method} {path}: 429 {answer.body}")
            self.done["asked to wait"] += 1
            await asyncio.sleep(RETRY_SECONDS)

    async def _make_room(self, book: Book, answer: Answer) -> None:
        """Of the oldest file, also where nobody was told of it, or a job waits for it."""
        self.full.append(answer)
        page = await self._caller.insist("GET", "/files?limit=100", frozenset({200}), headers=book.headers)
        if page.status != 200:
            return
        if page.body["used_bytes"] > BYTES_MAX:
            self.wrong.append(f"{page.body['used_bytes']} bytes are kept for {book.user_id}")
        if page.body["items"]:
            await self._delete(book, page.body["items"][-1]["file_id"])

    async def _delete(self, book: Book, file_id: str) -> None:
        self.given_up.add(file_id)
        callers = self.callers if self.rng.random() < BY_TWO_APIS else [self._caller]
        path = f"/files/{file_id}"
        await asyncio.gather(*(each.insist("DELETE", path, frozenset({204}), headers=book.headers) for each in callers))
        self.done["deletions"] += len(callers)
        # Whoever was told so finds it gone everywhere.
        await self._caller.insist("GET", path, frozenset({410}), headers=book.headers)

    async def _start(self, book: Book, name: str, inputs: Sequence[str], *, is_waited_for: bool = True) -> None:
        """Refused it may be for want of room, or because a file was deleted meanwhile to make some."""
        order = Order(f"{name} {WISH.words}", WISH, str(uuid.uuid4()))
        book.orders.append(order)
        for _ in range(ROOM_TRIES_MAX):
            answer = await self._ask(book, order, inputs, frozenset({202, 409, 422}))
            if answer.status != 409:
                break
            await self._make_room(book, answer)
        if answer.status != 202:
            order.is_not_taken = True
            is_gone = any(_named(each) in self.given_up for each in inputs)
            if answer.status == 422 and (not is_gone or answer.body["code"] != "input_not_taken"):
                self.wrong.append(f"POST {START} with {[each[:60] for each in inputs]}: {answer}")
            self.done["orders refused"] += 1
            return
        job_id = str(answer.body["job_id"])
        order.job_ids.add(job_id)
        if is_waited_for:
            await until_final(self.callers, self.rng, book, order, job_id)

    async def _ask(self, book: Book, order: Order, inputs: Sequence[str], allowed: frozenset[int]) -> Answer:
        headers = book.headers | {"Idempotency-Key": order.key or ""}
        body = {"prompt": order.prompt, "num_images": 1, "image_urls": inputs}
        return await self._in_turn("POST", START, allowed, headers=headers, json=body)

    async def _start_in_vain(
        self, book: Book, name: str, given: str, *, codes: Sequence[str] = ("input_not_taken",)
    ) -> None:
        order = Order(f"{name} {WISH.words}", WISH, str(uuid.uuid4()), is_not_taken=True)
        book.orders.append(order)
        self._refused(await self._ask(book, order, [given], frozenset({422})), 422, *codes)

    def _refused(self, answer: Answer, status: int, *codes: str) -> None:
        self.refusals.append(answer)
        # What is let through has another body, or none.
        if answer.status != status or (answer.body or {}).get("code") not in codes:
            self.wrong.append(f"not {status} {codes}: {answer}")


def _named(given: str) -> str:
    """As `given_up` has it."""
    if given.startswith("output:"):
        return given.removeprefix("output:").replace("/", "-")
    return given.removeprefix("file:")
