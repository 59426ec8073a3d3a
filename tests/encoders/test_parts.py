"""A transformer of other parts: the whole encoder against equations, its settings, its files."""

import itertools
import math
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from nlpkit import encoders
from nlpkit.config import build
from nlpkit.encoders import ShapeConfig, by_name, transformer
from nlpkit.encoders.base import additive_mask, attention_mask
from nlpkit.encoders.catalogue import describe_own
from nlpkit.encoders.checkpoint.convert import Conversion, convert
from nlpkit.encoders.checkpoint.load import CheckpointConfig, load_encoder, save_encoder
from nlpkit.encoders.onnx_graph import write_graph
from nlpkit.encoders.parts import Parts, with_parts
from nlpkit.errors import SettingsError
from nlpkit.layers.steady_products import steady
from nlpkit.layers.taylor_softmax import taylor_softmax
from nlpkit.text.backend import read_backend

SMALL = {
    "model_type": "roformer",
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 320,
}
PARTS: list[dict[str, Any]] = [
    {"residual": "pre"},
    {"residual": "rezero"},
    {"residual": "scheduled", "warm_up": 4},
    {"norm": "rms"},
    {"residual": "pre", "norm": "rms", "initialisation": "lecun"},
    {"attention": "performer", "features": 12},
    {"attention": "taylor", "order": 4},
    {"initialisation": "ntk"},
    {"activation": "sau(3)"},
]


def made(parts: dict[str, Any], **more: Any) -> Any:
    """An encoder all of whose parts count: no weight is at its first value."""
    config = with_parts({**SMALL, **more}, Parts(**parts))
    encoder = transformer.Encoder(config, "eager", head=True)
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
            if name.endswith("Norm.weight"):
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
    for module in encoder.modules():
        if hasattr(module, "count_examples"):
            module.count_examples(1)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return encoder


