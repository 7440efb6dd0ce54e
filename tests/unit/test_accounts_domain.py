import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.keys import digest_of, format_key, is_well_formed, stored_form

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_BYTES = st.binary(min_size=32, max_size=32)
KEY = format_key(bytes(range(32)))


def with_character(key: str, position: int, character: str) -> str:
    return key[:position] + character + key[position + 1 :]


@settings(deadline=None)
@given(RANDOM_BYTES)
def test_a_key_has_its_prefix_its_length_and_its_checksum(random_bytes: bytes) -> None:
    key = format_key(random_bytes)

    assert re.fullmatch(r"tgk_[0-9A-Za-z]{49}", key, re.ASCII)
    assert is_well_formed(key)


@settings(deadline=None)
@given(RANDOM_BYTES, RANDOM_BYTES)
def test_different_random_bytes_make_different_keys(first: bytes, second: bytes) -> None:
    assert (format_key(first) == format_key(second)) is (first == second)


def test_a_key_stays_what_it_is_between_releases() -> None:
    assert KEY == "tgk_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf0BviBn"


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_refuses_to_make_a_key_of_another_number_of_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        format_key(bytes(size))


@pytest.mark.parametrize("position", range(len(KEY)))
def test_turns_away_a_key_with_one_character_changed(position: int) -> None:
    others = set(ALPHABET + "-_ \n\0é٣") - {KEY[position]}

    accepted = [character for character in others if is_well_formed(with_character(KEY, position, character))]

    assert accepted == []


@settings(deadline=None)
@given(RANDOM_BYTES, st.integers(0, 52), st.characters())
def test_turns_away_any_key_with_any_one_character_changed(random_bytes: bytes, position: int, character: str) -> None:
    key = format_key(random_bytes)

    assert is_well_formed(with_character(key, position, character)) is (key[position] == character)


@pytest.mark.parametrize("position", range(len(KEY) - 1))
def test_turns_away_a_key_with_two_neighbours_swapped(position: int) -> None:
    swapped = KEY[:position] + KEY[position + 1] + KEY[position] + KEY[position + 2 :]

    assert is_well_formed(swapped) is (swapped == KEY)


@pytest.mark.parametrize("length", range(len(KEY)))
def test_turns_away_a_key_that_was_cut_off(length: int) -> None:
    assert not is_well_formed(KEY[:length])


@pytest.mark.parametrize("text", [KEY + "0", " " + KEY, KEY + "\n", KEY + KEY, KEY.upper(), KEY.removeprefix("tgk_")])
def test_turns_away_what_is_more_or_less_than_a_key(text: str) -> None:
    assert not is_well_formed(text)


def test_keeps_of_a_key_its_sha_256_digest_and_eight_characters() -> None:
    stored = stored_form(KEY)

    assert stored.digest == hashlib.sha256(KEY.encode()).digest() == digest_of(KEY)
    assert stored.hint == KEY[:8]
