"""How long hostile files hold the child that looks at them, each family of them by itself."""

import tempfile
import time
from functools import partial
from pathlib import Path

from app.application.ports.media_decoder import UnreadableMedia
from app.infrastructure.decoding.decoder import ConfinedDecoder
from benchmarks.figures import Bar, Figures, percentile
from benchmarks.measuring import Options, Run
from benchmarks.stage import Stage
from tests.hostile_media import FAMILIES, hostile_files
from tests.media_decoding import Desk

NAMES = ("hostile",)
BARS = tuple(
    Bar(
        f"hostile files, {family}: the longest of those that are refused, ms",
        f"hostile {family}",
        None,
        "<=",
        200,
        "longest_ms",
    )
    for family in FAMILIES
)


def estimate_seconds(options: Options) -> float:
    return options.rounds * 30


async def run_hostile(_stage: Stage, run: Run) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with ConfinedDecoder.open() as decoder:
            desk = Desk(decoder, Path(directory))
            measures = {f"hostile {family}": partial(_family, desk, family) for family in FAMILIES}
            await run.in_turn("hostile", measures)


async def _family(desk: Desk, family: str) -> Figures:
    """Of a kept file a clean copy is made as well, which takes as long as for anybody's file."""
    refused_ms: list[float] = []
    kept_ms: list[float] = []
    for hostile in hostile_files(family):
        began = time.perf_counter()
        try:
            await desk.examine(hostile.data)
            took_ms = kept_ms
        except UnreadableMedia:
            took_ms = refused_ms
        took_ms.append((time.perf_counter() - began) * 1000)
    return {
        "refused": len(refused_ms),
        "cleaned": len(kept_ms),
        **({"p50_ms": percentile(sorted(refused_ms), 0.5), "longest_ms": max(refused_ms)} if refused_ms else {}),
        **({"longest_cleaned_ms": max(kept_ms)} if kept_ms else {}),
    }
