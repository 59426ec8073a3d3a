"""Conditional LayerNorm: the formula, nothing at first, one condition a row, no weight decay."""

import copy
import math
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nlpkit.encoders import encode, transformer
from nlpkit.errors import SettingsError
from nlpkit.layers.conditional_norm import ConditionalNorm, Conditions, condition_norms
from nlpkit.layers.residuals import RMSNorm
from nlpkit.optim.groups import parameter_groups
from nlpkit.text.tokenizer import TokenBatch

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
FAMILIES = {
    "bert": {},
    "ernie": {"use_task_id": True},
    "electra": {"embedding_size": 16},
    "roformer": {},
}
NORMS = 1 + 2 * SMALL["num_hidden_layers"]


def make(family):
    encoder = transformer.Encoder(
        {**SMALL, **FAMILIES[family], "model_type": family}, head=True
    ).eval()
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):  # a norm of some training
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return encoder


def make_tokens(rows=3, length=9):
    ids_BT, position_T = torch.randint(5, 50, (rows, length)), torch.arange(length)
    mask_BT = position_T < torch.tensor([[length], [length - 2], [4]])[:rows]
    return TokenBatch(ids_BT, ((position_T > 1) & mask_BT).long(), mask_BT, mask_BT)


def learnt(encoder):
    """Maps that are no longer 0."""
    for module in encoder.modules():
        if isinstance(module, ConditionalNorm):
            for parameter in module.undecayed:
                nn.init.normal_(parameter, 0, 0.3)
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_step_is_the_encoder_as_it_was_bit_for_bit(family, precision):
    encoder, tokens = make(family), make_tokens()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        before_BTH = encode(encoder, tokens, "prefix")
        conditions = condition_norms(encoder.model, 5)
        with conditions.given(torch.randn(3, 5) * 100):
            assert torch.equal(encode(encoder, tokens, "prefix"), before_BTH)
            assert encode(encoder, tokens, "prefix").dtype == before_BTH.dtype
        assert torch.equal(encode(encoder, tokens, "prefix"), before_BTH)
    assert sum(isinstance(module, ConditionalNorm) for module in encoder.modules()) == NORMS
    assert not any(isinstance(module, nn.LayerNorm) for module in encoder.model.modules())


@given(st.integers(0, 1000), st.integers(1, 7), st.integers(1, 4))
def test_it_is_its_formula(seed, width, size):
    torch.manual_seed(seed)
    norm, conditions = nn.LayerNorm(width).double(), Conditions()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    module = ConditionalNorm(norm, size, conditions)
    for parameter in module.undecayed:
        nn.init.normal_(parameter)
    assert module.gain_HC.dtype == torch.float64
    hidden_BTH, condition_BC = torch.randn(2, 3, width).double(), torch.randn(2, size).double()
    with conditions.given(condition_BC):
        found = module(hidden_BTH)
    for row in range(2):
        gain_H = norm.weight + module.gain_HC @ condition_BC[row]
        bias_H = norm.bias + module.bias_HC @ condition_BC[row]
        for token in range(3):
            x_H = hidden_BTH[row, token]
            mean = x_H.mean()
            normal_H = (x_H - mean) / math.sqrt(((x_H - mean) ** 2).mean() + norm.eps)
            torch.testing.assert_close(
                found[row, token], normal_H * gain_H + bias_H, rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_sees_its_own_condition(family):
    encoder, tokens, condition_BC = make(family), make_tokens(), torch.randn(3, 5)
    conditions = condition_norms(encoder.model, 5)
    learnt(encoder)
    with torch.no_grad(), conditions.given(condition_BC):
        together_BTH = encode(encoder, tokens, "prefix")
    for row in range(3):
        alone = TokenBatch(
            *(part[row : row + 1] for part in vars(tokens).values() if part is not None)
        )
        with torch.no_grad(), conditions.given(condition_BC[row : row + 1]):
            torch.testing.assert_close(
                encode(encoder, alone, "prefix")[0], together_BTH[row], rtol=1e-4, atol=1e-5
            )
        with torch.no_grad(), conditions.given(condition_BC[row : row + 1] + 1):
            assert (encode(encoder, alone, "prefix")[0] - together_BTH[row]).abs().max() > 0.01


def test_statistics_are_those_of_float32():
    conditions = Conditions()
    module = ConditionalNorm(nn.LayerNorm(64), 2, conditions)
    nn.init.ones_(module.gain_HC)
    hidden_BTH = (
        torch.randn(1, 4, 64) + 50
    ).bfloat16()  # in bfloat16 the mean itself would be off by a tenth
    with conditions.given(torch.ones(1, 2)):
        expected = nn.functional.layer_norm(hidden_BTH.double(), (64,)) * 3
        assert (module(hidden_BTH.float()) - expected).abs().max() < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_maps_have_no_weight_decay_and_the_rate_of_their_layer(family):
    model = nn.Module()
    model.encoder = make(family)
    condition_norms(model.encoder.model, 5)
    groups = parameter_groups(model, 1e-3, 0.1, 0.5, [])
    rates = {name: group for group in groups for name in group.names}
    maps = [name for name in rates if name.endswith("_HC")]
    assert len(maps) == 2 * NORMS
    assert all(rates[name].weight_decay == 0 and not rates[name].hidden for name in maps)
    assert all(
        rates[name].learning_rate == rates[name.rsplit(".", 1)[0] + ".weight"].learning_rate
        for name in maps
    )
    assert any(group.weight_decay for group in groups)


def test_weights_are_saved_and_loaded_under_the_names_they_had():
    encoder, other = make("roformer"), make("roformer")
    names = set(encoder.state_dict())
    conditions, others = (condition_norms(one.model, 5) for one in (encoder, other))
    assert names < set(encoder.state_dict())
    other.load_state_dict(learnt(encoder).state_dict())
    tokens, condition_BC = make_tokens(), torch.randn(3, 5)
    with conditions.given(condition_BC), others.given(condition_BC):
        assert torch.equal(encode(encoder, tokens), encode(other, tokens))


def test_a_condition_is_that_of_its_thread_alone():
    conditions = Conditions()
    seen = []
    with conditions.given(torch.ones(1, 2)):
        thread = threading.Thread(target=lambda: seen.append(conditions.condition_BC))
        thread.start()
        thread.join()
        assert conditions.condition_BC is not None
    assert seen == [None]
    assert conditions.condition_BC is None


def test_a_copy_of_norms_shares_a_condition_of_its_own():
    norms = nn.Sequential(nn.LayerNorm(2), nn.LayerNorm(2))
    conditions = condition_norms(norms, 3)
    with conditions.given(torch.ones(1, 3)):
        copied = copy.deepcopy(norms)
    assert copied[0].conditions is copied[1].conditions is not conditions
    assert copied[0].conditions.condition_BC is None


def test_an_encoder_without_a_layer_norm_is_refused():
    with pytest.raises(SettingsError, match=r"encoder\.norm: expected layer, since a condition"):
        condition_norms(nn.Sequential(RMSNorm(3, 1e-12), nn.Linear(3, 3)), 2)
