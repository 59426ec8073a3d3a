"""The encoders of the BERT family: BERT, ERNIE, ELECTRA and RoFormer (v1).

RoBERTa-wwm and MacBERT are BERTs. The model is its embeddings and its blocks, and, where a task
asks for it, the masked-LM head: no pooler, no other heads. It is `transformers`' model tensor by
tensor, without its import, which takes longer than that of torch.

B batch, T tokens (Q as queries, K as keys), E embedding, H hidden, D size of a head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nlpkit.encoders import base
from nlpkit.encoders.base import additive_mask
from nlpkit.encoders.cache import KeyValues, run_block
from nlpkit.encoders.language_head import LanguageHead
from nlpkit.encoders.transformer_blocks import TransformerModel
from nlpkit.encoders.transformer_settings import read_settings
from nlpkit.errors import SettingsError
from nlpkit.layers.packing import Packing
from nlpkit.layers.steady_products import is_traced


class Encoder(nn.Module, base.Encoder):
    """Embeddings and blocks of a BERT-family model, with random weights in float32.

    `config` is a `transformers` config as a dict with `model_type`; keys that do not define an
    encoder are ignored. `attn_implementation` is "sdpa" or "eager"; None takes eager where there is
    no GPU (a quarter faster there on sentences), else sdpa. With `head`, `token_logits` works; a
    task whose model does not call it should not carry the head.
    An encoder of one segment type cannot tell a source from a target. `parts` in the config are
    those of `nlpkit.encoders.parts`; Performer attention tells no source from a target either.
    Raises SettingsError where the family is unknown or the settings make no model.
    """

    objective = "masked"

    def __init__(
        self, config: dict[str, Any], attn_implementation: str | None = None, head: bool = False
    ):
        super().__init__()
        settings = read_settings(config)
        is_fused = torch.cuda.is_available()
        if attn_implementation is not None:
            is_fused = attn_implementation == "sdpa"
        try:
            self.model = TransformerModel(settings, is_fused)
        except KeyError:
            raise SettingsError(f"encoder: unknown hidden_act '{settings.hidden_act}'") from None
        self.head = self._new_head() if head else None
        self.head_is_new = head  # until weights of a checkpoint are put into it
        self.hidden_size: int = settings.hidden_size
        self.vocabulary_size: int = settings.vocab_size
        self.depth: int = settings.num_hidden_layers
        self.max_length: int = settings.max_position_embeddings
        has_target = settings.type_vocab_size > 1
        sees_all = settings.parts.attention == "performer"
        self.attentions = ("full", "prefix") if has_target and not sees_all else ("full",)

    def forward(
        self,
        token_ids_BT: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        attention_mask_BQK: torch.Tensor,
        words_BTE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_BTH of the last block. Vectors at padded tokens are finite and mean nothing.

        `attention_mask_BQK` is true where a query sees a key, (B, 1, T) or (B, T, T);
        `words_BTE` is read in place of the tokens' own `word_vectors`.
        """
        if self._is_steady(token_ids_BT):
            position_T = torch.arange(token_ids_BT.shape[1])
            position_BT = position_T.expand_as(token_ids_BT)
            return self.extend(
                token_ids_BT, segment_ids_BT, position_BT, attention_mask_BQK, None, words_BTE
            )
        hidden_BTH = self.model.embed(token_ids_BT, segment_ids_BT, words_BTE=words_BTE)
        mask_B1QK = additive_mask(attention_mask_BQK, hidden_BTH.dtype)
        return self.model.encoder(hidden_BTH, mask_B1QK)

    def layers(
        self,
        token_ids_BT: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        attention_mask_BQK: torch.Tensor,
        numbers: Sequence[int],
    ) -> list[torch.Tensor]:
        """hidden_BTH after each of these blocks, in their order; 1 is the first block, `depth` the
        last, whose vectors are those of `forward`.

        In evaluation mode the last bits depend on the neighbours in the batch. A number may come
        twice.
        """
        hidden_BTH = self.model.embed(token_ids_BT, segment_ids_BT)
        mask_B1QK = additive_mask(attention_mask_BQK, hidden_BTH.dtype)
        found = dict(enumerate(self.model.encoder.each(hidden_BTH, mask_B1QK), 1))
        return [found[number] for number in numbers]

    def _is_steady(self, token_ids_BT: torch.Tensor) -> bool:
        """Whether a row must not depend on its neighbours: in prediction, where that can be had."""
        return not self.training and token_ids_BT.device.type == "cpu" and not is_traced()

    def word_vectors(self, token_ids_BT: torch.Tensor) -> torch.Tensor:
        """What the tokens are without segment and position: (B, T, E)."""
        return self.model.embeddings.word_embeddings(token_ids_BT)

    def new_cache(self) -> list[KeyValues]:
        """An empty cache for `extend`."""
        return [KeyValues() for _ in range(self.depth)]

    def extend(
        self,
        token_ids_BQ: torch.Tensor,
        segment_ids_BQ: torch.Tensor,
        positions_BQ: torch.Tensor,
        visible_BQK: torch.Tensor,
        cache: list[KeyValues] | None,
        words_BQE: torch.Tensor | None = None,
        packing: Packing | None = None,
    ) -> torch.Tensor:
        """hidden_BQH of Q more tokens, whose keys and values are appended to the `cache` (of
        `new_cache`; None where they are all there is).

        `visible_BQK` says which of the K tokens that are then in the cache a new token sees, in
        their order there; `words_BQE` is read in place of the tokens' own `word_vectors`. With a
        `packing` only the N tokens that count are computed: hidden_1NH.
        """
        if packing is not None:
            token_ids_BQ = packing.pack(token_ids_BQ)
            segment_ids_BQ = packing.pack(segment_ids_BQ)
            positions_BQ = packing.pack(positions_BQ)
            words_BQE = None if words_BQE is None else packing.pack(words_BQE)
        hidden_BQH = self.model.embed(token_ids_BQ, segment_ids_BQ, positions_BQ, words_BQE)
        rotary = None
        if self.model.encoder.embed_positions is not None:
            rotary = self.model.encoder.embed_positions.at(positions_BQ)
        mask_B1QK = additive_mask(visible_BQK, hidden_BQH.dtype)
        caches = [None] * self.depth if cache is None else cache
        for block, kept in zip(self.model.encoder.layer, caches, strict=True):
            hidden_BQH = run_block(block, hidden_BQH, rotary, mask_B1QK, kept, packing)
        return self.model.encoder.finish(hidden_BQH)

    def _new_head(self) -> LanguageHead:
        settings = self.model.settings
        return LanguageHead(
            settings.hidden_size,
            self.model.embeddings.size,
            settings.vocab_size,
            settings.hidden_act,
            settings.layer_norm_eps,
        )

    def token_logits(
        self, hidden_NH: torch.Tensor, token_ids_S: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores of the tokens at some places, logits_NV; with `token_ids_S` logits_NS, of these
        tokens only. Raises SettingsError for an encoder without its head."""
        if self.head is None:
            raise SettingsError("encoder: was built without its masked-LM head")
        return self.head(hidden_NH, self.model.embeddings.word_embeddings.weight, token_ids_S)

    def depth_of(self, parameter_name: str) -> int:
        """0 for one of the embeddings, 1 to `depth` for one of a block, above that the head; for
        rates by layer."""
        if parameter_name.startswith("head."):
            return self.depth + 1
        if ".encoder.norm." in parameter_name:
            return self.depth
        block = re.search(r"\bencoder\.layer\.(\d+)\.", parameter_name)
        return int(block[1]) + 1 if block else 0

    def spec(self) -> dict[str, Any]:
        """`{"kind": "transformer", "config": {...}}`, JSON-able; all but `kind` rebuilds the
        architecture."""
        spec = {"kind": "transformer", "config": self.model.settings.as_config()}
        return spec if self.head is None else {**spec, "head": True}
