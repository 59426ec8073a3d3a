"""Settings: precedence, types, near misses."""

from dataclasses import dataclass
from typing import Literal

import pytest

from nlpkit.config import parse_pairs, read_toml, resolve
from nlpkit.errors import SettingsError


@dataclass(frozen=True)
class Section:
    """Settings of every kind."""

    epochs: int = 1
    rate: float = 0.5
    name: str = "a"
    head: Literal["x", "yes"] = "x"
    threshold: float | None = None
    rates: tuple[str, ...] = ()
    on: bool = False

    def __post_init__(self):
        if self.epochs < 0:
            raise ValueError("epochs: expected at least 0")


def section(*pairs):
    return resolve({"s": Section}, parse_pairs(pairs))["s"]


def test_values_are_of_their_types():
    assert section("s.epochs=3", "s.rate=1", "s.name=5", "s.head=yes", "s.on=true") == Section(
        3, 1.0, "5", "yes", on=True
    )
    assert section("s.threshold=-1.5").threshold == -1.5
    assert section("s.threshold=none").threshold is None
    assert section("s.rates=['a=1', 'b=2']").rates == ("a=1", "b=2")
    assert section("s.rates=a=1").rates == ("a=1",)


def test_a_later_source_wins(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[s]\nepochs = 2\nrate = 3.0\n")
    got = resolve(
        {"s": Section}, read_toml(file), parse_pairs(["s.epochs=5"]), {"s": {"epochs": 7}}
    )["s"]
    assert (got.epochs, got.rate) == (7, 3.0)


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("s.epoch=1", 'unknown setting "s.epoch"; did you mean "epochs"?'),
        ("t.epochs=1", 'unknown section "t"'),
        ("s.epochs=1.5", "s.epochs: expected int, got 1.5"),
        ("s.epochs=true", "s.epochs: expected int, got True"),
        ("s.rate=fast", "s.rate: expected float, got 'fast'"),
        ("s.head=ye", "did you mean"),
        ("s.epochs=-1", "s: epochs: expected at least 0"),
        ("epochs=1", "expected section.key=value"),
        ("s.epochs", "expected section.key=value"),
    ],
)
def test_what_is_wrong_is_named(pair, says):
    with pytest.raises(SettingsError) as error:
        section(pair)
    assert says in error.value.message


@pytest.mark.parametrize("text", ["x = ", "epochs = 3"])
def test_a_bad_file_is_named(tmp_path, text):
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"c\.toml"):
        read_toml(file)
