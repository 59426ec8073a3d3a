"""Systems compared: what a line adds, groups, seeds, and the command on files and runs."""

import json

import numpy as np
import pytest
from conftest import nlpkit, write_lines

from nlpkit import tasks
from nlpkit.encoders import load_tokenizer
from nlpkit.errors import DataError, SettingsError
from nlpkit.evaluation.compare import Chance, Comparison, meets_gate
from nlpkit.evaluation.line_counts import group_counts, line_counts
from nlpkit.evaluation.resampling import bootstrap
from nlpkit.evaluation.systems import Asked, read_systems
from nlpkit.tasks.cln.metrics import Assessed, Gold

TEXT = "郑阿姨在文汇路遇见了林先生"
NAME, ROAD, OTHER = (
    {"start": 0, "end": 3, "label": "name"},
    {"start": 4, "end": 7, "label": "address"},
    {"start": 10, "end": 13, "label": "name"},
)


def task_of(name):
    task_class = tasks.load(name)
    return task_class(task_class.Config(), load_tokenizer("tiny"), None)


def ner_lines(predictions):
    """A line of three entities for each prediction."""
    return [
        {"id": number, "text": TEXT, "entities": [NAME, ROAD, OTHER], "prediction": {"entities": p}}
        for number, p in enumerate(predictions)
    ]


@pytest.fixture
def files(tmp_path):
    """The second has 10 lines more whole, and one that only the first has."""
    first = [[NAME, ROAD, OTHER]] + [[NAME]] * 10 + [[NAME, ROAD]] * 9
    second = [[NAME]] + [[NAME, ROAD, OTHER]] * 10 + [[NAME, ROAD]] * 9
    return [
        write_lines(tmp_path / "first.jsonl", ner_lines(first)),
        write_lines(tmp_path / "second.jsonl", ner_lines(second)),
    ]


def test_the_lines_of_f1_add_up_to_it(files):
    (first, _) = read_systems(files, Asked(task="ner"))
    counts = line_counts(first.task, first.seeds[0], "f1")
    assert counts.above_KN.tolist() == [[6] + [2] * 10 + [4] * 9]
    assert counts.below_KN.tolist() == [[6] + [4] * 10 + [5] * 9]
    assert line_counts(first.task, first.seeds[0], "precision").value == 1.0


def test_a_group_counts_only_its_own_facts(files):
    (first, _) = read_systems(files, Asked(task="ner"))
    groups = group_counts(first.task, first.seeds[0])
    assert list(groups) == ["name", "address"]
    above_N, below_N = groups["address"]
    assert (above_N.sum(), below_N.sum()) == (20, 30)


@pytest.mark.parametrize(
    ("task", "gold", "predictions", "metric", "value"),
    [
        (
            "classification",
            {"text": "好", "label": "a"},
            [{"label": "a"}, {"label": "b"}],
            "accuracy",
            0.5,
        ),
        (
            "fill_mask",
            {"text": "[MASK][MASK]", "answer": "北京"},
            [{"masks": ["北", "京"]}, {"masks": ["北", "海"]}],
            "accuracy",
            0.75,
        ),
        (
            "mrc_mlm",
            {"question": "谁？", "passages": ["长河"], "answers": ["长河"]},
            [{"answer": "长河"}, {"answer": "长"}],
            "cmrc_f1",
            (1 + 2 / 3) / 2,
        ),
        (
            "kgclue",
            {"question": "多大？", "answer": "云泽 ||| 面积 ||| 30"},
            [("云泽", "面积", "30"), ("云泽", "面积", "3")],
            "score",
            (1 + 1 / 3) / 2,
        ),
    ],
)
def test_means_are_recognised(task, gold, predictions, metric, value, tmp_path):
    if task == "kgclue":
        predictions = [
            {"subject": s, "meaning": "", "predicate": p, "objects": [o]} for s, p, o in predictions
        ]
    if task == "fill_mask":
        predictions = [
            {
                "text": "".join(p["masks"]),
                "masks": [
                    {
                        "start": 6 * i,
                        "end": 6 * i + 6,
                        "token": t,
                        "probability": 0.5,
                        "candidates": [],
                    }
                    for i, t in enumerate(p["masks"])
                ],
            }
            for p in predictions
        ]
    file = write_lines(tmp_path / "p.jsonl", [{**gold, "prediction": p} for p in predictions])
    (system,) = read_systems([file], Asked(task=task))
    counts = line_counts(system.task, system.seeds[0], metric)
    assert counts.value == pytest.approx(value, abs=1e-5)


