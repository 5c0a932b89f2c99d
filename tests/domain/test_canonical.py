from __future__ import annotations

import hashlib
import json
import unicodedata
from typing import Literal

import pytest
import rfc8785
from hypothesis import assume, given
from hypothesis import strategies as st

from interlock.domain.canonical import (
    MAX_DEPTH,
    MAX_RESULT_BYTES,
    MAX_SAFE_INTEGER,
    Json,
    canonical,
    canonical_text,
    check_result,
    digest,
    digest_bytes,
    parse,
)
from interlock.domain.errors import JsonError

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_NUMBERS = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | st.floats(
    -MAX_SAFE_INTEGER, MAX_SAFE_INTEGER
)


def _folded(key: str) -> str:
    return unicodedata.normalize("NFKC", key).casefold()


def _objects(values: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    pairs = st.tuples(_TEXTS, values)
    return st.lists(pairs, max_size=4, unique_by=lambda pair: _folded(pair[0])).map(dict)


VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda values: st.lists(values, max_size=4) | _objects(values),
    max_leaves=12,
)


def _refusal(data: bytes | str, *, max_bytes: int = 1000) -> str:
    with pytest.raises(JsonError) as caught:
        parse(data, max_bytes=max_bytes)
    return caught.value.message


@given(VALUES)
def test_canonical_form_parses_to_an_equal_value(value: Json) -> None:
    """What is written in canonical form is read back as the same value."""
    assert value == parse(canonical(value))


@given(VALUES)
def test_canonical_form_is_that_of_the_standard(value: Json) -> None:
    """The fast way and the library's give the same bytes."""
    assert rfc8785.dumps(value) == canonical(value)


@given(value=VALUES, is_ascii=st.booleans())
def test_accepted_text_has_one_canonical_form(value: Json, *, is_ascii: bool) -> None:
    """However a value is spelled, what the parser accepts has the same canonical bytes."""
    text = json.dumps(value, ensure_ascii=is_ascii, indent=1)
    assume("-0.0" not in text)

    assert canonical(value) == canonical(parse(text))


@given(st.text(max_size=30) | st.text('{}[]",:0123456789.eE+-\\u tfn', max_size=30))
def test_any_text_is_refused_or_has_a_canonical_form(text: str) -> None:
    """No text makes the parser fail otherwise, and nothing accepted lacks a canonical form."""
    try:
        value = parse(text)
    except JsonError as error:
        error.message.encode()
    else:
        assert value == parse(canonical(value))


@given(st.binary(max_size=30))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    """Bytes from outside raise nothing but `JsonError`."""
    try:
        parse(data)
    except JsonError as error:
        error.message.encode()


@given(key=_TEXTS, form=st.sampled_from(["NFKC", "NFKD", "NFD"]), is_upper=st.booleans())
def test_keys_equal_after_folding_are_one_key(
    *, key: str, form: Literal["NFKC", "NFKD", "NFD"], is_upper: bool
) -> None:
    """An object never holds two keys that some reader would take for the same."""
    other = unicodedata.normalize(form, key.upper() if is_upper else key)
    assume(other != key and _folded(other) == _folded(key))

    message = _refusal(json.dumps({key: 1, other: 2}))

    assert f"the keys `{key}` and `{other}` are the same key" == message


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a": 1, "\\u0061": 2}',
        '{"amount": 1, "Amount": 2}',
        '{"file": 1, "\ufb01le": 2}',
        '{"k": 1, "\u212a": 2}',
        '{"x": {"ss": 1, "\u00df": 2}}',
    ],
)
def test_duplicate_keys_are_refused(text: str) -> None:
    """Repeated keys are refused: also escaped, in other case, as ligature or compatibility form."""
    assert "are the same key" in _refusal(text)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "-0", "-0.0", "-0e5", "-1e-999"])
def test_number_that_is_none_is_refused(text: str) -> None:
    """NaN, infinities and the negative zero are no numbers, also inside other values."""
    assert f"`{text}` is not a JSON number" == _refusal(f'{{"a": [{text}]}}')


@pytest.mark.parametrize(
    "text", ["1e999", "-1e999", str(2**53), str(-(2**53)), "9" * 400, "9007199254740993.0", "1e16"]
)
def test_number_beyond_the_safe_range_is_refused(text: str) -> None:
    """A number that some reader would round, or read as infinity, is refused in any spelling."""
    assert f"the number `{text[:24]}` is beyond 2^53 - 1" == _refusal(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (str(MAX_SAFE_INTEGER), MAX_SAFE_INTEGER),
        (str(-MAX_SAFE_INTEGER), -MAX_SAFE_INTEGER),
        ("0", 0),
        ("0.0", 0),
        ("1e-999", 0),
        ("12.50", 12.5),
        ("1e3", 1000),
    ],
)
def test_number_inside_the_safe_range_is_read(text: str, expected: float) -> None:
    """Whole and other numbers up to 2^53 - 1 are read in any spelling."""
    assert expected == parse(text)


