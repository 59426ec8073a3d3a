"""The models of entity linking: an encoder and a pointer to mentions, with the matcher of their
candidates or a writer.

The one with the matcher keeps descriptions of entities that it has encoded until it may be trained
again.
Legend: B texts, T tokens, N matches or pairs, M mentions, D entities, S tokens of a description, C
candidates and NIL, F features, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nlpkit.encoders.base import encode
from nlpkit.layers.global_pointer import GlobalPointer, PairScores, multilabel_loss
from nlpkit.layers.prefix_lm import PrefixLM
from nlpkit.layers.steady_products import spare, weighted_sums
from nlpkit.tasks.entity_linking.batch import Asked, Batch, Collator, Links, Piece
from nlpkit.tasks.entity_linking.candidates import MARKS, PRIORS
from nlpkit.tasks.entity_linking.matcher import Matcher, Side
from nlpkit.text.tokenizer import TokenBatch, padded_length

KEPT = 1 << 14  # descriptions; the one kept longest goes first
TOGETHER = 256  # pairs that are matched at once

Vectors = tuple[torch.Tensor, torch.Tensor]  # (states_SD, token_ids_S) of a description
Described = dict[int, Vectors]  # of each entity
Kept = dict[tuple[int, torch.dtype], Vectors]  # of each entity, in each type of numbers


class MentionModel(nn.Module):
    """Encoder and pointer: what finds mentions. How their entities are learnt, a subclass says."""

    loss_names = ("mention", "link")

    def __init__(self, encoder: Any, config: Any):
        super().__init__()
        self.encoder = encoder
        self.unknown = bool(config.unknown)
        self.pointer = GlobalPointer(
            encoder.hidden_size, 1, config.head_size, initial_score=config.initial_score
        )
        self.match = nn.Linear(MARKS, 1)
        nn.init.constant_(self.match.bias, -config.initial_score)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of each text's mentions, and of their entities: (B,)."""
        hidden_BTH = encode(self.encoder, batch.tokens)
        mention_B = self.mention_loss(hidden_BTH, batch)
        link_M = self.link_loss(hidden_BTH, batch)
        return mention_B if link_M is None else _added(mention_B, link_M, batch)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Both apart, by `loss_names`: (B,) each; a batch without mentions has no `link`."""
        hidden_BTH = encode(self.encoder, batch.tokens)
        found = {"mention": self.mention_loss(hidden_BTH, batch)}
        link_M = self.link_loss(hidden_BTH, batch)
        if link_M is not None:
            found["link"] = _added(torch.zeros_like(found["mention"]), link_M, batch)
        return found

    def link_loss(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor | None:
        """The loss of each mention's entity: (M,); None where there are no mentions."""
        raise NotImplementedError

    def mention_loss(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss of each text's mentions: (B,)."""
        assert batch.gold_N4 is not None
        marked_BP, other_BP = multilabel_loss(self.scores(hidden_BTH, batch), batch.gold_N4)
        return marked_BP.sum(1) + other_BP.sum(1)

    def scores(self, hidden_BTH: torch.Tensor, batch: Batch) -> PairScores:
        """Scores of all spans, or of the matches alone."""
        scores = self.pointer(hidden_BTH, batch.tokens.content_BT)
        cells = batch.match_N4[:, 0], batch.match_N4[:, 2], batch.match_N4[:, 3]
        of_match_N = self.match(batch.feature_NF).squeeze(1).to(scores.pair.dtype)
        pair_BTT = scores.pair.index_put(cells, of_match_N, accumulate=True)
        is_match_BTT = torch.zeros_like(scores.allowed_BTT).index_put(
            cells, torch.ones_like(of_match_N).bool()
        )
        allowed_BTT = scores.allowed_BTT if self.unknown else scores.allowed_BTT & is_match_BTT
        return replace(scores, pair=pair_BTT, allowed_BTT=allowed_BTT)


class Model(MentionModel):
    """With the matcher; `described` keeps descriptions that were encoded, until the weights may
    change."""

    unk_id = -1
    """The token of unknown characters, which are not the same on both sides; -1 for none."""

    def __init__(self, encoder: Any, config: Any):
        super().__init__(encoder, config)
        self.matcher = Matcher(encoder.hidden_size, config.size, PRIORS)
        self.described: Kept = {}

    def train(self, mode: bool = True) -> Model:
        """As of any module; forgets the descriptions, since weights change between one mode and the
        other."""
        self.described = {}
        return super().train(mode)

    def link_loss(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor | None:
        """The cross-entropy of each mention's candidates and NIL: (M,)."""
        assert batch.links is not None
        if not batch.descriptions:
            return None
        entities = beside(self.read(batch.descriptions), batch.links.rows)
        fit_MC = batch.links.by_mention(self.fit(hidden_BTH, batch.tokens, batch.links, entities))
        return nn.functional.cross_entropy(fit_MC.float(), batch.links.target_M, reduction="none")

    def fits(
        self, hidden_BTH: torch.Tensor, batch: Batch, asked: Sequence[Asked], collator: Collator
    ) -> list[list[float]]:
        """The fits of each mention's candidates, 0 for NIL in front; there may be more at the end,
        -inf."""
        links = Links.of(asked)
        entities = self.entities(links.rows, collator.descriptions)
        links = links.to(hidden_BTH.device)
        return links.by_mention(self.fit(hidden_BTH, batch.tokens, links, entities)).tolist()

    def fit(
        self, hidden_BTH: torch.Tensor, tokens: TokenBatch, links: Links, entities: Side
    ) -> torch.Tensor:
        """The fit of every pair: (N,)."""
        place_T = torch.arange(tokens.mask_BT.shape[1], device=tokens.mask_BT.device)
        inside_MT = (place_T >= links.span_M2[:, :1]) & (place_T < links.span_M2[:, 1:])
        weight_MT = inside_MT.to(hidden_BTH.dtype) / inside_MT.sum(1, keepdim=True)
        mention_MH = weighted_sums(weight_MT[:, None], hidden_BTH[links.text_M]).squeeze(1)
        states_BTD = self.matcher.query(hidden_BTH)
        text = Side(states_BTD, tokens.token_ids_BT, tokens.mask_BT, tokens.content_BT).rows(
            links.text_M
        )
        is_known_NT = text.token_ids_NT != self.unk_id
        text = replace(
            text,
            mask_NT=text.mask_NT & ~inside_MT,
            content_NT=text.content_NT & ~inside_MT & is_known_NT,
        )
        fits = [hidden_BTH.new_zeros(0)]
        for mention_N, entity_N, prior_NF in zip(
            links.mention_N.split(TOGETHER),
            links.entity_N.split(TOGETHER),
            links.prior_NF.split(TOGETHER),
            strict=True,
        ):
            fits.append(
                self.matcher(
                    text.rows(mention_N), entities.rows(entity_N), mention_MH[mention_N], prior_NF
                )
            )
        return torch.cat(fits)

    def read(self, pieces: Sequence[Piece]) -> Described:
        """Descriptions encoded."""
        described: Described = {}
        for rows, tokens in pieces:
            states_DSD = self.matcher.key(encode(self.encoder, tokens))
            lengths = tokens.mask_BT.sum(1).tolist()
            for row, states_SD, ids_S, length in zip(
                rows, states_DSD, tokens.token_ids_BT, lengths, strict=True
            ):
                described[row] = states_SD[:length], ids_S[:length]
        return described

    def entities(
        self, rows: Sequence[int], pieces: Callable[[Sequence[int]], Sequence[Piece]]
    ) -> Side:
        """Descriptions of entities; those that are not kept yet are encoded, as `pieces` gives
        them, and kept.

        `described` is replaced and never changed: another thread may read it meanwhile. Where two
        encode the same description, they get the same.
        """
        device = self.match.weight.device
        number = _number_type(device, self.match.weight.dtype)
        described = self.described
        found = {row: described[row, number] for row in rows if (row, number) in described}
        missing = [row for row in rows if row not in found]
        if missing:
            new = [_filled(piece, device) for piece in pieces(missing)]
            read = {row: (states.clone(), ids) for row, (states, ids) in self.read(new).items()}
            found |= read
            self._keep(found, {(row, number): vectors for row, vectors in read.items()})
        return beside(found, rows)

    def _keep(self, wanted: Described, new: Kept) -> None:
        """Keeps descriptions, KEPT of them in all or those that are wanted now."""
        kept = self.described | new
        unwanted = [key for key in kept if key[0] not in wanted]
        for key in unwanted[: max(0, len(kept) - KEPT)]:
            del kept[key]
        self.described = kept


def _number_type(device: torch.device, own: torch.dtype) -> torch.dtype:
    """The type in which layers compute now: a description in bf16 is another one than in fp32."""
    is_narrow = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if is_narrow else own


def _filled(piece: Piece, device: torch.device) -> Piece:
    """A piece with `spare` rows more, its last one several times: how many are encoded together then
    does not show in the vectors."""
    rows, tokens = piece
    more = spare(len(rows))
    places_D = torch.tensor([*range(len(rows)), *[len(rows) - 1] * more])
    return [*rows, *rows[-1:] * more], tokens.rows(places_D).to(device)


class WritingModel(MentionModel):
    """Without a matcher: the encoder writes the entities with its masked-LM head (`generative`)."""

    def link_loss(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor | None:
        """The loss of the keys of each mention's entity: (M,)."""
        if batch.pairs is None or batch.links is None:
            return None
        return PrefixLM(self.encoder)(batch.pairs)

    def fits(
        self, hidden_BTH: torch.Tensor, batch: Batch, asked: Sequence[Asked], collator: Collator
    ) -> list[list[float]]:
        """As those of `Model`."""
        assert collator.writing is not None
        written = [collator.written(batch.examples[some.text], some) for some in asked]
        return collator.writing.fits(self.encoder, hidden_BTH.device, written)


def _added(loss_B: torch.Tensor, link_M: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The losses of texts, with those of their mentions added: (B,)."""
    assert batch.links is not None
    return loss_B.index_add(0, batch.links.text_M, link_M.to(loss_B.dtype))


def beside(described: Described, rows: Sequence[int]) -> Side:
    """Descriptions of some entities, padded to the longest."""
    states, ids = zip(*(described[row] for row in rows), strict=True)
    length_D = torch.tensor([len(some) for some in ids], device=ids[0].device)
    width = padded_length(int(length_D.max()))
    place_S = torch.arange(width, device=length_D.device)
    states_DSD, ids_DS = (_padded(some, width) for some in (states, ids))
    content_DS = (place_S > 0) & (place_S < length_D[:, None] - 1)
    return Side(states_DSD, ids_DS, place_S < length_D[:, None], content_DS)


def _padded(rows: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """The rows (S, ...) as one tensor (rows, `width`, ...), zeros at their ends."""
    padded = rows[0].new_zeros((len(rows), width, *rows[0].shape[1:]))
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded
