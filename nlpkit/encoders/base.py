"""What an encoder is: tensors of tokens in, one vector for each token out.

    token_ids_BT, segment_ids_BT, attention_mask_BQK  --Encoder.forward-->  hidden_BTH

`forward` takes and gives tensors alone, so that it can be traced and exported. `encode` calls it on
a `TokenBatch`. The attention masks are built here and nowhere else:

    full    a token sees every token
    prefix  the source (segment 0) sees the source; the target (segment 1) sees the source and
            itself up to here

Source: Dong et al. 2019, Unified Language Model Pre-training, arxiv.org/abs/1905.03197, equation 2.
B batch, T tokens (Q as queries, K as keys), H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch

from nlpkit.errors import SettingsError
from nlpkit.text.tokenizer import TokenBatch, WordFeatures

Attention = Literal["full", "prefix"]
Objective = Literal["masked", "next"]

HIDDEN_FROM_SIGHT = -3e4
"""Added to a score. Finite in float16 and bfloat16, unlike finfo(float32).min, so that under mixed
precision a row that sees nothing does not become NaN; far enough from every score for a weight of
exactly 0."""


class Encoder(Protocol):
    """An encoder; also the base class of those in this folder, for its defaults.

    The class `Encoder` of a file `encoders/<name>.py` is the encoder `<name>`. It is a
    `torch.nn.Module`, made by `Encoder(vocabulary=..., config=...)`: the number of tokens, and the
    values of its `Config` as a dict. Its first embedding table is that of the tokens.
    """

    Config: ClassVar[type | None] = None
    """Frozen dataclass of its settings, section `encoder`, a docstring under every field. None for
    a class that `--encoder` cannot name."""
    what: ClassVar[str] = ""
    """What it is, in one sentence, for `nlpkit encoder list`."""
    learns_as: str = "random"
    """One of `nlpkit.optim.WAYS`: how it learns, for the choice of optimizer and rate."""
    objective: ClassVar[Objective | None] = None
    """What a pretraining teaches it: to fill in masked words, for which it sees a text from both
    sides at once, or to tell the next token from those before. None: there is no pretraining.

    One that can be pretrained is made with `head=True` then, has a `LanguageHead` in `head`, and a
    method `token_logits(hidden_NH) -> logits_NV`. One that learns the next token says in
    `directions` how often it reads a text: 2 where it reads it from the end as well, and a token's
    vector is what both say, one behind the other.
    """
    attentions: tuple[Attention, ...] = ("full",)
    """The kinds of attention that it can be asked for."""
    extra_inputs: tuple[str, ...] = ()
    """Tensors of a `TokenBatch` that `forward` takes besides the first three, by the same names."""
    words: WordFeatures | None = None
    """What the tokenizer has to say of the words around each character, if anything."""
    max_length: int | None = None
    """Most tokens that it takes, [CLS] and [SEP] included; None for any number."""
    hidden_size: int
    depth: int
    """Layers."""

    def open(self, folder: Path) -> None:
        """Reads what the encoder has in files of its own in the folder of a run, beside the weights.
        Raises SettingsError where it cannot."""
        return

    forward: Callable[..., torch.Tensor]
    """(token_ids_BT, segment_ids_BT, attention_mask_BQK, *extra_inputs) -> hidden_BTH.

    The mask is that of `attention_mask`, (B, 1, T) or (B, T, T). Vectors at padded tokens are
    finite and mean nothing.
    """

    def depth_of(self, parameter_name: str) -> int:
        """0 for a parameter of the embeddings, 1 to `depth` for one of a layer, `depth` + 1 for one
        of the head: for learning rates by layer."""
        ...

    def spec(self) -> dict[str, Any]:
        """The plain values that `encoders.build` makes the same architecture from: `kind`, which is
        the name of the file, and the arguments of the class."""
        ...


def encode(
    encoder: Any, tokens: TokenBatch, attention: Attention = "full", **more: torch.Tensor | None
) -> torch.Tensor:
    """hidden_BTH of a batch of tokens; `more` are further tensors that `encoder.forward` takes.

    Raises SettingsError for more tokens than the encoder takes, and as `check_attention` does.
    """
    check_attention(encoder, attention)
    length = tokens.token_ids_BT.shape[1]
    if encoder.max_length is not None and length > encoder.max_length:
        raise SettingsError(
            f"encoder: input too long: expected at most {encoder.max_length} tokens, got {length}"
        )
    extra = {name: getattr(tokens, name) for name in encoder.extra_inputs}
    mask_BQK = attention_mask(tokens.mask_BT, tokens.segment_ids_BT, attention)
    return encoder(tokens.token_ids_BT, tokens.segment_ids_BT, mask_BQK, **extra, **more)


def encode_layers(
    encoder: Any, tokens: TokenBatch, attention: Attention, numbers: Sequence[int]
) -> list[torch.Tensor]:
    """hidden_BTH of a batch of tokens after each of these layers, 1 for the first, of an encoder
    that has a method `layers`; the batch is no longer than the encoder takes."""
    mask_BQK = attention_mask(tokens.mask_BT, tokens.segment_ids_BT, attention)
    return encoder.layers(tokens.token_ids_BT, tokens.segment_ids_BT, mask_BQK, numbers)


def check_attention(encoder: Any, attention: Attention) -> None:
    """Raises SettingsError unless the encoder can be asked for this kind of attention."""
    if attention not in ("full", "prefix"):
        raise ValueError(f'attention: expected "full" or "prefix", got "{attention}"')
    if attention not in encoder.attentions:
        raise SettingsError(
            "encoder: cannot tell a source from a target, which this task needs: "
            "it has no second segment, or sees the whole text at once",
            hint="--encoder tiny",
        )


def attention_mask(
    mask_BT: torch.Tensor, segment_ids_BT: torch.Tensor, attention: Attention
) -> torch.Tensor:
    """True where query Q sees key K: (B, 1, T) for full, (B, T, T) for prefix.

    `mask_BT` is true at tokens, false at padding, which is never seen.
    """
    visible_BQK = mask_BT.bool()[:, None, :]
    if attention == "full":
        return visible_BQK
    is_target_BT = segment_ids_BT > 0
    position_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    not_later_QK = position_T[None, :] <= position_T[:, None]
    of_target_BQK = is_target_BT[:, :, None] & not_later_QK
    return visible_BQK & (~is_target_BT[:, None, :] | of_target_BQK)


def additive_mask(attention_mask_BQK: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(B, 1, Q, K), to be added to the attention scores: 0 where a key is seen, else
    HIDDEN_FROM_SIGHT."""
    hidden_BQK = ~attention_mask_BQK
    mask_BQK = torch.zeros(hidden_BQK.shape, dtype=dtype, device=hidden_BQK.device)
    return mask_BQK.masked_fill_(hidden_BQK, HIDDEN_FROM_SIGHT)[:, None]
