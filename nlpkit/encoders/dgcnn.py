r"""DGCNN: gated dilated convolutions over characters and jieba words, with bidirectional LSTMs on
top.

A layer looks at x(t - d), x(t), x(t + d) and lets a gate choose, for each component, between what
it was and what it sees there:

    [g; h] = W [x(t - d); x(t); x(t + d)] + b,      y = x + sigmoid(g) * (h - x)

A character comes in as what it is, the word it lies in and that word's part of speech, so that a
few thousand sentences suffice where a Transformer with random weights has yet to learn what a word
is. It has no longest input.

Source: https://kexue.fm/archives/6671 (gates, dilations, words), /5409.
Differs from /6671: words and tags from jieba in place of word2vec; BiLSTMs in place of attention;
the dropout masks are shared by all positions of a text, and whole words are hidden at random.
Legend: B batch, T tokens, H hidden.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from nlpkit.config import Depth, Rate, Size
from nlpkit.text.tokenizer import TokenBatch
from nlpkit.text.words import BUCKETS, TAGS, word_features, word_starts

UNKNOWN = 1  # id of [UNK]


@dataclass(frozen=True)
class DgcnnConfig:
    """Settings of `dgcnn`, section `encoder`."""

    hidden_size: Size = 256
    """Of every layer."""
    dilations: tuple[Size, ...] = (1, 2, 5)
    """One convolution each: the distance of the neighbours it looks at."""
    lstm_layers: Depth = 2
    """Bidirectional LSTM layers on top."""
    lstm_size: Size = 192
    """Of an LSTM's state in each direction."""
    character_size: Size = 128
    """Of a character's embedding."""
    word_size: Size = 64
    """Of a word's embedding."""
    tag_size: Size = 32
    """Of a part of speech's embedding."""
    dropout: Rate = 0.2
    """Of every layer's new states."""
    embedding_dropout: Rate = 0.25
    """Of the embeddings."""
    hide_word: Rate = 0.2
    """Share of the words whose embedding is hidden while training, so that rare and new words are
    no surprise."""
    hide_character: Rate = 0.05
    """Share of the characters hidden, and of the words hidden with all their characters."""


