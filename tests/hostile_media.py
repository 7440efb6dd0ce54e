"""More than 200 files that somebody would send who means harm, each made here and the same every time.

TAIL stands in what hides behind, before or within a file that can be read, and must not be in what is kept of it.
CANARY is the name of a file, and HOST a server, that some of them refer to.
"""

import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.media_samples import (
    box,
    element,
    films,
    four_corners,
    inserted_into_moov,
    pictures,
    png,
    png_chunk,
    riff,
    samples,
    saved,
    sounds,
)

TAIL = b"tail-5d1c<?php system($_GET[0]); ?><script>alert(1)</script>"


@dataclass(frozen=True, slots=True)
class HostileFile:
    family: str
    name: str
    data: bytes
    must_be_refused: bool = False
    """Otherwise it may also be cleaned: what is kept can then be read, and nothing hides in it."""

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"


FAMILIES = (
    "PNG",
    "JPEG",
    "GIF",
    "WebP",
    "AVIF and HEIC",
    "polyglots",
    "truncated",
    "bits flipped",
    "other types",
    "references",
    "MP4",
    "WebM",
    "MP3",
    "WAV",
)


def hostile_files(family: str, canary: str = "/tmp/canary", host: str = "127.0.0.1:9") -> Iterator[HostileFile]:
    """`canary` and `host` are what some of them refer to."""
    makers: dict[str, Callable[[], Iterator[tuple[str, bytes, bool]]]] = {
        "PNG": _png,
        "JPEG": _jpeg,
        "GIF": _gif,
        "WebP": _webp,
        "AVIF and HEIC": _boxed_pictures,
        "polyglots": _polyglots,
        "truncated": _truncated,
        "bits flipped": _flipped,
        "other types": lambda: _other_types(canary, host),
        "references": lambda: _references(canary, host),
        "MP4": _mp4,
        "WebM": _webm,
        "MP3": _mp3,
        "WAV": _wav,
    }
    return (HostileFile(family, *each) for each in makers[family]())


def _png() -> Iterator[tuple[str, bytes, bool]]:
    zeros = zlib.compress(bytes(64 * 1024 * 1024), 9)
    for width, height in ((65535, 65535), (65535, 1), (1, 65535), (16384, 16384), (0, 10), (10, 0), (2**31 - 1, 1)):
        yield f"of {width} x {height}", png(width, height, bytes(1000)), True
    yield "of 2^32 - 1 pixels a side", png(2**32 - 1, 2**32 - 1, b""), True
    yield "of 100 megapixels, all there", png(10000, 10000, bytes(10001 * 10000)), True
    yield "of 49 megapixels, of which none is there", png(7000, 7000, b""), True
    small = bytes(11 * 10)
    yield "a text of 64 MB in a kilobyte", png(10, 10, small, png_chunk(b"zTXt", b"a\0\0" + zeros)), True
    yield "an international one", png(10, 10, small, png_chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)), True
    yield "a profile of 64 MB", png(10, 10, small, png_chunk(b"iCCP", b"a\0\0" + zeros)), False
    megabyte = zlib.compress(bytes(1024 * 1024 - 1), 9)
    yield "a hundred texts of a megabyte", png(10, 10, small, *[png_chunk(b"zTXt", b"a\0\0" + megabyte)] * 100), True
    yield "20,000 texts", png(10, 10, small, *[png_chunk(b"tEXt", b"a\0b")] * 20_000), False
    yield "64 MB of pixels too many", png(10, 10, bytes(64 * 1024 * 1024)), False
    yield "100,000 frames", png(10, 10, small, png_chunk(b"acTL", struct.pack(">II", 100_000, 0))), False
    yield "no frames", png(10, 10, small, png_chunk(b"acTL", bytes(8))), False
    yield "a palette that is missing", png(10, 10, small, colour=3), False
    yield "a depth that does not exist", png(10, 10, small, depth=7), True
    yield "a colour that does not exist", png(10, 10, small, colour=5), True
    yield "a chunk longer than the file", png(10, 10, small)[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT", True
    yield "a wrong checksum", png(10, 10, small).replace(b"IDAT", b"IDAT\x00", 1), True
    yield "a header after the pixels", png(10, 10, small, png_chunk(b"IHDR", bytes(13))), False
    exif = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 65535)
    yield "Exif of 65,535 tags", png(10, 10, small, png_chunk(b"eXIf", exif)), False


