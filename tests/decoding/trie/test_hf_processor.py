"""`generate` with the table finds what it finds with `prefix_allowed_tokens_fn`, to the last
score."""

import pytest
import torch
from reference_trie import continuations
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.generation.logits_process import PrefixConstrainedLogitsProcessor

from nlpkit.decoding.trie.hf_processor import TrieLogitsProcessor
from nlpkit.decoding.trie.table import TrieTable, concat
from nlpkit.decoding.trie.token_trie import TokenTrie

SIZE, EOS = 40, 2
SETS = {
    "one": {(5, 6, 7)},
    "three": {(5, 6), (5, 6, 7), (9,)},
    "many": {(a, b, c) for a in range(4, 9) for b in range(4, 12) for c in range(4, 4 + b % 5)}
    | {(4,), (5, 4)},
    "empty key": {(), (7, 7)},
}


@pytest.fixture(scope="module", params=["bart", "t5"])
def model(request):
    torch.manual_seed(1)
    if request.param == "bart":
        shape = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        ffn = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "init_std": 1.0}
        ids = {
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": EOS,
            "decoder_start_token_id": EOS,
        }
        config = BartConfig(
            vocab_size=SIZE, **shape, **heads, **ffn, **ids, forced_eos_token_id=None
        )
        return BartForConditionalGeneration(config).eval()
    shape = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
        "initializer_factor": 3.0,
    }
    ids = {"pad_token_id": 0, "eos_token_id": EOS, "decoder_start_token_id": 0}
    config = T5Config(vocab_size=SIZE, **shape, **ids)
    return T5ForConditionalGeneration(config).eval()


def generate(model, beams, **how):
    input_ids = torch.tensor([[5, 9, 11, EOS], [8, 8, 30, EOS]])
    options = {
        "return_dict_in_generate": True,
        "output_scores": True,
        "max_length": 8,
        "do_sample": False,
    }
    return model.generate(input_ids, num_beams=beams, num_return_sequences=beams, **options, **how)


def allowed_by(key_sets):
    def allowed(row, input_ids):
        prefix = tuple(input_ids.tolist()[1:])
        found = [
            token if rest != prefix else EOS for token, rest in continuations(key_sets[row], prefix)
        ]
        return found or [EOS]  # an empty list is an error

    return allowed


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("beams", [1, 2, 4, 7])
def test_generate_finds_the_same(model, name, beams):
    for key_sets in ([SETS[name]] * 2, [SETS[name], SETS["many"]]):
        tables = [
            TrieTable.of(TokenTrie.from_sequences(sorted(keys), SIZE), EOS) for keys in key_sets
        ]
        ours = generate(model, beams, logits_processor=[TrieLogitsProcessor(concat(tables), beams)])
        theirs = generate(model, beams, prefix_allowed_tokens_fn=allowed_by(key_sets))
        if beams == 1:
            assert torch.equal(ours.sequences, theirs.sequences)
            continue
        for row in range(2):
            found, wanted = (
                {
                    tuple(sequence.tolist()): float(score)
                    for sequence, score in zip(
                        out.sequences[row * beams : row * beams + beams],
                        out.sequences_scores[row * beams : row * beams + beams],
                        strict=True,
                    )
                    if score > -1e6
                }
                for out in (ours, theirs)
            )
            assert found.keys() == wanted.keys()
            assert list(found.values()) == pytest.approx(list(wanted.values()), abs=1e-5)
            best = [
                token
                for token in ours.sequences[row * beams].tolist()[1:]
                if token not in (EOS, 0, 1)
            ]
            assert tuple(best) in key_sets[row]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_those_of_the_processor_of_transformers(dtype):
    keys = SETS["many"]
    table = TrieTable.of(TokenTrie.from_sequences(keys, SIZE), EOS)
    theirs = PrefixConstrainedLogitsProcessor(allowed_by([keys] * 3), 2)
    input_ids = torch.tensor([[0, 5], [0, 4], [0, 5], [0, 6], [0, 5], [0, 5]])
    scores = torch.randn(6, SIZE).to(dtype)
    scores[2:4] = float("-inf")  # all legal tokens of both beams: they get 0
    scores[4, 4:12] = float("-inf")
    scores[4, EOS] = float("-inf")  # of one beam only: it stays as it is
    given = scores.clone()
    assert torch.equal(TrieLogitsProcessor(table, 2)(input_ids, scores), theirs(input_ids, scores))
    assert torch.equal(scores, given)
    in_place = TrieLogitsProcessor(table, 2, in_place=True)
    assert torch.equal(in_place(input_ids, scores), theirs(input_ids, given))
    assert torch.equal(scores, theirs(input_ids, given))


def test_lost_rows_may_only_end_and_prompts_are_skipped():
    table = TrieTable.of(TokenTrie.from_sequences([(5, 6)], SIZE), EOS)
    processed = TrieLogitsProcessor(table, prompt_length=3)(
        torch.tensor([[9, 9, 9, 5], [9, 9, 9, 7]]), torch.ones(2, SIZE)
    )
    assert processed.isfinite().nonzero().tolist() == [[0, 6], [1, EOS]]
    assert (processed[0, 6], processed[1, EOS]) == (1, 0)
