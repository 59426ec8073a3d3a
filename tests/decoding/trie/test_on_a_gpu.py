"""On a GPU: it finds what the host finds, and steps of the fixed layout never wait for it and are
captured in a CUDA graph."""

import pytest
import torch

from nlpkit.decoding.search import POLL, beam_search
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie

SIZE, EOS, ROWS, BEAMS, STEPS = 3000, 1, 4, 5, 4
DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
LAYOUTS = ["ragged", "fixed"]
NORMS = ["full", "renorm"]


@pytest.fixture(scope="module")
def trie():
    """Wide at depths 0 and 1, keys that begin others, and dead ends for most beams."""
    draw = torch.Generator().manual_seed(3)
    token_NT = torch.randint(2, SIZE, (20_000, 4), generator=draw)
    token_NT[:, 0] = 2 + token_NT[:, 0] ** 2 % (SIZE - 2) // (1 + token_NT[:, 1] % 9)
    keys = [key[: 1 + number % 4] for number, key in enumerate(token_NT.tolist())]
    return TokenTrie.from_sequences(keys, SIZE)


class Noise:
    """A model whose scores depend on the step and the beam."""

    def __init__(self, dtype, device):
        draw = torch.Generator().manual_seed(4)
        self.logits_TBKV = (torch.randn(STEPS + 1, ROWS, BEAMS, SIZE, generator=draw) * 2).to(
            device, dtype
        )
        self.step = 0

    def first(self):
        return self.logits_TBKV[0, :, 0]

    def next(self, token_BK, beam_BK):
        self.step += 1
        return self.logits_TBKV[self.step]


def search(trie, layout, norm, dtype, device):
    """A function that searches again and again with a model that is made before."""
    table, model = TrieTable.of(trie, EOS, device, layout=layout), Noise(dtype, device)

    def again():
        model.step = 0
        return beam_search(model, table, ROWS, BEAMS, STEPS, norm=norm)

    return again


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", NORMS)
def test_the_device_finds_what_the_host_finds(trie, layout, norm):
    wanted = search(trie, "ragged", norm, torch.float32, "cpu")()
    found = search(trie, layout, norm, torch.float32, DEVICE)()
    torch.testing.assert_close(found.score_BK.cpu(), wanted.score_BK, rtol=1e-5, atol=1e-4)
    assert torch.equal(found.tokens_BKL.cpu(), wanted.tokens_BKL)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_search_never_waits_for_the_device(trie, norm, dtype):
    assert STEPS < POLL
    again = search(trie, "fixed", norm, dtype, DEVICE)
    wanted = again()  # which compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = again()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.score_BK, wanted.score_BK)


def test_a_wait_would_be_noticed(trie):
    again = search(trie, "ragged", "full", torch.float32, DEVICE)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            again()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("norm", NORMS)
def test_one_graph_serves_every_depth(trie, norm):
    """Captured at one step, replayed at all others with other logits, scores and states: as without
    a graph."""
    table = TrieTable.of(trie, EOS, DEVICE)
    model = Noise(torch.float32, DEVICE)
    given = [model.logits_TBKV[0].clone(), *moment(table)]

    def step():
        found = table.step(*given, 2 * BEAMS, norm)
        score_BK, chosen_BK = found.score_BC.masked_fill(found.token_BC == EOS, float("-inf")).topk(
            BEAMS
        )
        return *vars(found).values(), score_BK, table.follow(given[2], found, chosen_BK)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()  # what is compiled and loaded the first time
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for logits_BKV in model.logits_TBKV:
        given[0].copy_(logits_BKV)
        graph.replay()
        after = [part.clone() for part in captured]
        for found, wanted in zip(after, step(), strict=True):
            torch.testing.assert_close(found, wanted)
        given[1].copy_(after[-2])
        given[2].copy_(after[-1])
    assert not after[0].isfinite().all(), "some beams should be dead in the end"


def moment(table):
    """Scores and states of a first step with all K beams, of which one is alive."""
    score_BK = torch.full((ROWS, BEAMS), float("-inf"), device=table.first_child.device)
    score_BK[:, 0] = 0
    return score_BK, table.start(ROWS).repeat(1, BEAMS)
