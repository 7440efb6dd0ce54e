"""kill -9 of whoever copies, delivers and serves, and a folder of media that is away for some periods."""

import asyncio
import itertools
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from torture.kills import PAUSE_SECONDS, kill_one
from torture.under_load import Trouble

AWAY_SECONDS = (3.0, 12.0)


@dataclass(slots=True)
class StoreTrouble:
    """Kills, and every now and then the folder is gone: renamed, or with a file in its place.

    A process makes its folder when it starts, as decision 0018 says: a renamed one is a time without starts. Where a
    file is in its place a process that starts ends again, and is started once the folder is back.
    """

    trouble: Trouble
    root: Path
    tally: Counter[str] = field(default_factory=Counter)
    away_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    async def run(self, kills: int, aways: int) -> None:
        kinds = itertools.cycle((self._renamed, self._replaced))
        every = max(1, kills // aways)
        for number in range(kills):
            await asyncio.sleep(self.trouble.rng.uniform(*PAUSE_SECONDS))
            self.start_what_ended()
            if number % every == every // 2:
                await next(kinds)()
            await kill_one(self.trouble, self.tally)
        self.start_what_ended()

    def start_what_ended(self) -> None:
        for member in self.trouble.fleet.members:
            if member.has_ended():
                self.tally["started_after_the_store"] += 1
                member.start()

    @property
    def _aside(self) -> Path:
        return self.root.with_name(f"{self.root.name}-away")

    async def _renamed(self) -> None:
        await self._go_away("renamed")
        await self._stay_away()
        if self.root.exists():
            self.wrong.append(f"{self.root} was made again while it was away, with {[*self.root.rglob('*')][:3]}")
            shutil.rmtree(self.root)
        self._aside.rename(self.root)

    async def _replaced(self) -> None:
        await self._go_away("replaced")
        self.root.write_bytes(b"no folder")
        await kill_one(self.trouble, self.tally)
        await self._stay_away()
        self.root.unlink()
        self._aside.rename(self.root)
        self.start_what_ended()

    async def _go_away(self, how: str) -> None:
        # Nobody starts at this moment, who would make it.
        await self.trouble.fleet.until_ready()
        self.root.rename(self._aside)
        self.tally[how] += 1
        self.trouble.timeline.mark("store away")

    async def _stay_away(self) -> None:
        seconds = self.trouble.rng.uniform(*AWAY_SECONDS)
        self.away_seconds += seconds
        await asyncio.sleep(seconds)
