r"""GRU: two gated recurrent layers over characters, one from each side; the lightest encoder.

    hidden(t) = [ GRU forwards over x(1..t) ; GRU backwards over x(T..t) ]

The characters' vectors start as those of `tiny`, which were pretrained, or at random. It has no
longest input.

Source: https://kexue.fm/archives/5743 (a GRU of 128 for sentences); Cho et al. 2014,
arxiv.org/abs/1406.1078, section 2.3 (the unit). Differs from /5743: both directions.
Legend: B batch, T tokens, E embedding, H hidden.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch
from safetensors import safe_open
from torch import nn

from nlpkit.config import Range, Rate, Size
from nlpkit.encoders import base
from nlpkit.encoders.shipped import TINY
from nlpkit.errors import SettingsError
from nlpkit.layers.mirrored import mirrored
from nlpkit.layers.shared_dropout import shared_dropout

TABLE = "roformer.embeddings.word_embeddings.weight"
"""The characters of `tiny`, in its checkpoint."""


@dataclass(frozen=True)
class GruConfig:
    """Settings of `gru`, section `encoder`."""

    start: Literal["tiny", "random"] = "tiny"
    """Where the characters' vectors come from: the table of `tiny`, or chance."""
    character_size: Size = 256
    """Of a character's vector; that of `tiny` is 256."""
    gru_size: Size = 128
    """Of the state in each direction; a hidden vector has twice as many numbers."""
    layers: Annotated[int, Range(1, 100)] = 1
    """One on top of the other, each of both directions."""
    dropout: Rate = 0.1
    """Of the states of each layer."""
    embedding_dropout: Rate = 0.1
    """Of the characters' vectors."""


class Encoder(nn.Module, base.Encoder):
    """See the module docstring. Takes the vocabulary's size and the settings as a dict.

    Raises SettingsError where the characters of `tiny` do not fit.
    """

    Config = GruConfig
    what = "a bidirectional GRU over characters; the lightest, for sentences"
    learns_as = "convolutions"

    def __init__(self, vocabulary: int, config: dict[str, Any]):
        super().__init__()
        c = GruConfig(**config)
        self.config = c
        self.vocabulary_size = vocabulary
        self.hidden_size = 2 * c.gru_size
        self.depth = c.layers
        self.characters = nn.Embedding(vocabulary, c.character_size, padding_idx=0)
        nn.init.normal_(self.characters.weight, std=0.5)
        if c.start == "tiny":
            _fill_from_tiny(self.characters)
        sizes = [c.character_size, *[self.hidden_size] * (c.layers - 1)]
        self.layers = nn.ModuleList(BiGRU(size, c.gru_size, c.dropout) for size in sizes)

    def spec(self) -> dict[str, Any]:
        """What `encoders.build` makes the same architecture from; the characters' vectors are
        weights and start at random there."""
        config = {**asdict(self.config), "start": "random"}
        return {"kind": "gru", "vocabulary": self.vocabulary_size, "config": config}

    def depth_of(self, parameter_name: str) -> int:
        """0 for the characters, then the layers."""
        part, _, rest = parameter_name.partition(".")
        return int(rest.split(".")[0]) + 1 if part == "layers" else 0

    def forward(
        self,
        token_ids_BT: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        attention_mask_BQK: torch.Tensor,
        words_BTE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_BTH in float32, zeros on padding.

        The segments are not looked at; of the attention mask (B, 1, T) it takes where there are
        tokens. `words_BTE` is read in place of the characters' own `word_vectors`.
        """
        mask_BT1 = attention_mask_BQK[:, 0, :, None]
        hidden_BTH = self.word_vectors(token_ids_BT) if words_BTE is None else words_BTE
        hidden_BTH = shared_dropout(hidden_BTH, self.config.embedding_dropout, self.training)
        for layer in self.layers:
            hidden_BTH = layer(hidden_BTH * mask_BT1, mask_BT1)
        return hidden_BTH.to(self.characters.weight.dtype)

    def word_vectors(self, token_ids_BT: torch.Tensor) -> torch.Tensor:
        """The characters' vectors: (B, T, E)."""
        return self.characters(token_ids_BT)


class BiGRU(nn.Module):
    """[GRU forwards; GRU backwards], the backward one over each text from its own end: padding is
    not seen."""

    def __init__(self, size: int, gru_size: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.forwards = nn.GRU(size, gru_size, batch_first=True)
        self.backwards = nn.GRU(size, gru_size, batch_first=True)

    def forward(self, hidden_BTE: torch.Tensor, mask_BT1: torch.Tensor) -> torch.Tensor:
        """(B, T, E) -> (B, T, 2 gru_size), zeros where the mask is 0."""
        mirror_BT1 = mirrored(mask_BT1)
        mirror_BTE = mirror_BT1.expand(-1, -1, self.forwards.input_size)
        mirror_BTH = mirror_BT1.expand(-1, -1, self.forwards.hidden_size)
        there, _ = self.forwards(hidden_BTE)
        back, _ = self.backwards(hidden_BTE.gather(1, mirror_BTE))
        states = torch.cat([there, back.gather(1, mirror_BTH)], -1)
        return shared_dropout(states, self.dropout, self.training) * mask_BT1


def _fill_from_tiny(characters: nn.Embedding) -> None:
    """Copies the table of `tiny`, scaled to the spread of a random one."""
    with safe_open(str(TINY / "model.safetensors"), framework="pt") as file:
        table = file.get_tensor(TABLE).float()
    expected, got = tuple(table.shape), tuple(characters.weight.shape)
    if expected != got:
        raise SettingsError(
            f"encoder.character_size: the characters of tiny have {expected[1]}: expected "
            f"{expected}, got {got}",
            hint="--set encoder.start=random",
        )
    with torch.no_grad():
        characters.weight.copy_(table * (0.5 / table.std()))
        characters.weight[0] = 0