def _jpeg() -> Iterator[tuple[str, bytes, bool]]:
    plain = pictures()["jpg"]
    at = plain.index(b"\xff\xc0") + 5
    for width, height in ((65500, 65500), (65535, 65535), (65535, 8), (8, 65535), (20000, 20000), (0, 8), (8, 0)):
        sized = plain[:at] + struct.pack(">HH", height, width) + plain[at + 4 :]
        yield f"of {width} x {height}", sized, True
    yield (
        "of 49 megapixels, of which few are there",
        plain[:at] + struct.pack(">HH", 7000, 7000) + plain[at + 4 :],
        True,
    )
    progressive = saved(four_corners(), "JPEG", progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    repeated = progressive[:scan] + progressive[scan:-2] * 3000 + b"\xff\xd9"
    yield "3,000 scans", repeated, True
    start = progressive.index(b"\xff\xc2") + 5
    large = repeated[:start] + struct.pack(">HH", 7000, 7000) + repeated[start + 4 :]
    yield "3,000 scans of 49 megapixels", large, True
    filling = (b"\xff\xfe\xff\xff" + bytes(65533)) * 2
    hundred = progressive[:scan] + progressive[scan:-2] * 100 + b"\xff\xd9"
    sized = hundred[:start] + struct.pack(">HH", 7000, 7000) + hundred[start + 4 :]
    yield "100 scans of 49 megapixels", sized[:2] + filling + sized[2:], True
    for marker in (0xC3, 0xC5, 0xC9, 0xCB):
        yield f"coded as SOF{marker - 0xC0}", plain.replace(b"\xff\xc0", bytes((0xFF, marker))), True
    yield "12 bits", plain[: at - 1] + b"\x0c" + plain[at:], True
    yield "255 colours", plain[: at + 4] + b"\xff" + plain[at + 5 :], True
    segment = b"\xff\xe1" + struct.pack(">H", 65535) + b"Exif\0\0"
    yield "20,000 segments", plain[:2] + b"\xff\xe5\x00\x04ab" * 20_000 + plain[2:], False
    loop = b"Exif\0\0MM\x00*\x00\x00\x00\x08\x00\x01\x87\x69\x00\x04\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x08"
    yield "Exif that leads to itself", plain[:2] + _app(1, loop) + plain[2:], False
    yield (
        "Exif of 65,535 tags",
        plain[:2] + _app(1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60_000) + plain[2:],
        False,
    )
    yield "a segment longer than the file", plain[:2] + segment, True
    profile = b"".join(_app(2, b"ICC_PROFILE\0" + bytes((part, 255)) + bytes(60_000)) for part in range(1, 256))
    yield "a profile of 15 MB", plain[:2] + profile + plain[2:], False
    mpf = b"MPF\0II*\0\x08\0\0\0\x03\0" + b"\xff" * 200
    yield "more pictures that are nowhere", plain[:2] + _app(2, mpf) + plain[2:], False
    yield "only its first bytes", b"\xff\xd8\xff", True
    yield "fill bytes to the end", b"\xff\xd8" + b"\xff" * 1_000_000, True


def _app(number: int, data: bytes) -> bytes:
    return bytes((0xFF, 0xE0 + number)) + struct.pack(">H", len(data) + 2) + data


def _gif() -> Iterator[tuple[str, bytes, bool]]:
    colours = b"\x80\x00\x00" + bytes(3) + b"\xff" * 3
    frame = (
        b"\x21\xf9\x04\x00\x01\x00\x00\x00" + b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\x00\x02\x02\x44\x01\x00"
    )
    loop = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"

    def gif(width: int, height: int, *blocks: bytes) -> bytes:
        return b"GIF89a" + struct.pack("<HH", width, height) + colours + b"".join(blocks)

    def placed(left: int, top: int, width: int, height: int) -> bytes:
        return b"\x2c" + struct.pack("<HHHH", left, top, width, height) + b"\x00\x02\x02\x44\x01\x00"

    yield "a screen of 65,535 x 65,535", gif(65535, 65535, frame, b"\x3b"), True
    yield "a screen of 65,535 x 1", gif(65535, 1, frame, b"\x3b"), True
    yield "a screen of nothing", gif(0, 0, frame, b"\x3b"), False
    yield "100,000 frames", gif(1, 1, loop, frame * 100_000, b"\x3b"), False
    yield "frames without end", gif(1, 1, loop, frame * 50_000), False
    yield "a frame larger than the screen", gif(1, 1, placed(0, 0, 65535, 65535), b"\x3b"), True
    yield "a frame beside the screen", gif(10, 10, placed(60000, 60000, 5000, 5000), b"\x3b"), True
    yield "a frame of nothing", gif(10, 10, placed(0, 0, 0, 0), b"\x3b"), False
    yield "no frame", gif(10, 10, b"\x3b"), True
    yield "no frame but comments", gif(10, 10, b"\x21\xfe" + (b"\xff" + b"x" * 255) * 10_000 + b"\x00\x3b"), True
    yield "codes of 255 bits", gif(10, 10, placed(0, 0, 10, 10).replace(b"\x00\x02\x02", b"\x00\xff\x02")), True
    yield "pixels that end", gif(100, 100, placed(0, 0, 100, 100), b"\x3b"), True
    picture = pictures()["gif"]
    yield "pixels that are cut", picture[:-30], True
    yield "a loop for ever", picture[:-1] + loop, False


def _webp() -> Iterator[tuple[str, bytes, bool]]:
    lossy = pictures()["webp"]
    lossless = saved(four_corners(), "WEBP", lossless=True)
    frame_size = lossy.index(b"\x9d\x01\x2a") + 3
    chunk = lossy[12:]
    for side in (16383, 8000):
        sized = lossy[:frame_size] + struct.pack("<HH", side, side) + lossy[frame_size + 4 :]
        yield f"lossy, of {side} pixels a side", sized, True
        bits = struct.pack("<I", side - 1 | side - 1 << 14)
        yield f"lossless, of {side} pixels a side", lossless[:21] + bits + lossless[25:], True
    for side in (2**24, 16384, 16383):
        canvas = b"\x00" * 4 + struct.pack("<I", side - 1)[:3] * 2
        yield f"a canvas of {side} pixels a side", riff(b"WEBP", (b"VP8X", canvas)) + chunk, True
    canvas = b"\x02\0\0\0" + struct.pack("<I", 63)[:3] + struct.pack("<I", 47)[:3]
    animation = (b"ANIM", bytes(6))
    frame = (b"ANMF", bytes(6) + canvas[4:10] + b"\x64\0\0\0" + chunk)
    yield "20,000 frames", riff(b"WEBP", (b"VP8X", canvas), animation, *[frame] * 20_000), False
    beside = (b"ANMF", b"\xff" * 6 + canvas[4:10] + b"\x64\0\0\0" + chunk)
    yield "a frame beside the canvas", riff(b"WEBP", (b"VP8X", canvas), animation, beside), True
    yield "no frame", riff(b"WEBP", (b"VP8X", canvas), animation), True
    yield "a size of nothing", lossy[:4] + bytes(4) + lossy[8:], True
    yield "a size of 4 GB", lossy[:4] + b"\xff" * 4 + lossy[8:], True
    yield "a chunk of 4 GB", lossy[:16] + b"\xff" * 4 + lossy[20:], True
    yield "a form that does not exist", lossy[:12] + b"VP8Z" + lossy[16:], True


def _boxed_pictures() -> Iterator[tuple[str, bytes, bool]]:
    for name in ("avif", "heic"):
        picture = pictures()[name]
        at = picture.index(b"ispe") + 8
        for width, height in ((65535, 65535), (16384, 16384), (2**32 - 1, 2**32 - 1), (0, 0), (65535, 1), (7000, 7000)):
            sized = picture[:at] + struct.pack(">II", width, height) + picture[at + 8 :]
            yield f"{name} that says it is of {width} x {height}", sized, True
        for inside, value in ((b"iloc", 2**31 - 1), (b"meta", 2**32 - 1), (b"iprp", 1), (b"mdat", 2**31), (b"meta", 0)):
            place = picture.index(inside) - 4
            lying = picture[:place] + struct.pack(">I", value) + picture[place + 4 :]
            yield f"{name} whose {inside.decode()} says {value}", lying, inside != b"mdat" and value > 0
        place = picture.index(b"iloc") + 8
        yield f"{name} whose pixels are elsewhere", picture[:place] + b"\xff" * 20 + picture[place + 20 :], True
        # What is a picture becomes a grid of others, which are not there.
        coded = b"av01" if name == "avif" else b"hvc1"
        place = picture.index(coded, picture.index(b"infe"))
        yield f"{name} made a grid", picture[:place] + b"grid" + picture[place + 4 :], True
        yield f"{name} made a turned one", picture[:place] + b"iden" + picture[place + 4 :], True
        yield f"{name} of 20,000 boxes", picture[:32] + box(b"free") * 20_000 + picture[32:], False
        nested = b""
        for _ in range(1000):
            nested = box(b"meta", bytes(4), nested)
        yield f"{name} of 1,000 boxes in each other", picture[:32] + nested, True
    yield "a grid of 256 x 256 tiles", _heic_grid(), True


def _heic_grid() -> bytes:
    """Of one tile that stands for all, and a size of 65,535 pixels a side."""
    tile = pictures()["heic"]
    place = tile.index(b"hvc1", tile.index(b"infe"))
    at = tile.index(b"ispe") + 8
    sized = tile[:at] + struct.pack(">II", 65535, 65535) + tile[at + 8 :]
    grid = b"\x00\x01\xff\xff" + struct.pack(">II", 65535, 65535)
    data = sized.index(b"mdat") + 4
    return sized[:place] + b"grid" + sized[place + 4 : data] + grid + sized[data + len(grid) :]


def _polyglots() -> Iterator[tuple[str, bytes, bool]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("index.php"), TAIL)
    tails = {"zip": archive.getvalue(), "php": TAIL, "pdf": b"%PDF-1.7\n" + TAIL}
    for suffix, data in samples().items():
        for name, tail in tails.items():
            yield f"{suffix} and {name}", data + tail, False
    whole = samples()
    yield (
        "jpg with a comment",
        whole["jpg"][:2] + b"\xff\xfe" + struct.pack(">H", len(TAIL) + 2) + TAIL + whole["jpg"][2:],
        False,
    )
    yield "jpg in a segment", whole["jpg"][:2] + _app(13, TAIL) + whole["jpg"][2:], False
    yield "png with a text", whole["png"][:33] + png_chunk(b"tEXt", b"Comment\0" + TAIL) + whole["png"][33:], False
    yield "png with a chunk of its own", whole["png"][:33] + png_chunk(b"hiDe", TAIL) + whole["png"][33:], False
    comment = b"\x21\xfe" + bytes((len(TAIL),)) + TAIL + b"\x00"
    first = 13 + 3 * 2 ** ((whole["gif"][10] & 7) + 1)
    yield "gif with a comment", whole["gif"][:first] + comment + whole["gif"][first:], False
    yield "gif that is a program", b"GIF89a/*" + whole["gif"][8:] + b"*/=1;" + TAIL, False
    extended = riff(b"WEBP", (b"VP8X", b"\x04\0\0\0\x3f\0\0\x2f\0\0"), (b"VP8 ", whole["webp"][20:]), (b"XMP ", TAIL))
    yield "webp with XMP", extended, False
    for suffix in ("mp4", "mov"):
        size = int.from_bytes(whole[suffix][:4], "big")
        # Offsets count from the start of the file, so what stands before them would move them.
        yield f"{suffix} with a page before", whole[suffix][:size] + box(b"free", TAIL) + whole[suffix][size:], False
        said = box(b"udta", box(b"\xa9cmt", struct.pack(">HH", len(TAIL), 0), TAIL))
        yield f"{suffix} with a comment", inserted_into_moov(whole[suffix], [said]), False
    tag = b"TIT2" + struct.pack(">I", len(TAIL) + 1) + b"\0\0\0" + TAIL
    yield "mp3 with a title", b"ID3\x03\0\0" + _synchsafe(len(tag)) + tag + whole["mp3"], False
    yield "mp3 with the older tag", whole["mp3"] + b"TAG" + TAIL[:125].ljust(125), False
    info = b"INFOICMT" + struct.pack("<I", len(TAIL)) + TAIL
    yield "wav with a comment", _wav_of(extra=(b"LIST", info)), False
    yield "webm with nothing in it", whole["webm"] + element("EC", TAIL), False


def _synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def _truncated() -> Iterator[tuple[str, bytes, bool]]:
    for suffix, data in samples().items():
        for percent in (1, 10, 30, 60, 90, 99):
            yield f"{suffix} after {percent} %", data[: len(data) * percent // 100], percent <= 1


def _flipped() -> Iterator[tuple[str, bytes, bool]]:
    for suffix, data in samples().items():
        for seed in range(6):
            chance = random.Random(f"{suffix}{seed}")
            changed = bytearray(data)
            for _ in range(1 + seed * 4):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            yield f"{suffix}, seed {seed}", bytes(changed), False


def _other_types(canary: str, host: str) -> Iterator[tuple[str, bytes, bool]]:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        file.addfile(tarfile.TarInfo("a"), io.BytesIO())
    text = f"file://{canary}\nhttp://{host}/a.ts\n".encode()
    entity = f'<!DOCTYPE svg [<!ENTITY x SYSTEM "file://{canary}">]><svg xmlns="http://www.w3.org/2000/svg">&x;</svg>'
    others = {
        "nothing": b"",
        "one byte": b"\x89",
        "NUL bytes": bytes(100_000),
        "blanks": b" " * 100_000,
        "text": b"hello\n" * 100,
        "JSON": json.dumps({"a": 1}).encode(),
        "HTML": b"<!DOCTYPE html>" + TAIL,
        "PHP": TAIL[9:],
        "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "SVG with an entity": entity.encode(),
        "SVG with a link": f'<svg><image href="http://{host}/a.png"/></svg>'.encode(),
        "a playlist of HLS": b"#EXTM3U\n#EXTINF:1,\n" + text,
        "an encrypted one": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="file://{canary}"\n'.encode() + text,
        "ffconcat": b"ffconcat version 1.0\nfile " + text,
        "DASH": f"<?xml version='1.0'?><MPD><BaseURL>http://{host}/</BaseURL></MPD>".encode(),
        "SDP": f"v=0\nc=IN IP4 {host.split(':', maxsplit=1)[0]}\nm=video 5000 RTP/AVP 96\n".encode(),
        "an archive": gzip.compress(archive.getvalue(), mtime=0),
        "a tape": archive.getvalue(),
        "ZIP": b"PK\x03\x04" + bytes(100),
        "PDF": b"%PDF-1.7\n" + bytes(100),
        "a program of Windows": b"MZ" + bytes(1000),
        "a program of Linux": b"\x7fELF\x02\x01\x01" + bytes(1000),
        "a script": b"#!/bin/sh\ncat " + canary.encode(),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(" + canary.encode() + b") run",
        "TIFF": saved(four_corners(), "TIFF"),
        "BMP": saved(four_corners(), "BMP"),
        "ICO": saved(four_corners(), "ICO"),
        "JPEG 2000": saved(four_corners(), "JPEG2000"),
        "PPM": saved(four_corners(), "PPM"),
        "TGA": saved(four_corners(), "TGA"),
        "Photoshop": b"8BPS\x00\x01" + bytes(100),
        "Matroska": element("1A45DFA3", element("4282", b"matroska")) + bytes(100),
        "AVI": riff(b"AVI ", (b"LIST", b"hdrl")),
        "FLV": b"FLV\x01\x05\0\0\0\x09" + bytes(100),
        "Ogg": b"OggS" + bytes(100),
        "FLAC": b"fLaC" + bytes(100),
        "AAC": b"\xff\xf1\x50\x80" * 100,
        "MPEG-TS": (b"G" + bytes(187)) * 10,
        "M4A": box(b"ftyp", b"M4A \0\0\0\0M4A mp42isom") + bytes(100),
    }
    for name, data in others.items():
        yield name, data, True
    for name, first in {
        "PNG": b"\x89PNG\r\n\x1a\n",
        "JPEG": b"\xff\xd8\xff\xe0",
        "GIF": b"GIF89a",
        "WebP": b"RIFF\xff\0\0\0WEBPVP8 ",
        "WAV": b"RIFF\xff\0\0\0WAVE",
        "MP4": box(b"ftyp", b"isom\0\0\0\0isom"),
        "MOV": box(b"ftyp", b"qt  \0\0\0\0qt  "),
        "AVIF": box(b"ftyp", b"avif\0\0\0\0avif"),
        "HEIC": box(b"ftyp", b"heic\0\0\0\0heic"),
        "WebM": element("1A45DFA3", element("4282", b"webm")),
        "MP3": b"ID3\x04\0\0\0\0\0\0",
    }.items():
        yield f"a playlist that begins like {name}", first + b"#EXTM3U\n#EXTINF:1,\n" + text, True
        yield f"noise that begins like {name}", first + random.Random(name).randbytes(20_000), True


def _references(canary: str, host: str) -> Iterator[tuple[str, bytes, bool]]:
    """To files and servers, from within what else could be played."""
    movie = films()["mov"]
    place = movie.index(b"dref") - 4
    (length,) = struct.unpack_from(">I", movie, place)
    links = {
        "a file": box(b"url ", bytes(4), f"file://{canary}\0".encode()),
        "a server": box(b"url ", bytes(4), f"http://{host}/\0".encode()),
        "a name": box(b"urn ", bytes(4), f"a\0file://{canary}\0".encode()),
        "an alias": box(b"alis", bytes(4), _alias(canary, 0)),
        "a relative alias": box(b"alis", bytes(4), _alias("/a" + canary, canary.count("/"))),
    }
    for name, link in links.items():
        changed = box(b"dref", bytes(4), struct.pack(">I", 1), link)
        yield f"to {name} in dref", _resized(movie, place, length, changed), False
    descriptor = box(
        b"rmda", box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(canary) + 8), f"file://{canary}\0".encode())
    )
    elsewhere = box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"rmra", descriptor))
    yield "to a film elsewhere", elsewhere, True
    yield "to a film elsewhere, beside one", inserted_into_moov(movie, [box(b"rmra", descriptor)]), False
    playlist = f"#EXTM3U\nfile://{canary}\nhttp://{host}/".encode()
    yield "in a playlist within ID3", b"ID3\x04\0\0" + _synchsafe(len(playlist)) + playlist + sounds()["mp3"], False
    frame = b"WXXX" + struct.pack(">I", len(host) + 9) + b"\0\0\0\0" + f"http://{host}/".encode()
    yield "to a page from ID3", b"ID3\x03\0\0" + _synchsafe(len(frame)) + frame + sounds()["mp3"], False
    linked = element("1941A469", element("61A7", element("466E", b"a.m3u8") + element("465C", playlist)))
    yield "in an attachment", films()["webm"] + linked, False
    segment = element("1549A966", element("3C83AB", canary.encode() + b"\0") + element("3EB923", bytes(16)))
    yield "to the segment before", element("1A45DFA3", element("4282", b"webm")) + element("18538067", segment), True


