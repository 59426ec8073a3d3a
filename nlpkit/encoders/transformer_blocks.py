"""The embeddings and the blocks of a BERT, ERNIE, ELECTRA or RoFormer.

    hidden   = dropout(LayerNorm(word + segment [+ position] [+ task]))  [projected to H]
    attended = LayerNorm(hidden + dropout(dense(softmax(q k^T / sqrt(D) + mask) v)))
    hidden   = LayerNorm(attended + dropout(dense(act(dense(attended)))))

Differences of the families: RoFormer has no positions in its embeddings, it rotates queries and
keys (`rotary_value`: values too); ERNIE may have embeddings of the task, of which there is one; the
embeddings of ELECTRA and RoFormer may have another size than the hidden vectors.

Norms, sums, first values and attention may be of other kinds (`parts`). With those of BERT tensors,
their names and their order, first values from a seed, dropout and the order of operations
are those of the models of `transformers`: a training has the same bits with either. (The scores of
a RoFormer are divided by sqrt(D) there, here multiplied by its inverse: the same where the root is
a power of two.)

Source: Devlin et al. 2018, arxiv.org/abs/1810.04805, section 3; Su et al. 2021,
arxiv.org/abs/2104.09864, equation 34; Clark et al. 2020, arxiv.org/abs/2003.10555, section 2.
B batch, A attention heads, T tokens (Q as queries, K as keys), P positions, E embedding, H hidden,
D size of a head.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from nlpkit.encoders import parts
from nlpkit.encoders.transformer_settings import TransformerSettings
from nlpkit.layers.activations import activation
from nlpkit.layers.initialisation import MATRICES, TABLES, normal
from nlpkit.layers.residuals import PostNorm
from nlpkit.layers.rotary import Rotary, RotaryPositions, rotate


class TransformerModel(nn.Module):
    """Embeddings and blocks with random weights; no pooler, no head.

    With `is_fused` the attention is torch's `scaled_dot_product_attention`, else matrix products
    and a softmax. Raises KeyError for an unknown `hidden_act`.
    """

    def __init__(self, settings: TransformerSettings, is_fused: bool):
        super().__init__()
        self.settings = settings
        self.embeddings = Embeddings(settings)
        self.embeddings_project: nn.Linear | None = None
        if self.embeddings.size != settings.hidden_size:
            self.embeddings_project = nn.Linear(self.embeddings.size, settings.hidden_size)
        self.encoder = Blocks(settings, is_fused)
        self.apply(self._initialize)

    def embed(
        self,
        token_ids_BT: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        positions_BT: torch.Tensor | None = None,
        words_BTE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_BTH before the first block. Without `positions_BT` the tokens stand at 0, 1, ...;
        `words_BTE` is read in place of the tokens' own vectors."""
        if words_BTE is None:
            words_BTE = self.embeddings.word_embeddings(token_ids_BT)
        embedded_BTE = self.embeddings(words_BTE, segment_ids_BT, positions_BT)
        if self.embeddings_project is None:
            return embedded_BTE
        return self.embeddings_project(embedded_BTE)

    @torch.no_grad()
    def _initialize(self, module: nn.Module) -> None:
        spread = self.settings.initializer_range or 0.02
        name = self.settings.parts.initialisation or "normal"
        if isinstance(module, nn.Linear):
            MATRICES[name](module.weight, spread)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            TABLES.get(name, normal)(module.weight, spread)
            if module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()
        if isinstance(module, RotaryPositions):  # what was drawn only moves the generator on
            module.weight.copy_(module.sinusoids())


