"""A table of tries for `generate` of transformers, in the place of `prefix_allowed_tokens_fn`, with
the same results.

    processor = TrieLogitsProcessor(table, num_beams=4)
    model.generate(**inputs, num_beams=4, logits_processor=[processor])

Every row walks its tokens from the root, one binary search each, for all rows at once. Illegal
tokens get -inf, legal ones keep their scores. A row that left the trie, because it is finished or a
beam that had nothing to go on with, may only end, at no cost: `generate` would otherwise choose at
random among illegal tokens. Where the legal tokens of all beams of a row are -inf already, they get
0, as in transformers.

`generate` itself normalises over the whole vocabulary; a search that calls `TrieTable.step` need
not.

Source: https://arxiv.org/abs/2010.00904, section 3.2; PrefixConstrainedLogitsProcessor of
transformers.
Legend: B rows, K beams, N = B * K, T tokens, V vocabulary, M legal tokens of all rows.
"""

from __future__ import annotations

import torch

from nlpkit.decoding.trie.continuations import NEGATIVE_INFINITY, places, ragged
from nlpkit.decoding.trie.table import TrieTable


class TrieLogitsProcessor:
    """Keeps nothing between steps, so that it may serve any number of `generate` calls.

    Args:
        table: of one trie for all rows, or one for each.
        num_beams: K, as `generate` has it.
        prompt_length: the tokens before the key: 1 for the start token of a decoder, the length of
            the prompt where there is no encoder.
        in_place: may overwrite the scores that it gets, which saves an allocation of their size: in
            beam search, where `generate` needs them no more, but not with `output_logits` of a
            greedy one.
    """

    def __init__(
        self,
        table: TrieTable,
        num_beams: int = 1,
        prompt_length: int = 1,
        *,
        in_place: bool = False,
    ):
        self.table = table
        self.num_beams = num_beams
        self.prompt_length = prompt_length
        self.in_place = in_place

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores (N, V) after tokens (N, T)."""
        nodes = self.table.nodes(self._walk(input_ids))
        found = ragged(nodes, len(input_ids) // self.num_beams, self.table.label, self.table.eos_id)
        place_M = places(scores, found).long()
        is_lost_N = nodes.state_N < 0
        legal_M = scores.reshape(-1).index_select(0, place_M)
        best_N = scores.new_full((len(scores),), NEGATIVE_INFINITY).masked_fill_(is_lost_N, 0.0)
        best_N.scatter_reduce_(0, found.beam_M.long(), legal_M, "amax")
        is_hopeless_B = (best_N.view(-1, self.num_beams) == NEGATIVE_INFINITY).all(1)
        if is_hopeless_B.any():
            legal_M.masked_fill_(is_hopeless_B[found.beam_M.long() // self.num_beams], 0.0)
        is_reused = self.in_place and scores.is_contiguous()
        processed = (
            scores
            if is_reused
            else torch.empty(scores.shape, dtype=scores.dtype, device=scores.device)
        )
        processed.fill_(NEGATIVE_INFINITY).view(-1).scatter_(0, place_M, legal_M)
        processed[is_lost_N, self.table.eos_id] = 0.0
        return processed

    def _walk(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Where each row stands in its trie."""
        state_N = (
            self.table.start(len(input_ids) // self.num_beams).repeat(1, self.num_beams).flatten()
        )
        for token_N in input_ids[:, self.prompt_length :].T:
            state_N = self.table.advance(state_N, token_N)
        return state_N