class Dgcnn(nn.Module):
    """See the module docstring. Takes the vocabulary's size and the settings as a dict."""

    learns_as = "convolutions"
    max_length = None
    words = staticmethod(word_features)

    def __init__(self, vocabulary: int, config: dict[str, Any]):
        super().__init__()
        self.config = c = DgcnnConfig(**{**config, "dilations": tuple(config["dilations"])})
        self.vocabulary = vocabulary
        self.hidden_size = c.hidden_size
        self.depth = len(c.dilations) + c.lstm_layers
        self.characters = nn.Embedding(vocabulary, c.character_size, padding_idx=0)
        self.word_embedding = nn.Embedding(BUCKETS + 1, c.word_size, padding_idx=0)
        self.tags = nn.Embedding(TAGS, c.tag_size)
        for embedding in (self.characters, self.tags):
            nn.init.normal_(embedding.weight, std=0.5)
        nn.init.zeros_(
            self.word_embedding.weight
        )  # so that words never seen in training say nothing
        self.project = nn.Linear(c.character_size + c.word_size + c.tag_size, c.hidden_size)
        self.input_norm = nn.LayerNorm(c.hidden_size)
        self.layers = nn.ModuleList(
            [GatedConvolution(c.hidden_size, dilation, c.dropout) for dilation in c.dilations]
            + [BiLSTM(c.hidden_size, c.lstm_size, c.dropout) for _ in range(c.lstm_layers)]
        )
        self.output_norm = nn.LayerNorm(c.hidden_size)

    def spec(self) -> dict[str, Any]:
        """What `encoders.build` makes the same architecture from."""
        config = {**asdict(self.config), "dilations": list(self.config.dilations)}
        return {"kind": "dgcnn", "vocabulary": self.vocabulary, "config": config}

    def depth_of(self, parameter_name: str) -> int:
        """0 for the embeddings, then the layers; the last norm belongs to the top layer."""
        part, _, rest = parameter_name.partition(".")
        return (
            int(rest.split(".")[0]) + 1
            if part == "layers"
            else self.depth
            if part == "output_norm"
            else 0
        )

    def forward(self, tokens: TokenBatch, attention: str = "full") -> torch.Tensor:
        """hidden_BTH in float32; zeros on padding before the last norm. Only `attention="full"`."""
        if attention != "full":
            raise ValueError("dgcnn sees the whole text; it cannot generate")
        c, mask_BT = self.config, tokens.mask_BT
        character_ids_BT, word_ids_BT, tag_ids_BT = (
            tokens.token_ids_BT,
            tokens.word_ids_BT,
            tokens.tag_ids_BT,
        )
        if self.training:
            character_ids_BT, word_ids_BT = self._hide(character_ids_BT, word_ids_BT, tag_ids_BT)
        parts = (
            self.characters(character_ids_BT),
            self.word_embedding(word_ids_BT),
            self.tags(tag_ids_BT),
        )
        embedded = shared_dropout(torch.cat(parts, -1), c.embedding_dropout, self.training)
        mask_BT1 = mask_BT[..., None]
        hidden_BTH = self.input_norm(self.project(embedded)) * mask_BT1
        if torch.is_autocast_enabled(hidden_BTH.device.type):
            hidden_BTH = hidden_BTH.to(torch.get_autocast_dtype(hidden_BTH.device.type))
        mask_BT1 = mask_BT1.to(hidden_BTH.dtype)
        for layer in self.layers:
            hidden_BTH = layer(hidden_BTH, mask_BT1)
        return self.output_norm(hidden_BTH.to(self.output_norm.weight.dtype))

    def _hide(
        self, character_ids_BT: Any, word_ids_BT: Any, tag_ids_BT: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids with some characters, some words, and some words with all their characters replaced
        by unknown ones."""
        c, real_BT = self.config, character_ids_BT != 0
        word_BT = (
            word_starts(tag_ids_BT).cumsum(1) - 1
        )  # which word of the text a character lies in

        def chosen(rate: float, whole_words: bool) -> torch.Tensor:
            draw_BT = torch.rand(character_ids_BT.shape, device=character_ids_BT.device) < rate
            return draw_BT.gather(1, word_BT) if whole_words else draw_BT

        whole_BT = chosen(c.hide_character, True)
        hidden_BT = (whole_BT | chosen(c.hide_character, False)) & real_BT
        return (
            character_ids_BT.masked_fill(hidden_BT, UNKNOWN),
            word_ids_BT.masked_fill(whole_BT | chosen(c.hide_word, True), 0),
        )


class GatedConvolution(nn.Module):
    """One gated dilated convolution of width 3 (see the module docstring); padding stays zero."""

    def __init__(self, size: int, dilation: int, dropout: float):
        super().__init__()
        self.dilation, self.dropout = dilation, dropout
        self.weight = nn.Parameter(torch.randn(2 * size, 3 * size) * (3 * size) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(2 * size))

    def forward(self, hidden_BTH: torch.Tensor, mask_BT1: torch.Tensor) -> torch.Tensor:
        """(B, T, H) -> (B, T, H), zeros where the mask is 0."""
        keep_B1H = dropout_mask(hidden_BTH, self.dropout, self.training)
        return _GatedConvolution.apply(
            hidden_BTH, self.weight, self.bias, mask_BT1, keep_B1H, self.dilation
        )


class _GatedConvolution(torch.autograd.Function):
    """The layer as one matrix product over the three shifted states, with its gradient by hand.

    autograd's own elementwise passes and copies take several times as long as the products on a
    CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Any, weight: Any, bias: Any, mask: Any, keep: Any, dilation: int
    ) -> torch.Tensor:
        batch, length, size = x.shape
        weight = weight.to(x.dtype)
        seen = x.new_zeros(batch, length, 3 * size)
        seen[..., size : 2 * size] = x
        if dilation < length:
            seen[:, dilation:, :size] = x[:, :-dilation]
            seen[:, :-dilation, 2 * size :] = x[:, dilation:]
        both = torch.addmm(bias.to(x.dtype), seen.view(-1, 3 * size), weight.t()).view(
            batch, length, 2 * size
        )
        gate, new = both[..., :size].sigmoid_(), both[..., size:]
        if keep is not None:
            new.mul_(keep)
        ctx.save_for_backward(seen, weight, both, mask, keep)
        ctx.dilation = dilation
        return torch.lerp(x, new, gate).mul_(mask)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        seen, weight, both, mask, keep = ctx.saved_tensors
        (batch, length, double), dilation = both.shape, ctx.dilation
        size = double // 2
        gate, new, x = both[..., :size], both[..., size:], seen[..., size : 2 * size]
        grad = grad * mask
        grad_both = torch.empty_like(both)
        grad_gate, grad_new = grad_both[..., :size], grad_both[..., size:]
        torch.mul(grad, gate, out=grad_new)
        grad_x = grad - grad_new  # the way past the gate: grad * (1 - gate)
        torch.sub(new, x, out=grad_gate).mul_(grad_x).mul_(gate)
        if keep is not None:
            grad_new.mul_(keep)
        flat = grad_both.view(-1, double)
        grad_weight, grad_bias = flat.t() @ seen.view(-1, 3 * size), flat.sum(0)
        grad_seen = (flat @ weight).view(batch, length, 3 * size)
        grad_x += grad_seen[..., size : 2 * size]
        if dilation < length:
            grad_x[:, :-dilation] += grad_seen[:, dilation:, :size]
            grad_x[:, dilation:] += grad_seen[:, :-dilation, 2 * size :]
        return grad_x, grad_weight, grad_bias, None, None, None


