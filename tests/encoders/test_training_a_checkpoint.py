"""A task on a BERT checkpoint from a directory: trained, saved, moved away from the checkpoint, and
used."""

import json
import shutil

import pytest
import transformers
from conftest import nlpkit

from nlpkit.jsonl import read_jsonl

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 45,
}


@pytest.fixture
def checkpoint(tmp_path, data):
    """A small BERT with a WordPiece vocabulary of the data's characters."""
    characters = sorted(
        {c for _, record in read_jsonl(data) for c in record["text"].lower() if not c.isspace()}
    )
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    config = transformers.BertConfig(vocab_size=len(tokens), **SIZES)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return tmp_path / "bert"


def test_a_run_on_a_checkpoint_stands_alone(checkpoint, data, tmp_path):
    flags = [
        "--data",
        data,
        "--encoder",
        checkpoint,
        "--epochs",
        1,
        "--set",
        "train.layer_decay=0.8",
    ]
    rehearsal = nlpkit(
        "train", "gplinker", *flags, "--out", tmp_path / "run", "--dry-run"
    ).stderr.decode()
    assert "3e-05" in rehearsal  # the head's rate; the layers below have less
    assert "2.4e-05" in rehearsal
    nlpkit("train", "gplinker", *flags, "--out", tmp_path / "run")
    shutil.rmtree(checkpoint)
    done = nlpkit("predict", tmp_path / "run", stdin='{"text": "他写了《长夜》。"}\n'.encode())
    assert "prediction" in json.loads(done.stdout)
    long = json.dumps(
        {"text": "他写了《长夜》。" * 30}
    ).encode()  # more tokens than the checkpoint has positions
    assert len(nlpkit("predict", tmp_path / "run", stdin=long).stdout.splitlines()) == 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["encoder"]["spec"]["config"]["model_type"] == "bert"
