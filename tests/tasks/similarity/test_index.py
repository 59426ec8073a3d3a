"""The search among the vectors of a knowledge base: exact, and of nothing stale."""

import numpy as np
import pytest
import torch
from test_similarity import GROUPS, made

from nlpkit.inference.predictor import predict_examples
from nlpkit.tasks.similarity import index
from nlpkit.tasks.similarity.index import Index


def unit(rows, size=16):
    vectors = np.random.default_rng(0).normal(size=(rows, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("block", [7, 40, 1 << 16])
@pytest.mark.parametrize("most", [1, 10, 60])
def test_the_nearest_are_those_of_a_plain_search(monkeypatch, block, most):
    monkeypatch.setattr(index, "BLOCK", block)
    monkeypatch.setattr(index, "PART", block // 3 + 1)
    vectors = unit(50)
    queries = unit(5)[::-1].astype(np.float32).copy()
    cosines, rows = Index(vectors).nearest(torch.from_numpy(queries), most)
    assert cosines.shape == rows.shape == (5, min(most, 50))
    for query, found, places in zip(queries, cosines, rows, strict=True):
        expected = vectors.astype(np.float32) @ query
        order = np.argsort(-expected, kind="stable")[:most]
        assert places.tolist() == order.tolist()
        np.testing.assert_allclose(found, expected[order], atol=1e-6)


def test_of_equal_sentences_the_first_comes_first():
    vectors = np.repeat(unit(1), 4, 0)
    _, rows = Index(vectors).nearest(torch.from_numpy(vectors[:1].astype(np.float32)), 3)
    assert rows.tolist() == [[0, 1, 2]]


@pytest.fixture
def looked_up(tmp_path):
    """(task, model, folder) with a knowledge base, and how often its sentences were encoded."""
    from conftest import write_lines

    kb = write_lines(tmp_path / "given.jsonl", GROUPS)
    folder = tmp_path / "run"
    folder.mkdir()
    task, model = made(GROUPS, folder, kb=str(kb))
    counts = []
    encoded = index._encoded

    def counted(*arguments):
        counts.append(1)
        return encoded(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_encoded", counted)
        yield task, model.eval(), folder, counts


def files_of(folder):
    return sorted(folder.glob(".vectors-*"))


def test_vectors_are_kept_beside_the_run_and_found_again(looked_up):
    task, model, folder, counts = looked_up
    examples = [task.read(GROUPS[0])]
    first = predict_examples(task, model, examples)
    (file,) = files_of(folder)
    assert file.stat().st_size == 2 * len(GROUPS) * model.encoder.hidden_size + 32
    assert predict_examples(task, model, examples) == first
    assert len(counts) == 1
    model.index = None
    assert predict_examples(task, model, examples) == first
    assert len(counts) == 1
    damaged = bytearray(file.read_bytes())
    damaged[3] ^= 1
    file.write_bytes(damaged)
    model.index = None
    assert predict_examples(task, model, examples) == first
    assert len(counts) == 2


def test_other_weights_have_other_vectors_and_evaluation_keeps_none(looked_up):
    task, model, folder, counts = looked_up
    examples = [task.read(GROUPS[0])]
    before = predict_examples(task, model, examples, decode=task.evaluate)
    assert files_of(folder) == []
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.train().eval()
    assert predict_examples(task, model, examples, decode=task.evaluate) != before
    model.index = None
    predict_examples(task, model, examples)
    model.index = None
    with torch.no_grad():
        model.encoder.characters.weight.mul_(2)
    predict_examples(task, model, examples)
    assert len(files_of(folder)) == 2


def test_where_nothing_can_be_written_the_vectors_stay_in_memory(looked_up, monkeypatch):
    from nlpkit.errors import NlpkitError

    def refuse(path):
        raise NlpkitError(f"{path}: cannot be written")

    task, model, folder, counts = looked_up
    examples = [task.read(GROUPS[0])]
    expected = predict_examples(task, model, examples)
    for file in files_of(folder):
        file.unlink()
    monkeypatch.setattr(index, "check_writable", refuse)
    model.index = None
    assert predict_examples(task, model, examples) == expected
    assert files_of(folder) == []
