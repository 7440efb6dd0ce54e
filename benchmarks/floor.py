"""What the service is measured against: endpoints that do nothing, and an accept without batching.

The endpoints that do nothing take the same requests, check the same models and answer the same bytes each time:
no key is looked up, no database asked. Under uvicorn as it comes, with the service's settings, in its own process.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import UUID

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from uuid_utils.compat import uuid7

from app.domain.keys import digest_of
from app.domain.kinds import GenerationKind
from app.infrastructure.catalogue.reading import read_catalogue
from app.infrastructure.postgres.database import POOL_SIZE
from app.presentation.schemas.generations import GenerationBodies
from app.presentation.schemas.jobs import AcceptedJob, PriceLineView
from app.presentation.schemas.payments import TopUpRequest
from benchmarks.seed import COST_TOKENS

KIND = GenerationKind.TEXT_TO_IMAGE
TextToImageRequest = GenerationBodies.of(read_catalogue(), KIND).models[0]
Limit = Annotated[int, Query(ge=1, le=100)]


def nothing_app(answers: Mapping[str, str]) -> FastAPI:
    """`answers` are the service's own, by the name of the row."""
    app = FastAPI()

    def answer(name: str, status: int = 200) -> Response:
        return Response(contents[name], status, media_type="application/json")

    contents = {name: text.encode() for name, text in answers.items()}

    @app.post("/generations/images/text-to-image")
    async def accept(body: TextToImageRequest) -> Response:  # type: ignore[valid-type]
        return answer("accept", 202)

    @app.get("/generations/{job_id}")
    async def status(job_id: UUID) -> Response:
        return answer("status")

    @app.post("/generations/{job_id}/cancel")
    async def cancel(job_id: UUID) -> Response:
        return answer("cancel")

    @app.get("/generations")
    async def list_(limit: Limit = 20, offset: Annotated[int, Query(ge=0)] = 0) -> Response:
        return answer("list")

    @app.get("/ledger")
    async def ledger(limit: Limit = 20, cursor: str | None = None) -> Response:
        return answer("ledger")

    @app.get("/balance")
    async def balance() -> Response:
        return answer("balance")

    @app.post("/webhook/topup")
    async def topup(body: TopUpRequest) -> Response:
        return answer("topup")

    return app


_ACCOUNT = (
    "SELECT a.id FROM api_keys k JOIN accounts a ON a.id = k.account_id WHERE k.digest = $1 AND k.revoked_at IS NULL"
)
_JOB = """
INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds,
                  terms)
VALUES ($1, $2, $3, $4, $5, $6, 1, 1200, $7) RETURNING created_at
"""
_DEBIT = "INSERT INTO ledger_entries (account_id, kind, amount, job_id) VALUES ($1, 'DEBIT', $2, $3)"
_ITEM = """
INSERT INTO pgqueuer (priority, status, entrypoint, payload, dedupe_key)
VALUES (0, 'queued', 'generation.submit', $1, $2)
"""


def unbatched_app(dsn: str) -> FastAPI:
    """The accept of the service as one would write it first: a transaction with three inserts for each request."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(dsn, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/generations/images/text-to-image", status_code=202)
    async def accept(body: TextToImageRequest, request: Request) -> AcceptedJob:  # type: ignore[valid-type]
        pool = request.app.state.pool
        account_id = await pool.fetchval(_ACCOUNT, digest_of(request.headers.get("X-API-Key", "")))
        if account_id is None:
            raise HTTPException(401)
        job_id = uuid7()
        wish = body.wish()  # type: ignore[attr-defined]
        completed = wish.completed()
        terms, parameters = wish.model.terms(completed), json.dumps(wish.model.fal_input(completed))
        async with pool.acquire() as connection, connection.transaction():
            created_at = await connection.fetchval(
                _JOB,
                job_id,
                account_id,
                KIND.value,
                wish.model.id,
                parameters,
                COST_TOKENS,
                json.dumps(terms.as_json()),
            )
            await connection.execute(_DEBIT, account_id, COST_TOKENS, job_id)
            await connection.execute(_ITEM, job_id.bytes, f"generation.submit:{job_id}")
        return AcceptedJob.model_validate(
            {
                "job_id": job_id,
                "status": "QUEUED",
                "cost_tokens": COST_TOKENS,
                "price": PriceLineView.each_of(terms.lines),
                "created_at": created_at,
            }
        )

    return app


def serve(app: FastAPI, port: int) -> None:
    """With the settings of `python -m app serve`."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=30,
        backlog=2048,
    )
    uvicorn.Server(config).run()


class _Constant(asyncio.Protocol):
    """Answers before it has read: the fastest server there can be in Python, to measure the callers against."""

    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write

    def data_received(self, data: bytes) -> None:
        self._write(self.ANSWER)


async def serve_constant(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Constant, "127.0.0.1", port)
    await server.serve_forever()


def main(what: str, port: str, argument: str = "") -> None:
    if what == "nothing":
        document: dict[str, Any] = json.loads(Path(argument).read_text())
        serve(nothing_app(document), int(port))
    elif what == "unbatched":
        serve(unbatched_app(argument), int(port))
    else:
        import uvloop  # noqa: PLC0415 - uvicorn brings its own loop

        uvloop.run(serve_constant(int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
