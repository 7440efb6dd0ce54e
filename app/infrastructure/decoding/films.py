"""Films and sounds, packed anew: their streams of pictures and sound alone, and not decoded but for the first frame.

So what a phone writes beside them is left out (places, serial numbers, names, dates, chapters, subtitles, covers), and
what stands behind the end. What a codec carries within its own stream stays. How a film is turned is kept, as the
matrix that players heed; the width and height that are told are those of the film as it is shown.
"""

import io
import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple, cast

import av
import av.audio.stream
import av.container
import av.subtitles.stream
import av.video.stream

from app.domain.media_types import MP3, MP4, QUICKTIME, WAV, WEBM, MediaKind, MediaType
from app.infrastructure.decoding.findings import (
    FILM_SIDE_PIXELS_MAX,
    PIXELS_MAX,
    STREAMS_MAX,
    Finding,
    Refused,
    broken,
    check_duration,
    check_size,
)
from app.infrastructure.decoding.mp3 import is_whole_frame

UNDECODED_PACKETS_MAX = 100
"""So many packets may pass before there is a picture, or a sound."""


class _Format(NamedTuple):
    demuxer: str
    muxer: str
    codecs: frozenset[str]
    options: Mapping[str, str]
    content_type: str


_PCM = frozenset(("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"))
_OF_MP4 = frozenset(("h264", "hevc", "av1", "vp9", "aac", "mp3", "opus")) | _PCM | {"pcm_s16be", "pcm_s24be"}
_MP4 = _Format("mov", "mp4", _OF_MP4, {"movflags": "+faststart"}, MP4.content_type)
_FORMATS = {
    MP4: _MP4,
    QUICKTIME: _MP4,
    WEBM: _Format(
        "matroska",
        "webm",
        frozenset(("vp8", "vp9", "av1", "opus", "vorbis")),
        {"cues_to_front": "1"},
        WEBM.content_type,
    ),
    MP3: _Format("mp3", "mp3", frozenset(("mp3",)), {"id3v2_version": "0"}, MP3.content_type),
    WAV: _Format("wav", "wav", _PCM, {}, WAV.content_type),
}
# FFmpeg would write "hev1", which Apple's players do not take. The one tells of less that may stand in the stream.
_APPLE_HEVC = "hvc1"
# The first four are FFmpeg's own defaults or near them, written down because safety hangs on them.
_READING = {
    "enable_drefs": "0",
    "use_absolute_path": "0",
    "protocol_whitelist": "none",
    "max_streams": str(STREAMS_MAX),
    "max_pixels": str(PIXELS_MAX),
    "analyzeduration": "2000000",
    "probesize": "5000000",
    "threads": "1",
}


def clean_film_or_sound(source: BinaryIO, output: BinaryIO, media_type: MediaType) -> Finding:
    """Raises Refused, and whatever FFmpeg's errors are as PyAV raises them."""
    form = _FORMATS[media_type]
    source.seek(0)
    with av.open(
        source, "r", format=form.demuxer, options=_READING, io_open=_refuse_to_open, metadata_errors="ignore"
    ) as incoming:
        streams = _chosen(incoming, form, media_type)
        if incoming.duration is not None:
            check_duration(incoming.duration / av.time_base)
        with av.open(
            output, "w", format=form.muxer, container_options=dict(form.options), io_open=_Again(output)
        ) as outgoing:
            outgoing.flags |= cast(int, av.container.Flags.bitexact.value)
            copying = _Copying(incoming, outgoing, streams)
            copying.run()
    if copying.first is None:
        raise Refused(broken(media_type))
    width, height = _shown_size(copying.first) if media_type.kind is MediaKind.FILM else (None, None)
    return Finding(
        content_type=form.content_type, width=width, height=height, duration_seconds=round(copying.seconds, 3)
    )


def _refuse_to_open(*_asked: object) -> Any:
    """Whatever a file refers to, nothing is opened but the file itself."""
    raise PermissionError


class _Again:
    """The muxer reads what it has written, to move the table of contents to the front, by a descriptor of its own."""

    def __init__(self, output: BinaryIO) -> None:
        self._descriptor = output.fileno()

    def __call__(self, *_asked: object) -> "_Reader":
        return _Reader(self._descriptor)