def _alias(path: str, levels: int) -> bytes:
    """The record that QuickTime has of a file, as FFmpeg's mov_read_dref reads it. No levels: the path is absolute."""
    name = path.rsplit("/", 1)[-1].encode()[:27]
    head = bytes(10) + bytes((4,)) + b"disk".ljust(27, b"\0") + bytes(12) + bytes((len(name),)) + name.ljust(63, b"\0")
    whole = path.encode() + b"\0" * (2 - len(path) % 2)
    where = bytes(16) + struct.pack(">hh", levels, levels) + bytes(16)
    return head + where + struct.pack(">hh", 2, len(whole)) + whole + b"\xff\xff\0\0"


def _resized(movie: bytes, place: int, length: int, changed: bytes) -> bytes:
    """One box in place of another, and those around it as much longer."""
    result = bytearray(movie[:place] + changed + movie[place + length :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = movie.rindex(name, 0, place) - 4
        (size,) = struct.unpack_from(">I", movie, at)
        struct.pack_into(">I", result, at, size + len(changed) - length)
    return bytes(result)


def _patched(data: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """Counted from behind the name."""
    at = data.index(name) + len(name) + offset
    return data[:at] + value + data[at + len(value) :]


def _mp4() -> Iterator[tuple[str, bytes, bool]]:
    movie = films()["mp4"]
    track_at = movie.index(b"trak") - 4
    (length,) = struct.unpack_from(">I", movie, track_at)
    track = movie[track_at : track_at + length]
    large = b"\xff\xff\xff\x7f"
    yield "a time scale of nothing", _patched(movie, b"mvhd", 12, bytes(4)), False
    yield "a track's time scale of nothing", _patched(movie, b"mdhd", 12, bytes(4)), False
    yield "a duration without end", _patched(movie, b"mdhd", 16, large), False
    yield "a film's duration without end", _patched(movie, b"mvhd", 16, large), False
    yield "a frame of days", _patched(movie, b"stts", 12, b"\0\xff\xff\xff"), True
    yield "two billion frames of one size", _patched(_patched(movie, b"stsz", 4, b"\0\0\0\1"), b"stsz", 8, large), False
    for name in (b"stsz", b"stts", b"stsc", b"stco", b"ctts", b"stss"):
        if name in movie:
            offset = 8 if name == b"stsz" else 4
            yield f"a {name.decode()} of 2^31 entries", _patched(movie, name, offset, large), False
    yield "frames behind the end", _patched(movie, b"stco", 8, large), True
    yield "frames in the header", _patched(movie, b"stco", 8, bytes(4)), False
    yield "5,000 tracks", inserted_into_moov(movie, [track] * 5000), True
    yield "9 tracks", inserted_into_moov(movie, [track] * 8), True
    yield "a picture of 65,535 pixels a side", _patched(movie, b"avc1", 24, b"\xff\xff\xff\xff"), False
    yield "another codec", movie.replace(b"avc1", b"mp4v"), True
    yield "a codec that is not taken", movie.replace(b"avc1", b"jpeg"), True
    yield "a codec that does not exist", movie.replace(b"avc1", b"zzzz"), True
    yield "parameters that are none", _patched(movie, b"avcC", 0, b"\xff" * 30), True
    packed = zlib.compress(box(b"moov", bytes(64 * 1024 * 1024)), 9)
    bomb = box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", 2**31 - 1), packed)))
    yield "a compressed table", box(b"ftyp", b"qt  \0\0\0\0qt  ") + bomb, True
    nested = b""
    for _ in range(10_000):
        nested = box(b"moov", nested)
    yield "10,000 boxes in each other", movie[:28] + nested, True
    yield "a box of 2^63 bytes", movie[:28] + struct.pack(">I4sQ", 1, b"mdat", 2**63 - 1), True
    yield "100,000 boxes of nothing", movie[:28] + box(b"free") * 100_000, True
    fragment = box(b"moof", box(b"mfhd", bytes(8)), box(b"traf", box(b"tfhd", bytes(8)), box(b"trun", bytes(4), large)))
    yield "20,000 fragments", movie + fragment * 20_000, False
    yield (
        "an index without end",
        movie + box(b"sidx", bytes(20), struct.pack(">HH", 0, 65535), bytes(65535 * 12)),
        False,
    )
    edits = box(b"edts", box(b"elst", bytes(4), struct.pack(">I", 2**28)))
    yield "edits without end", inserted_into_moov(movie, [box(b"trak", edits)]), False
    keys = box(b"meta", bytes(4), box(b"keys", bytes(4), large))
    yield "keys without end", inserted_into_moov(movie, [keys]), False
    encrypted = inserted_into_moov(movie, [box(b"pssh", bytes(20), large)])
    yield "a key that is missing", encrypted, False


def _webm() -> Iterator[tuple[str, bytes, bool]]:
    header = element("1A45DFA3", element("4282", b"webm"))
    whole = films()["webm"]
    unknown = b"\x01\xff\xff\xff\xff\xff\xff\xff"
    nested = b"".join(bytes.fromhex("1043A770") + unknown for _ in range(10_000))
    yield "10,000 elements in each other", header + element("18538067", nested, unknown), True
    yield "20,000 chapters", header + element("18538067", element("1043A770", element("45B9", b"") * 20_000)), True
    yield "a tag of 100 MB", header + element("18538067", element("1254C367", b"", b"\x01\0\0\0\x06\0\0\0")), True
    yield (
        "an element of 2^56 bytes",
        header + element("18538067", element("1654AE6B", b"", b"\x01" + b"\xff" * 6 + b"\xfe")),
        True,
    )
    yield "nothing but a header", header, True
    tracks = element(
        "1654AE6B", element("AE", element("D7", b"\1") + element("83", b"\1") + element("86", b"V_VP9")) * 5000
    )
    yield "5,000 tracks", header + element("18538067", tracks), True
    packed = element("6D80", element("6240", element("5034", element("4254", b"\0"))))
    entry = element("AE", element("D7", b"\1") + element("83", b"\1") + element("86", b"V_VP9") + packed)
    bomb = element("A3", b"\x81\0\0\x80" + zlib.compress(bytes(64 * 1024 * 1024), 9))
    cluster = element("1F43B675", element("E7", b"\0") + bomb)
    yield "a compressed frame of 64 MB", header + element("18538067", element("1654AE6B", entry) + cluster), True
    sized = element("E0", element("B0", b"\xff\xff") + element("BA", b"\xff\xff"))
    entry = element("AE", element("D7", b"\1") + element("83", b"\1") + element("86", b"V_VP9") + sized)
    yield "a picture of 65,535 pixels a side", header + element("18538067", element("1654AE6B", entry) + cluster), True
    scale = whole.find(bytes.fromhex("2AD7B1"))
    yield "a time scale of nothing", whole[: scale + 4] + bytes(3) + whole[scale + 7 :], False
    duration = whole.find(bytes.fromhex("4489"))
    for name, value in {"infinite": float("inf"), "nan": float("nan"), "negative": -1.0, "huge": 1e300}.items():
        yield (
            f"a duration that is {name}",
            whole[: duration + 3] + struct.pack(">d", value) + whole[duration + 11 :],
            False,
        )
    attached = element("1941A469", element("61A7", element("466E", b"a.exe") + element("465C", TAIL * 1000)) * 100)
    yield "100 attachments", whole + attached, False
    yield "a codec that is not taken", whole.replace(b"V_VP9", b"V_MS/"), True


def _mp3() -> Iterator[tuple[str, bytes, bool]]:
    sound = sounds()["mp3"]
    yield "a tag that says it has 256 MB", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + sound, True
    yield "a tag of 100 MB", b"ID3\x04\0\0" + _synchsafe(100_000_000) + sound, True
    yield "a tag alone", b"ID3\x04\0\0" + _synchsafe(1000) + bytes(1000), True
    yield "20,000 tags", (b"ID3\x04\0\0\0\0\0\0") * 20_000 + sound, False
    cover = b"APIC" + struct.pack(">I", 2**31 - 1) + b"\0\0\0image/png\0\3\0" + png(65535, 65535, b"")
    yield "a cover of 65,535 pixels a side", b"ID3\x03\0\0" + _synchsafe(len(cover)) + cover + sound, False
    chapters = (b"CHAP" + struct.pack(">I", 18) + b"\0\0a\0" + bytes(16)) * 5000
    yield "5,000 chapters", b"ID3\x03\0\0" + _synchsafe(len(chapters)) + chapters + sound, False
    yield "frames that are none", b"\xff\xfb\x90\x00" + b"\x55" * 50_000, False
    yield "a first frame alone", b"\xff\xfb\x90\x00" * 2, True
    yield (
        "frames of noise",
        b"".join(b"\xff\xfb\x90\x00" + random.Random(at).randbytes(413) for at in range(200)),
        False,
    )
    yield "noise between the frames", sound[:500] + random.Random(1).randbytes(500_000) + sound[500:], False
    xing = sound.find(b"Info") if b"Info" in sound else sound.find(b"Xing")
    yield "a number of frames that lies", sound[: xing + 8] + b"\xff" * 4 + sound[xing + 12 :], False


def _wav_of(
    *,
    tag: int = 1,
    channels: int = 1,
    rate: int = 8000,
    bits: int = 16,
    align: int = 2,
    data: bytes = bytes(8000),
    extra: tuple[bytes, bytes] | None = None,
) -> bytes:
    form = struct.pack("<HHIIHH", tag, channels, rate, min(rate * align, 2**32 - 1), align, bits)
    return riff(b"WAVE", (b"fmt ", form), *([extra] if extra else []), (b"data", data))


def _wav() -> Iterator[tuple[str, bytes, bool]]:
    plain = _wav_of()
    at = plain.index(b"data") + 4
    for name, size in {"4 GB": 2**32 - 1, "2 GB": 2**31 - 1, "nothing": 0}.items():
        yield f"data of {name}", plain[:at] + struct.pack("<I", size) + plain[at + 4 :], False
    yield "65,535 channels", _wav_of(channels=65535, align=65535), True
    yield "no channels", _wav_of(channels=0), True
    yield "a rate of nothing", _wav_of(rate=0), True
    yield "a rate of 4 GHz", _wav_of(rate=2**32 - 1), False
    yield "no bits", _wav_of(bits=0), False
    yield "65,535 bits", _wav_of(bits=65535), True
    yield "blocks of nothing", _wav_of(align=0), False
    yield "hours of silence", _wav_of(rate=1, align=1, bits=8, data=bytes(20_000)), True
    for tag in (0x02, 0x11, 0x31, 0x55, 0x2000, 0xFFFE, 0xFFFF):
        yield f"codec {tag:#x}", _wav_of(tag=tag), True
    yield "no format", riff(b"WAVE", (b"data", bytes(100))), True
    yield "no data", riff(b"WAVE", (b"fmt ", bytes(16))), True
    yield "20,000 chunks", plain[:36] + (b"junk" + bytes(4)) * 20_000 + plain[36:], False
    yield "a chunk of 4 GB", plain[:36] + b"junk" + b"\xff" * 4 + plain[36:], True
