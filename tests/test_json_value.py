"""JSON values: numbers of any size, and what is no JSON."""

import json
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.errors import RecordError
from nlpkit.json_value import parse_json

NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)


def test_numbers_of_any_size_are_exact():
    assert parse_json(b'{"a": 123456789012345678901, "b": -99999999999999999999}') == {
        "a": 123456789012345678901,
        "b": -99999999999999999999,
    }
    assert parse_json(b"[" + b"7" * 400 + b"]") == [int("7" * 400)]
    assert parse_json(b'["1234567890123456789012\\" 1e999"]') == ['1234567890123456789012" 1e999']
    whole, large = parse_json(b"[" + b"7" * 5000 + b", 1e400]")
    assert (type(whole), type(large)) == (Decimal, Decimal)


@given(st.lists(st.text() | NUMBERS | st.floats(1e90, 1e300)))
def test_numbers_are_those_of_the_standard_parser(values):
    raw = json.dumps(values).encode()
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:  # a lone surrogate
        return
    assert parse_json(raw) == json.loads(raw)


@pytest.mark.parametrize(
    "number",
    ["0" * 20, "-" + "0" * 20, "9" * 20 + ".", "+" + "9" * 20, "9" * 20 + "e", "1e+", "NaN"],
)
def test_a_large_number_does_not_make_json_of_what_is_none(number):
    for text in (f"[{number}]", f"[{'1' * 30}, {number}]", f'["\\ud800", {number}]'):
        with pytest.raises(RecordError, match="not valid JSON"):
            parse_json(text.encode())
