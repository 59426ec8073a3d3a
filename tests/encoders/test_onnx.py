"""An exported encoder gives the vectors of the encoder that it was made of, whatever the number of
texts and their lengths; in 8 bits nearly, and each text the same alone as among others."""

import sys

import pytest
import torch
from conftest import SMALL

from nlpkit import encoders
from nlpkit.encoders import onnx, onnx_graph
from nlpkit.encoders.base import encode
from nlpkit.errors import SettingsError

TEXTS = ["雾灯是谁写的？" * 8, "桐溪", "沈从文去了三月的北京，买了两斤苹果。", "好", "云岭" * 6]


def bert_family(family):
    shape = encoders.ShapeConfig(
        family=family, layers=2, hidden_size=32, heads=2, intermediate_size=32, max_length=64
    )
    encoder, backend = encoders.for_pretraining(None, shape)
    return encoder, encoders.tokenizer_of(encoder, backend)


def dgcnn():
    """With a distance of neighbours that is longer than the shortest texts; nothing is zero."""
    encoder, tokenizer = encoders.load("dgcnn", encoders.settings_of("dgcnn")(**SMALL))
    with torch.no_grad():
        encoder.word_embedding.weight.normal_()
    return encoder, tokenizer


MADE = {"bert": lambda: bert_family("bert"), "roformer": lambda: bert_family("roformer")}
MADE["dgcnn"] = dgcnn
MADE["gru"] = lambda: encoders.load("gru", encoders.settings_of("gru")(layers=2))


def on_lstm(**settings):
    """With weights that are far from those that it starts from."""
    config = encoders.settings_of("on_lstm")(layers=2, hidden_size=32, chunk=4, **settings)
    encoder, tokenizer = encoders.load("on_lstm", config)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder, tokenizer


MADE["on_lstm"] = on_lstm
MADE["on_lstm, forward"] = lambda: on_lstm(directions="forward")
MADE["on_lstm, lstm"] = lambda: on_lstm(cell="lstm")


def opened(encoder, folder, int8):
    """The export of an encoder, written to the folder."""
    onnx_graph.write_graph(encoder, folder, int8)
    found = encoders.build(onnx.spec_of(encoder, int8)).eval()
    found.open(folder)
    if found.embedding_VE is not None:
        with torch.no_grad():
            found.embedding_VE.copy_(encoder.word_vectors(torch.arange(encoder.vocabulary_size)))
    return found


@torch.inference_mode()
def vectors(encoder, tokenizer, texts):
    """The vectors of each text, without those of its padding."""
    tokens = tokenizer.collate([tokenizer.encode(text) for text in texts])
    hidden_BTH = encode(encoder, tokens)
    return [hidden_BTH[row][mask_T] for row, mask_T in enumerate(tokens.mask_BT)]


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", MADE)
def test_vectors_are_those_of_the_encoder(name, int8, tmp_path):
    encoder, tokenizer = MADE[name]()
    encoder.eval()
    exported = opened(encoder, tmp_path, int8)
    assert [path.name for path in tmp_path.iterdir()] == [onnx.GRAPH]
    together = vectors(exported, tokenizer, TEXTS)
    for text, expected_TH, found_TH in zip(
        TEXTS, vectors(encoder, tokenizer, TEXTS), together, strict=True
    ):
        far = (found_TH - expected_TH).norm() / expected_TH.norm()
        assert far < (0.1 if int8 else 1e-5)
        assert torch.equal(vectors(exported, tokenizer, [text])[0], found_TH)


class Frozen(torch.nn.Module):
    """An encoder with a branch that a trace does not see."""

    hidden_size = 8
    max_length = None
    attentions = ("full",)
    extra_inputs = ()

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(100, 8)

    def forward(self, token_ids_BT, segment_ids_BT, attention_mask_BQK):
        long = token_ids_BT.shape[1] > 20
        return self.table(token_ids_BT) * (2 if long else 1)


def test_a_graph_of_another_function_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="gives other vectors on 4 x 70 tokens"):
        onnx_graph.write_graph(Frozen().eval(), tmp_path, int8=False)


def test_an_encoder_too_large_for_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 1000)
    with pytest.raises(SettingsError, match="too large for a graph: expected at most 1000 bytes"):
        onnx_graph.write_graph(Frozen().eval(), tmp_path, int8=False)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra_an_export_names_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=f"an export needs {package}") as caught:
        onnx_graph.check_installed()
    assert caught.value.hint == "pip install 'nlpkit[onnx]'"


def test_a_graph_that_is_none_or_of_another_size_is_refused(tmp_path):
    encoder = Frozen().eval()
    encoder.forward = lambda ids, *_: encoder.table(ids)
    onnx_graph.write_graph(encoder, tmp_path, int8=False)
    spec = onnx.spec_of(encoder, int8=False)
    spec["config"]["hidden_size"] = 16
    with pytest.raises(
        SettingsError, match=r"encoder\.onnx: does not fit the config: expected .*16"
    ):
        encoders.build(spec).open(tmp_path)
    (tmp_path / onnx.GRAPH).write_bytes(b"none")
    with pytest.raises(SettingsError, match=r"encoder\.onnx: no graph that ONNX Runtime can read"):
        encoders.build(spec).open(tmp_path)
