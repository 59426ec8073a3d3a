"""The blocks against the models of `transformers`: tensors, first values, hidden vectors,
gradients and a training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers.activations import ACT2FN

from nlpkit.encoders import transformer
from nlpkit.encoders.base import additive_mask, attention_mask
from nlpkit.encoders.transformer_settings import FAMILIES, read_settings
from nlpkit.encoders.undrawn import Undrawn
from nlpkit.errors import SettingsError
from nlpkit.layers import activations

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
VARIANTS = [
    ("bert", {}),
    ("bert", {"pad_token_id": None, "hidden_act": "gelu_new", "type_vocab_size": 4}),
    ("ernie", {"use_task_id": True}),
    ("ernie", {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
    ("electra", {"embedding_size": 16}),
    ("electra", {"embedding_size": 32, "initializer_range": 0.1}),
    ("roformer", {}),
    ("roformer", {"embedding_size": 16, "rotary_value": True}),
]


def both(family: str, more: dict[str, Any], kernel: str = "eager") -> tuple[Any, Any]:
    """(own encoder, model of `transformers`), each drawn from the same seed."""
    torch.manual_seed(3)
    own = transformer.Encoder({"model_type": family, **SMALL, **more}, kernel)
    config_class = getattr(transformers, FAMILIES[family] + "Config")
    model_class = getattr(transformers, FAMILIES[family] + "Model")
    torch.manual_seed(3)
    config = config_class(**SMALL, **more, attn_implementation=kernel)
    options = {"add_pooling_layer": False} if family in ("bert", "ernie") else {}
    return own, model_class(config, **options)


def tokens() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(token_ids_BT, segment_ids_BT, attention_mask_BQK) of a source and a target, padded."""
    mask_BT = torch.arange(11) < torch.tensor([11, 7, 9])[:, None]
    token_ids_BT = torch.randint(1, 50, mask_BT.shape, generator=torch.Generator().manual_seed(1))
    segment_ids_BT = (torch.arange(11) > 4).long() * mask_BT
    visible_BQK = attention_mask(mask_BT, segment_ids_BT, "prefix")
    return token_ids_BT * mask_BT, segment_ids_BT, visible_BQK


def hidden_of(theirs: Any) -> torch.Tensor:
    """hidden_BTH of a model of `transformers`, its parts called with a mask of our own."""
    token_ids_BT, segment_ids_BT, visible_BQK = tokens()
    hidden_BTH = theirs.embeddings(input_ids=token_ids_BT, token_type_ids=segment_ids_BT)
    if hasattr(theirs, "embeddings_project"):
        hidden_BTH = theirs.embeddings_project(hidden_BTH)
    mask_B1QK = additive_mask(visible_BQK, hidden_BTH.dtype)
    return theirs.encoder(hidden_BTH, attention_mask=mask_B1QK)[0]


def assert_same_gradients(own: Any, theirs: Any, tolerance: float) -> None:
    expected = dict(theirs.named_parameters())
    for name, parameter in own.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                parameter.grad, expected[name].grad, rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize(("family", "more"), VARIANTS)
