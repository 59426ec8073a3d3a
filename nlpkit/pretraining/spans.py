"""Span selection: a run of words that recurs in a block is hidden at all places but one, and from
every place it has to be pointed to the one that is left. So an encoder learns to find in a text
what the words around a gap ask for, which is what a reader does, without a question ever written:

    nlpkit encoder pretrain TEXT --start tiny --set pretrain.span_share=0.5 --out OUT
    nlpkit train mrc_span --encoder OUT --data QUESTIONS --out READER

    block   张三 去 了 北京 大学 。 北京 大学 很 大 。
    hidden  张三 去 了 [MASK] 。 北京 大学 很 大 。       or the other one
    target  [MASK] -> the tokens 北 and 学                  (`pointing`)

A run has 2 to 10 tokens, all of one paragraph, and consists of whole words; it recurs where it
stands at least twice, always as whole words and never over itself. A name or a term is wanted, such
as an answer is, so a run begins and ends with a word that is neither punctuation nor common, and
not all of it is digits. Common is a word that makes up at least one of 2,000 words of the text, and
stands in it 20 times or more: those of grammar, and a few that the text is full of.

Of runs that overlap anywhere in the block the longest counts, of equally long ones the first. So no
run that counts lies in another one, and what is hidden can be seen at one place alone. Runs are
taken in a random order, up to 30 % of the block's tokens. Each hidden place is one [MASK], so that
rows get shorter. A block without a run is one of masked words.

Source: Ram et al. 2021, arxiv.org/abs/2101.00438, section 3. Differs from it: common words of the
text in place of a list of stop words; [MASK] in place of a token of its own; at most 30 % of the
tokens in place of 30 places.
Measured on 200 blocks each, from all over the first 500,000 tokens of news, encyclopaedic prose and
old novels, vocabulary of `tiny`: 74, 84 and 80 % of the blocks of 126 tokens have a run, with 1.9,
2.3 and 2.0 hidden places a block; all of those of 510 tokens, with 11.4, 13.2 and 13.1: half as
many again for a token. So the steps of spans have long blocks.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
import torch

from nlpkit.pretraining.corpus import split_tokens
from nlpkit.pretraining.objectives import PretrainBatch, masked_row
from nlpkit.pretraining.pointing import Pointers
from nlpkit.pretraining.symbols import Symbols
from nlpkit.text.tokenizer import TokenBatch, pad

SHORTEST = 2  # tokens
LONGEST = 10
COMMON = 1 / 2000  # of the words of a text
COMMON_COUNT = 20  # and at least so many, or in a short text whatever recurs would be common
COUNTED = 500_000  # tokens of each text in which words are counted
MOST_HIDDEN = 0.3  # of a block's tokens

EMPTY, NUMBER, CONTENT = 0, 1, 2


@dataclass(frozen=True)
class Run:
    """The tokens [start, start + length) of a block, for each of `starts`, which rise."""

    starts: tuple[int, ...]
    length: int


class WordClasses:
    """What each word of a text is good for: EMPTY is punctuation or common, NUMBER is of digits
    alone.

    Args:
        backend: the tokenizer of the texts.
        texts: stored tokens (see `corpus`) of each text; the first COUNTED of each are counted.
    """

    def __init__(self, backend: tokenizers.Tokenizer, texts: Sequence[np.ndarray]):
        vocabulary = backend.get_vocab()
        self.sep_id = vocabulary["[SEP]"]
        self.of_token = np.zeros(1 + max(vocabulary.values()), np.int64)
        for token, token_id in vocabulary.items():
            self.of_token[token_id] = token_class(token)
        counts: collections.Counter[bytes] = collections.Counter()
        for text in texts:
            ids, begins = split_tokens(text[:COUNTED])
            bounds = word_bounds(ids, begins, self.sep_id)
            encoded = ids.tobytes()
            for start, end in itertools.pairwise(bounds):
                counts[encoded[8 * start : 8 * end]] += 1
        least = max(COMMON_COUNT, COMMON * sum(counts.values()))
        self.common = {word for word, count in counts.items() if count >= least}

    def of_words(self, ids: np.ndarray, bounds: Sequence[int]) -> list[int]:
        """The class of each word [bounds[n], bounds[n + 1]) of `ids`, int64 (tokens,)."""
        encoded = ids.tobytes()
        best = np.maximum.reduceat(self.of_token[ids], bounds[:-1]).tolist()
        for number, start in enumerate(bounds[:-1]):
            if encoded[8 * start : 8 * bounds[number + 1]] in self.common:
                best[number] = EMPTY
        return best


def token_class(token: str) -> int:
    """EMPTY for a token without letter and digit and for a special one, NUMBER for one that says a
    number, else CONTENT."""
    text = token.removeprefix("##")
    if token.startswith("[") and token.endswith("]"):
        return EMPTY
    if text.isnumeric():
        return NUMBER
    return CONTENT if any(character.isalnum() for character in text) else EMPTY


def word_bounds(ids: np.ndarray, begins: np.ndarray, sep_id: int) -> list[int]:
    """The tokens at which words begin, and those behind their ends: word n has the tokens
    [bounds[n], bounds[n + 1]). A [SEP] is a word of its own.

    The first token of a block may be in the middle of a word, and its last word may go on behind
    it: what is before the first bound and behind the last one is no word.
    """
    is_end = ids == sep_id
    after_end = np.concatenate([[False], is_end[:-1]])
    bounds = np.flatnonzero(begins | is_end | after_end).tolist()
    if len(ids) and is_end[-1]:
        bounds.append(len(ids))
    return bounds


def recurring_runs(ids: np.ndarray, begins: np.ndarray, classes: WordClasses) -> list[Run]:
    """The runs of a block that recur and count, the longest first, of equally long ones the first.

    `ids` int64 (tokens,), `begins` bool (tokens,): see `corpus.split_tokens`.
    """
    is_free = np.ones(len(ids), bool)
    counting = []
    for run in sorted(_all_that_recur(ids, begins, classes), key=lambda r: (-r.length, r.starts)):
        places = [slice(start, start + run.length) for start in run.starts]
        if all(is_free[place].all() for place in places):
            counting.append(run)
        for place in places:
            is_free[place] = False
    return counting


def _all_that_recur(ids: np.ndarray, begins: np.ndarray, classes: WordClasses) -> list[Run]:
    """Every run that recurs, whatever it overlaps with, in no order."""
    bounds = word_bounds(ids, begins, classes.sep_id)
    if len(bounds) < 3:
        return []
    kinds = classes.of_words(ids, bounds)
    encoded = ids.tobytes()
    found: dict[bytes, list[int]] = collections.defaultdict(list)
    for first, start in enumerate(bounds[:-1]):
        has_content = False
        for last in range(first, len(kinds)):
            end = bounds[last + 1]
            is_too_long = end - start > LONGEST
            if kinds[first] == EMPTY or is_too_long or ids[end - 1] == classes.sep_id:
                break
            has_content = has_content or kinds[last] == CONTENT
            if kinds[last] != EMPTY and has_content and end - start >= SHORTEST:
                found[encoded[8 * start : 8 * end]].append(start)
    runs = [Run(tuple(starts), len(key) // 8) for key, starts in found.items() if len(starts) > 1]
    return [run for run in runs if _is_always_whole(run, ids)]


def _is_always_whole(run: Run, ids: np.ndarray) -> bool:
    """Whether the tokens of a run stand at its places alone, and those do not overlap."""
    stretches = np.lib.stride_tricks.sliding_window_view(ids, run.length)
    first = run.starts[0]
    places = np.flatnonzero((stretches == ids[first : first + run.length]).all(1))
    return len(places) == len(run.starts) and min(np.diff(places)) >= run.length


@dataclass(frozen=True)
class Hidden:
    """A block with runs hidden: its ids, int64 (tokens that are left,); and for each [MASK], from
    left to right, its place among them, and those of the first and the last token that it points
    to: int64 (masks,)."""

    ids: np.ndarray
    masks: np.ndarray
    firsts: np.ndarray
    lasts: np.ndarray


def hide(ids: np.ndarray, runs: Sequence[Run], random: np.random.Generator, mask_id: int) -> Hidden:
    """A block, ids (tokens,), with all places but one of some of its runs hidden; `runs` do not
    overlap. There is no [MASK] where no run is short enough."""
    left = int(MOST_HIDDEN * len(ids))
    places = []  # (first token of what is hidden, of where it stays, tokens)
    for index in random.permutation(len(runs)):
        run = runs[index]
        stays = run.starts[random.integers(len(run.starts))]
        more = run.length * (len(run.starts) - 1)
        if more <= left:
            left -= more
            places += [(start, stays, run.length) for start in run.starts if start != stays]
    start_Q, stays_Q, length_Q = np.array(sorted(places), np.int64).reshape(-1, 3).T
    is_left = np.ones(len(ids), bool)
    for start, length in zip(start_Q, length_Q, strict=True):
        is_left[start + 1 : start + length] = False
    place = np.cumsum(is_left) - 1  # where each token is now
    shown = ids.copy()
    shown[start_Q] = mask_id
    last_Q = stays_Q + length_Q - 1
    return Hidden(shown[is_left], place[start_Q], place[stays_Q], place[last_Q])


def span_batch(
    blocks: Sequence[np.ndarray],
    randoms: Sequence[np.random.Generator],
    share: float,
    symbols: Symbols,
    classes: WordClasses,
) -> PretrainBatch:
    """Blocks (tokens,) with runs hidden; one without runs has the share of its words masked.

    `randoms` has a generator for each block, as in `masked_batch`.
    """
    rows, pointers, masked = [], [], []
    nothing = np.zeros(0, np.int64)
    for block, random in zip(blocks, randoms, strict=True):
        ids, begins = split_tokens(block)
        hidden = hide(ids, recurring_runs(ids, begins, classes), random, symbols.mask_id)
        if len(hidden.masks):
            row = np.concatenate([[symbols.cls_id], hidden.ids, [symbols.sep_id]])
            masked.append((nothing, nothing))
        else:
            row, columns, targets = masked_row(block, random, share, symbols)
            masked.append((columns, targets))
        rows.append(row)
        pointers.append((1 + hidden.masks, 1 + hidden.firsts, 1 + hidden.lasts))
    lengths_B = torch.tensor([len(row) for row in rows])
    width = int(lengths_B.max())
    token_ids_BT = pad(rows)[:, :width]
    is_token_BT = torch.arange(width) < lengths_B[:, None]
    places = [number * width + columns for number, (columns, _) in enumerate(masked)]
    return PretrainBatch(
        tokens=TokenBatch(token_ids_BT, torch.zeros_like(token_ids_BT), is_token_BT, is_token_BT),
        places_N=torch.from_numpy(np.concatenate(places)),
        targets_N=torch.from_numpy(np.concatenate([targets for _, targets in masked])),
        attention="full",
        pointers=Pointers(*(_padded(columns) for columns in zip(*pointers, strict=True))),
    )


def _padded(columns: Sequence[np.ndarray]) -> torch.Tensor:
    """int64 (B, K), with -1 behind what a row has."""
    most = max(1, *(len(row) for row in columns))
    return torch.from_numpy(
        np.stack([np.pad(row, (0, most - len(row)), constant_values=-1) for row in columns])
    )
