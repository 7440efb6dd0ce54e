"""The folder of media: who may read it, and what is on the disk when a write is said to be done."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.application.ports.media_store import StoreUnavailable
from app.infrastructure.media_store.folder import Folder
from app.infrastructure.media_store.opening import open_store

KEY = "outputs/ab/cd/0a1b"


async def once(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def test_who_reads_slowly_holds_little(tmp_path: Path) -> None:
    size_bytes = 1024 * 1024 + 1
    folder = Folder(tmp_path)
    await folder.put(KEY, once(bytes(size_bytes)))

    read = [len(chunk) async for chunk in folder.read(KEY, 0, size_bytes)]

    assert (sum(read), max(read)) == (size_bytes, 128 * 1024)


async def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await Folder(tmp_path / "data" / "media").put(KEY, once(b"abc"))
    finally:
        os.umask(before)

    modes = {
        str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "data" / "media").rglob("*")
    }
    assert modes == {
        "data/media/outputs": "0o700",
        "data/media/outputs/ab": "0o700",
        "data/media/outputs/ab/cd": "0o700",
        f"data/media/{KEY}": "0o600",
    }
    assert stat.S_IMODE((tmp_path / "data" / "media").stat().st_mode) == 0o700


async def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    place = tmp_path / KEY
    done: list[tuple[str, bool]] = []
    sync = os.fsync

    def noting(descriptor: Any) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor if isinstance(descriptor, int) else descriptor.fileno()}"))
        done.append((name.suffix or str(name.relative_to(tmp_path)), place.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    await folder.put(KEY, once(b"abc"))

    assert done == [
        (".part", False),
        ("outputs/ab/cd", True),
        ("outputs/ab", True),
        ("outputs", True),
        (".", True),
    ]


async def test_a_full_disk_is_the_stores_fault_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = Folder(tmp_path)
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StoreUnavailable, match=r"cannot be used: No space left on device\.$"):
        await folder.put(KEY, once(b"abc"))

    assert files_in(tmp_path) == []


async def test_links_are_neither_shown_nor_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    folder = Folder(tmp_path / "media")
    await folder.put("a/b", once(b"abc"))
    (tmp_path / "media" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "media" / "a" / "link").symlink_to(tmp_path / "elsewhere" / "file")

    assert [found.key async for found in folder.each()] == ["a/b"]


async def test_a_name_of_any_bytes_can_be_shown_and_deleted(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff#1", os.O_CREAT | os.O_WRONLY))
    assert len(files_in(tmp_path)) == 1

    async for found in folder.each():
        await folder.delete(found.key)

    assert files_in(tmp_path) == []


async def test_a_url_with_encoded_characters_names_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "of media, 100 % ä"

    await open_store(folder.as_uri()).put("a", once(b"abc"))

    assert (folder / "a").read_bytes() == b"abc"
