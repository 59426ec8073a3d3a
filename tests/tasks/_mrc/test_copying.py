"""Copying from the passage: the mixture by hand, and decoding in steps against full passes."""

import math
from dataclasses import replace

import pytest
import torch

from nlpkit import encoders
from nlpkit.layers.prefix_lm import Pair, collate_pairs
from nlpkit.tasks import mrc_mlm, mrc_seq2seq
from nlpkit.tasks._mrc.copying import CopyHead

LIMITS = {"max_passage": 16, "max_answer": 5, "max_question": 12}
RECORD = {
    "question": "谁写了《长夜》？",
    "passages": ["《长夜》是何晴写的，何晴住在云岭", "顾平写过别的"],
    "answers": ["何晴"],
}
SHAPE = encoders.ShapeConfig(
    layers=2, hidden_size=32, heads=2, intermediate_size=48, max_length=128
)


@torch.no_grad()
def test_the_mixture_by_hand():
    torch.manual_seed(1)
    head = CopyHead(4).double()
    hidden_RLH, source_RSH = torch.randn(1, 2, 4).double(), torch.randn(1, 3, 4).double()
    logits_RLV = torch.randn(1, 2, 6).double()
    token_ids = [5, 2, 5]
    copied_RS = torch.tensor([[True, False, True]])
    score_RLS = head.scores(hidden_RLH, source_RSH, copied_RS)
    token_ids_RLS = torch.tensor([[token_ids] * 2])
    found_RLV = head.log_probs(logits_RLV, hidden_RLH, score_RLS, token_ids_RLS)
    for position in range(2):
        hidden_H = hidden_RLH[0, position]
        query_H = head.query.weight @ hidden_H + head.query.bias
        weights = [math.exp(float(query_H @ source_RSH[0, s]) / 2) for s in (0, 2)]
        copies = 1 / (1 + math.exp(-float(head.gate.weight[0] @ hidden_H + head.gate.bias)))
        expected_V = (1 - copies) * logits_RLV[0, position].softmax(0)
        expected_V[5] += copies  # both places that may be copied from hold it
        assert sum(weights) > 0
        assert found_RLV[0, position].exp().tolist() == pytest.approx(expected_V.tolist(), rel=1e-5)


def test_places_share_what_is_copied_by_their_scores():
    head = CopyHead(2)
    torch.nn.init.zeros_(head.gate.weight)
    torch.nn.init.constant_(head.gate.bias, 20.0)
    score_NS = torch.tensor([[math.log(3.0), 0.0]])
    found_NV = head.log_probs(
        torch.zeros(1, 4), torch.zeros(1, 2), score_NS, torch.tensor([[1, 2]])
    )
    assert found_NV.exp()[0].tolist() == pytest.approx([0, 0.75, 0.25, 0], abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("width", [3, 7])
def test_without_a_passage_nothing_is_copied(width):
    head = CopyHead(4)
    hidden_RLH, logits_RLV = torch.randn(1, 1, 4), torch.randn(1, 1, 6)
    nowhere_RS = torch.zeros(1, width).bool()
    score_RLS = head.scores(hidden_RLH, torch.randn(1, width, 4), nowhere_RS)
    token_ids_RLS = torch.zeros(1, 1, width).long()
    found_RLV = head.log_probs(logits_RLV, hidden_RLH, score_RLS, token_ids_RLS)
    assert torch.allclose(found_RLV, logits_RLV.log_softmax(-1))


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(5)
    encoder, backend = encoders.for_pretraining(None, SHAPE)
    return encoder.eval(), encoders.tokenizer_of(encoder, backend)


def opened(module, made):
    """(task, model) with features and copies that have learnt something."""
    encoder, tokenizer = made
    settings = module.Settings(**LIMITS, match_features=True, copies=True)
    task = module.Task(settings, tokenizer, None)
    model = task.build_model(encoder).eval()
    torch.nn.init.normal_(model.match.project.weight)
    torch.nn.init.normal_(model.copy.query.weight)
    return task, model


@torch.no_grad()
def test_writing_in_steps_has_the_probabilities_of_full_passes(made):
    task, model = opened(mrc_seq2seq, made)
    example = task.read(RECORD)
    batch = task.collate([example])
    decoder = model.decoder(batch)
    first_RV = decoder.first()
    tokens = task.tokenizer.token_ids("何晴")
    rows = len(example.windows)
    decoder.keep(torch.arange(rows - 1))  # the last window is left out
    steps = [first_RV[: rows - 1]]
    for token in tokens:
        token_RK = torch.full((rows - 1, 1), token)
        steps.append(decoder.next(token_RK, torch.zeros_like(token_RK))[:, 0])
    pairs = []
    for window in example.windows:
        source = [*window.token_ids, task.tokenizer.sep_id, *example.question_ids]
        pairs.append(Pair(source, tokens))
    learnt = collate_pairs(pairs, task.tokenizer)
    full_NV = model.log_probs(learnt, task.rows_of(learnt.tokens, [example]))
    full_RLV = full_NV.unflatten(0, (rows, len(tokens) + 1))[: rows - 1]
    assert torch.allclose(torch.stack(steps, 1), full_RLV, atol=1e-4)
    assert torch.allclose(full_RLV.exp().sum(-1), torch.ones(rows - 1, len(tokens) + 1), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("module", [mrc_mlm, mrc_seq2seq])
def test_the_loss_is_that_of_the_tokens_wanted(made, module):
    task, model = opened(module, made)
    example = task.read(RECORD)
    (loss,) = model(task.collate([example]))
    parts = []
    for window in example.windows:
        wanted = [*window.target, task.tokenizer.sep_id]
        alone = task.collate([replace(example, windows=[window])])
        if module is mrc_mlm:
            log_probs_LV = model.log_probs_of_all(alone, len(wanted))[0]
        else:
            log_probs_LV = model.log_probs(alone.pairs, alone.of_pairs)
        parts.append(-sum(float(log_probs_LV[i, token]) for i, token in enumerate(wanted)))
    assert float(loss) == pytest.approx(sum(parts) / len(parts), rel=1e-4)
