import asyncio
import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from app.application.ports.media_decoder import UnreadableMedia
from app.infrastructure.decoding.decoder import ConfinedDecoder
from app.infrastructure.decoding.findings import too_slow
from tests.hostile_media import FAMILIES, HostileFile, hostile_files
from tests.media_decoding import Desk, check_kept

NOT_IN_WHAT_IS_KEPT = (b"tail-5d1c", b"canary", b"<?php", b"<script", b"#EXTM3U", b"127.0.0.1:", b"file://")


def test_there_are_more_than_200_and_each_is_another_one() -> None:
    files = [each for family in FAMILIES for each in hostile_files(family)]

    assert len(files) > 400
    assert [name for name, count in Counter(str(each) for each in files).items() if count > 1] == []
    assert sum(each.must_be_refused for each in files) > 150


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_hostile_file_is_refused_or_nothing_hostile_is_left_of_it(family: str, tmp_path: Path) -> None:
    """As a family, because to start a fork server for each would take longer than all of them.

    Where one could be read that it refers to, the child would wait at a pipe that nobody writes into.
    """
    canary = tmp_path / "canary"
    os.mkfifo(canary)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        async with ConfinedDecoder.open() as decoder:
            desk = Desk(decoder, tmp_path)
            files = hostile_files(family, str(canary), host)

            complaints = [found for each in files if (found := await _complaint(desk, each))]

        assert complaints == []
        with pytest.raises(BlockingIOError):
            listener.accept()


async def _complaint(desk: Desk, hostile: HostileFile) -> str | None:
    """None: all is well."""
    try:
        examined, kept = await desk.examine(hostile.data)
    except UnreadableMedia as refused:
        is_sentence = refused.reason.endswith(".") and refused.reason[0].isupper()
        return None if is_sentence and refused.reason != too_slow() else f"{hostile}: {refused.reason}"
    if hostile.must_be_refused:
        return f"{hostile}: not refused"
    if left := [each for each in NOT_IN_WHAT_IS_KEPT if each in kept]:
        return f"{hostile}: {left} is left"
    try:
        await asyncio.to_thread(check_kept, examined, kept)
    except Exception as error:
        return f"{hostile}: what is kept cannot be read: {error!r}"
    return None