class Embeddings(nn.Module):
    """Words, segments and, by family, positions and tasks."""

    def __init__(self, settings: TransformerSettings):
        super().__init__()
        self.size: int = settings.embedding_size or settings.hidden_size
        self.word_embeddings = nn.Embedding(
            settings.vocab_size, self.size, padding_idx=settings.pad_token_id
        )
        self.position_embeddings: nn.Embedding | None = None
        if settings.model_type != "roformer":
            self.position_embeddings = nn.Embedding(settings.max_position_embeddings, self.size)
        self.token_type_embeddings = nn.Embedding(settings.type_vocab_size, self.size)
        self.LayerNorm = parts.new_norm(settings.parts, self.size, settings.layer_norm_eps)
        self.dropout = nn.Dropout(settings.hidden_dropout_prob)
        self.task_type_embeddings: nn.Embedding | None = None
        if settings.use_task_id:
            self.task_type_embeddings = nn.Embedding(settings.task_type_vocab_size, self.size)

    def forward(
        self,
        words_BTE: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        positions_BT: torch.Tensor | None,
    ) -> torch.Tensor:
        """embedded_BTE of word vectors; the task is always task 0."""
        embedded_BTE = words_BTE + self.token_type_embeddings(segment_ids_BT)
        if self.position_embeddings is not None:
            if positions_BT is None:
                length = words_BTE.shape[1]
                positions_BT = torch.arange(length, device=words_BTE.device)[None]
            embedded_BTE = embedded_BTE + self.position_embeddings(positions_BT)
        if self.task_type_embeddings is not None:
            task_BT = torch.zeros_like(segment_ids_BT)
            embedded_BTE = embedded_BTE + self.task_type_embeddings(task_BT)
        return self.dropout(self.LayerNorm(embedded_BTE))


