"""Beam search: the best legal sequences of every row, by tensor operations of fixed shapes.

The score of a sequence is the sum of the log-probabilities of its tokens and of its end, with
`length_normalised` divided by their number, the end counted. From the row's 2K best continuations
(at most K of them are ends) in each step

    ends     those among the K best go to a buffer of the K best finished sequences, so that one
             beam is a greedy search
    running  the K best that are no end

A beam of score s is dropped once K finished sequences score at least what it can still reach.
Log-probabilities are not positive, so that is s, or with normalisation s / (max_length + 1), the
most tokens that s can be spread over. In both cases no result changes: whatever the beam could push
out of the candidates would score less still. A row is done when it has no beam left. The host asks
for that every POLL steps, on a CPU in every step.

With K at least the number of legal continuations and ends in every step, the result is that of
brute force.
Legend: B rows, K beams, V vocabulary, C candidates, L tokens without the end, M finished sequences
and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlpkit.decoding.constraint import Candidates, Constraint, Model, Norm
from nlpkit.decoding.top_candidates import NEGATIVE_INFINITY, take
from nlpkit.errors import SettingsError

POLL = 8


@dataclass(frozen=True)
class Hypotheses:
    """The sequences found for every row, best first; beyond the last one score -inf, length 0,
    token and state -1."""

    tokens_BKL: torch.Tensor
    """int64 without the end, filled with -1."""
    score_BK: torch.Tensor
    """float32, in nats."""
    length_BK: torch.Tensor
    """Tokens without the end, int64."""
    state_BK: torch.Tensor
    """`Candidates.state_BC` of the end: what the constraint knows the sequence by."""

    def lists(self) -> list[list[tuple[list[int], float]]]:
        """(tokens, score) of the sequences of each row, on the host."""
        rows = zip(
            self.tokens_BKL.tolist(), self.score_BK.tolist(), self.length_BK.tolist(), strict=True
        )
        found = []
        for row in rows:
            sequences = zip(*row, strict=True)
            alive = [(y[:n], score) for y, score, n in sequences if score > NEGATIVE_INFINITY]
            found.append(alive)
        return found


def beam_search(
    model: Model,
    constraint: Constraint,
    rows: int,
    beam_size: int,
    max_length: int,
    *,
    norm: Norm = "full",
    length_normalised: bool = False,
    is_decided: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Hypotheses:
    """The `beam_size` best sequences of at most `max_length` tokens without the end, which at that
    length must follow.

    `is_decided` tells of states (B, K, ...) from which of them, bool (B, K), one sequence alone goes
    on, each of its tokens and its end with the score 0: the model is not asked for these any more,
    nor for what continues them. Only with the norm "renorm" a certain token has that score.

    Raises SettingsError where `beam_size` is not positive or `max_length` negative, ValueError for
    `is_decided` with another norm.
    """
    if beam_size < 1 or max_length < 0:
        raise SettingsError(
            "beam search: expected beam_size >= 1 and max_length >= 0, "
            f"got {beam_size} and {max_length}"
        )
    if is_decided is not None and norm != "renorm":
        raise ValueError(f"is_decided: expected the norm renorm, got {norm}")
    logits_BKV = model.first()[:, None]
    state_BK = constraint.start(rows)
    score_BK = logits_BKV.new_zeros((rows, 1), dtype=torch.float32)
    tokens_BKL = nothing(rows, 1, max_length, score_BK.device).tokens_BKL
    found = nothing(rows, beam_size, max_length, score_BK.device)
    decided_BK = torch.zeros_like(score_BK, dtype=torch.bool)
    longest = max_length + 1 if length_normalised else 1
    for length in range(max_length):
        options = constraint.step(logits_BKV, score_BK, state_BK, 2 * beam_size, norm, length)
        is_end_BC = options.token_BC == constraint.eos_id
        divisor = length + 1 if length_normalised else 1
        found = with_ends(found, options, is_end_BC, tokens_BKL, length, divisor)
        score_BK, chosen_BK = options.score_BC.masked_fill(is_end_BC, NEGATIVE_INFINITY).topk(
            beam_size
        )
        hopeless_BK = score_BK / longest <= found.score_BK[:, -1:]
        score_BK = score_BK.masked_fill(hopeless_BK, NEGATIVE_INFINITY)
        if all_done(length, score_BK):
            return found
        state_BK = constraint.follow(state_BK, options, chosen_BK)
        beam_BK = options.beam_BC.gather(1, chosen_BK)
        token_BK = options.token_BC.gather(1, chosen_BK)
        tokens_BKL = take(tokens_BKL, beam_BK)
        tokens_BKL[:, :, length] = token_BK
        is_unasked_BK = score_BK == NEGATIVE_INFINITY
        if is_decided is not None:
            decided_BK = decided_BK.gather(1, beam_BK) | is_decided(state_BK)
            is_unasked_BK = is_unasked_BK | decided_BK
        logits_BKV = model.next(token_BK.masked_fill(is_unasked_BK, -1), beam_BK)
    options = last_ends(constraint, logits_BKV, score_BK, state_BK, beam_size, norm)
    is_end_BC = options.token_BC == constraint.eos_id
    return with_ends(found, options, is_end_BC, tokens_BKL, max_length, longest)


def last_ends(
    constraint: Constraint,
    logits_BKV: torch.Tensor,
    score_BK: torch.Tensor,
    state_BK: torch.Tensor,
    count: int,
    norm: Norm,
) -> Candidates:
    """The `count` best candidates (B, C) where only an end is legal: of log-probability as among
    all tokens, or 0, since it is alone. States are (B, K, ...)."""
    if norm == "full":
        score_BK = (
            score_BK + logits_BKV[..., constraint.eos_id].float() - logits_BKV.float().logsumexp(-1)
        )
    only_end_BKV = torch.full_like(logits_BKV, NEGATIVE_INFINITY)
    only_end_BKV[..., constraint.eos_id] = 0.0
    # With "full" even a beam that may not end has a finite normaliser here.
    return constraint.step(only_end_BKV, score_BK, state_BK, count, "full")


def nothing(rows: int, beam_size: int, max_length: int, device: torch.device) -> Hypotheses:
    """No sequence yet."""
    tokens_BKL = torch.full((rows, beam_size, max_length), -1, device=device)
    score_BK = torch.full((rows, beam_size), NEGATIVE_INFINITY, device=device)
    none_BK = torch.zeros((rows, beam_size), dtype=torch.int64, device=device)
    return Hypotheses(tokens_BKL, score_BK, none_BK, none_BK - 1)


def all_done(step: int, score_BK: torch.Tensor) -> bool:
    """Whether no beam is left, as far as the host may ask in this step."""
    may_ask = score_BK.device.type == "cpu" or step % POLL == POLL - 1
    return may_ask and bool((score_BK == NEGATIVE_INFINITY).all())


def with_ends(
    found: Hypotheses,
    options: Candidates,
    is_end_BC: torch.Tensor,
    tokens_BKL: torch.Tensor,
    length: int,
    divisor: int = 1,
) -> Hypotheses:
    """The best of what was found and of the ends among the first K candidates, which continue
    `tokens_BKL`."""
    beam_size = found.score_BK.shape[1]
    end_BK = (options.score_BC / divisor).masked_fill(~is_end_BC, NEGATIVE_INFINITY)[:, :beam_size]
    tokens_BML = torch.cat([found.tokens_BKL, take(tokens_BKL, options.beam_BC[:, :beam_size])], 1)
    score_BM = torch.cat([found.score_BK, end_BK], 1)
    length_BM = torch.cat([found.length_BK, torch.full_like(found.length_BK, length)], 1)
    state_BM = torch.cat([found.state_BK, options.state_BC[:, :beam_size]], 1)
    score_BK, kept_BK = score_BM.topk(beam_size)
    none_BK = score_BK == NEGATIVE_INFINITY
    return Hypotheses(
        take(tokens_BML, kept_BK).masked_fill(none_BK[..., None], -1),
        score_BK,
        take(length_BM, kept_BK).masked_fill(none_BK, 0),
        take(state_BM, kept_BK).masked_fill(none_BK, -1),
    )
