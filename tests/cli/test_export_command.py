"""`nlpkit export` through a shell: what it writes, refuses and scores."""

import json

import pytest
from conftest import nlpkit, write_lines
from small_runs import predictions_of, records_of, save_run

NEGATED = """
from nlpkit.encoders import onnx, onnx_graph
run = onnx.Encoder._run
onnx.Encoder._run = lambda *given: -run(*given)
onnx_graph._check_graph = lambda *given: None
"""
"""Vectors of the opposite sign, which is not found out while the graph is written."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run, lines with gold, and the same lines with what the run predicts as gold."""
    folder = tmp_path_factory.mktemp("export")
    run = save_run("classification", folder / "run")
    records = records_of("classification")
    write_lines(folder / "dev.jsonl", records)
    labels = [prediction.label for prediction in predictions_of(run, records)]
    right = [{**record, "label": label} for record, label in zip(records, labels, strict=True)]
    write_lines(folder / "right.jsonl", right)
    return folder


def failed(code, *arguments, **options):
    done = nlpkit("export", *arguments, check=False, **options)
    assert done.returncode == code, done.stderr.decode()
    assert not done.stdout
    return done.stderr.decode()


def test_predict_and_eval_take_the_folder_like_a_run(folder, tmp_path):
    out = tmp_path / "deep" / "export"
    done = nlpkit("export", folder / "run", "-o", out, "--data", folder / "dev.jsonl")
    told = json.loads(done.stdout)
    assert told["export"] == str(out)
    assert told["metric"] == "accuracy"
    assert told["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    assert not list(out.parent.glob(".*"))
    figures = [
        json.loads(nlpkit("eval", one, "--data", folder / "dev.jsonl").stdout)
        for one in (folder / "run", out)
    ]
    assert [found["accuracy"] for found in figures] == [told["run_score"], told["score"]]
    lines = nlpkit("predict", out, folder / "dev.jsonl").stdout.splitlines()
    labels = [json.loads(line)["prediction"]["label"] for line in lines]
    lines = nlpkit("predict", folder / "run", folder / "dev.jsonl").stdout.splitlines()
    assert labels == [json.loads(line)["prediction"]["label"] for line in lines]
    scores = json.loads((out / "config.json").read_bytes())["export"]["scores"]
    assert scores == {key: told[key] for key in scores}
    card = (out / "README.md").read_text()
    assert f"| {told['run_score']} | {told['score']} |" in card
    assert "dev.jsonl" in card


def test_a_score_that_moves_leaves_nothing(folder, tmp_path):
    out = tmp_path / "export"
    arguments = [folder / "run", "-o", out, "--int8", "--data", folder / "right.jsonl"]
    told = failed(5, *arguments, env={"BEFORE": NEGATED})
    assert "gate not met: accuracy moved by 100.00 points, from 1.0 to 0.0" in told
    assert "at most 1 are allowed" in told
    assert not list(tmp_path.iterdir())
    nlpkit("export", *arguments, "--tolerance", 100, env={"BEFORE": NEGATED})
    assert out.is_dir()


def test_what_cannot_be_is_said(folder, tmp_path):
    out = tmp_path / "export"
    run = folder / "run"
    assert "missing argument" in failed(2).lower()
    assert "no config.json" in failed(2, tmp_path, "-o", out)
    assert "exists already" in failed(2, run, "-o", folder)
    assert "exists already" in failed(2, run, "-o", folder / "dev.jsonl")
    assert "nothing to score" in failed(2, run, "-o", out, "--tolerance", 1)
    bad = [run, "-o", out, "--data", folder / "dev.jsonl", "--tolerance"]
    for points in ("-1", "nan", "inf"):
        assert "expected points from 0 on" in failed(2, *bad, points)
    assert "cannot be read" in failed(3, run, "-o", out, "--data", folder / "no.jsonl")
    assert "read twice" in failed(3, run, "-o", out, "--data", "-")
    assert "cannot be written" in failed(2, run, "-o", "/proc/no/export")
    bare = write_lines(tmp_path / "bare.jsonl", [{"text": "好"}])
    assert "bare.jsonl:1: no gold" in failed(3, run, "-o", out, "--data", bare)
    save_run("cln", tmp_path / "cln")
    assert "a run of cln cannot be exported" in failed(2, tmp_path / "cln", "-o", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.jsonl", "cln"]
