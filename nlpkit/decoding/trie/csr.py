"""Token sequences to a trie in CSR form, in breadth-first order.

Every pass is over a whole level, never over a node or a key. Nodes are numbered level by level, and
each level is in lexicographic order. So the children of a node are neighbours:

    children(v) = first_child[v] // 2 .. first_child[v + 1] // 2 - 1
    a key ends at v where first_child[v] is odd
    label[v] is the token that leads to v
    first_key[v] is the first key below or at v, keys counted in lexicographic order

The number of a child is that of its edge, so neither edges nor next states are stored. The end of a
key is the lowest bit of `first_child`: every step reads that word anyway. A node costs 6 bytes (8
above 32,768 tokens), and 4 more for `first_key`. Node 0 is the root. Two more places close the
arrays, so that place -1 is a node without children and without end: nowhere.

    node 0          .                  keys 0 你们, 1 我, 2 我们
    nodes 1 2     你   我              first_child   2   6   9  11  11  10  10
    nodes 3 4     们   们              label         -  你  我  们  们   -   -
                                       first_key     0   0   1   0   2   3   3

Source: breadth-first tries with implicit pointers, as in LOUDS (Jacobson 1989,
https://doi.org/10.1109/SFCS.1989.63533) with the select operation replaced by 4 bytes a node.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nlpkit.errors import DataError

CHUNK = 1 << 20  # sequences gathered at once: what bounds the memory beyond the result
MOST_NODES = (1 << 30) - 4  # 2 * node + 1 fits 32 bits
MOST_TOKENS = 4096  # of a key: each token costs a pass; no encoder writes so many


class Sequences(NamedTuple):
    """Sequences of token ids in one array: number i is `flat[start[i] : start[i] + length[i]]`."""

    flat: np.ndarray
    start: np.ndarray
    length: np.ndarray


class Csr(NamedTuple):
    """A compiled trie, see the module. Every array has one place for each node and two more."""

    first_child: np.ndarray
    """int32: twice the first child, plus 1 where a key ends."""
    label: np.ndarray
    """int16 or int32."""
    first_key: np.ndarray
    """int32."""


def flatten(sequences: Iterable[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Any iterable of sequences, read once, as (flat int32, lengths int64).

    Raises DataError for a token from 2**31 on.
    """
    flat = array("i")
    ends = array("q", [0])
    for sequence in sequences:
        try:
            flat.extend(sequence)
        except OverflowError:
            raise DataError(
                f"key {len(ends) - 1}: expected token ids below {1 << 31}, got {max(sequence)}"
            ) from None
        ends.append(len(flat))
    return np.asarray(flat), np.diff(np.asarray(ends))


def checked(flat: np.ndarray, length: np.ndarray, vocabulary_size: int) -> Sequences:
    """`Sequences` that lie one after another: `flat` (tokens of all), `length` (sequences,).

    Raises DataError for a token outside the vocabulary, lengths that do not add up, and a sequence
    of more than MOST_TOKENS.
    """
    if length.sum() != len(flat) or (length < 0).any():
        raise DataError(
            f"keys: expected lengths that add up to {len(flat)} tokens, got {length.sum()}"
        )
    too_long = np.flatnonzero(length > MOST_TOKENS)
    if len(too_long):
        raise DataError(
            f"key {too_long[0]}: too long: expected at most {MOST_TOKENS} tokens, "
            f"got {length[too_long[0]]}"
        )
    start = np.cumsum(length, dtype=np.int64) - length
    wrong = np.flatnonzero((flat < 0) | (flat >= vocabulary_size))
    if len(wrong):
        key = np.searchsorted(start, wrong[0], "right") - 1
        raise DataError(
            f"key {key}: expected token ids in [0, {vocabulary_size}), got {flat[wrong[0]]}"
        )
    return Sequences(flat, start, length)


