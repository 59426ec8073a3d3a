"""The masked-LM head of a BERT: from a hidden vector to a score for every token, with the
embeddings as its last layer.

    logits = LayerNorm(act(dense(hidden))) . embeddings^T + bias

The published names of its tensors differ between families; `own_head_name` knows them.
Source: Devlin et al. 2018, arxiv.org/abs/1810.04805, section 3.1. H hidden, E embedding, V
vocabulary.
"""

from __future__ import annotations

import re

import tokenizers
import torch
from torch import nn

from nlpkit.layers.activations import activation as activation_of
from nlpkit.layers.steady_products import steady_linear

_NAMES = [
    (r"cls\.predictions\.transform\.dense\.(weight|bias)", r"dense.\1"),
    (r"cls\.predictions\.transform\.LayerNorm\.(weight|bias)", r"norm.\1"),
    (r"cls\.predictions\.(decoder\.)?bias", r"bias"),
    (r"generator_predictions\.dense\.(weight|bias)", r"dense.\1"),
    (r"generator_predictions\.LayerNorm\.(weight|bias)", r"norm.\1"),
    (r"generator_lm_head\.bias", r"bias"),
]
"""Name of a tensor in a checkpoint -> its name here."""


NEVER = -1e4
"""Bias of a score whose token has no probability, also in half precision."""


class LanguageHead(nn.Module):
    """Scores of all tokens; `embedding_VE` of the encoder is handed in, since the two share it."""

    def __init__(
        self,
        hidden_size: int,
        embedding_size: int,
        vocabulary: int,
        activation: str,
        epsilon: float,
    ):
        super().__init__()
        self.dense = nn.Linear(hidden_size, embedding_size)
        self.activation = activation_of(activation)
        self.norm = nn.LayerNorm(embedding_size, eps=epsilon)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    @torch.no_grad()
    def silence(self, tokenizer: tokenizers.Tokenizer) -> None:
        """Gives the rows without a token a bias with which they are never predicted.

        Checkpoints round the number of their embeddings up; what stands there means nothing.
        """
        has_token_V = torch.zeros(len(self.bias), dtype=torch.bool)
        has_token_V[list(tokenizer.get_vocab().values())] = True
        self.bias[~has_token_V] = NEVER

    def forward(
        self,
        hidden_NH: torch.Tensor,
        embedding_VE: torch.Tensor,
        token_ids_S: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """logits_NV of any number of hidden vectors (any leading dimensions); with `token_ids_S`
        logits_NS, of these tokens only."""
        embedded_NE = self.norm(self.activation(self.dense(hidden_NH)))
        bias_V: torch.Tensor = self.bias
        if token_ids_S is not None:
            embedding_VE = embedding_VE[token_ids_S]
            bias_V = bias_V[token_ids_S]
        if self.training:
            return nn.functional.linear(embedded_NE, embedding_VE, bias_V)
        return steady_linear(embedded_NE, embedding_VE, bias_V)


def own_head_name(name: str) -> str | None:
    """The name in `LanguageHead` of a checkpoint's tensor, None where it is no part of one."""
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    for pattern, own in _NAMES:
        if match := re.fullmatch(pattern, name):
            return match.expand(own)
    return None


def published_head_name(own: str) -> str:
    """Where `BertForMaskedLM` keeps the tensor `own`."""
    layer, _, kind = own.rpartition(".")
    return {"": "cls.predictions.bias", "dense": f"cls.predictions.transform.dense.{kind}"}.get(
        layer, f"cls.predictions.transform.LayerNorm.{kind}"
    )
