r"""A stack of LSTMs with ordered neurons over the characters of a text, or of plain LSTMs.

    forward     a token sees itself and what is left of it: a language model
    both        two stacks, the second one from the end of each text; a token's vector is what both
                say, one behind the other. They share embeddings and head.

As a language model (`nlpkit encoder pretrain --encoder on_lstm`) the first stack learns to predict
the token after each, the second one the token before. The master forget gates of the first stack
tell where the parts of a sentence begin (`encoders.trees`). `cell=lstm` is the same with
`torch.nn.LSTM`, to compare with; it has no such gates. There is no longest input.

Speed, one core, 64 texts of 128 tokens, a layer of 256, chunks of 8: a training step of a layer
takes 1.5 times as long as one of `torch.nn.LSTM` (autograd alone would take 10 times as long), a
prediction 1.6 times (`tests/benchmarks/on_lstm_speed.py`). Figures of trees: `on_lstm.md`.

Source: Shen et al. 2019, https://arxiv.org/abs/1810.09536; https://kexue.fm/archives/6621; two
stacks that share embeddings and head: Peters et al. 2018, https://arxiv.org/abs/1802.05365.
Differs from Shen et al.: the embeddings are normed; before the scores of the tokens, which are
products with the embeddings, comes the dense layer of a BERT's head.
Legend: B batch, T tokens, H hidden, N places, V vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from nlpkit.config import Rate, Size
from nlpkit.encoders import base
from nlpkit.encoders.language_head import LanguageHead
from nlpkit.errors import SettingsError
from nlpkit.layers.mirrored import mirrored
from nlpkit.layers.ordered_neurons import OrderedNeurons
from nlpkit.layers.steady_products import is_traced, spare, steady_linear


@dataclass(frozen=True)
class OnLstmConfig:
    """Settings of `on_lstm`, section `encoder`."""

    cell: Literal["on_lstm", "lstm"] = "on_lstm"
    """Ordered neurons, or `torch.nn.LSTM` of the same size."""
    directions: Literal["both", "forward"] = "both"
    """Two stacks, the second one from the end of the text; or one, with which a token sees only
    what is left of it: a language model, half the time of both."""
    layers: Size = 3
    """Of each stack."""
    hidden_size: Size = 256
    """Of a layer and of a character's embedding."""
    chunk: Size = 8
    """Cells that share a number of the master gates; a divisor of `hidden_size`."""
    dropout: Rate = 0.2
    """Of the embeddings and of every layer's states."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.chunk:
            raise ValueError(f"chunk: expected a divisor of {self.hidden_size}, got {self.chunk}")


class Encoder(nn.Module, base.Encoder):
    """See the module docstring. Takes the vocabulary's size and the settings as a dict; with
    `head`, `token_logits` works."""

    Config = OnLstmConfig
    what = "LSTMs with ordered neurons over characters; tells the tree of a sentence"
    learns_as = "convolutions"
    objective = "next"

    def __init__(self, vocabulary: int, config: dict[str, Any], head: bool = False):
        super().__init__()
        c = OnLstmConfig(**config)
        self.config = c
        self.vocabulary_size = vocabulary
        self.depth = c.layers
        self.directions = 2 if c.directions == "both" else 1
        self.hidden_size = c.hidden_size * self.directions
        self.characters = nn.Embedding(vocabulary, c.hidden_size)
        nn.init.normal_(self.characters.weight, std=0.02)
        self.input_norm = nn.LayerNorm(c.hidden_size)
        self.dropout = nn.Dropout(c.dropout)
        self.stacks = nn.ModuleList([_layers(c) for _ in range(self.directions)])
        self.head: LanguageHead | None = None
        if head:
            size = c.hidden_size
            self.head = LanguageHead(size, size, vocabulary, "gelu", 1e-12)

    def forward(
        self,
        token_ids_BT: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        attention_mask_BQK: torch.Tensor,
        words_BTE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_BTH in float32; vectors at padded tokens are finite and mean nothing.

        The segments are not looked at; of the attention mask (B, 1, T) it takes where there are
        tokens. `words_BTE` is read in place of the tokens' own `word_vectors`.
        """
        if words_BTE is None:
            words_BTE = self.word_vectors(token_ids_BT)
        embedded_BTE = self.dropout(self.input_norm(words_BTE))
        found_BTH = self._through(0, embedded_BTE)
        if self.directions == 2:
            mirror_BTE = mirrored(attention_mask_BQK[:, 0, :, None]).expand_as(embedded_BTE)
            back_BTH = self._through(1, embedded_BTE.gather(1, mirror_BTE))
            found_BTH = torch.cat([found_BTH, back_BTH.gather(1, mirror_BTE)], -1)
        # The shape is said again: a graph of a loop over steps does not know its last number.
        return found_BTH.reshape(*token_ids_BT.shape, self.hidden_size)

    def _through(self, stack: int, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """The states of the last layer of a stack."""
        hidden_TBH = self._columns(hidden_BTH)
        for layer in self._layers_of(stack):
            hidden_TBH = self.dropout(self._run(layer, hidden_TBH)[0])
        return hidden_TBH[:, : hidden_BTH.shape[0]].transpose(0, 1)

    def _layers_of(self, stack: int) -> Any:
        return self.stacks[stack]

    def _columns(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """(T, B, H). In prediction on a CPU there are `spare` rows more, so that the products of a
        step do not depend on how many there are."""
        hidden_TBH = hidden_BTH.transpose(0, 1)
        is_steady = not self.training and hidden_BTH.device.type == "cpu" and not is_traced()
        if is_steady:
            more = spare(hidden_TBH.shape[1])
            hidden_TBH = nn.functional.pad(hidden_TBH, (0, 0, 0, more))
        return hidden_TBH

    def _run(self, layer: Any, hidden_TBH: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """(hidden_TBH, level_TB, which is None for a plain LSTM) of a layer, in float32."""
        with torch.autocast(hidden_TBH.device.type, enabled=False):
            if isinstance(layer, nn.LSTM):
                return layer(hidden_TBH.float())[0], None
            weight, bias = layer.input_weight, layer.bias
            product = nn.functional.linear if self.training else steady_linear
            return layer(product(hidden_TBH.to(weight.dtype), weight, bias))

    def levels(self, token_ids_BT: torch.Tensor, layer: int) -> torch.Tensor:
        """level_BT of the tokens in a layer, counted from 1, of the stack that reads from the left:
        1 - mean(f~), see `layers.ordered_neurons`.

        Raises SettingsError for plain LSTMs and for a layer that there is not.
        """
        if self.config.cell != "on_lstm":
            raise SettingsError("encoder: plain LSTMs have no master gates, and so no trees")
        if not 1 <= layer <= self.depth:
            raise SettingsError(f"layer: expected 1 to {self.depth}, got {layer}")
        hidden_TBH = self._columns(self.input_norm(self.word_vectors(token_ids_BT)))
        for one in self._layers_of(0)[:layer]:
            hidden_TBH, level_TB = self._run(one, hidden_TBH)
        return level_TB[:, : len(token_ids_BT)].t()

    def word_vectors(self, token_ids_BT: torch.Tensor) -> torch.Tensor:
        """What the tokens are alone: (B, T, E)."""
        return self.characters(token_ids_BT)

    def token_logits(self, hidden_NH: torch.Tensor) -> torch.Tensor:
        """Scores of the tokens that come next (of the second stack: before), logits_NV, from
        vectors of one stack. Raises SettingsError for an encoder without its head."""
        if self.head is None:
            raise SettingsError("encoder: was built without its language-model head")
        return self.head(hidden_NH, self.characters.weight)

    def depth_of(self, parameter_name: str) -> int:
        """0 for the embeddings and their norm, then the layers of both stacks, above that the
        head."""
        if parameter_name.startswith("head."):
            return self.depth + 1
        layer = re.match(r"stacks\.\d+\.(\d+)\.", parameter_name)
        return int(layer[1]) + 1 if layer else 0

    def spec(self) -> dict[str, Any]:
        """What `encoders.build` makes the same architecture from."""
        config = asdict(self.config)
        spec = {"kind": "on_lstm", "vocabulary": self.vocabulary_size, "config": config}
        return spec if self.head is None else {**spec, "head": True}


def _layers(config: OnLstmConfig) -> nn.ModuleList:
    size = config.hidden_size
    layers: list[nn.Module] = []
    for _ in range(config.layers):
        if config.cell == "lstm":
            layers.append(nn.LSTM(size, size))
        else:
            layers.append(OrderedNeurons(size, size, config.chunk))
    return nn.ModuleList(layers)
