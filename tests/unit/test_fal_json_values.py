import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.infrastructure.fal.json_values import DEPTH_MAX, NotJson, TooDeep, parse, storable


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[NaN, Infinity, -Infinity, 1e999, -1e999]", [None] * 5),
        (b"9" * 308, int("9" * 308)),
        (b"-" + b"9" * 308, -int("9" * 308)),
        (b"9" * 309, None),
        (b"9" * 100_000, None),
        (b"18446744073709551617", 18446744073709551617),
        (b"[0.1, -0.0, 1e-320, 1.5E3]", [0.1, -0.0, 1e-320, 1500.0]),
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    ],
)
def test_reads_numbers_that_can_be_kept(text: bytes, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1,]", b"<html>", b'"\xff"', b"\x1f\x8b\x08", b"{}{}", b"'a'", b"undefined", b"- 1"]
)
def test_says_what_is_not_json(text: bytes) -> None:
    with pytest.raises(NotJson):
        parse(text)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_says_what_is_nested_too_deeply_to_read(opening: bytes) -> None:
    with pytest.raises(TooDeep):
        parse(opening * 100_000)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("a\x00b", "ab"),
        ("\ud800x\udfff", "\N{REPLACEMENT CHARACTER}x\N{REPLACEMENT CHARACTER}"),
        ({"k\x00": ["\x00", {"\udc00": 1}]}, {"k": ["", {"\N{REPLACEMENT CHARACTER}": 1}]}),
        ("\N{GRINNING FACE}\u202e\x01\n", "\N{GRINNING FACE}\u202e\x01\n"),
        ([True, None, 1, 1.5], [True, None, 1, 1.5]),
    ],
)
def test_removes_what_the_database_refuses(value: Any, kept: Any) -> None:
    assert storable(value) == kept


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}])
def test_cuts_off_what_is_nested_too_deeply(wrap: Any) -> None:
    value: Any = "end"
    for _ in range(DEPTH_MAX):
        value = wrap(value)
    assert storable(value) == value

    deeper = wrap(value)
    assert "end" not in json.dumps(storable(deeper))
    assert "null" in json.dumps(storable(deeper))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
)


@settings(max_examples=50)
@given(JSON_VALUES)
def test_leaves_only_what_the_database_takes_and_is_content_with_it(value: Any) -> None:
    kept = storable(parse(json.dumps(value).encode()))
    assert "\\u0000" not in json.dumps(kept)
    json.dumps(kept, ensure_ascii=False, allow_nan=False).encode()
    assert storable(kept) == kept


@settings(max_examples=50)
@given(st.recursive(st.floats(allow_nan=False, allow_infinity=False) | st.text("ab\u00e9"), st.lists))
def test_changes_nothing_else(value: Any) -> None:
    kept = storable(parse(json.dumps(value).encode()))
    assert kept == value
    if isinstance(value, float):
        assert math.copysign(1, kept) == math.copysign(1, value)