class BiLSTM(nn.Module):
    """x + W [LSTM forwards; LSTM backwards], the backward one over each text from its own end:
    padding is not seen."""

    def __init__(self, size: int, lstm_size: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.forwards = nn.LSTM(size, lstm_size, batch_first=True)
        self.backwards = nn.LSTM(size, lstm_size, batch_first=True)
        self.project = nn.Linear(2 * lstm_size, size)

    def forward(self, hidden_BTH: torch.Tensor, mask_BT1: torch.Tensor) -> torch.Tensor:
        """(B, T, H) -> (B, T, H), zeros where the mask is 0."""
        mirror_BT1 = _mirror(mask_BT1)
        there, _ = self.forwards(hidden_BTH)
        back, _ = self.backwards(hidden_BTH.gather(1, mirror_BT1.expand_as(hidden_BTH)))
        states = self.project(torch.cat([there, back.gather(1, mirror_BT1.expand_as(back))], -1))
        return hidden_BTH + shared_dropout(states, self.dropout, self.training) * mask_BT1


def _mirror(mask_BT1: torch.Tensor) -> torch.Tensor:
    """Indices that turn every text around in its place; padding stays where it is."""
    length_B11 = mask_BT1.bool().sum(1, keepdim=True)
    position_BT1 = torch.arange(mask_BT1.shape[1], device=mask_BT1.device)[None, :, None].expand(
        mask_BT1.shape
    )
    return torch.where(position_BT1 < length_B11, length_B11 - 1 - position_BT1, position_BT1)


def dropout_mask(hidden_BTH: torch.Tensor, rate: float, training: bool) -> torch.Tensor | None:
    """A dropout mask (B, 1, H) shared by all positions of a text, None for none: cheap, and no word
    leaks past it."""
    if not (training and rate):
        return None
    draw = torch.rand(hidden_BTH.shape[0], 1, hidden_BTH.shape[2], device=hidden_BTH.device)
    return (draw >= rate).to(hidden_BTH.dtype) / (1 - rate)


def shared_dropout(hidden_BTH: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Dropout with `dropout_mask`."""
    mask_B1H = dropout_mask(hidden_BTH, rate, training)
    return hidden_BTH if mask_B1H is None else hidden_BTH * mask_B1H
