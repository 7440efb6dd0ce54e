import pytest

from app.domain.media_limits import MediaFacts, MediaLimits

PICTURES = ("image/png", "image/jpeg", "image/webp")
SOUNDS = ("audio/mpeg", "audio/wav")
FILM_FRAME = MediaLimits(
    content_types=PICTURES, size_bytes_max=10 * 1024 * 1024, side_min=300, side_max=6000, ratio_max=2.5
)
MEGAPIXELS = MediaLimits(content_types=PICTURES, pixels_min=100_000, pixels_max=36_000_000)
SOUND = MediaLimits(content_types=SOUNDS, size_bytes_max=15 * 1024 * 1024, seconds=(3, 30))


@pytest.mark.parametrize(
    ("limits", "facts"),
    [
        (FILM_FRAME, MediaFacts()),
        (FILM_FRAME, MediaFacts(content_type="image/webp", size_bytes=10 * 1024 * 1024, width=300, height=300)),
        (FILM_FRAME, MediaFacts(width=300, height=750)),
        (FILM_FRAME, MediaFacts(width=6000, height=2400)),
        # One side alone says nothing.
        (FILM_FRAME, MediaFacts(width=10)),
        (FILM_FRAME, MediaFacts(height=10)),
        (FILM_FRAME, MediaFacts(width=300, height=300, duration_seconds=1000.0)),
        (MEGAPIXELS, MediaFacts(width=1, height=100_000)),
        (MEGAPIXELS, MediaFacts(width=6000, height=6000, size_bytes=10**12)),
        (SOUND, MediaFacts(content_type="audio/mpeg", duration_seconds=3.0)),
        (SOUND, MediaFacts(content_type="audio/wav", duration_seconds=30.0, size_bytes=15 * 1024 * 1024)),
        (MediaLimits(content_types=PICTURES), MediaFacts(width=1, height=60_000, size_bytes=10**12)),
        # 2.39 has no exact form in binary.
        (MediaLimits(content_types=PICTURES, ratio_max=2.39), MediaFacts(width=239, height=100)),
    ],
)
def test_takes_what_is_within_the_bounds_or_not_known(limits: MediaLimits, facts: MediaFacts) -> None:
    assert limits.problem_of(facts) is None


@pytest.mark.parametrize(
    ("limits", "facts", "problem"),
    [
        (FILM_FRAME, MediaFacts(content_type="image/gif"), "The file is GIF: send PNG, JPEG or WebP."),
        (FILM_FRAME, MediaFacts(content_type="audio/mpeg"), "The file is MP3: send PNG, JPEG or WebP."),
        (FILM_FRAME, MediaFacts(content_type="image/bmp"), "The file is image/bmp: send PNG, JPEG or WebP."),
        (SOUND, MediaFacts(content_type="video/mp4"), "The file is MP4: send MP3 or WAV."),
        (
            MediaLimits(content_types=["image/png"]),
            MediaFacts(content_type="image/webp"),
            "The file is WebP: send PNG.",
        ),
        (
            FILM_FRAME,
            MediaFacts(size_bytes=10 * 1024 * 1024 + 1),
            "The picture has 10,485,761 bytes: it may have at most 10,485,760, which is 10 MB.",
        ),
        (
            FILM_FRAME,
            MediaFacts(width=200, height=150),
            "The picture has 200 x 150 pixels: each side must have at least 300.",
        ),
        (
            FILM_FRAME,
            MediaFacts(width=299, height=300),
            "The picture has 299 x 300 pixels: each side must have at least 300.",
        ),
        (
            FILM_FRAME,
            MediaFacts(width=6000, height=6001),
            "The picture has 6000 x 6001 pixels: each side may have at most 6000.",
        ),
        (
            FILM_FRAME,
            MediaFacts(width=751, height=300),
            "The picture has 751 x 300 pixels: the longer side may be at most 2.5 times the shorter one.",
        ),
        (
            MEGAPIXELS,
            MediaFacts(width=1, height=99_999),
            "The picture has 1 x 99999 pixels: width times height must be at least 100,000.",
        ),
        (
            MEGAPIXELS,
            MediaFacts(width=6000, height=6001),
            "The picture has 6000 x 6001 pixels: width times height may be at most 36,000,000.",
        ),
        (SOUND, MediaFacts(duration_seconds=2.999), "The sound takes 2.999 seconds: it must take 3 to 30."),
        (SOUND, MediaFacts(duration_seconds=30.001), "The sound takes 30.001 seconds: it must take 3 to 30."),
        (
            SOUND,
            MediaFacts(size_bytes=15 * 1024 * 1024 + 1, duration_seconds=100.0),
            "The sound has 15,728,641 bytes: it may have at most 15,728,640, which is 15 MB.",
        ),
    ],
)
def test_says_what_is_wrong_and_what_to_do(limits: MediaLimits, facts: MediaFacts, problem: str) -> None:
    assert limits.problem_of(facts) == problem


def test_a_wrong_type_is_said_first() -> None:
    facts = MediaFacts(content_type="image/gif", size_bytes=10**9, width=1, height=100)

    assert FILM_FRAME.problem_of(facts) == "The file is GIF: send PNG, JPEG or WebP."


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (MediaLimits(content_types=PICTURES), "PNG, JPEG or WebP."),
        (
            FILM_FRAME,
            (
                "PNG, JPEG or WebP, at most 10 MB, each side 300 to 6,000 pixels, "
                "the longer side at most 2.5 times the shorter one."
            ),
        ),
        (MEGAPIXELS, "PNG, JPEG or WebP, width times height 100,000 to 36,000,000."),
        (SOUND, "MP3 or WAV, at most 15 MB, 3 to 30 seconds."),
        (MediaLimits(content_types=["image/png"], side_min=240), "PNG, each side at least 240 pixels."),
        (MediaLimits(content_types=["image/png"], side_max=2000), "PNG, each side at most 2,000 pixels."),
        (MediaLimits(content_types=["image/png"], size_bytes_max=1000), "PNG, at most 1,000 bytes."),
    ],
)
def test_tells_all_that_is_taken(limits: MediaLimits, sentence: str) -> None:
    assert limits.sentence_in("en") == sentence


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (
            FILM_FRAME,
            (
                "PNG, JPEG или WebP, не больше 10 МБ, каждая сторона от 300 до 6\u00a0000 пикселей, "
                "отношение длинной стороны к короткой не больше 2,5."
            ),
        ),
        (MEGAPIXELS, "PNG, JPEG или WebP, ширина, умноженная на высоту, от 100\u00a0000 до 36\u00a0000\u00a0000."),
        (SOUND, "MP3 или WAV, не больше 15 МБ, от 3 до 30 секунд."),
    ],
)
def test_tells_it_in_russian(limits: MediaLimits, sentence: str) -> None:
    assert limits.sentence_in("ru") == sentence