class TestAgainstTransformers:
    def test_a_seed_gives_the_same_tensors_in_the_same_order(self, family: str, more: Any) -> None:
        own, theirs = both(family, more)
        named = own.model.state_dict()
        expected = theirs.state_dict()
        assert list(named) == list(expected)
        for name, tensor in named.items():
            assert torch.equal(tensor, expected[name]), name
        learning = {n for n, p in own.model.named_parameters() if p.requires_grad}
        assert learning == {n for n, p in theirs.named_parameters() if p.requires_grad}

    def test_the_generator_goes_on_from_the_same_place(self, family: str, more: Any) -> None:
        both(family, more)
        after = torch.rand(3)
        torch.manual_seed(3)
        transformer.Encoder({"model_type": family, **SMALL, **more}, "eager")
        assert torch.equal(torch.rand(3), after)

    def test_hidden_vectors_and_gradients_in_float64(self, family: str, more: Any) -> None:
        own, theirs = both(family, more)
        own.double().train()
        theirs.double()
        for module in [*own.modules(), *theirs.modules()]:
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        own_BTH = own(*tokens())
        theirs_BTH = hidden_of(theirs)
        torch.testing.assert_close(own_BTH, theirs_BTH, rtol=0, atol=1e-10)
        steady_BTH = own.eval()(*tokens())  # its softmax is one of float32
        torch.testing.assert_close(steady_BTH, theirs_BTH, rtol=0, atol=1e-7)
        own_BTH.square().sum().backward()
        theirs_BTH.square().sum().backward()
        assert_same_gradients(own, theirs, 1e-10)

    def test_a_training_with_dropout_has_the_same_bits(self, family: str, more: Any) -> None:
        own, theirs = both(family, more)
        losses = []
        for model, hidden in ((own, lambda: own(*tokens())), (theirs, lambda: hidden_of(theirs))):
            torch.manual_seed(5)
            model.train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            for _ in range(3):
                loss = hidden().pow(3).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
        assert losses[0] == losses[1]
        expected = theirs.state_dict()
        for name, tensor in own.model.state_dict().items():
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(("family", "more"), [v for v in VARIANTS if v[0] != "roformer"])
def test_fused_attention_is_theirs(family: str, more: Any) -> None:
    own, theirs = both(family, more, "sdpa")
    torch.manual_seed(7)
    own_BTH = own.train()(*tokens())
    torch.manual_seed(7)
    theirs_BTH = hidden_of(theirs.train())
    torch.testing.assert_close(own_BTH, theirs_BTH, rtol=0, atol=1e-6)


def test_fused_attention_of_a_roformer_is_that_of_products() -> None:
    own, _ = both("roformer", {"rotary_value": True, "attention_probs_dropout_prob": 0.0})
    fused = transformer.Encoder({**own.spec()["config"], "hidden_dropout_prob": 0.0}, "sdpa")
    fused.load_state_dict(own.state_dict())
    for module in own.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.testing.assert_close(
        fused.double().train()(*tokens()), own.double().train()(*tokens()), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_theirs(family: str) -> None:
    theirs = getattr(transformers, FAMILIES[family] + "Config")()
    config = read_settings({"model_type": family}).as_config()
    assert config == {key: getattr(theirs, key) for key in config}
    every = read_settings({"model_type": family}).__dataclass_fields__
    assert {key for key in every if hasattr(theirs, key)} == set(config)


@pytest.mark.parametrize("name", [*activations._BY_NAME, "gelu_10", "gelu_fast"])
def test_activations_are_theirs(name: str) -> None:
    number_N = torch.linspace(-4, 4, 101)
    assert torch.equal(activations.activation(name)(number_N), ACT2FN[name](number_N))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"vocab_size": 0}, "vocab_size: expected a whole number of at least 1, got 0"),
        ({"hidden_size": "32"}, "hidden_size: expected a whole number of at least 1, got '32'"),
        ({"num_hidden_layers": True}, "num_hidden_layers: expected a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads: expected a whole number"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob: expected a number from 0 to 1"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps: expected a number of at least 0, got '1e-5'"),
        ({"initializer_range": float("nan")}, "initializer_range: expected a number"),
        ({"pad_token_id": "0"}, "pad_token_id: expected one of the 50 tokens, got '0'"),
        ({"pad_token_id": -51}, "pad_token_id: expected one of the 50 tokens, got -51"),
        ({"hidden_act": 3}, "hidden_act: expected a name, got 3"),
        ({"model_type": "ernie", "use_task_id": 1}, "use_task_id: expected true or false, got 1"),
        (
            {"model_type": "roformer", "hidden_size": 6},
            "hidden_size: expected an even number for each of the 2 heads, got 6",
        ),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict, message: str) -> None:
    family = wrong.get("model_type", "bert")
    with pytest.raises(SettingsError, match=f"the settings make no {family}: ") as error:
        transformer.Encoder({"model_type": "bert", **SMALL, **wrong})
    assert message in error.value.message


def test_nothing_is_drawn_where_weights_are_loaded_anyway() -> None:
    before = torch.get_rng_state()
    with Undrawn():
        encoder = transformer.Encoder({"model_type": "bert", **SMALL}, head=True)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = transformer.Encoder({"model_type": "bert", **SMALL}, head=True)
    encoder.load_state_dict(drawn.state_dict())
    assert torch.equal(encoder.eval()(*tokens()), drawn.eval()(*tokens()))
