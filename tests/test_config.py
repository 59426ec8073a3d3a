"""Settings: precedence, types, near misses."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from nlpkit import config, encoders, tasks
from nlpkit.config import EvenSize, LearningRate, Range, Rate, fit, parse_pairs, read_toml, resolve
from nlpkit.encoders import ShapeConfig
from nlpkit.errors import SettingsError
from nlpkit.pretraining.settings import PretrainConfig
from nlpkit.training.settings import TrainConfig


@dataclass(frozen=True)
class Section:
    """Settings of every kind."""

    epochs: Annotated[int, Range(0)] = 1
    rate: float = 0.5
    dropout: Rate = 0.1
    size: EvenSize | None = None
    above: tuple[LearningRate, ...] = ()
    name: str = "a"
    head: Literal["x", "yes"] = "x"
    threshold: float | None = None
    rates: tuple[str, ...] = ()
    on: bool = False

    def __post_init__(self):
        if self.epochs == 8:
            raise ValueError("epochs: expected no 8")
        if self.epochs == 9:
            raise ValueError("epochs and rate: expected no 9")


def section(*pairs):
    return resolve({"s": Section}, parse_pairs(pairs))["s"]


def test_values_are_of_their_types():
    assert section("s.epochs=3", "s.rate=1", "s.name=5", "s.head=yes", "s.on=true") == Section(
        epochs=3, rate=1.0, name="5", head="yes", on=True
    )
    assert section("s.size=4", "s.above=[1, 0.5]", "s.dropout=0") == Section(
        size=4, above=(1.0, 0.5), dropout=0.0
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
        ("s.epochs=-1", "s.epochs: expected at least 0, got -1"),
        ("s.epochs=8", "s.epochs: expected no 8"),
        ("s.epochs=9", "s: epochs and rate: expected no 9"),
        ("s.rate=nan", "s.rate: expected a finite number, got nan"),
        ("s.rate=-inf", "s.rate: expected a finite number, got -inf"),
        ("s.rate=1" + 400 * "0", "s.rate: expected a finite number"),
        ("s.dropout=1", "s.dropout: expected a number below 1, got 1"),
        ("s.size=3", "s.size: expected a multiple of 2, got 3"),
        ("s.size=99999999999999999999", "s.size: expected at most 16384"),
        ("s.size=1" + 5000 * "0", "s.size: expected int, got '10"),
        ("s.above=[1, 0]", "s.above: expected a number above 0, got 0"),
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


def all_settings():
    """(section, field, its type) of every setting there is."""
    sections = {"train": TrainConfig, "pretrain": PretrainConfig, "shape": ShapeConfig}
    sections |= {
        f"encoder {name}": encoders.settings_of(name) for name in ("tiny", "dgcnn", "on_lstm")
    }
    sections |= {name: tasks.load(name).Config for name in tasks.names()}
    for section, cls in sections.items():
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            yield section, field, hints[field.name]


def numbers_in(hint):
    """The types of the numbers in a type, each with its range or None."""
    if hint in (int, float):
        yield hint, None
    elif typing.get_origin(hint) is Annotated:
        yield typing.get_args(hint)
    elif typing.get_origin(hint) is not Literal:
        for part in typing.get_args(hint):
            yield from numbers_in(part)


def test_every_number_has_a_range_and_every_default_fits():
    seen = 0
    for section, field, hint in all_settings():
        name = f"{section}.{field.name}"
        for kind, bounds in numbers_in(hint):
            seen += 1
            assert isinstance(bounds, Range), name
            if kind is int:  # no machine counts further
                assert bounds.least is not None, name
                assert bounds.most < 2**63, name
            with pytest.raises(SettingsError, match="finite|at most|expected int"):
                fit(float("nan") if kind is float else 2**64, hint, name)
        assert fit(field.default, hint, name) == field.default
    assert seen > 60


def test_a_file_of_another_encoding_is_named_and_a_windows_one_read(tmp_path):
    file = tmp_path / "c.toml"
    file.write_bytes("[s]\r\n# 轮数\r\nepochs = 2\r\n".encode("gb18030"))
    with pytest.raises(SettingsError, match=r"c.toml:2: not UTF-8"):
        read_toml(file)
    file.write_bytes(b"\xef\xbb\xbf[s]\r\nepochs = 2\r\n")
    assert read_toml(file) == {"s": {"epochs": 2}}


def test_an_old_name_of_a_setting_is_refused_with_the_new_one(monkeypatch):
    monkeypatch.setitem(config.RENAMED, "s.learning", "s.rate")
    with pytest.raises(SettingsError, match=r'"s\.learning" was renamed: it is "s\.rate" now'):
        section("s.learning=1")


def test_every_new_name_is_a_setting():
    for new in config.RENAMED.values():
        name, key = new.split(".")
        assert key in {field.name for field in dataclasses.fields(tasks.load(name).Config)}
