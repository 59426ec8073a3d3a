"""The prefix language model: its layout, its loss, no leak, and decoding with a cache as
without."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.per_position import Free
from nlpkit.decoding.search import beam_search
from nlpkit.encoders import encode, transformer
from nlpkit.errors import SettingsError
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.layers.prefix_lm import (
    LATER,
    Pair,
    PrefixLM,
    collate_pairs,
    collate_sources,
    disturbed,
)

V, CLS, SEP = 50, 1, 2
SMALL = {
    "vocab_size": V,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,  # ten times the usual: a leak shows
}
FAMILIES = {
    "bert": {},
    "ernie": {"use_task_id": True},
    "electra": {"embedding_size": 16},
    "roformer": {"rotary_value": True},
}
KERNELS = [
    *((family, "eager") for family in FAMILIES),
    *((family, "sdpa") for family in FAMILIES),
]
TOKENIZER = SimpleNamespace(cls_id=CLS, sep_id=SEP, pad_id=0, max_length=40)
PAIRS = [
    Pair([7, 8, 9], [10, 11]),
    Pair([20], [21, 22, 23, 24]),
    Pair([5, SEP, 6, 30, 31], []),
    Pair([], [12]),
]
PAIRS.append(Pair([7, 8], [11, 10, 11]))


def make_encoder(family="bert", kernel=None):
    torch.manual_seed(0)
    config = {**SMALL, **FAMILIES[family], "model_type": family}
    return transformer.Encoder(config, attn_implementation=kernel, head=True).eval()


def uncached(encoder, source, written):
    """logits_V after a source and what was written, from a full pass."""
    batch = collate_pairs([Pair(source, written)], TOKENIZER)
    return PrefixLM(encoder).logits(batch)[-1]


def test_the_layout_by_hand():
    batch = collate_pairs([Pair([7, 8], [9], shown=[33]), Pair([5], [])], TOKENIZER, end_id=4)
    tokens = batch.tokens
    assert tokens.token_ids_BT.tolist() == [
        [CLS, 7, 8, SEP, 33] + [0] * 11,
        [CLS, 5, SEP] + [0] * 13,
    ]
    assert tokens.segment_ids_BT.tolist() == [[0, 0, 0, 0, 1] + [0] * 11, [0] * 16]
    assert tokens.mask_BT.sum(1).tolist() == [5, 3]
    assert tokens.content_BT.int().tolist() == [[0, 1, 1] + [0] * 13, [0, 1] + [0] * 14]
    assert batch.places_N.tolist() == [3, 4, 16 + 2]
    assert batch.targets_N.tolist() == [9, 4, 4]
    assert batch.count_B.tolist() == [2, 1]
    alone = collate_sources([[7, 8], [5]], TOKENIZER)
    assert alone.token_ids_BT.tolist() == [
        [CLS, 7, 8, SEP] + [0] * 12,
        [CLS, 5, SEP] + [0] * 13,
    ]
    assert not alone.segment_ids_BT.any()
    assert collate_sources([[9] * 35], TOKENIZER).token_ids_BT.shape == (1, 40)


def test_the_loss_is_the_sum_over_the_targets_and_the_same_alone():
    encoder = make_encoder()
    loss_B = PrefixLM(encoder)(collate_pairs(PAIRS, TOKENIZER))
    for pair, loss in zip(PAIRS, loss_B, strict=True):
        wanted = [*pair.target, SEP]
        by_token = [
            -uncached(encoder, pair.source, pair.target[:t]).log_softmax(0)[wanted[t]]
            for t in range(len(wanted))
        ]
        torch.testing.assert_close(loss, sum(by_token), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_later_targets_do_not_leak(family):
    model = PrefixLM(make_encoder(family).double())
    target = [10, 11, 12, 13, 14]
    logits_NV = model.logits(collate_pairs([Pair([7, 8, 9], target)], TOKENIZER))
    for position in range(5):
        other = collate_pairs(
            [Pair([7, 8, 9], target[:position] + [40] * (5 - position))], TOKENIZER
        )
        changed_NV = model.logits(other)
        seen = slice(position + 1)
        torch.testing.assert_close(changed_NV[seen], logits_NV[seen], rtol=0, atol=1e-12)
        assert (changed_NV[position + 1 :] - logits_NV[position + 1 :]).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize(("family", "kernel"), KERNELS)
def test_with_the_cache_as_without(family, kernel):
    encoder, beams, random = make_encoder(family, kernel), 3, torch.Generator().manual_seed(2)
    sources = [[7, 8, 9], [20], [5, SEP, 6, 30, 31, 32, 33, 34, 35, 36], []]
    decoder = CachedDecoder(encoder, collate_sources(sources, TOKENIZER))
    logits_BKV = decoder.first()[:, None]
    written = [[[]] for _ in sources]
    for step in range(8):
        for row, source in enumerate(sources):
            for beam, tokens in enumerate(written[row]):
                torch.testing.assert_close(
                    logits_BKV[row, beam], uncached(encoder, source, tokens), rtol=0, atol=1e-5
                )
        token_BK = torch.randint(5, V, (len(sources), beams), generator=random)
        beam_BK = torch.randint(0, 1 if step == 0 else beams, token_BK.shape, generator=random)
        logits_BKV = decoder.next(token_BK, beam_BK)
        written = [
            [[*written[row][beam], token] for token, beam in zip(tokens, from_beams, strict=True)]
            for row, (tokens, from_beams) in enumerate(
                zip(token_BK.tolist(), beam_BK.tolist(), strict=True)
            )
        ]


@pytest.mark.parametrize(("family", "kernel"), KERNELS)
def test_rows_without_a_living_beam_are_dropped_and_the_others_go_on(family, kernel):
    encoder = make_encoder(family, kernel)
    sources = [[7, 8, 9], [20], [5, SEP, 6, 30, 31, 32, 33, 34, 35, 36], []]
    decoder = CachedDecoder(encoder, collate_sources(sources, TOKENIZER))
    for _ in range(2):  # `first` begins anew, with all rows
        decoder.first()
        living, written = [0, 1, 2, 3], []
        for step, dead in enumerate(([], [1], [1], [1, 2, 3], [0, 1, 2, 3])):
            written.append(10 + step)
            token_BK = torch.full((len(sources), 2), written[-1])
            token_BK[dead] = token_BK[0, 1] = -1  # a dead beam beside a living one drops nothing
            logits_BKV = decoder.next(token_BK, torch.zeros_like(token_BK))
            assert logits_BKV.shape == (4, 2, V)
            assert not logits_BKV.isnan().any()
            living = [row for row in living if row not in dead]
            assert len(decoder.mask_RS) == len(living)
            for row in living:
                expected_V = uncached(encoder, sources[row], written)
                torch.testing.assert_close(logits_BKV[row, 0], expected_V, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roformer"])
def test_a_batch_decodes_as_its_rows_alone(family):
    encoder = make_encoder(family)
    sources = [pair.source for pair in PAIRS]

    def decode(sources):
        decoder = CachedDecoder(encoder, collate_sources(sources, TOKENIZER))
        return beam_search(
            decoder, Free(V, SEP, banned=[0, CLS]), len(sources), 3, 6, norm="renorm"
        ).lists()

    for source, together in zip(sources, decode(sources), strict=True):
        [alone] = decode([source])
        assert [tokens for tokens, _ in alone] == [tokens for tokens, _ in together]
        assert [s for _, s in alone] == pytest.approx([s for _, s in together], abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "roformer"])
@pytest.mark.parametrize("rows", [[1, 3], [0, 1, 2, 3, 4]])
def test_kept_rows_go_on_as_if_alone(family, rows):
    encoder = make_encoder(family)
    decoder = CachedDecoder(encoder, collate_sources([pair.source for pair in PAIRS], TOKENIZER))
    decoder.first()
    decoder.keep(torch.tensor(rows))
    for step, (tokens, beams) in enumerate((([12, 13], [0, 0]), ([14, 15], [0, 1]))):
        logits_BKV = decoder.next(
            torch.tensor([tokens] * len(rows)), torch.tensor([beams] * len(rows))
        )
        for row, logits_KV in zip(rows, logits_BKV, strict=True):
            for beam in range(2):
                written = [12 + beam, 14 + beam][: step + 1]
                expected_V = uncached(encoder, PAIRS[row].source, written)
                torch.testing.assert_close(logits_KV[beam], expected_V, rtol=0, atol=1e-5)


def test_it_learns_five_pairs_and_writes_them():
    encoder = make_encoder()
    model, batch = PrefixLM(encoder), collate_pairs(PAIRS, TOKENIZER)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        (model(batch) / batch.count_B).mean().backward()
        optimizer.step()
    sources = collate_sources([pair.source for pair in PAIRS], TOKENIZER)
    for beams in (1, 4):
        found = beam_search(
            CachedDecoder(encoder, sources), Free(V, SEP), len(PAIRS), beams, 6
        ).lists()
        assert [row[0][0] for row in found] == [pair.target for pair in PAIRS]
    passages = [[[3, *pair.target, 4], [9]] for pair in PAIRS]
    constraint = PassageConstraint(passages, SEP, may_be_empty=True)
    found = beam_search(CachedDecoder(encoder, sources), constraint, len(PAIRS), 2, 6).lists()
    assert [row[0][0] for row in found] == [pair.target for pair in PAIRS]


def test_every_weight_learns():
    model = PrefixLM(make_encoder().train())
    model(collate_pairs(PAIRS, TOKENIZER)).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_a_pair_without_target_costs_nothing_and_changes_nothing():
    encoder = make_encoder()
    nothing = Pair([7, 8, 9, 10, 11], None)
    batch = collate_pairs([PAIRS[0], nothing, PAIRS[1]], TOKENIZER)
    assert batch.count_B.tolist() == [3, 0, 5]
    loss_B = PrefixLM(encoder)(batch)
    assert loss_B[1] == 0
    torch.testing.assert_close(
        loss_B[[0, 2]], PrefixLM(encoder)(collate_pairs([PAIRS[0], PAIRS[1]], TOKENIZER))
    )
    alone_B = PrefixLM(encoder)(collate_pairs([nothing], TOKENIZER))
    alone_B.sum().backward()
    assert alone_B.tolist() == [0.0]


def own_guesses(encoder, batch, passes):
    """TeaForN's loss, token by token: in pass i a target token's place holds the vector that had to
    predict it."""
    tokens = batch.tokens
    words_BTE = encoder.word_vectors(tokens.token_ids_BT)
    losses = []
    for number in range(passes):
        hidden_BTH = encode(encoder, tokens, "prefix", words_BTE=words_BTE.clone())
        logits_NV = encoder.token_logits(hidden_BTH.flatten(0, 1)[batch.places_N])
        losses.append(
            -logits_NV.log_softmax(1)[torch.arange(len(logits_NV)), batch.targets_N] * LATER**number
        )
        for row, ids in enumerate(tokens.segment_ids_BT.tolist()):
            for place, segment in enumerate(ids):
                if segment:
                    words_BTE[row, place] = hidden_BTH[row, place - 1]
    row_N = batch.places_N // tokens.token_ids_BT.shape[1]
    return torch.stack([sum(losses)[row_N == row].sum() for row in range(len(batch.count_B))])


@pytest.mark.parametrize("family", ["bert", "ernie", "roformer"])
def test_further_passes_read_the_guesses_of_the_one_before(family):
    encoder, batch = make_encoder(family), collate_pairs(PAIRS, TOKENIZER)
    for passes in (1, 2, 3):
        wanted = own_guesses(encoder, batch, passes)
        torch.testing.assert_close(PrefixLM(encoder, passes)(batch), wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        PrefixLM(encoder, 1)(batch), PrefixLM(encoder)(batch), rtol=0, atol=0
    )


def test_no_later_target_leaks_through_the_guesses():
    encoder, target = make_encoder().double(), [10, 11, 12, 13]
    for position in range(
        4
    ):  # the tokens from here on change; what is predicted up to here must not
        batches = [
            collate_pairs(
                [Pair([7, 8], target, shown=target[:position] + [new] * (4 - position))], TOKENIZER
            )
            for new in (40, 41)
        ]
        for batch in batches:
            batch.targets_N[position + 1 :] = -100  # ignored
        first, second = (PrefixLM(encoder, 3)(batch) for batch in batches)
        torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_word_vectors_of_another_size_cannot_be_guessed():
    with pytest.raises(SettingsError, match="expected word vectors of size 32, got 16"):
        PrefixLM(make_encoder("electra"), 2)


def test_disturbed_targets():
    target, random = [5, 6, 7, 8] * 25, np.random.default_rng(0)
    drawn = [disturbed(target, random) for _ in range(200)]
    changed = [np.mean(np.array(ids) != target) for ids in drawn]
    assert 0.4 < np.mean([c > 0 for c in changed]) < 0.6
    assert np.mean([c for c in changed if c]) == pytest.approx(
        0.3 * 0.75, abs=0.02
    )  # a quarter draws itself
    assert all(len(ids) == 100 and set(ids) <= set(target) for ids in drawn)
    assert disturbed([], random, 1.0) == []
    assert disturbed(target, random, 0.0) == target


def test_more_tokens_than_positions_are_refused():
    decoder = CachedDecoder(make_encoder(), collate_sources([[9] * 36, [9]], TOKENIZER))
    decoder.first()
    nothing = torch.zeros(2, 1, dtype=torch.int64)
    decoder.next(nothing, nothing)
    decoder.next(nothing, nothing)
    with pytest.raises(SettingsError, match="at most 40 tokens"):
        decoder.next(nothing, nothing)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_looks_at_no_value(family):
    sources = collate_sources([[7, 8], [9]], TOKENIZER)
    decoder = CachedDecoder(make_encoder(family).to("meta"), sources)
    decoder.sources = sources.to("meta")  # tensors without values: a look at one raises
    with torch.device("meta"):
        assert decoder.first().shape == (2, V)
        for beam in (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[2, 1, 0]] * 2)):
            assert decoder.next(torch.full((2, 3), 5), beam).shape == (2, 3, V)
