"""Ranges and conditions as RFC 9110 has them."""

import pytest
from starlette.datastructures import Headers

from app.presentation.http.byte_ranges import ByteRange, RangeNotSatisfiable, is_known, one_range, requested_range

ETAG = '"0a1b"'
NINES = "9" * 18


def asked(text: str, size_bytes: int, if_range: str | None = None) -> ByteRange | None:
    headers = {"Range": text} if if_range is None else {"Range": text, "If-Range": if_range}
    return requested_range(Headers(headers), size_bytes, ETAG)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-499", 0, 500),
        ("bytes=500-999", 500, 1000),
        ("bytes=0-", 0, 1000),
        ("bytes=999-", 999, 1000),
        ("bytes=999-999", 999, 1000),
        ("bytes=900-5000", 900, 1000),
        (f"bytes=900-{NINES}", 900, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-1000", 0, 1000),
        ("bytes=-5000", 0, 1000),
        (f"bytes=-{NINES}", 0, 1000),
        ("BYTES=0-1", 0, 2),
        (" bytes = 0 - 1 ", 0, 2),
        ("bytes=000-001", 0, 2),
    ],
)
def test_a_single_range_is_a_part_of_the_file(text: str, start: int, end: int) -> None:
    found = asked(text, 1000)

    assert found == ByteRange(start, end)
    assert found.content_range(1000) == f"bytes {start}-{end - 1}/1000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=5-4",
        "bytes=0x0-1",
        "bytes=+0-1",
        "bytes=0--1",
        "bytes=--1",
        "bytes=1.5-2",
        "bytes=\u0661-\u0662",
        "items=0-1",
        "bytes=0-1,2-3",
        "bytes=0-0,-1",
        "bytes=0-1,",
        "bytes=0-1 2-3",
        f"bytes={NINES}9-",
        f"bytes=-{NINES}9",
    ],
    ids=ascii,
)
def test_anything_else_is_answered_with_the_whole_file(text: str) -> None:
    # Not Headers, which take no other letters than those of Latin-1.
    headers = {"range": text}

    assert requested_range(headers, 1000, ETAG) is None
    assert one_range(headers, ETAG) is None


@pytest.mark.parametrize("text", ["bytes=1000-", "bytes=1000-1001", f"bytes={NINES}-", f"bytes={NINES}-{NINES}"])
def test_a_range_beyond_the_end_is_refused_with_the_length(text: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        asked(text, 1000)

    assert refused.value.headers == {"Content-Range": "bytes */1000"}


@pytest.mark.parametrize("size_bytes", [0, 1, 1000])
def test_a_suffix_of_nothing_is_refused(size_bytes: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        asked("bytes=-0", size_bytes)


@pytest.mark.parametrize("text", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_has_no_part(text: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        asked(text, 0)

    assert refused.value.headers == {"Content-Range": "bytes */0"}


def test_who_asks_for_no_range_gets_the_file() -> None:
    assert requested_range(Headers({}), 1000, ETAG) is None
    assert requested_range(Headers({"If-Range": ETAG}), 1000, ETAG) is None


@pytest.mark.parametrize(
    ("if_range", "is_part"),
    [
        (ETAG, True),
        (f" {ETAG} ", True),
        (f"W/{ETAG}", False),
        ('"another"', False),
        ("0a1b", False),
        ("*", False),
        (f'{ETAG}, "another"', False),
        ("Wed, 21 Oct 2015 07:28:00 GMT", False),
        ("", False),
    ],
)
def test_a_range_of_another_file_than_this_is_none(if_range: str, is_part: bool) -> None:
    assert (asked("bytes=0-1", 1000, if_range) is not None) == is_part
    # Not even refused: the whole file is what such a caller wants.
    if not is_part:
        assert asked("bytes=2000-", 1000, if_range) is None


def test_where_nothing_is_known_of_the_file_no_condition_on_it_holds() -> None:
    assert one_range(Headers({"Range": "bytes=0-1"}), None) == "bytes=0-1"
    assert one_range(Headers({"Range": "bytes=0-1", "If-Range": ETAG}), None) is None


@pytest.mark.parametrize(
    ("if_none_match", "is_known_there"),
    [
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"a", {ETAG}', True),
        (f'W/"a",W/{ETAG} , "b"', True),
        ("*", True),
        (" * ", True),
        ('"a"', False),
        ('"a", "b"', False),
        ("0a1b", False),
        ("", False),
        (",", False),
        ('"*"', False),
        (f"w/{ETAG}", False),
    ],
)
def test_who_has_the_file_need_not_get_it(if_none_match: str, is_known_there: bool) -> None:
    assert is_known(Headers({"If-None-Match": if_none_match}), ETAG) == is_known_there


def test_who_names_no_file_has_none() -> None:
    assert not is_known(Headers({}), ETAG)