class _Reader(io.RawIOBase):
    """Reads with a place of its own, because two objects on one descriptor share one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, len(buffer), self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise OSError("not needed")
        self._place = offset
        return offset

    def tell(self) -> int:
        return self._place


def _chosen(container: av.container.InputContainer, form: _Format, media_type: MediaType) -> list[Any]:
    """The first stream of pictures, if it is a film, and the first of sound. Raises Refused."""
    if len(container.streams) > STREAMS_MAX:
        raise Refused(f"The file has more than {STREAMS_MAX} streams: send one with fewer.")
    is_film = media_type.kind is MediaKind.FILM
    covers = av.stream.Disposition.attached_pic
    pictures = [each for each in container.streams.video if not each.disposition & covers] if is_film else []
    sounds = list(container.streams.audio)
    streams = [*pictures[:1], *sounds[:1]]
    if not streams or (is_film and not pictures):
        raise Refused("The file has no pictures that move: send another one." if is_film else broken(media_type))
    for stream in streams:
        # PyAV has None where FFmpeg knows no decoder.
        context: Any = stream.codec_context
        codec = context.codec.canonical_name if context is not None else "something unknown"
        if codec not in form.codecs:
            raise Refused(f"The file is coded as {codec}, which is not taken: send one that is coded as H.264 and AAC.")
        # PyAV would have it start as many threads as there are processors.
        context.thread_count = 1
    for stream in pictures[:1]:
        check_size(stream.codec_context.width, stream.codec_context.height, FILM_SIDE_PIXELS_MAX)
    return streams


def _target(outgoing: av.container.OutputContainer, stream: Any) -> Any:
    target = outgoing.add_stream_from_template(stream, opaque=True)
    if stream.codec_context.codec_tag == _APPLE_HEVC:
        target.codec_context.codec_tag = _APPLE_HEVC
    return target


class _Copying:
    """From one container to another, and the first frame decoded on the way."""

    def __init__(
        self, incoming: av.container.InputContainer, outgoing: av.container.OutputContainer, streams: list[Any]
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._targets = {each.index: _target(outgoing, each) for each in streams}
        self._streams = streams
        self._last = {each.index: -(2**63) for each in streams}
        self._begin: Fraction | None = None
        self._end = Fraction(0)
        self._undecoded = 0
        self._is_mp3 = outgoing.format.name == "mp3"
        self.first: Any = None

    @property
    def seconds(self) -> float:
        return float(self._end - (self._begin or 0))

    def run(self) -> None:
        """Raises Refused, av.FFmpegError."""
        for packet in self._incoming.demux(self._streams):
            if self.first is None and packet.stream is self._streams[0]:
                self._look(packet)
            # The last packet of each stream is an empty one, for the decoder.
            if packet.dts is None and packet.pts is None:
                continue
            if packet.is_corrupt:
                raise Refused("The file is incomplete: check that it plays to its end elsewhere, and send it again.")
            if self._is_mp3 and not is_whole_frame(bytes(packet)):
                continue
            self._copy(packet)

    def _look(self, packet: Any) -> None:
        frames = packet.decode()
        self.first = frames[0] if frames else None
        self._undecoded += 1
        if self.first is None and self._undecoded > UNDECODED_PACKETS_MAX:
            raise Refused("The file shows no picture at its beginning: check that it plays elsewhere.")

    def _copy(self, packet: Any) -> None:
        at = packet.stream.index
        # A muxer takes no packet whose time does not grow, and phones write some.
        decoded_at = max(packet.dts if packet.dts is not None else packet.pts, self._last[at] + 1)
        packet.dts = decoded_at
        packet.pts = decoded_at if packet.pts is None else max(packet.pts, decoded_at)
        self._last[at] = decoded_at
        shown_at = packet.pts * packet.time_base
        self._begin = shown_at if self._begin is None else min(self._begin, shown_at)
        self._end = max(self._end, shown_at + (packet.duration or 0) * packet.time_base)
        check_duration(self.seconds)
        packet.stream = self._targets[at]
        self._outgoing.mux(packet)


def _shown_size(frame: Any) -> tuple[int, int]:
    """Raises Refused."""
    check_size(frame.width, frame.height, FILM_SIDE_PIXELS_MAX)
    return (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
