"""Binary trees of sentences from the levels of their tokens.

The level of a token says how large a part of the sentence begins with it (see
`layers.ordered_neurons`). A tree is split at the token k of the highest level, the leftmost one of
equals, into what is before it and what begins with it, and that again into the token and the rest:

    [x_<k, [x_k, x_>k]]

and both sides the same way, until single tokens are left. At the first token of a part there is
nothing before it: [x_k, x_>k]. Equal levels so give the tree that branches to the right.

Source: Shen et al. 2019, https://arxiv.org/abs/1810.09536, section 5.2;
https://kexue.fm/archives/6621.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Node(NamedTuple):
    """The tokens `[start, end)` of a part, counted from 0, and how many parts it lies in."""

    start: int
    end: int
    depth: int


def tree_of_levels(levels_T: np.ndarray) -> list[Node]:
    """The tree of tokens with these levels: all parts, single tokens too, each before the parts in
    it and from left to right; none for no tokens."""

    def split(start: int, end: int) -> int:
        highest = start + int(np.argmax(levels_T[start:end]))
        # A part that begins with its highest token is split behind it.
        return max(highest, start + 1)

    return tree(len(levels_T), split)


def balanced_tree(length: int) -> list[Node]:
    """The tree whose parts are all split in their middle."""
    return tree(length, lambda start, end: (start + end) // 2)


def tree(length: int, split: Callable[[int, int], int]) -> list[Node]:
    """The tree of `length` tokens in which a part [start, end) of two tokens or more is cut before
    the token `split(start, end)`. It takes no deep recursion."""
    nodes = []
    waiting = [Node(0, length, 0)] if length else []
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        start, end, depth = node
        if end - start > 1:
            middle = split(start, end)
            waiting.append(Node(middle, end, depth + 1))
            waiting.append(Node(start, middle, depth + 1))
    return nodes


def constituents(nodes: Sequence[Node]) -> list[tuple[int, int]]:
    """The [start, end) of the parts of two tokens or more, in the order of the nodes."""
    return [(start, end) for start, end, _ in nodes if end - start > 1]


def brackets(tokens: Sequence[str], nodes: Sequence[Node]) -> str:
    """The tree as `((今 天) (下 雨))`; a bracket of the text is -LRB- or -RRB-, as in the Penn
    Treebank."""
    opened = [0] * (len(tokens) + 1)
    closed = [0] * (len(tokens) + 1)
    for start, end in constituents(nodes):
        opened[start] += 1
        closed[end] += 1
    words = []
    for place, token in enumerate(tokens):
        leaf = token.replace("(", "-LRB-").replace(")", "-RRB-")
        words.append("(" * opened[place] + leaf + ")" * closed[place + 1])
    return " ".join(words)


def picture(tokens: Sequence[str], nodes: Sequence[Node]) -> str:
    """The tree for people: a part a line, below the part that it lies in and farther to the right.
    The two tokens of a part of two are not told again."""
    lines = []
    widths = [3]  # of the parts that the node lies in; the tree itself is always told
    for start, end, depth in nodes:
        del widths[depth + 1 :]
        if widths[-1] > 2:
            lines.append("  " * depth + "".join(tokens[start:end]))
        widths.append(end - start)
    return "\n".join(lines)
