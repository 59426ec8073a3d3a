"""Trees of lines: what goes in and out, agreement with words, and what is refused."""

import json

import numpy as np
import pytest
import torch
from conftest import nlpkit

from nlpkit import encoders
from nlpkit.encoders.checkpoint.own import save_own
from nlpkit.encoders.trees import brackets
from nlpkit.errors import DataError, SettingsError
from nlpkit.inference.trees import TreeReader, agreement, word_spans
from nlpkit.jsonl import read_lines

CONFIG = {"layers": 3, "hidden_size": 16, "chunk": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoders") / "on_lstm"
    path.mkdir()
    tokenizer = encoders.load_tokenizer("on_lstm")
    spec = {"kind": "on_lstm", "vocabulary": tokenizer.backend.get_vocab_size()}
    encoder = encoders.build({**spec, "config": CONFIG, "head": True})
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    save_own(path, encoder, tokenizer.backend)
    return path


def reader(folder, **settings):
    return TreeReader(*encoders.load(str(folder), encoders.settings_of(str(folder))()), **settings)


def test_lines_come_out_with_their_trees(folder, tmp_path):
    file = tmp_path / "in"
    record = '{"id": 12345678901234567890, "text": "今天下雨。"}'
    file.write_text(f"他去了北京\n\n{record}\n(好)\n", encoding="utf-8")
    done = nlpkit("encoder", "tree", folder, file)
    lines = done.stdout.decode().splitlines()
    first, second, third = map(json.loads, lines)
    assert lines[1].startswith(record[:-1] + ',"tree":')
    assert list(first) == ["text", "tree", "constituents"]
    for found in (first, second):
        assert found["tree"].replace("(", "").replace(")", "").replace(" ", "") == found["text"]
        assert len(found["constituents"]) == 4
        assert found["constituents"][0] == [0, 5]
        assert found["tree"].count("(") == 4
    assert third["tree"].replace(" ", "").replace("(", "").replace(")", "") == "-LRB-好-RRB-"
    piped = nlpkit("encoder", "tree", folder, stdin=file.read_bytes())
    assert piped.stdout == done.stdout


def test_a_line_has_the_same_tree_in_any_batch_and_the_middle_layer_is_the_default(
    folder, tmp_path
):
    file = tmp_path / "in"
    texts = ["好", "他去了北京和上海", "今天下雨，明天不下。" * 9]
    file.write_text("\n".join(texts), encoding="utf-8")
    together = list(reader(folder).trees(read_lines(file)))
    other = list(reader(folder, layer=3).trees(read_lines(file)))
    assert [tree.nodes for tree in together] != [tree.nodes for tree in other]
    again = list(reader(folder, layer=2).trees(read_lines(file)))
    assert [tree.nodes for tree in together] == [tree.nodes for tree in again]
    for text, tree in zip(texts, together, strict=True):
        file.write_text(text, encoding="utf-8")
        (alone,) = reader(folder).trees(read_lines(file))
        assert alone.nodes == tree.nodes


def test_a_picture(folder, tmp_path):
    file = tmp_path / "in"
    file.write_text("今天下雨\n好\n", encoding="utf-8")
    lines = nlpkit("encoder", "tree", folder, file, "--picture").stdout.decode().splitlines()
    assert lines[0] == "今天下雨"
    assert lines[1].startswith("  ")
    assert lines[-3:] == ["", "好", ""]


def test_agreement_is_the_share_of_the_words_that_are_parts(folder, tmp_path, monkeypatch):
    """jieba's words are 我们 喜欢 北京: three of two characters."""
    file = tmp_path / "in"
    file.write_text("我们喜欢北京\n北京\n", encoding="utf-8")
    levels = {8: np.array([1, 0, 2, 0, 0, 0]), 4: np.zeros(2)}
    found = reader(folder)
    monkeypatch.setattr(found, "levels", lambda some: [levels[len(one)] for one in some])
    trees = list(found.trees(read_lines(file)))
    assert brackets(trees[0].tokens, trees[0].nodes) == "((我 们) (喜 (欢 (北 京))))"
    assert word_spans(trees[0].encoding) == [(0, 2), (2, 4), (4, 6)]
    assert word_spans(trees[1].encoding) == []  # it is the whole line
    shares = agreement(trees)
    assert shares == agreement(trees)
    assert {key: shares[key] for key in ("sentences", "words")} == {"sentences": 2, "words": 3}
    assert shares["trees"] == 0.6667
    assert shares["right_branching"] == 0.3333
    assert shares["balanced"] == 0.3333  # ((我 (们 喜)) (欢 (北 京)))
    assert 0 <= shares["random"] <= 1
    with pytest.raises(DataError, match="no word of two tokens or more"):
        agreement(trees[1:])
    told = json.loads(nlpkit("encoder", "tree", folder, file, "--agreement").stdout)
    assert list(told) == ["layer", *shares]
    assert told["words"] == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 3}', 'in:2: expected a string in "text"'),
        ('{"id": 3}', 'in:2: expected a string in "text"'),
        ("{好}", "in:2: not valid JSON"),
    ],
)
def test_a_wrong_line_is_named_after_the_lines_before_it(folder, tmp_path, line, message):
    file = tmp_path / "in"
    file.write_text(f"今天下雨\n{line}\n", encoding="utf-8")
    done = nlpkit("encoder", "tree", folder, file, check=False)
    assert done.returncode == 3
    assert message in done.stderr.decode()
    assert len(done.stdout.splitlines()) == 1


def test_encoders_without_ordered_neurons_are_refused(tmp_path):
    for source, message in (
        ("tiny", "expected an encoder with ordered neurons, got one of the kind transformer"),
        ("dgcnn", "expected an encoder with ordered neurons, got one of the kind dgcnn"),
        ("on_lstm", "on_lstm: its weights are random before it is pretrained"),
    ):
        done = nlpkit("encoder", "tree", source, stdin="好".encode(), check=False)
        assert done.returncode == 2
        assert message in done.stderr.decode()


def test_wrong_options_are_named(folder):
    with pytest.raises(SettingsError, match="layer: expected 1 to 3, got 4"):
        reader(folder, layer=4)
    done = nlpkit("encoder", "tree", folder, "--picture", "--agreement", check=False)
    assert done.returncode == 2
    assert "--picture and --agreement: expected one of them" in done.stderr.decode()
