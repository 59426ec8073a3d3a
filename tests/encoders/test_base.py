"""What every encoder is: tensors in and out, exportable, found by the name of its file."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import nlpkit, write_lines

from nlpkit import encoders, samples
from nlpkit.encoders import transformer
from nlpkit.encoders.base import attention_mask, check_attention
from nlpkit.encoders.transformer_settings import FAMILIES
from nlpkit.errors import SettingsError
from nlpkit.layers.prefix_lm import PrefixLM
from nlpkit.text.words import TAGS
from nlpkit.training.perturbation import token_table

TOY = '''
from dataclasses import asdict, dataclass

import torch
from torch import nn

from nlpkit.encoders import base


@dataclass(frozen=True)
class ToyConfig:
    """Settings of `toy`."""

    hidden_size: int = 24
    """Of every token."""


class Encoder(nn.Module, base.Encoder):
    """A token, its left neighbour, and a layer."""

    Config = ToyConfig
    what = "a token and its left neighbour"
    depth = 1

    def __init__(self, vocabulary, config):
        super().__init__()
        self.vocabulary, self.config = vocabulary, ToyConfig(**config)
        self.hidden_size = self.config.hidden_size
        self.embedding = nn.Embedding(vocabulary, self.hidden_size)
        self.layer = nn.Linear(2 * self.hidden_size, self.hidden_size)

    def forward(self, token_ids_BT, segment_ids_BT, attention_mask_BQK):
        embedded_BTH = self.embedding(token_ids_BT) * attention_mask_BQK[:, 0, :, None]
        left_BTH = torch.nn.functional.pad(embedded_BTH, (0, 0, 1, 0))[:, :-1]
        return self.layer(torch.cat([embedded_BTH, left_BTH], -1)).relu()

    def depth_of(self, parameter_name):
        return int(parameter_name.startswith("layer"))

    def spec(self):
        return {"kind": "toy", "vocabulary": self.vocabulary, "config": asdict(self.config)}
'''


def small_transformer(family="bert", **settings):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"vocab_size": 50, "intermediate_size": 24, "max_position_embeddings": 64}
    return transformer.Encoder({"model_type": family, **sizes, **settings})


def small_dgcnn():
    sizes = {"hidden_size": 16, "dilations": (1, 5), "lstm_layers": 1, "lstm_size": 8}
    return encoders.build({"kind": "dgcnn", "vocabulary": 50, "config": sizes})


def small_on_lstm(cell, directions):
    sizes = {"hidden_size": 16, "layers": 2, "chunk": 4, "cell": cell, "directions": directions}
    return encoders.build({"kind": "on_lstm", "vocabulary": 50, "config": sizes})


MAKERS = {
    "dgcnn": small_dgcnn,
    "on_lstm": lambda: small_on_lstm("on_lstm", "both"),
    "on_lstm, forward": lambda: small_on_lstm("on_lstm", "forward"),
    "on_lstm, lstm": lambda: small_on_lstm("lstm", "both"),
    **{family: lambda f=family: small_transformer(f) for family in FAMILIES},
}


def inputs(encoder, lengths, attention):
    """The arguments of `forward` for rows of these lengths."""
    random, rows = torch.Generator().manual_seed(len(lengths)), (len(lengths), max(lengths))
    mask_BT = torch.arange(rows[1]) < torch.tensor(lengths)[:, None]
    token_ids_BT = torch.randint(5, 50, rows, generator=random) * mask_BT
    segment_ids_BT = (torch.arange(rows[1]) > 2).long() * mask_BT
    words = torch.randint(1, TAGS, rows, generator=random) * mask_BT
    extra = [words for _ in encoder.extra_inputs]
    mask_BQK = attention_mask(mask_BT, segment_ids_BT, attention)
    return (token_ids_BT, segment_ids_BT, mask_BQK, *extra)


@pytest.mark.parametrize("name", MAKERS)
def test_forward_can_be_traced_and_gives_the_same_numbers_at_other_sizes(name):
    encoder = MAKERS[name]().eval()
    for attention in encoder.attentions:
        with torch.no_grad():
            traced = torch.jit.trace(
                encoder, inputs(encoder, [12, 9], attention), check_trace=False
            )
            for lengths in ([12, 9], [31, 7, 16], [3]):
                parts = inputs(encoder, lengths, attention)
                torch.testing.assert_close(traced(*parts), encoder(*parts), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_the_first_table_is_that_of_the_tokens(name):
    encoder = MAKERS[name]()
    table = token_table(SimpleNamespace(encoder=encoder))
    assert len(table) == 50  # positions have 64 rows, hashed words more
    token_ids, *others = inputs(encoder, [5], "full")
    with torch.no_grad():
        before = encoder.eval()(token_ids, *others)
        table[token_ids[0, 1]] += 1
        assert not torch.equal(encoder(token_ids, *others), before)


def test_an_encoder_is_one_file(tmp_path):
    """It trains, predicts and is listed, and nothing else is touched."""
    package, out = tmp_path / "more", tmp_path / "run"
    package.mkdir()
    (package / "toy.py").write_text(TOY)
    data = write_lines(tmp_path / "data.jsonl", samples.records("ner", 40, seed=1))

    def command(*arguments):
        see = f"import nlpkit.encoders\nnlpkit.encoders.__path__.append({str(package)!r})"
        return nlpkit(*arguments, env={"BEFORE": see}).stdout

    flags = ["--encoder=toy", "--set=encoder.hidden_size=32", "--epochs=1", "--dev", data]
    command("train", "ner", "--data", data, "--out", out, *flags)
    config = json.loads((out / "config.json").read_bytes())
    assert config["encoder"]["spec"]["config"] == {"hidden_size": 32}
    assert config["settings"]["train"]["learning_rate"] == 3e-3  # of Muon and random weights
    assert len(command("predict", out, data).splitlines()) == 40
    listed = json.loads(command("encoder", "list"))
    assert listed["toy"] == "a token and its left neighbour"
    assert sorted(listed) == ["dgcnn", "gru", "on_lstm", "tiny", "toy"]


def test_an_unknown_kind_of_encoder_is_refused():
    for kind in ("base", "dgcn", "../dgcnn", None, 5):
        with pytest.raises(SettingsError, match="unknown kind of encoder"):
            encoders.build({"kind": kind})
    with pytest.raises(SettingsError, match="make no encoder of the kind dgcnn"):
        encoders.build({"kind": "dgcnn", "vocabulary": 50, "config": {"hiden_size": 16}})


@pytest.mark.parametrize("name", ["dgcnn", "on_lstm", "bert"])
def test_an_encoder_that_cannot_tell_source_from_target_is_refused(name):
    one_segment = small_transformer("bert", type_vocab_size=1)
    encoder = one_segment if name == "bert" else MAKERS[name]()
    with pytest.raises(SettingsError, match="cannot tell a source from a target"):
        PrefixLM(encoder)
    with pytest.raises(SettingsError, match="cannot tell a source from a target"):
        check_attention(encoder, "prefix")
    check_attention(encoder, "full")
