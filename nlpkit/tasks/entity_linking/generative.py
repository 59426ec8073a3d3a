"""Entities written token by token: the key of each is generated from a mention in its text, as
GENRE does.

    [CLS] 我 在 读 [SEP] 雾 灯 [SEP] 这 本 书 [SEP] 雾 灯 [SEP] 作 者 ： 许 蓁 [CLS]

It is read as in `nlpkit.layers.prefix_lm`.

The key is the entity's name and how its description begins; where namesakes begin alike, their ids
too. NIL is the empty key. What a mention may be written as is a trie of its own: the keys of its
candidates and of NIL. It is searched with as many beams as it has keys, so nothing is missed, and
how an entity fits is

    fit = log p(key | source) - log p(NIL | source)

over all tokens of the vocabulary, so that NIL has the fit 0 as in `matcher`.

Source: De Cao et al. 2020, Autoregressive Entity Retrieval, arxiv.org/abs/2010.00904. Differs from
it: its trie is of all names, which are titles that nobody shares; here names are shared, mentions
come with the entities of their name, and a trie of these cannot lead to any other; no division by
the length, which the fit of NIL would not bear.
Legend: B rows, M mentions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nlpkit.decoding.search import beam_search
from nlpkit.decoding.trie.table import TrieTable, concat
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.tasks.entity_linking.kb import EntityBase
from nlpkit.text.tokenizer import Encoding, Span, Tokenizer

AROUND = 96  # tokens of the text on either side of a mention
NAME = 64  # tokens of a mention, a name or an id
MEANING = 16  # tokens of a description

Key = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Writing:
    """What is read and what is written, as tokens; a key ends with [CLS]."""

    kb: EntityBase
    tokenizer: Tokenizer

    def source(self, encoding: Encoding, span: Span) -> list[int]:
        """The text around a mention, which is given in tokens, with [SEP] before and after it."""
        ids = encoding.token_ids_T.tolist()
        first, end = span
        sep_id = self.tokenizer.sep_id
        before = ids[max(1, first - AROUND) : first]
        name = ids[first:end][:NAME]
        after = ids[end:-1][:AROUND]
        return [*before, sep_id, *name, sep_id, *after]

    def keys(self, rows: Iterable[int]) -> list[Key]:
        """The key of NIL, and those of the candidates of one mention.

        They are equal only where ids have the same tokens.
        """
        lines = [self.kb.lines.of(row) for row in rows]
        sep_id = self.tokenizer.sep_id
        tokens = self._tokens
        keys = [(*tokens(name, NAME), sep_id, *tokens(told, MEANING)) for _, name, told in lines]
        count = Counter(keys)
        ids = [
            (sep_id, *tokens(line[0], NAME)) if count[key] > 1 else ()
            for key, line in zip(keys, lines, strict=True)
        ]
        return [(), *((*key, *id_) for key, id_ in zip(keys, ids, strict=True))]

    def _tokens(self, string: str, most: int) -> list[int]:
        """The first tokens of a string, without those that end a key or a part of it."""
        marks = self.tokenizer.cls_id, self.tokenizer.sep_id
        return [token for token in self.tokenizer.token_ids(string) if token not in marks][:most]

    def fits(
        self, encoder: Any, device: Any, asked: Sequence[tuple[list[int], list[Key]]]
    ) -> list[list[float]]:
        """The fit of every key, of (source, keys) of each mention; the keys begin with that of
        NIL.

        Mentions are searched together where they have equally many keys, so with as many beams: a
        mention's fits then do not depend on those of others, not by a bit.
        """
        places_of: dict[int, list[int]] = {}
        for place, (_, keys) in enumerate(asked):
            places_of.setdefault(len(set(keys)), []).append(place)
        fits: list[list[float]] = [[] for _ in asked]
        for beams, places in places_of.items():
            some = [asked[place] for place in places]
            for place, score_of in zip(
                places, self._scores(encoder, device, some, beams), strict=True
            ):
                nil = score_of[()]
                fits[place] = [score_of[key] - nil for key in asked[place][1]]
        return fits

    def _scores(
        self, encoder: Any, device: Any, asked: Sequence[tuple[list[int], list[Key]]], beams: int
    ) -> list[dict[Key, float]]:
        """log p of every key, of mentions that have `beams` different ones each."""
        sources, keys_M = zip(*asked, strict=True)
        size = self.tokenizer.backend.get_vocab_size()
        end_id = self.tokenizer.cls_id
        tries = [TokenTrie.from_sequences(set(keys), size) for keys in keys_M]
        table = concat([TrieTable.of(trie, end_id, device) for trie in tries])
        decoder = CachedDecoder(encoder, collate_sources(sources, self.tokenizer).to(device))
        # One more than the longest key has, so that the end of every key is a step as any other.
        found = beam_search(decoder, table, len(asked), beams, table.depth + 1)
        return [{tuple(tokens): score for tokens, score in row} for row in found.lists()]
