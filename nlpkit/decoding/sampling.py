"""Sampling: sequences drawn token by token from the legal continuations, each row by its own seed.

p(v) is proportional to exp(logit_v / temperature) over the legal tokens v; of these the `top_k`
most probable are kept, then the fewest whose sum reaches `top_p`. With the kept ones in order of
falling p, the row's uniform number u of this step picks the first at which p_1 + ... + p_i > u.
These numbers come from a generator of the row alone and are drawn before the first step. So a row's
sample does not depend on what else is in the batch; n samples are n rows (the model's and the
constraint's rows repeated) with n seeds.

Source: Holtzman et al. 2019, The Curious Case of Neural Text Degeneration, arxiv.org/abs/1904.09751
(top_p).
Legend: B rows, T steps, C candidates, L tokens without the end, V vocabulary; a row has 1 beam.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nlpkit.decoding.constraint import Candidates, Constraint, Model
from nlpkit.decoding.search import Hypotheses, all_done, last_ends, nothing, with_ends
from nlpkit.decoding.top_candidates import NEGATIVE_INFINITY
from nlpkit.errors import SettingsError

Seed = int | tuple[int, ...]
"""Not negative; of several numbers, such as (seed, line, copy), every one counts."""


def sample(
    model: Model,
    constraint: Constraint,
    seeds: Sequence[Seed],
    max_length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Hypotheses:
    """One sequence per seed and row, of at most `max_length` tokens, after which only an end is
    legal.

    The score is the log-probability with which it was drawn, in nats; -inf where the row ran into a
    dead end. Raises SettingsError for a temperature that is not positive, a `top_k` below 1 or a
    `top_p` outside (0, 1].
    """
    if (
        temperature <= 0
        or (top_k is not None and top_k < 1)
        or not 0 < top_p <= 1
        or max_length < 0
    ):
        expected = "temperature > 0, top_k >= 1, 0 < top_p <= 1, max_length >= 0"
        raise SettingsError(
            f"sampling: expected {expected}, got {temperature}, {top_k}, {top_p}, {max_length}"
        )
    logits_B1V = model.first()[:, None]
    state_B1 = constraint.start(len(seeds))
    count = logits_B1V.shape[2] if top_k is None else min(top_k, logits_B1V.shape[2])
    uniform_BT = _uniform(seeds, max_length + 1).to(logits_B1V.device)
    found = nothing(len(seeds), 1, max_length, logits_B1V.device)
    tokens_B1L = found.tokens_BKL.clone()
    score_B1 = torch.zeros_like(found.score_BK)
    for length in range(max_length + 1):
        if length < max_length:
            options = constraint.step(
                logits_B1V / temperature, score_B1, state_B1, count, "renorm", length
            )
        else:
            options = last_ends(constraint, logits_B1V, score_B1, state_B1, count, "renorm")
        drawn, chosen_B1 = _draw(options, score_B1, uniform_BT[:, length, None], top_p)
        is_end_B1 = drawn.token_BC == constraint.eos_id
        found = with_ends(found, drawn, is_end_B1, tokens_B1L, length)
        score_B1 = drawn.score_BC.masked_fill(is_end_B1, NEGATIVE_INFINITY)
        if length == max_length or all_done(length, score_B1):
            break
        tokens_B1L[:, :, length] = drawn.token_BC
        state_B1 = constraint.follow(state_B1, options, chosen_B1)
        logits_B1V = model.next(
            drawn.token_BC.masked_fill(score_B1 == NEGATIVE_INFINITY, -1), drawn.beam_BC
        )
    return found


def _draw(
    options: Candidates, score_B1: torch.Tensor, uniform_B1: torch.Tensor, top_p: float
) -> tuple[Candidates, torch.Tensor]:
    """The one candidate drawn for each row, and its number; score -inf where there is none."""
    best_B1 = options.score_BC[:, :1].clamp_min(torch.finfo(torch.float32).min)
    p_BC = (
        (options.score_BC - best_B1).double().exp()
    )  # sorted; the drawing needs no more than their ratios
    before_BC = p_BC.cumsum(1) - p_BC
    p_BC = p_BC.masked_fill(before_BC >= top_p * p_BC.sum(1, keepdim=True), 0.0)
    sums_BC = p_BC.cumsum(1)
    passed_B1 = (sums_BC <= uniform_B1 * sums_BC[:, -1:]).sum(1, keepdim=True)
    last_B1 = (p_BC > 0).sum(1, keepdim=True) - 1  # rounding may have passed all
    chosen_B1 = torch.minimum(passed_B1, last_B1).clamp_min(0)
    log_p_B1 = (
        p_BC.gather(1, chosen_B1).log()
        - sums_BC[:, -1:].clamp_min(torch.finfo(torch.float64).tiny).log()
    )
    token_B1, state_B1 = (
        options.token_BC.gather(1, chosen_B1),
        options.state_BC.gather(1, chosen_B1),
    )
    return Candidates(
        score_B1 + log_p_B1.float(), torch.zeros_like(token_B1), token_B1, state_B1
    ), chosen_B1


def _uniform(seeds: Sequence[Seed], steps: int) -> torch.Tensor:
    """Numbers in [0, 1), float64 (B, T)."""
    return torch.from_numpy(np.stack([np.random.default_rng(seed).random(steps) for seed in seeds]))