def tokens(longest: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(token_ids_BT, segment_ids_BT, mask_BT)."""
    mask_BT = torch.arange(longest) < torch.tensor([longest, 9, 5])[:, None]
    generator = torch.Generator().manual_seed(1)
    token_ids_BT = torch.randint(1, 60, mask_BT.shape, generator=generator) * mask_BT
    return token_ids_BT, (torch.arange(longest) > 4).long() * mask_BT, mask_BT


def by_hand(encoder: Any, parts: dict[str, Any]) -> torch.Tensor:
    """hidden_BTH of `tokens`, from the weights and the equations of the parts."""
    token_ids_BT, segment_ids_BT, mask_BT = tokens()
    model = encoder.model

    def norm(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
        if parts.get("norm") == "rms":
            return layer.weight * hidden / (hidden.square().mean(-1, True) + 1e-12).sqrt()
        return torch.nn.functional.layer_norm(hidden, hidden.shape[-1:], *layer.parameters(), 1e-12)

    def linear(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
        ntk = parts.get("initialisation") == "ntk"
        share = 1 / math.sqrt(layer.in_features) if ntk else 1
        return share * (hidden @ layer.weight.t()) + layer.bias

    def activation(number: torch.Tensor) -> torch.Tensor:
        if "activation" not in parts:
            return torch.nn.functional.gelu(number)
        bump = math.sqrt(2 / math.pi) / 3 * torch.exp(-4.5 * number**2)
        return 0.55 * number + 0.45 * (number * torch.erf(3 * number / math.sqrt(2)) + bump)

    def add(end: Any, hidden: torch.Tensor, branch: Any) -> torch.Tensor:
        kind = parts.get("residual", "post")
        if kind == "pre":
            return hidden + linear(end.dense, branch(norm(end.LayerNorm, hidden)))
        said = linear(end.dense, branch(hidden))
        if kind == "post":
            return norm(end.LayerNorm, hidden + said)
        return hidden + (end.alpha if kind == "rezero" else 0.25) * said

    def attend(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
        query, key, value = layer.project(hidden, model.encoder.embed_positions.first(16))
        score = query @ key.transpose(2, 3) / math.sqrt(8)
        hidden_B11K = ~mask_BT[:, None, None]
        if parts.get("attention") == "taylor":
            weight = taylor_softmax(score, parts["order"], hidden_B11K)
        elif parts.get("attention") == "performer":
            features = layer.performer.feature_MD
            query, key = query * 8**-0.25, key * 8**-0.25
            query = torch.exp(query @ features.t() - query.square().sum(-1, True) / 2)
            key = torch.exp(key @ features.t() - key.square().sum(-1, True) / 2)
            weight = (query @ key.transpose(2, 3)).masked_fill(hidden_B11K, 0)
            weight = weight / weight.sum(-1, keepdim=True)
        else:
            weight = score.masked_fill(hidden_B11K, -math.inf).softmax(-1)
        return (weight @ value).transpose(1, 2).flatten(2)

    embedded = model.embeddings.word_embeddings(token_ids_BT)
    embedded = embedded + model.embeddings.token_type_embeddings(segment_ids_BT)
    hidden = norm(model.embeddings.LayerNorm, embedded)
    for block in model.encoder.layer:
        said = block.attention
        hidden = add(said.output, hidden, lambda read, said=said: attend(said.self, read))
        inner = block.intermediate.dense
        hidden = add(
            block.output, hidden, lambda read, inner=inner: activation(linear(inner, read))
        )
    last = model.encoder.norm
    return hidden if last is None else norm(last, hidden)


@pytest.mark.parametrize("parts", PARTS)
def test_vectors_are_those_of_the_equations(parts: dict[str, Any]) -> None:
    encoder = made(parts).double()
    token_ids_BT, segment_ids_BT, mask_BT = tokens()
    given = (token_ids_BT, segment_ids_BT, mask_BT[:, None])
    expected_BTH = by_hand(encoder, parts)[mask_BT]
    trained_BTH = encoder.train()(*given)
    torch.testing.assert_close(trained_BTH[mask_BT], expected_BTH, rtol=0, atol=1e-9)
    evaluated_BTH = encoder.eval()(*given)  # its softmax is one of float32
    torch.testing.assert_close(evaluated_BTH[mask_BT], expected_BTH, rtol=0, atol=1e-5)
    layers = encoder.train().layers(*given, [1, 2])
    assert torch.equal(layers[1], trained_BTH)
    trained_BTH.square().sum().backward()
    lacking = [
        name
        for name, parameter in encoder.model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert lacking == []


@pytest.mark.parametrize("parts", PARTS)
def test_in_prediction_a_row_has_the_same_bits_alone(parts: dict[str, Any]) -> None:
    encoder = made(parts).eval()
    steady(encoder)
    token_ids_BT, segment_ids_BT, mask_BT = tokens(208)
    given = (token_ids_BT, segment_ids_BT, mask_BT[:, None])
    together_BTH = encoder(*given)
    for row, length in enumerate((208, 9, 5)):
        width = 16 if length < 16 else length
        alone = (given[0][row, None, :width], given[1][row, None, :width])
        alone_BTH = encoder(*alone, given[2][row, None, :, :width])
        assert torch.equal(alone_BTH[0, :length], together_BTH[row, :length])


@pytest.mark.parametrize("parts", [part for part in PARTS if "features" not in part])
def test_a_target_decoded_step_by_step_has_the_vectors_of_the_whole(parts: dict[str, Any]) -> None:
    encoder = made(parts).double().eval()
    token_ids_BT, segment_ids_BT, mask_BT = (tensor[:1] for tensor in tokens(9))
    visible_BQK = attention_mask(mask_BT, segment_ids_BT, "prefix")
    whole_BTH = encoder(token_ids_BT, segment_ids_BT, visible_BQK)
    cache = encoder.new_cache()
    position_BT = torch.arange(9)[None]
    found = []
    for start, end in itertools.pairwise((0, 5, 6, 7, 8, 9)):
        step = (token_ids_BT[:, start:end], segment_ids_BT[:, start:end])
        visible = visible_BQK[:, start:end, :end]
        found.append(encoder.extend(*step, position_BT[:, start:end], visible, cache))
    torch.testing.assert_close(torch.cat(found, 1), whole_BTH, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_no_parts_and_those_of_bert_change_no_bit(kernel: str) -> None:
    same = Parts(
        activation="gelu",
        initialisation="normal",
        residual="post",
        norm="layer",
        attention="softmax",
    )
    found = []
    for config in (SMALL, with_parts(SMALL, Parts()), with_parts(SMALL, same)):
        torch.manual_seed(3)
        encoder = transformer.Encoder(config, kernel, head=True)
        token_ids_BT, segment_ids_BT, mask_BT = tokens()
        hidden_BTH = encoder.train()(token_ids_BT, segment_ids_BT, mask_BT[:, None])
        hidden_BTH.pow(3).sum().backward()
        assert "parts" not in encoder.spec()["config"]
        found.append((hidden_BTH, *(p.grad for p in encoder.model.parameters()), torch.rand(2)))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert one is other or torch.equal(one, other)


def test_rezero_gives_the_embeddings_at_the_start() -> None:
    for residual in ("rezero", "scheduled"):
        encoder = transformer.Encoder(with_parts(SMALL, Parts(residual=residual))).eval()
        token_ids_BT, segment_ids_BT, mask_BT = tokens()
        embedded_BTH = encoder.model.embed(token_ids_BT, segment_ids_BT)
        hidden_BTH = encoder(token_ids_BT, segment_ids_BT, mask_BT[:, None])
        assert torch.equal(hidden_BTH, embedded_BTH)


def test_first_values_have_their_deviation() -> None:
    config = {**SMALL, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    expected = {"normal": (0.02, 0.02), "truncated": (0.02, 0.02), "lecun": (1 / 16, 1 / 32)}
    for name, (query, output) in {**expected, "ntk": (1.0, 1.0)}.items():
        parts = Parts(initialisation=name)
        block = transformer.Encoder(with_parts(config, parts)).model.encoder.layer[0]
        weight = block.attention.self.query.weight
        assert weight.std().item() == pytest.approx(query, rel=0.02)
        assert block.output.dense.weight.std().item() == pytest.approx(output, rel=0.02)


def test_depth_of_the_last_norm_is_that_of_the_last_block() -> None:
    encoder = made({"residual": "pre"})
    names = [name for name, _ in encoder.named_parameters() if ".encoder.norm." in name]
    assert len(names) == 2
    assert {encoder.depth_of(name) for name in names} == {2}


def small_tiny(tmp_path: Any, parts: dict[str, Any]) -> tuple[Any, Any]:
    """(encoder, folder) of an encoder written with the tokenizer of `tiny`."""
    backend = read_backend(encoders.TOKENIZER)
    encoder = made(parts, vocab_size=backend.get_vocab_size()).eval()
    folder = tmp_path / "encoder"
    folder.mkdir()
    save_encoder(folder, encoder, backend)
    return encoder, folder


@pytest.mark.parametrize("parts", PARTS)
def test_a_checkpoint_is_the_same_model_again(tmp_path: Any, parts: dict[str, Any]) -> None:
    encoder, folder = small_tiny(tmp_path, parts)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.bfloat16())  # as it is written
    loaded, _ = by_name.load(str(folder), CheckpointConfig(), head=True)
    token_ids_BT, segment_ids_BT, mask_BT = tokens()
    given = (token_ids_BT, segment_ids_BT, mask_BT[:, None])
    hidden_BTH = encoder(*given)
    assert torch.equal(loaded.eval()(*given), hidden_BTH)
    assert torch.equal(
        loaded.token_logits(hidden_BTH)[..., 5:], encoder.token_logits(hidden_BTH)[..., 5:]
    )
    assert loaded.spec() == encoder.spec()
    again, _ = encoders.for_pretraining(str(folder), ShapeConfig())
    assert torch.equal(again.eval()(*given), hidden_BTH)


def test_others_refuse_a_checkpoint_of_other_parts(tmp_path: Any) -> None:
    _, folder = small_tiny(tmp_path, {"residual": "pre"})
    with pytest.raises(ValueError, match="does not recognize this architecture"):
        AutoConfig.from_pretrained(folder)
    with pytest.raises(SettingsError, match="nlpkit's own format"):
        load_encoder(folder)
    with pytest.raises(SettingsError, match="own format: only the BERT family is converted"):
        convert(str(folder), tmp_path / "new", Conversion())
    told = describe_own(str(folder))
    assert told["format"] == "nlpkit"
    assert told["spec"]["config"]["parts"] == {"residual": "pre"}


def test_first_values_do_not_make_another_model(tmp_path: Any) -> None:
    encoder, folder = small_tiny(tmp_path, {"initialisation": "lecun", "activation": "gelu_new"})
    theirs = AutoConfig.from_pretrained(folder)
    assert (theirs.model_type, theirs.hidden_act) == ("roformer", "gelu_new")
    assert not hasattr(theirs, "parts")
    loaded = load_encoder(folder)
    assert "parts" not in loaded.spec()["config"]
    assert loaded.spec()["config"]["num_hidden_layers"] == encoder.depth


@pytest.mark.parametrize("parts", [PARTS[2], PARTS[4], PARTS[5], PARTS[6], PARTS[7], PARTS[8]])
def test_a_graph_gives_the_same_vectors(tmp_path: Any, parts: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    write_graph(made(parts, vocab_size=90).eval(), tmp_path, int8=False)  # compares them


def test_random_weights_take_parts_and_trained_ones_refuse_them(tmp_path: Any) -> None:
    asked = CheckpointConfig(random=True, residual="pre", activation="softplus(2)")
    encoder, _ = by_name.load("tiny", asked)
    config = encoder.spec()["config"]
    assert (config["hidden_act"], config["parts"]) == ("softplus(2)", {"residual": "pre"})
    assert encoder.learns_as == "random"
    with pytest.raises(
        SettingsError, match=r"encoder\.norm: expected none, since the weights"
    ) as e:
        by_name.load("tiny", CheckpointConfig(norm="rms"))
    assert "encoder.random=true" in str(e.value.hint)
    with pytest.raises(SettingsError, match=r"encoder\.norm: expected none, since the weights"):
        encoders.for_pretraining("tiny", ShapeConfig(norm="rms"))
    _, folder = small_tiny(tmp_path, {"attention": "performer", "features": 12})
    for more, parts in (
        ({}, {"attention": "performer", "features": 12}),
        ({"features": 8}, {"attention": "performer", "features": 8}),
        ({"attention": "taylor"}, {"attention": "taylor"}),
        ({"attention": "softmax"}, None),
    ):
        encoder, _ = by_name.load(str(folder), CheckpointConfig(random=True, **more))
        assert encoder.spec()["config"].get("parts") == parts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"residual": "rezer"}, 'encoder.residual: expected one of post, .*did you mean "rezero"'),
        ({"activation": "geluu"}, r'encoder\.activation: .*got geluu; did you mean "gelu"'),
        ({"atention": "taylor"}, 'unknown setting "encoder.atention"; did you mean "attention"'),
        ({"order": 3}, "encoder.order: expected one of 2, 4, 6, 8, 10, got 3"),
    ],
)
def test_a_wrong_part_is_named(values: dict[str, Any], message: str) -> None:
    for config in (ShapeConfig, CheckpointConfig):
        with pytest.raises(SettingsError, match=message):
            build(config, values, "encoder")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"features": 8}, "encoder.features: expected none without attention=performer, got 8"),
        (
            {"warm_up": 8, "residual": "pre"},
            "encoder.warm_up: expected none without residual=sched",
        ),
        ({"residual": "prae"}, 'encoder.parts.residual: .*did you mean "pre"'),
        ({"activation": "gelu"}, "encoder: parts: the activation is hidden_act"),
        ([], "encoder: parts: expected an object"),
    ],
)
def test_wrong_parts_of_a_config_are_named(parts: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        transformer.Encoder({**SMALL, "parts": parts})


def test_performer_has_no_prefix() -> None:
    encoder = made({"attention": "performer"})
    assert encoder.attentions == ("full",)
    token_ids_BT, segment_ids_BT, mask_BT = tokens()
    visible_BQK = attention_mask(mask_BT, segment_ids_BT, "prefix")
    assert additive_mask(visible_BQK, torch.float32).shape[2] == 16
    with pytest.raises(SettingsError, match="no mask that differs by query"):
        encoder(token_ids_BT, segment_ids_BT, visible_BQK)