def test_a_likelihood_is_a_geometric_mean_over_tokens():
    """e^-(3 + 4) / (2 + 8) of two texts of 2 and 8 tokens."""
    task = task_of("cln")
    pairs = [(Gold([]), Assessed([], nats=nats, tokens=n)) for nats, n in ((3.0, 2), (4.0, 8))]
    counts = line_counts(task, pairs, "likelihood")
    assert counts.value == pytest.approx(np.exp(-0.7), abs=1e-6)
    drawn = bootstrap([counts], 1000, 1)[:, 0]
    values = np.exp([-1.5, -0.7, -0.5])  # of one text twice, both, the other twice
    assert set(drawn.round(4)) == set(values.round(4))
    assert line_counts(task, pairs, "perplexity").value == pytest.approx(np.exp(0.7), abs=1e-5)


def test_a_metric_that_is_no_sum_over_lines_is_refused(tmp_path):
    lines = [
        {"text": "好", "label": gold, "prediction": {"label": found}}
        for gold, found in (("a", "a"), ("a", "b"), ("b", "b"), ("a", "a"), ("c", "b"))
    ]
    (system,) = read_systems(
        [write_lines(tmp_path / "p.jsonl", lines)], Asked(task="classification")
    )
    with pytest.raises(SettingsError, match="macro_f1: is no sum over lines"):
        line_counts(system.task, system.seeds[0], "macro_f1")
    with pytest.raises(SettingsError, match='no metric "acuracy"; did you mean "accuracy"'):
        line_counts(system.task, system.seeds[0], "acuracy")