def test_depth_is_bounded() -> None:
    """The deepest accepted value has 32 levels; neither width nor brackets in strings count."""
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH

    assert deepest == canonical_text(parse(deepest))
    assert "the JSON text is nested deeper than 32 levels" == _refusal(f'{{"a": {deepest}}}')
    assert "the JSON text is nested deeper than 32 levels" == _refusal("[" * 900)
    assert ['["\\' + "[" * 99] == parse(json.dumps(['["\\' + "[" * 99]))
    assert [[]] * 99 == parse(json.dumps([[]] * 99))


def test_size_is_bounded_in_bytes() -> None:
    """A text of exactly the limit is read; one byte more is refused before it is parsed."""
    assert "\u00e9" == parse('"\u00e9"', max_bytes=4)
    assert "the JSON text has 4 bytes, at most 3 are accepted" == _refusal('"\u00e9"', max_bytes=3)


def test_a_result_that_cannot_be_kept_is_refused() -> None:
    """A level and some bytes less than a kept value has: how the call ended comes around it."""
    deepest = parse("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
    check_result(deepest)
    check_result("x" * (MAX_RESULT_BYTES - 2))

    with pytest.raises(JsonError, match="deeper than 31 levels"):
        check_result([deepest])
    with pytest.raises(JsonError, match="has 1000001 bytes, at most 1000000 are kept"):
        check_result("x" * (MAX_RESULT_BYTES - 1))


@pytest.mark.parametrize("text", ['"\\ud800"', '["\\udc00\\ud800"]', '{"\\ud800": 1}'])
def test_half_of_a_surrogate_pair_is_refused(text: str) -> None:
    """A string that cannot be written as UTF-8 is refused, as key and as value."""
    assert "a string holds half of a surrogate pair" == _refusal(text)


@pytest.mark.parametrize("text", ['"\\u0000"', '["a\\u0000b"]', '{"a": {"\\u0000": 1}}'])
def test_the_character_zero_is_refused(text: str) -> None:
    """No text column of Postgres holds U+0000: it is refused at the door, as key and as value."""
    assert "a string holds U+0000, which no database stores; leave it out" == _refusal(text)


def test_refusal_of_surrogate_keys_can_be_printed() -> None:
    """Two equal keys of half a pair are refused with a message that is valid text."""
    assert "a string holds half of a surrogate pair" == _refusal('{"\\ud800": 1, "\\ud800": 2}')


def test_surrogate_pair_is_one_character() -> None:
    """An escaped pair means the character that it encodes."""
    assert "\U0001f600" == parse('"\\ud83d\\ude00"')


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'"\xff"', "the JSON text is not UTF-8 at byte 1"),
        ('"\ud800"', "the JSON text is not UTF-8 at byte 1"),
        (b'"\xc0\xaf"', "the JSON text is not UTF-8 at byte 1"),
        ("", "not JSON at line 1, column 1: expecting value"),
        ("1 2", "not JSON at line 1, column 3: extra data"),
        ("{}\n}", "not JSON at line 2, column 1: extra data"),
        ("[1,]", "not JSON at line 1, column 4: expecting value"),
        ("{'a': 1}", "not JSON at line 1, column 2: expecting property name"),
        ('"\t"', "not JSON at line 1, column 2: invalid control character at"),
        ("01", "not JSON at line 1, column 2: extra data"),
        ("\ufeff1", "not JSON at line 1, column 1: unexpected utf-8 bom"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(data: bytes | str, expected: str) -> None:
    """Invalid UTF-8, trailing text, comments, single quotes and byte order marks are refused."""
    assert _refusal(data).startswith(expected)


def test_canonical_form_follows_the_standard() -> None:
    """Members are sorted by UTF-16 units and numbers written as in RFC 8785, appendix B."""
    value: Json = {"\ufb33": 1, "\U0001f600": 2, "b": [1.0, 1e-7, 0.000001, 4.5, -0.0], "\r": None}

    expected = '{"\\r":null,"b":[1,1e-7,0.000001,4.5,0],"\U0001f600":2,"\ufb33":1}'
    assert expected == canonical_text(value)


_DEEP: Json = []
for _ in range(2000):
    _DEEP = [_DEEP]


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**53,
        "\ud800",
        {"\ud800": 1},
        pytest.param(_DEEP, id="too deep"),
    ],
)
def test_value_without_canonical_form_is_refused(value: Json) -> None:
    """What cannot be written canonically raises `JsonError` and gets no digest."""
    with pytest.raises(JsonError, match="the value has no canonical form"):
        digest(value)


def test_digest_is_taken_over_the_canonical_form() -> None:
    """Equal values have equal digests, whatever the order of their members was."""
    expected = "sha256:" + hashlib.sha256(b'{"a":1,"b":2}').hexdigest()

    assert expected == digest({"b": 2, "a": 1.0}) == digest_bytes(b'{"a":1,"b":2}')
