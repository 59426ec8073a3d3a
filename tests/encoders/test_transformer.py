"""The encoders of the BERT family: no leak, no effect of padding, the same numbers as the models
of `transformers`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import transformers

from nlpkit.encoders import encode, transformer
from nlpkit.encoders.base import HIDDEN_FROM_SIGHT, additive_mask, attention_mask
from nlpkit.errors import SettingsError

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,  # ten times the usual: a leak shows
}
FAMILIES = {
    "bert": {},
    "ernie": {"use_task_id": True},
    "electra": {"embedding_size": 16},
    "roformer": {},
}
KERNELS = [
    *((family, "sdpa") for family in FAMILIES),
    *((family, "eager") for family in FAMILIES),
]


@dataclass
class Tokens:
    token_ids_BT: torch.Tensor
    segment_ids_BT: torch.Tensor
    mask_BT: torch.Tensor


def small_config(family: str) -> dict:
    return {**SMALL, **FAMILIES[family], "model_type": family}


def make_encoder(family: str, kernel: str | None = None) -> transformer.Encoder:
    torch.manual_seed(0)
    return transformer.Encoder(small_config(family), attn_implementation=kernel).eval()


def make_tokens(lengths: list[int], source: int = 4) -> Tokens:
    """Rows of these lengths, padded; the first `source` tokens are segment 0."""
    generator = torch.Generator().manual_seed(1)
    position_T = torch.arange(max(lengths))
    mask_BT = position_T < torch.tensor(lengths)[:, None]
    token_ids_BT = torch.randint(5, 50, mask_BT.shape, generator=generator) * mask_BT
    return Tokens(token_ids_BT, ((position_T >= source) & mask_BT).long(), mask_BT)


@pytest.mark.parametrize(("family", "kernel"), KERNELS)
class TestAttention:
    def test_prefix_leaks_no_later_target(self, family: str, kernel: str) -> None:
        encoder, tokens = make_encoder(family, kernel), make_tokens([9, 9], source=4)
        hidden_BTH = encode(encoder, tokens, "prefix")
        for position in range(4, 9):
            changed = tokens.token_ids_BT.clone()
            changed[:, position:] = 3
            other_BTH = encode(encoder, replace(tokens, token_ids_BT=changed), "prefix")
            torch.testing.assert_close(
                other_BTH[:, :position], hidden_BTH[:, :position], rtol=0, atol=1e-5
            )
            assert (other_BTH[:, position:] - hidden_BTH[:, position:]).abs().amax() > 1e-2

    def test_prefix_source_is_bidirectional_and_seen_by_the_target(
        self, family: str, kernel: str
    ) -> None:
        encoder, tokens = make_encoder(family, kernel), make_tokens([9], source=4)
        changed = tokens.token_ids_BT.clone()
        changed[:, 3] = 3
        other_BTH = encode(encoder, replace(tokens, token_ids_BT=changed), "prefix")
        difference_BTH = other_BTH - encode(encoder, tokens, "prefix")
        assert (difference_BTH.abs().amax(-1) > 1e-4).all()

    def test_full_sees_everything(self, family: str, kernel: str) -> None:
        encoder, tokens = make_encoder(family, kernel), make_tokens([9])
        changed = tokens.token_ids_BT.clone()
        changed[:, 8] = 3
        difference_BTH = encode(encoder, replace(tokens, token_ids_BT=changed)) - encode(
            encoder, tokens
        )
        assert (difference_BTH.abs().amax(-1) > 1e-4).all()

    @pytest.mark.parametrize("attention", ["full", "prefix"])
    def test_padding_changes_nothing(self, family: str, kernel: str, attention: str) -> None:
        encoder, lengths = make_encoder(family, kernel), [12, 5, 9, 1]
        tokens = make_tokens(lengths)
        noisy = torch.where(
            tokens.mask_BT, tokens.token_ids_BT, 7
        )  # whatever stands in the padding
        hidden_BTH = encode(encoder, replace(tokens, token_ids_BT=noisy), attention)
        assert hidden_BTH.isfinite().all()
        for row, length in enumerate(lengths):
            alone = Tokens(*(part[row : row + 1, :length] for part in vars(tokens).values()))
            alone_TH = encode(encoder, alone, attention)[0]
            torch.testing.assert_close(hidden_BTH[row, :length], alone_TH, rtol=0, atol=1e-5)

    def test_full_equals_the_model_itself(self, family: str, kernel: str) -> None:
        encoder, tokens = make_encoder(family, kernel), make_tokens([7, 7])
        config = transformers.AutoConfig.for_model(**small_config(family))
        model = transformers.AutoModel.from_config(config).eval()
        model.load_state_dict(encoder.model.state_dict(), strict=False)  # it may have a pooler
        with torch.no_grad():
            own_BTH = model(input_ids=tokens.token_ids_BT, token_type_ids=tokens.segment_ids_BT)[0]
        torch.testing.assert_close(encode(encoder, tokens), own_BTH, rtol=0, atol=1e-5)

    def test_every_weight_learns(self, family: str, kernel: str) -> None:
        encoder = make_encoder(family, kernel).train()
        encode(encoder, make_tokens([9, 6]), "prefix").square().sum().backward()
        idle = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == []

    def test_mixed_precision_stays_finite_where_a_row_sees_nothing(
        self, family: str, kernel: str
    ) -> None:
        encoder, tokens = make_encoder(family, kernel), make_tokens([6, 6])
        tokens.mask_BT[1] = False
        with torch.autocast("cpu", torch.bfloat16):
            assert encode(encoder, tokens, "prefix").isfinite().all()


def test_the_mask_by_hand() -> None:
    segment_ids_BT = torch.tensor([[0, 0, 1, 1, 0]])
    mask_BT = torch.tensor([[True, True, True, True, False]])
    visible_QK = attention_mask(mask_BT, segment_ids_BT, "prefix")[0]
    assert visible_QK.int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 0],
    ]
    full_BQK = attention_mask(mask_BT, segment_ids_BT, "full")
    full_B1QK = additive_mask(full_BQK, torch.float16)
    assert full_B1QK.shape == (1, 1, 1, 5)
    assert full_B1QK.flatten().tolist() == pytest.approx([0, 0, 0, 0, HIDDEN_FROM_SIGHT], rel=1e-3)


def test_an_unknown_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="prefx"):
        encode(make_encoder("bert"), make_tokens([3]), "prefx")


@pytest.mark.parametrize("family", FAMILIES)
def test_spec_rebuilds_the_architecture(family: str) -> None:
    encoder = make_encoder(family)
    spec = encoder.spec()
    assert spec.pop("kind") == "transformer"
    again = transformer.Encoder(**spec).eval()
    assert again.spec() == encoder.spec()
    again.load_state_dict(encoder.state_dict())
    tokens = make_tokens([5, 3])
    torch.testing.assert_close(encode(again, tokens), encode(encoder, tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_depth_and_sizes(family: str) -> None:
    encoder = make_encoder(family)
    depths = {name: encoder.depth_of(name) for name, _ in encoder.named_parameters()}
    assert set(depths.values()) == {0, 1, 2}
    assert all((depth == 0) == ("embed" in name) for name, depth in depths.items())
    assert (encoder.hidden_size, encoder.depth, encoder.max_length) == (32, 2, 40)
    assert not any("pooler" in name for name in depths)


def test_the_faster_attention_is_preferred() -> None:
    attention = make_encoder("bert").model.encoder.layer[0].attention.self
    assert attention.is_fused == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model_type": "brt"}, 'did you mean "bert"'),
        ({"model_type": None}, "got None"),
        ({"hidden_size": 33}, "multiple of the 2 heads"),
        ({"hidden_act": "gellu"}, "unknown hidden_act 'gellu'"),
        ({"pad_token_id": 99}, "pad_token_id: expected one of the 50 tokens, got 99"),
    ],
)
def test_wrong_settings(wrong: dict, message: str) -> None:
    with pytest.raises(SettingsError, match="encoder: ") as error:
        transformer.Encoder({**small_config("bert"), **wrong})
    assert message in error.value.message
    assert "\n" not in error.value.message


def test_a_half_precision_config_still_makes_float32() -> None:
    encoder = transformer.Encoder(
        {**small_config("bert"), "dtype": "float16", "torch_dtype": "float16"}
    )
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_too_long_an_input_is_refused() -> None:
    with pytest.raises(SettingsError, match="expected at most 40 tokens, got 41"):
        encode(make_encoder("bert"), make_tokens([41]))