def test_a_comparison_of_files(files):
    comparison = Comparison(read_systems(files, Asked(task="ner")), None, Chance(2000))
    result = comparison.result("label")
    first, second = result["systems"]
    assert first["f1"] == pytest.approx(2 * 31 / (31 + 60), abs=1e-6)
    assert second["f1"] == pytest.approx(2 * 49 / (49 + 60), abs=1e-6)
    (found,) = result["differences"]
    assert found["difference"] == pytest.approx(second["f1"] - first["f1"], abs=2e-6)
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert (found["right_only_in_first"], found["right_only_in_second"]) == (1, 10)
    assert found["p_randomisation"] == pytest.approx(24 / 2048, abs=0.01)  # 1 or 0 of 11 against
    assert found["by"]["address"]["first"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["by"]["address"]["second"] == pytest.approx(2 * 19 / 39, abs=1e-6)
    assert meets_gate(result, 0.1, 0.05)
    assert not meets_gate(result, 0.5, 0.05)
    assert not meets_gate(result, 0.1, 0.0001)
    lines = [json.loads(raw) for raw in comparison.disagreements()]
    assert len(lines) == 11
    assert lines[0]["id"] == 0
    assert lines[0]["right"] == str(files[0])
    assert lines[1]["right"] == str(files[1])
    assert len(lines[0]["predictions"][str(files[1])]["entities"]) == 1


def test_several_differences_are_corrected_and_the_gate_takes_that(files, tmp_path):
    """A clear gain that the gate lets pass alone, beside two copies of the first."""
    first, second = files
    alone = Comparison(read_systems([first, second], Asked(task="ner")), None, Chance(2000))
    (found,) = alone.result()["differences"]
    assert found["p_randomisation_holm"] == found["p_randomisation"]
    systems = read_systems([first, second, first, first], Asked(task="ner"))
    result = Comparison(systems, None, Chance(2000)).result()
    gain, *copies = result["differences"]
    for name in ("p_bootstrap", "p_randomisation"):
        assert gain[f"{name}_holm"] == pytest.approx(3 * gain[name], abs=3e-6)
        assert [copy[f"{name}_holm"] for copy in copies] == [1.0, 1.0]
    level = 2 * max(gain["p_bootstrap"], gain["p_randomisation"])
    assert meets_gate({"differences": [found]}, 0.1, level)
    assert not meets_gate({"differences": [gain]}, 0.1, level)


def test_a_folder_of_seeds_is_one_system(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for seed, found in ((1, [NAME]), (2, [NAME, ROAD]), (10, [NAME, ROAD, OTHER])):
        write_lines(folder / f"seed-{seed}.jsonl", ner_lines([found] * 5))
    (system,) = read_systems([folder], Asked(task="ner"))
    (found,) = Comparison([system], None, Chance(500)).result()["systems"]
    assert found["seeds"] == 3
    assert sorted(found["of_seeds"]) == [0.5, 0.8, 1.0]
    assert found["f1"] == pytest.approx(2.3 / 3, abs=1e-6)
    assert found["sd"] == pytest.approx(np.std([0.5, 0.8, 1.0], ddof=1), abs=1e-6)


def test_other_lines_are_refused(files, tmp_path):
    lines = [json.loads(line) for line in files[1].read_bytes().splitlines()]
    fewer = write_lines(tmp_path / "fewer.jsonl", lines[:-1])
    with pytest.raises(DataError, match="fewer.jsonl: expected 20 lines, got 19"):
        read_systems([files[0], fewer], Asked(task="ner"))
    lines[3]["text"] = TEXT.replace("林", "李")
    other = write_lines(tmp_path / "other.jsonl", lines)
    with pytest.raises(DataError, match=r"other.jsonl:4: is not the line at .*first.jsonl:4"):
        read_systems([files[0], other], Asked(task="ner"))


def test_a_seed_with_another_line_is_refused(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    lines = ner_lines([[NAME]] * 3)
    write_lines(folder / "seed-1.jsonl", lines)
    lines[2]["text"] = TEXT.replace("林", "李")
    write_lines(folder / "seed-2.jsonl", lines)
    with pytest.raises(DataError, match=r"seed-2.jsonl:3: is not the line at .*seed-1.jsonl:3"):
        read_systems([folder], Asked(task="ner"))


def test_gold_is_read_once_for_all_files(files, monkeypatch):
    """And no text is made tokens of: entities are compared by their characters."""
    read = []
    task_class = tasks.load("ner")
    whole = task_class.read
    monkeypatch.setattr(task_class, "read", lambda self, x: read.append(x["id"]) or whole(self, x))
    monkeypatch.setattr("nlpkit.text.tokenizer.Tokenizer.encode", None)
    systems = read_systems([*files, files[0]], Asked(data=str(files[0]), task="ner"))
    assert read == list(range(20))
    for system in systems[1:]:
        golds = zip(systems[0].seeds[0], system.seeds[0], strict=True)
        assert all(first is second for (first, _), (second, _) in golds)


def test_what_is_missing_is_said(files):
    with pytest.raises(SettingsError, match="don't say their task"):
        read_systems(files, Asked())
    systems = read_systems(files, Asked(task="ner"))
    with pytest.raises(SettingsError, match="--by: this task groups by label"):
        Comparison(systems, None, Chance(10)).result("predicate")


def test_the_command_is_a_gate_and_writes_the_lines(files, tmp_path):
    common = ["compare", *files, "--task", "ner", "--draws", 500]
    out = tmp_path / "lines.jsonl"
    done = nlpkit(*common, "--min-gain", 0.5, "--level", 0.05, "--differences", out)
    assert json.loads(done.stdout)["differences"][0]["right_only_in_second"] == 10
    assert len(out.read_bytes().splitlines()) == 11
    done = nlpkit(*common, "--min-gain", 40, check=False)
    assert done.returncode == 5
    assert b"gate not met" in done.stderr


def test_a_run_against_its_own_predictions(run, data, tmp_path):
    """The two are alike, so that nothing is left to chance."""
    predicted = tmp_path / "predicted.jsonl"
    nlpkit("predict", run, data, "-o", predicted)
    done = nlpkit("compare", run, predicted, "--data", data, "--by", "predicate", "--draws", 200)
    result = json.loads(done.stdout)
    metrics = json.loads((run / "config.json").read_text())["result"]["metrics"]
    assert [system["f1"] for system in result["systems"]] == [metrics["f1"]] * 2
    (found,) = result["differences"]
    assert (found["difference"], found["p_randomisation"]) == (0.0, 1.0)
    assert found["right_only_in_first"] == found["right_only_in_second"] == 0
    assert found["by"]
    done = nlpkit("compare", run, predicted, check=False)
    assert done.returncode == 2
    assert b"give --data" in done.stderr
