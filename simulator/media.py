"""Pictures and films that show what was asked for; no model runs."""

import colorsys
import math
import random
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont, ImageOps

SIDE_PIXELS_MAX = 1440
DELIVERED_SIDE_PIXELS_MAX = 4096
FILM_SIDE_PIXELS_MAX = 480
FILM_PIXELS_MAX = 480 * 270
FRAMES_PER_SECOND = 12
# A film is cut out of a larger still, so that the camera can move.
CAMERA_ROOM = 1.25
SIGNATURE = "fal simulator: no model ran"

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Picture:
    kind: str
    prompt: str
    seed: int
    number: int
    count: int
    width: int
    height: int
    sources: tuple[Path, ...] = ()
    is_black: bool = False

    content_type = "image/png"
    suffix = ".png"


@dataclass(frozen=True, slots=True)
class Film:
    kind: str
    prompt: str
    seed: int
    width: int
    height: int
    duration_seconds: int
    sources: tuple[Path, ...] = ()
    is_black: bool = False

    content_type = "video/mp4"
    suffix = ".mp4"

    @property
    def frame_count(self) -> int:
        return self.duration_seconds * FRAMES_PER_SECOND


def picture_size(width: int, height: int) -> tuple[int, int]:
    """The requested size, scaled down where a side exceeds the bound of the simulator."""
    scale = min(1.0, SIDE_PIXELS_MAX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def delivered_size(width: int, height: int) -> tuple[int, int]:
    """The requested size up to a larger bound: what exceeds the smaller one is drawn small and enlarged."""
    scale = min(1.0, DELIVERED_SIDE_PIXELS_MAX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def film_size(width: int, height: int) -> tuple[int, int]:
    """A small frame of this aspect ratio (at most 4:1); yuv420p needs even sides."""
    ratio = min(4.0, max(0.25, width / height))
    flatness = max(ratio, 1 / ratio)
    side = min(FILM_SIDE_PIXELS_MAX, math.sqrt(FILM_PIXELS_MAX * flatness))
    longer, shorter = round(side / 2) * 2, round(side / flatness / 2) * 2
    return (longer, shorter) if ratio >= 1 else (shorter, longer)


def image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def render(media: Picture | Film, path: Path) -> None:
    if isinstance(media, Film):
        _render_film(media, path)
    else:
        _render_picture(media).save(path, "PNG", compress_level=1)


def _render_picture(picture: Picture) -> Image.Image:
    if picture.is_black:
        return Image.new("RGB", (picture.width, picture.height))
    size = picture_size(picture.width, picture.height)
    canvas = _background(size, picture.seed, picture.sources)
    footer = f"seed {picture.seed}  ·  image {picture.number} of {picture.count}  ·  {picture.width} x {picture.height}"
    caption = _caption(size, picture.kind, picture.prompt, footer, at_bottom=bool(picture.sources))
    canvas.paste(caption, mask=caption.getchannel("A"))
    return canvas if size == (picture.width, picture.height) else canvas.resize((picture.width, picture.height))


def _render_film(film: Film, path: Path) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(
            "libx264",
            rate=FRAMES_PER_SECOND,
            options={"preset": "ultrafast", "crf": "27", "threads": "1"},
        )
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        for image in _frames(film):
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]  # PyAV leaves it open
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _frames(film: Film) -> Iterator[Image.Image]:
    size = (film.width, film.height)
    if film.is_black:
        black = Image.new("RGB", size)
        yield from (black for _ in range(film.frame_count))
        return
    room = (round(film.width * CAMERA_ROOM), round(film.height * CAMERA_ROOM))
    still = _background(room, film.seed, film.sources)
    footer = f"seed {film.seed}  ·  {film.duration_seconds} s"
    caption = _caption(size, film.kind, film.prompt, footer, at_bottom=True)
    mask = caption.getchannel("A")
    accent = _palette(film.seed)[2]
    for index in range(film.frame_count):
        progress = index / max(1, film.frame_count - 1)
        frame = still.resize(size, Image.Resampling.BILINEAR, box=_camera(room, progress))
        frame.paste(caption, mask=mask)
        _mark_progress(frame, progress, accent)
        yield frame


def _camera(room: tuple[int, int], progress: float) -> tuple[float, float, float, float]:
    """The part of the still that a frame shows: it closes in and swings from left to right."""
    zoom = 1 - progress * (1 - 1 / CAMERA_ROOM)
    width, height = room[0] * zoom, room[1] * zoom
    left = (room[0] - width) * (0.5 - 0.5 * math.cos(progress * math.pi))
    top = (room[1] - height) * 0.5
    return left, top, left + width, top + height


def _mark_progress(frame: Image.Image, progress: float, colour: Colour) -> None:
    draw = ImageDraw.Draw(frame)
    radius = max(frame.size) // 48
    x = radius + progress * (frame.width - 2 * radius)
    y = frame.height * (0.2 + 0.08 * math.sin(progress * 4 * math.tau))
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white", width=2)
    draw.rectangle((0, frame.height - 3, progress * frame.width, frame.height), fill=colour)


def _palette(seed: int) -> tuple[Colour, Colour, Colour]:
    hue = random.Random(seed).random()

    def colour(shift: float, lightness: float, saturation: float) -> Colour:
        red, green, blue = colorsys.hls_to_rgb((hue + shift) % 1, lightness, saturation)
        return round(red * 255), round(green * 255), round(blue * 255)

    return colour(0, 0.18, 0.7), colour(0.12, 0.45, 0.65), colour(0.3, 0.72, 0.8)


def _background(size: tuple[int, int], seed: int, sources: tuple[Path, ...]) -> Image.Image:
    if sources:
        return _derived(size, seed, sources)
    dark, middle, light = _palette(seed)
    numbers = random.Random(seed)
    gradient = Image.linear_gradient("L").rotate(numbers.choice((0, 90, 180, 270)))
    canvas = ImageOps.colorize(gradient.resize(size, Image.Resampling.BILINEAR), dark, light, middle)
    discs = Image.new("L", size)
    draw = ImageDraw.Draw(discs)
    for _ in range(9):
        radius = numbers.uniform(0.04, 0.2) * max(size)
        x, y = numbers.random() * size[0], numbers.random() * size[1]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=numbers.randrange(20, 80))
    canvas.paste(light, mask=discs)
    return canvas


