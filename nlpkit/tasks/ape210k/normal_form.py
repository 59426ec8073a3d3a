"""One form for all equations that differ only in the order and grouping of sums and products.

    (b+a)-c, a-(c-b), b-c+a  -->  a+b-c               a*(b/c), b/c*a, a/(c/b)  -->  a*b/c

A chain of + and - becomes one sum, what is added before what is subtracted, each in the order of a
rank, such as the place in a problem; a chain of * and / likewise. Nothing is multiplied out, and no
number is changed: the value stays. A model then has one right answer to learn where people write
many.

Source: Wang et al. 2018, Translating a Math Word Problem to an Expression Tree,
arxiv.org/abs/1811.05632 (equation normalisation), which reorders a few patterns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain as joined

from nlpkit.tasks.ape210k.arithmetic import Expression, Number, written

PAIRS = {"+": ("+", "-"), "-": ("+", "-"), "*": ("*", "/"), "/": ("*", "/")}
"""Operator -> the operators of its chain, the one that undoes the other last."""


@dataclass(frozen=True)
class Term:
    """A part of a chain: taken in with the first of its operators, or, `inverse`, with the
    second."""

    expression: Expression
    inverse: bool = False


@dataclass(frozen=True)
class Chain:
    """A sum (operators + and -) or a product (* and /), or with no operators one term."""

    operators: tuple[str, str] | None
    terms: list[Term]


def normal_form(expression: Expression, rank: Callable[[Number], int]) -> Expression:
    """The postfix expression with its chains in order of `rank`, the lowest of a term's numbers."""

    def order(term: Term) -> tuple[bool, int, list[str]]:
        ranks = [rank(item) for item in term.expression if isinstance(item, Number)]
        return term.inverse, min(ranks), written(term.expression)

    def closed(chain: Chain) -> Expression:
        if chain.operators is None:
            return chain.terms[0].expression
        first, *others = sorted(chain.terms, key=order)
        rest = joined.from_iterable(
            [*term.expression, chain.operators[term.inverse]] for term in others
        )
        return [*first.expression, *(["negative"] if first.inverse else []), *rest]

    def terms(chain: Chain, operators: tuple[str, str], inverse: bool) -> list[Term]:
        if chain.operators != operators:
            return [Term(closed(chain), inverse)]
        return [replace(term, inverse=term.inverse != inverse) for term in chain.terms]

    stack: list[Chain] = []
    for item in expression:
        if isinstance(item, Number):
            stack.append(Chain(None, [Term([item])]))
        elif item == "negative":
            stack.append(Chain(PAIRS["-"], terms(stack.pop(), PAIRS["-"], True)))
        elif item == "^":
            right, left = stack.pop(), stack.pop()
            stack.append(Chain(None, [Term([*closed(left), *closed(right), "^"])]))
        else:
            right, left = stack.pop(), stack.pop()
            operators = PAIRS[item]
            both = [*terms(left, operators, False), *terms(right, operators, item == operators[1])]
            stack.append(Chain(operators, both))
    return closed(stack[0])
