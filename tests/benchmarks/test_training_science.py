"""The script that compares trainings: made-up lines, one short training of each kind."""

import json
import sys
from pathlib import Path

import pytest
import torch
import training_science
from conftest import write_lines

from nlpkit import samples
from nlpkit.errors import SettingsError


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["training_science.py", *map(str, arguments)])
    training_science.main()
    return capsys.readouterr().out.splitlines()


def test_what_has_a_result_is_not_trained_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_science, "TIMED_STEPS", 2)
    monkeypatch.setattr(training_science, "WARM_UP", 1)
    records = list(samples.records("classification", 24, seed=1))
    write_lines(tmp_path / "reviews_train.jsonl", records)
    results = tmp_path / "results.jsonl"
    arguments = ["--data", tmp_path, "--results", results, "--settings=reviews", "--epochs=2"]
    arguments += ["--seeds=1", f"--threads={torch.get_num_threads()}"]
    found = run(monkeypatch, capsys, *arguments, "--wrapper=lookahead(k=2)")
    base, variant = map(json.loads, found)
    assert (base["variant"], variant["variant"]) == ("base", "lookahead(k=2)")
    assert base["metric"] == variant["metric"]
    assert variant["time_ratio"] > 0
    with results.open("a") as stream:
        stream.write('{"cut short')
    assert run(monkeypatch, capsys, *arguments, "--wrapper=lookahead(k=2)") == []
    assert len(run(monkeypatch, capsys, "--table", results)) == 4
    with pytest.raises(SettingsError, match="train.optimizer"):
        run(monkeypatch, capsys, *arguments, "--optimizer=adm")


def test_the_time_of_a_step_is_that_of_another_seed():
    case = training_science.Case("duie", "tiny", 6, 2, "fgm", ("train.techniques=[fgm]",))
    other = {"setting": "duie", "encoder": "tiny", "epochs": 3, "seed": 1, "variant": "fgm"}
    assert training_science.known_ratio(case, [{**other, "time_ratio": 1.5}]) == 1.5
    for key, value in (("setting", "cluener"), ("encoder", "random"), ("variant", "pgd")):
        elsewhere = {**other, key: value, "time_ratio": 1.5}
        assert training_science.known_ratio(case, [elsewhere]) is None
    base = training_science.Case("duie", "tiny", 6, 2, training_science.BASE)
    assert training_science.known_ratio(base, []) == 1.0


def test_the_table_pairs_results_by_seed():
    def record(variant, seed, value, ratio=1.0):
        place = {"setting": "duie", "encoder": "tiny", "epochs": 6, "metric": "f1"}
        return {**place, "variant": variant, "seed": seed, "value": value, "time_ratio": ratio}

    records = [record("base", seed, 0.5 + seed / 10) for seed in (1, 2, 3)]
    gains = {1: 0.01, 2: 0.02, 3: 0.03, 9: 5.0}  # of seed 9 there is no base
    for seed, gain in gains.items():
        records.append(record("fgm", seed, 0.5 + seed / 10 + gain, ratio=2.0))
    *_, base, fgm = training_science.table(records)
    assert base == "| duie, tiny, 6 epochs, f1 | `base` | 3 | 0.7000 | 0.1000 |  |  |"
    # 4.303 * 0.01 / sqrt(3)
    assert "| +0.0200 ± 0.0248 | 2.00 |" in fgm


def test_lines_are_taken_at_equal_distances(tmp_path):
    lines = [b"%d\n" % number for number in range(10)]
    assert training_science.pick(lines, 5) == lines[::2]
    assert training_science.pick(lines, 20) == lines
    (tmp_path / "duie_train.jsonl").write_bytes(b"".join(lines))
    paths = training_science.prepare(tmp_path, "duie", tmp_path)
    train, dev = [Path(path).read_bytes().split() for path in paths]
    assert train == [b"0", b"2", b"4", b"6", b"8"]
    assert dev == [b"1", b"3", b"5", b"7", b"9"]