def _derived(size: tuple[int, int], seed: int, sources: tuple[Path, ...]) -> Image.Image:
    """The inputs side by side, their hues turned by the seed, with a tint of its palette."""
    canvas = Image.new("RGB", size)
    for index, source in enumerate(sources):
        left, right = size[0] * index // len(sources), size[0] * (index + 1) // len(sources)
        with Image.open(source) as image:
            canvas.paste(ImageOps.fit(image, (right - left, size[1])), (left, 0))
    hue, saturation, value = canvas.convert("HSV").split()
    turn = random.Random(seed).randrange(32, 224)
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    turned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    dark, middle, light = _palette(seed)
    # A grey input has no hue to turn: the tint makes the seed visible there too.
    return Image.blend(turned, ImageOps.colorize(value, dark, light, middle), 0.3)


def _caption(size: tuple[int, int], kind: str, prompt: str, footer: str, *, at_bottom: bool) -> Image.Image:
    """A transparent layer with the texts on a dark panel."""
    width, height = size
    layer = Image.new("RGBA", size)
    draw = ImageDraw.Draw(layer)
    margin = max(6, min(size) // 24)
    small = _font(max(9, min(size) // 32))
    line_height = small.size * 1.5
    box = (width - 4 * margin, (height * 0.3 if at_bottom else height - 4 * margin) - 2 * line_height)
    text, font = _fitted(draw, prompt, box)
    _, _, _, text_height = draw.multiline_textbbox((0, 0), text, font)
    panel_height = text_height + 2.4 * line_height + 2 * margin
    top = height - margin - panel_height if at_bottom else (height - panel_height) / 2
    draw.rounded_rectangle((margin, top, width - margin, top + panel_height), radius=margin, fill=(10, 12, 20, 200))
    left = 2 * margin
    heading = f"{kind}  ·  {SIGNATURE}"
    draw.text((left, top + margin), heading, (255, 255, 255, 190), _in_one_line(heading, small, box[0]))
    draw.multiline_text((left, top + margin + line_height), text, "white", font)
    draw.text((left, top + panel_height - margin), footer, (255, 255, 255, 190), small, anchor="ls")
    return layer


def _fitted(draw: ImageDraw.ImageDraw, text: str, box: tuple[float, float]) -> tuple[str, ImageFont.FreeTypeFont]:
    """Wrap the text in the largest letters that fit; cut it off where even the smallest do not."""
    size = max(10.0, min(box[0] / 9, box[1] / 4))
    while True:
        font = _font(round(size))
        columns = max(8, int(box[0] / font.getlength("n")))
        wrapped = "\n".join(textwrap.wrap(text, columns))
        _, _, right, bottom = draw.multiline_textbbox((0, 0), wrapped, font)
        if right <= box[0] and bottom <= box[1]:
            return wrapped, font
        if size <= 10:
            lines = max(1, int(box[1] / (font.size * 1.4)))
            return "\n".join(textwrap.wrap(text, columns, max_lines=lines, placeholder=" …")), font
        size = max(10.0, size * 0.85)


def _in_one_line(text: str, font: ImageFont.FreeTypeFont, width: float) -> ImageFont.FreeTypeFont:
    """The font, or a smaller one in which the text fits: ids of endpoints may be long."""
    share = width / font.getlength(text)
    return font if share >= 1 else _font(max(6, int(font.size * share)))


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu where the system has it, for its many scripts; otherwise the font inside Pillow."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        font = ImageFont.load_default(size)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise
        return font