class Blocks(nn.Module):
    """All blocks, one after another."""

    def __init__(self, settings: TransformerSettings, is_fused: bool):
        super().__init__()
        self.embed_positions: RotaryPositions | None = None
        if settings.model_type == "roformer":
            size = settings.hidden_size // settings.num_attention_heads
            self.embed_positions = RotaryPositions(settings.max_position_embeddings, size)
        blocks = [Block(settings, is_fused) for _ in range(settings.num_hidden_layers)]
        self.layer: Any = nn.ModuleList(blocks)  # of Block
        self.norm: nn.Module | None = None
        if parts.residual_kind(settings.parts).has_last_norm:
            hidden_size, epsilon = settings.hidden_size, settings.layer_norm_eps
            self.norm = parts.new_norm(settings.parts, hidden_size, epsilon)

    def forward(self, hidden_BTH: torch.Tensor, mask_B1QK: torch.Tensor) -> torch.Tensor:
        """hidden_BTH after the last block; `mask_B1QK` is an `additive_mask`."""
        return deque(self.each(hidden_BTH, mask_B1QK), maxlen=1).pop()

    def each(self, hidden_BTH: torch.Tensor, mask_B1QK: torch.Tensor) -> Iterator[torch.Tensor]:
        """hidden_BTH after each block in turn; the last is what `forward` gives."""
        rotary = None
        if self.embed_positions is not None:
            rotary = self.embed_positions.first(hidden_BTH.shape[1])
        for number, block in enumerate(self.layer, 1):
            hidden_BTH = block(hidden_BTH, mask_B1QK, rotary)
            yield hidden_BTH if number < len(self.layer) else self.finish(hidden_BTH)

    def finish(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """hidden_BTH behind the last block, normed where its parts leave that to be done."""
        return hidden_BTH if self.norm is None else self.norm(hidden_BTH)


class Block(nn.Module):
    """Attention and a feed-forward layer."""

    def __init__(self, settings: TransformerSettings, is_fused: bool):
        super().__init__()
        self.attention = Attention(settings, is_fused)
        self.intermediate = Intermediate(settings)
        self.output = _new_residual(settings.intermediate_size, settings)

    def forward(
        self, hidden_BTH: torch.Tensor, mask_B1QK: torch.Tensor, rotary: Rotary | None
    ) -> torch.Tensor:
        """hidden_BTH after the block."""
        entered_BTH = self.attention.output.enter(hidden_BTH)
        return self.finish(self.attention.self(entered_BTH, mask_B1QK, rotary), hidden_BTH)

    def finish(self, context_BTH: torch.Tensor, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """hidden_BTH after the block, of what its heads have read and of what went in."""
        attended_BTH = self.attention.output(context_BTH, hidden_BTH)
        return self.output(self.intermediate(self.output.enter(attended_BTH)), attended_BTH)


class Attention(nn.Module):
    """Two parts; it exists for the names of the tensors."""

    def __init__(self, settings: TransformerSettings, is_fused: bool):
        super().__init__()
        self.self = SelfAttention(settings, is_fused)
        self.output = _new_residual(settings.hidden_size, settings)


class SelfAttention(nn.Module):
    """What the heads read; their vectors lie one behind the other."""

    def __init__(self, settings: TransformerSettings, is_fused: bool):
        super().__init__()
        size = settings.hidden_size
        self.heads = settings.num_attention_heads
        self.scale = (size // self.heads) ** -0.5
        self.rotates_value = settings.rotary_value
        self.is_fused = is_fused
        self.query = parts.new_linear(settings.parts, size, size)
        self.key = parts.new_linear(settings.parts, size, size)
        self.value = parts.new_linear(settings.parts, size, size)
        self.dropout = nn.Dropout(settings.attention_probs_dropout_prob)
        self.weigh = parts.weigh_of(settings.parts)
        self.performer = parts.new_performer(settings.parts, size // self.heads)

    def project(
        self, hidden_BTH: torch.Tensor, rotary: Rotary | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(queries, keys, values), (B, A, T, D) each."""
        query_BATD = self._split(self.query(hidden_BTH))
        key_BATD = self._split(self.key(hidden_BTH))
        value_BATD = self._split(self.value(hidden_BTH))
        if rotary is not None:
            query_BATD = rotate(query_BATD, rotary)
            key_BATD = rotate(key_BATD, rotary)
        if rotary is not None and self.rotates_value:
            value_BATD = rotate(value_BATD, rotary)
        return query_BATD, key_BATD, value_BATD

    def _split(self, vector_BTH: torch.Tensor) -> torch.Tensor:
        return vector_BTH.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, hidden_BTH: torch.Tensor, mask_B1QK: torch.Tensor, rotary: Rotary | None
    ) -> torch.Tensor:
        """context_BTH."""
        query_BAQD, key_BAKD, value_BAKD = self.project(hidden_BTH, rotary)
        if self.performer is not None:
            context_BAQD = self.performer(query_BAQD, key_BAKD, value_BAKD, mask_B1QK)
        elif self.is_fused and self.weigh is None:
            rate = self.dropout.p if self.training else 0.0
            context_BAQD = nn.functional.scaled_dot_product_attention(
                query_BAQD, key_BAKD, value_BAKD, attn_mask=mask_B1QK, dropout_p=rate
            )
        else:
            score_BAQK = torch.matmul(query_BAQD, key_BAKD.transpose(2, 3)) * self.scale
            weight_BAQK = (self.weigh or _softmax)(score_BAQK, mask_B1QK)
            context_BAQD = torch.matmul(self.dropout(weight_BAQK), value_BAKD)
        return context_BAQD.transpose(1, 2).flatten(2)


def _softmax(score_BAQK: torch.Tensor, mask_B1QK: torch.Tensor) -> torch.Tensor:
    return nn.functional.softmax(score_BAQK + mask_B1QK, dim=-1)


class Intermediate(nn.Module):
    """The first half of the feed-forward layer."""

    def __init__(self, settings: TransformerSettings):
        super().__init__()
        sizes = settings.hidden_size, settings.intermediate_size
        self.dense = parts.new_linear(settings.parts, *sizes)
        self.intermediate_act_fn = activation(settings.hidden_act)

    def forward(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """(B, T, H) to (B, T, `intermediate_size`)."""
        return self.intermediate_act_fn(self.dense(hidden_BTH))


def _new_residual(inputs: int, settings: TransformerSettings) -> PostNorm:
    return parts.new_residual(
        settings.parts,
        inputs,
        settings.hidden_size,
        settings.layer_norm_eps,
        settings.hidden_dropout_prob,
    )
