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
from nlpkit.encoders import base
from nlpkit.layers.gated_convolution import GatedConvolution
from nlpkit.layers.mirrored import mirrored
from nlpkit.layers.shared_dropout import shared_dropout
from nlpkit.text.words import BUCKETS, TAGS, word_features, word_starts

UNKNOWN = 1
"""The id of [UNK] in the vocabulary that ships."""


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


class Encoder(nn.Module, base.Encoder):
    """See the module docstring. Takes the vocabulary's size and the settings as a dict."""

    Config = DgcnnConfig
    what = (
        "gated dilated convolutions over characters and jieba words; "
        "learns from a few thousand lines"
    )
    learns_as = "convolutions"
    extra_inputs = ("word_ids_BT", "tag_ids_BT")
    words = staticmethod(word_features)

    def __init__(self, vocabulary: int, config: dict[str, Any]):
        super().__init__()
        c = DgcnnConfig(**{**config, "dilations": tuple(config["dilations"])})
        self.config = c
        self.vocabulary_size = vocabulary
        self.hidden_size = c.hidden_size
        self.depth = len(c.dilations) + c.lstm_layers
        self.characters = nn.Embedding(vocabulary, c.character_size, padding_idx=0)
        self.word_embedding = nn.Embedding(BUCKETS + 1, c.word_size, padding_idx=0)
        self.tags = nn.Embedding(TAGS, c.tag_size)
        nn.init.normal_(self.characters.weight, std=0.5)
        nn.init.normal_(self.tags.weight, std=0.5)
        # so that words never seen in training say nothing
        nn.init.zeros_(self.word_embedding.weight)
        self.project = nn.Linear(c.character_size + c.word_size + c.tag_size, c.hidden_size)
        self.input_norm = nn.LayerNorm(c.hidden_size)
        convolutions = [GatedConvolution(c.hidden_size, d, c.dropout) for d in c.dilations]
        lstms = [BiLSTM(c.hidden_size, c.lstm_size, c.dropout) for _ in range(c.lstm_layers)]
        self.layers = nn.ModuleList([*convolutions, *lstms])
        self.output_norm = nn.LayerNorm(c.hidden_size)

    def spec(self) -> dict[str, Any]:
        """What `encoders.build` makes the same architecture from."""
        config = {**asdict(self.config), "dilations": list(self.config.dilations)}
        return {"kind": "dgcnn", "vocabulary": self.vocabulary_size, "config": config}

    def depth_of(self, parameter_name: str) -> int:
        """0 for the embeddings, then the layers; the last norm belongs to the top layer."""
        part, _, rest = parameter_name.partition(".")
        if part == "layers":
            return int(rest.split(".")[0]) + 1
        return self.depth if part == "output_norm" else 0

    def forward(
        self,
        token_ids_BT: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        attention_mask_BQK: torch.Tensor,
        word_ids_BT: torch.Tensor,
        tag_ids_BT: torch.Tensor,
        words_BTE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_BTH in float32; zeros on padding before the last norm.

        The segments are not looked at; of the attention mask (B, 1, T) it takes where there are
        tokens. `word_ids_BT` and `tag_ids_BT` are those of `nlpkit.text.words`, 0 for none.
        `words_BTE` is read in place of the characters' own `word_vectors`.
        """
        c = self.config
        mask_BT1 = attention_mask_BQK[:, 0, :, None]
        seen_ids_BT = token_ids_BT
        if self.training:
            seen_ids_BT, word_ids_BT = self._hide(token_ids_BT, word_ids_BT, tag_ids_BT)
        characters_BTE = self.characters(seen_ids_BT)
        if words_BTE is not None:
            is_seen_BT1 = (seen_ids_BT == token_ids_BT)[..., None]
            characters_BTE = torch.where(is_seen_BT1, words_BTE, characters_BTE)
        embedded_BTE = torch.cat(
            [
                characters_BTE,
                self.word_embedding(word_ids_BT),
                self.tags(tag_ids_BT),
            ],
            -1,
        )
        embedded_BTE = shared_dropout(embedded_BTE, c.embedding_dropout, self.training)
        hidden_BTH = self.input_norm(self.project(embedded_BTE)) * mask_BT1
        # Under autocast the norm gives float32; the layers are to work in the narrow type.
        if torch.is_autocast_enabled(hidden_BTH.device.type):
            hidden_BTH = hidden_BTH.to(torch.get_autocast_dtype(hidden_BTH.device.type))
        mask_BT1 = mask_BT1.to(hidden_BTH.dtype)
        for layer in self.layers:
            hidden_BTH = layer(hidden_BTH, mask_BT1)
        return self.output_norm(hidden_BTH.to(self.output_norm.weight.dtype))

    def word_vectors(self, token_ids_BT: torch.Tensor) -> torch.Tensor:
        """What the characters are without their words: (B, T, E)."""
        return self.characters(token_ids_BT)

    def _hide(
        self, token_ids_BT: torch.Tensor, word_ids_BT: torch.Tensor, tag_ids_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(token ids, word ids) with some characters, some words, and some words with all their
        characters replaced by unknown ones."""
        c = self.config
        # which word of the text a character lies in
        word_BT = word_starts(tag_ids_BT).cumsum(1) - 1

        def chosen(rate: float) -> torch.Tensor:
            return torch.rand(token_ids_BT.shape, device=token_ids_BT.device) < rate

        # One draw for each word: all its characters read the draw at the place of its number.
        whole_BT = chosen(c.hide_character).gather(1, word_BT)
        is_character_BT = token_ids_BT != 0
        hidden_BT = (whole_BT | chosen(c.hide_character)) & is_character_BT
        hidden_word_BT = whole_BT | chosen(c.hide_word).gather(1, word_BT)
        return (
            token_ids_BT.masked_fill(hidden_BT, UNKNOWN),
            word_ids_BT.masked_fill(hidden_word_BT, 0),
        )


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
        mirror_BT1 = mirrored(mask_BT1)
        there, _ = self.forwards(hidden_BTH)
        back, _ = self.backwards(hidden_BTH.gather(1, mirror_BT1.expand_as(hidden_BTH)))
        states = self.project(torch.cat([there, back.gather(1, mirror_BT1.expand_as(back))], -1))
        return hidden_BTH + shared_dropout(states, self.dropout, self.training) * mask_BT1