def sort(keys: Sequences, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(order, is_new): the keys in lexicographic order, equal ones as given, and where one differs
    from the one before.

    Some tokens at a time, packed into a 64-bit word, are compared for all keys that are equal so
    far.
    """
    bits = 16 if vocabulary_size < 1 << 16 else 32
    order = np.arange(len(keys.length))
    is_new = order == 0
    run = np.zeros_like(order)  # the first place of all keys that are equal so far
    place = order.copy()
    word_index = 0
    while len(place):
        word = _words(keys, order[place], word_index, bits)
        by = np.lexsort((word, run[place])) if word_index else np.argsort(word, kind="stable")
        order[place] = order[place][by]
        word = word[by]
        starts = np.ones(len(place), bool)
        starts[1:] = (word[1:] != word[:-1]) | (run[place[1:]] != run[place[:-1]])
        is_new[place[starts]] = True
        run[place] = place[starts][np.cumsum(starts) - 1]
        goes_on = (word & np.uint64((1 << bits) - 1)) != 0
        place = place[goes_on & ~(starts & np.append(starts[1:], True))]
        word_index += 1
    return order, is_new


def _words(keys: Sequences, index: np.ndarray, word_index: int, bits: int) -> np.ndarray:
    """The tokens of these keys in word number `word_index`, first token highest, absent ones 0."""
    word = np.zeros(len(index), np.uint64)
    for place in range(word_index * 64 // bits, (word_index + 1) * 64 // bits):
        inside = keys.length[index] > place
        word <<= np.uint64(bits)
        token = keys.flat[keys.start[index[inside]] + place].astype(np.uint64)
        word[inside] |= token + np.uint64(1)
    return word


def compile_csr(keys: Sequences, vocabulary_size: int) -> Csr:
    """The trie of sorted, distinct keys. Raises DataError beyond 2**30 nodes."""
    place = keys.start
    left = keys.length
    key = np.arange(len(keys.length), dtype=np.int32)
    parent = np.zeros_like(key)
    nodes = 1
    labels: list[Any] = [[0]]
    first_keys: list[Any] = [[0]]
    ends: list[Any] = [[len(left) > 0 and left[0] == 0]]
    fans: list[np.ndarray] = []  # children of the nodes of each level
    while nodes:
        goes_on = left > 0
        place, left = place[goes_on], left[goes_on]
        parent, key = parent[goes_on], key[goes_on]
        token = keys.flat[place]
        is_new = np.ones(len(token), bool)
        is_new[1:] = (token[1:] != token[:-1]) | (parent[1:] != parent[:-1])
        node = np.flatnonzero(is_new)
        fans.append(np.bincount(parent[node], minlength=nodes))
        labels.append(token[node])
        first_keys.append(key[node])
        ends.append(left[node] == 1)  # of the keys that share a node the shortest comes first
        parent = np.cumsum(is_new, dtype=np.int32) - 1
        nodes = len(node)
        place = place + 1
        left = left - 1
    first = np.cumsum(np.concatenate([[1], *fans, [0]]))
    if len(first) > MOST_NODES:
        raise DataError(
            f"keys: too many for one trie: expected at most {MOST_NODES} nodes, got {len(first)}"
        )
    label_type = np.int16 if vocabulary_size <= 1 << 15 else np.int32
    return Csr(
        (2 * first + np.concatenate([*ends, [0, 0]])).astype(np.int32),
        np.concatenate([*labels, [0, 0]]).astype(label_type),
        np.concatenate([*first_keys, [len(keys.length)] * 2]).astype(np.int32),
    )


def problem_of(csr: Csr, vocabulary_size: int) -> str | None:
    """What makes arrays from a file no trie, None where they are one: a few passes over them.

    No walk through arrays that pass can leave them, meet a node twice, or not end.
    """
    size = len(csr.first_child)
    if size < 3 or len(csr.label) != size or len(csr.first_key) != size:
        return "arrays of different lengths"
    nodes = size - 2
    first = csr.first_child >> 1
    is_end = (csr.first_child & 1).astype(bool)
    fan = np.diff(first)
    if first[0] != 1 or (fan < 0).any() or (first[nodes:] != nodes).any():
        return "children out of range"
    if (first[:nodes] <= np.arange(nodes, dtype=np.int32)).any():
        return "a node above its parent"
    is_leaf = fan[:nodes] == 0
    if is_end[nodes:].any() or (nodes > 1 and not is_end[:nodes][is_leaf].all()):
        return "a branch without a key"
    if not (csr.label >= 0).all() or not (csr.label < vocabulary_size).all():
        return "tokens outside the vocabulary"
    has_children = np.flatnonzero(~is_leaf)
    is_first = np.zeros(nodes, bool)
    is_first[0] = True
    is_first[first[has_children]] = True
    is_later = ~is_first[1:]
    if (np.diff(csr.label[:nodes]) <= 0)[is_later].any():
        return "children that are not sorted"
    return _problem_of_keys(csr.first_key, first[has_children], has_children, is_end, is_later)


def _problem_of_keys(
    first_key: np.ndarray,
    first_child: np.ndarray,
    parent: np.ndarray,
    is_end: np.ndarray,
    is_later: np.ndarray,
) -> str | None:
    """As `problem_of`, of `first_key`; `first_child` are the first children of the nodes `parent`,
    and `is_later` says which nodes but the root are no first child."""
    nodes = len(is_end) - 2
    keys = int(is_end.sum())
    if first_key[0] != 0 or (first_key[nodes:] != keys).any():
        return "another number of keys"
    if (first_key[first_child] != first_key[parent] + is_end[parent]).any():
        return "keys that are not counted in order"
    if (np.diff(first_key[:nodes]) <= 0)[is_later].any() or first_key[:nodes].max() > keys:
        return "keys that are not counted in order"
    if keys and first_key[:nodes][is_end[:nodes]].max() >= keys:
        return "keys out of range"
    return None


def boundaries(first_child: np.ndarray) -> list[int]:
    """The first node of each level, and the end of the last."""
    bounds = [0, 1]
    while bounds[-1] > bounds[-2]:
        bounds.append(int(first_child[bounds[-1]]) >> 1)
    return bounds[:-1]


def gather(flat: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The runs `flat[start : start + length]` one after the other, in the order of `start`.

    `start` and `length` are int64 (runs,); the result is of the type of `flat`.
    """
    gathered = np.empty(int(length.sum()), flat.dtype)
    done = 0
    for first in range(0, len(start), CHUNK):
        lengths = length[first : first + CHUNK]
        ends = np.cumsum(lengths)
        index = np.arange(ends[-1]) + np.repeat(
            start[first : first + CHUNK] - (ends - lengths), lengths
        )
        np.take(flat, index, out=gathered[done : done + len(index)])
        done += len(index)
    return gathered
