"""One interface over the BERT-family models of `transformers`: BERT, ERNIE, ELECTRA and RoFormer
(v1).

RoBERTa-wwm and MacBERT are BERTs. The model is its embeddings and its blocks, and, where a task
asks for it, the masked-LM head: no pooler, no other heads.

B batch, T tokens (Q as queries, K as keys), E embedding, H hidden, D size of a head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import huggingface_hub.errors
import torch
import transformers
from torch import nn

from nlpkit.encoders import base
from nlpkit.encoders.base import additive_mask
from nlpkit.encoders.cache import KeyValues, run_block
from nlpkit.encoders.language_head import LanguageHead
from nlpkit.errors import SettingsError, did_you_mean
from nlpkit.layers.steady_products import is_traced

FAMILIES = {"bert": "Bert", "electra": "Electra", "ernie": "Ernie", "roformer": "RoFormer"}
"""model_type -> how `transformers` starts the names of its classes."""

_SETTINGS = [
    "vocab_size",
    "embedding_size",
    "type_vocab_size",
    "task_type_vocab_size",
    "use_task_id",
    "pad_token_id",
    "max_position_embeddings",
    "rotary_value",
    "hidden_size",
    "intermediate_size",
    "hidden_act",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
]
"""What defines an encoder in a config.json; the rest (dtype, architectures, generation, labels) is
not passed on."""

_BAD_SETTING = (
    AssertionError,  # a pad_token_id outside the vocabulary
    TypeError,
    ValueError,
    getattr(
        huggingface_hub.errors, "StrictDataclassError", ValueError
    ),  # older releases do not check the types
)


class Encoder(nn.Module, base.Encoder):
    """Embeddings and blocks of a BERT-family model, with random weights in float32.

    `config` is a `transformers` config as a dict with `model_type`; keys that do not define an
    encoder are ignored. `attn_implementation` is "sdpa" or "eager"; None takes eager where there is
    no GPU (a quarter faster there on sentences), else sdpa where the class supports it. With
    `head`, `token_logits` works; a task whose model does not call it should not carry the head.
    An encoder of one segment type cannot tell a source from a target.
    Raises SettingsError where the family is unknown or the settings make no model.
    """

    objective = "masked"

    def __init__(
        self, config: dict[str, Any], attn_implementation: str | None = None, head: bool = False
    ):
        super().__init__()
        self.model = _build(config, attn_implementation)
        self.head = self._new_head() if head else None
        self.head_is_new = head  # until weights of a checkpoint are put into it
        self.hidden_size: int = self.model.config.hidden_size
        self.vocabulary_size: int = self.model.config.vocab_size
        self.depth: int = self.model.config.num_hidden_layers
        self.max_length: int = self.model.config.max_position_embeddings
        has_target = self.model.config.type_vocab_size > 1
        self.attentions = ("full", "prefix") if has_target else ("full",)

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
        hidden_BTH = self._embed(token_ids_BT, segment_ids_BT, words_BTE=words_BTE)
        mask_B1QK = additive_mask(attention_mask_BQK, hidden_BTH.dtype)
        # The blocks are called directly: what a model's own forward does to a 4-D mask differs
        # between releases.
        return self.model.encoder(hidden_BTH, attention_mask=mask_B1QK)[0]

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
        hidden_BTH = self._embed(token_ids_BT, segment_ids_BT)
        more = [additive_mask(attention_mask_BQK, hidden_BTH.dtype)]
        rotary = getattr(self.model.encoder, "embed_positions", None)
        if rotary is not None:
            more.append(rotary.weight[None, None, : token_ids_BT.shape[1]])
        found = {}
        for number, block in enumerate(self.model.encoder.layer, 1):
            output = block(hidden_BTH, *more)
            hidden_BTH = output if isinstance(output, torch.Tensor) else output[0]
            found[number] = hidden_BTH
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
    ) -> torch.Tensor:
        """hidden_BQH of Q more tokens, whose keys and values are appended to the `cache` (of
        `new_cache`; None where they are all there is).

        `visible_BQK` says which of the K tokens that are then in the cache a new token sees, in
        their order there; `words_BQE` is read in place of the tokens' own `word_vectors`.
        """
        rotary = getattr(self.model.encoder, "embed_positions", None)
        hidden_BQH = self._embed(
            token_ids_BQ, segment_ids_BQ, positions_BQ if rotary is None else None, words_BQE
        )
        rotary_B1QD = None if rotary is None else rotary.weight[positions_BQ][:, None]
        mask_B1QK = additive_mask(visible_BQK, hidden_BQH.dtype)
        caches = [None] * self.depth if cache is None else cache
        for block, kept in zip(self.model.encoder.layer, caches, strict=True):
            hidden_BQH = run_block(block, hidden_BQH, rotary_B1QD, mask_B1QK, kept)
        return hidden_BQH

    def _embed(
        self,
        token_ids_BT: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        positions_BT: torch.Tensor | None = None,
        words_BTE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        inputs = {} if positions_BT is None else {"position_ids": positions_BT}
        inputs |= {"input_ids": token_ids_BT} if words_BTE is None else {"inputs_embeds": words_BTE}
        embedded_BTE = self.model.embeddings(token_type_ids=segment_ids_BT, **inputs)
        project = getattr(self.model, "embeddings_project", None)
        return embedded_BTE if project is None else project(embedded_BTE)

    def _new_head(self) -> LanguageHead:
        config = self.model.config
        embedding_VE = self.model.embeddings.word_embeddings.weight
        vocabulary, embedding_size = embedding_VE.shape
        return LanguageHead(
            config.hidden_size,
            embedding_size,
            vocabulary,
            config.hidden_act,
            getattr(config, "layer_norm_eps", 1e-12),
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
        block = re.search(r"\bencoder\.layer\.(\d+)\.", parameter_name)
        return int(block[1]) + 1 if block else 0

    def spec(self) -> dict[str, Any]:
        """`{"kind": "transformer", "config": {...}}`, JSON-able; all but `kind` rebuilds the
        architecture."""
        config = self.model.config
        settings = {key: getattr(config, key) for key in _SETTINGS if hasattr(config, key)}
        spec = {"kind": "transformer", "config": {"model_type": config.model_type, **settings}}
        return spec if self.head is None else {**spec, "head": True}


def _build(config: dict[str, Any], attn_implementation: str | None) -> Any:
    family = config.get("model_type")
    if family not in FAMILIES:
        near = did_you_mean(str(family), FAMILIES)
        expected = f"expected one of {', '.join(FAMILIES)}, got {family}{near}"
        raise SettingsError(f"encoder: unknown model_type: {expected}")
    try:
        return _model(
            getattr(transformers, FAMILIES[family] + "Config"), config, attn_implementation
        )
    except KeyError as error:
        raise SettingsError(f"encoder: unknown hidden_act {error}") from None
    except _BAD_SETTING as error:
        raise SettingsError(
            f"encoder: the settings make no {family}: {' '.join(str(error).split())}"
        ) from None


def _model(config_class: Any, config: dict[str, Any], attn_implementation: str | None) -> Any:
    known = config_class()
    settings = {key: config[key] for key in _SETTINGS if key in config and hasattr(known, key)}
    attn_implementation = attn_implementation or (None if torch.cuda.is_available() else "eager")
    typed = config_class(**settings, attn_implementation=attn_implementation)
    if typed.hidden_size % typed.num_attention_heads:
        heads = typed.num_attention_heads
        raise ValueError(
            f"hidden_size: expected a multiple of the {heads} heads, got {typed.hidden_size}"
        )
    model_class = getattr(transformers, FAMILIES[typed.model_type] + "Model")
    if typed.model_type in ("bert", "ernie"):
        return model_class(typed, add_pooling_layer=False)
    return model_class(typed)
