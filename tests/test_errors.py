"""Messages show a user's values in short, whatever they are."""

import pytest

from nlpkit.errors import shown

DEEP: list = []
for _ in range(10**5):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value", ["甲" * 10**6, 10**5000, DEEP, {"a": DEEP}, [1] * 10**6, 1.5], ids="abcdef"
)
def test_any_value_is_shown_in_short(value):
    assert 0 < len(shown(value)) < 100


def test_small_values_are_shown_as_they_are():
    assert shown(["甲", 3, None]) == "['甲', 3, None]"
    assert shown(10**5000) == "an integer of 16610 bits"
