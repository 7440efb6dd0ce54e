"""What one child does with one file, from its confinement to its report."""

import io
import json
import os
from contextlib import suppress
from dataclasses import asdict
from errno import EFBIG
from typing import BinaryIO, cast

from app.domain.media_types import MediaKind, MediaType
from app.infrastructure.decoding import confinement
from app.infrastructure.decoding.confinement import Seconds
from app.infrastructure.decoding.films import clean_film_or_sound
from app.infrastructure.decoding.findings import Finding, Refused, broken, too_demanding, too_large
from app.infrastructure.decoding.pictures import clean_picture

# 0 to 2 lead nowhere: what a library prints must not end up in what is kept.
SOURCE, OUTPUT, REPORT, DESCRIPTORS = 3, 4, 5, 6
SECONDS = {
    # 50 megapixels take a few seconds.
    MediaKind.PICTURE: Seconds(processor=20, in_all=40),
    # 100 MB in very small packets take some, too.
    MediaKind.FILM: Seconds(processor=30, in_all=60),
    MediaKind.SOUND: Seconds(processor=30, in_all=60),
}


def run(parent: int, media_type: MediaType) -> None:
    """In a process whose descriptors are SOURCE, OUTPUT and REPORT. Returns when the report is written."""
    source, output = io.BufferedReader(io.FileIO(SOURCE, "rb")), io.FileIO(OUTPUT, "r+b")
    try:
        confinement.confine(parent, DESCRIPTORS, SECONDS[media_type.kind])
    except Exception as error:
        # Not the file's fault, and nothing of it is read.
        report: dict[str, object] = {"unconfined": repr(error)}
    else:
        report = _report(cast(BinaryIO, source), output, media_type)
    os.write(REPORT, json.dumps(report).encode() + b"\n")


def _report(source: BinaryIO, output: io.FileIO, media_type: MediaType) -> dict[str, object]:
    try:
        return asdict(examine(source, cast(BinaryIO, output), media_type))
    except Refused as refusal:
        return {"refused": refusal.reason}
    except MemoryError:
        return {"refused": too_demanding()}
    except Exception as error:
        # Whatever a broken or hostile file makes the libraries raise, it means that it cannot be read.
        is_too_large = isinstance(error, OSError) and error.errno == EFBIG
        return {"refused": too_large() if is_too_large else broken(media_type)}
    finally:
        with suppress(OSError):
            output.flush()


def examine(source: BinaryIO, output: BinaryIO, media_type: MediaType) -> Finding:
    """Raises Refused, and whatever the libraries do."""
    clean = clean_picture if media_type.kind is MediaKind.PICTURE else clean_film_or_sound
    return clean(source, output, media_type)
