"""The numbers of a problem: where they stand in its text, and how an equation copies them.

    "李东用24元的(1/6)买书"  --find_numbers-->  24 at [3, 5), (1/6) at [7, 12)
    "x=24*(1/6)"  --parse, copied-->  [Number(a), Number(b), "*"]

where a and b are names given to the two numbers.

A number of the equation is the text's where their values are equal, so that copying never changes
what an equation is worth. Where several numbers of the text are equal, the equation's take turns:
5*5 of a square with sides 5 and 5 uses both.

In tokens, a mark goes before each number of the problem, and the equation has the mark for the
number. The marks are the vocabulary's [unused1], [unused2] and so on, or else the MARKS last of its
tokens that are not ASCII, the rarest there are; where a text itself has such a token, it reads as
[UNK]. Whatever the vocabulary, digits are tokens of their own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from nlpkit.errors import SettingsError
from nlpkit.tasks.ape210k.arithmetic import (
    FRACTION,
    GROUPED,
    NUMBER,
    SPACED,
    WIDE,
    EquationError,
    Expression,
    Number,
    expanded,
    mixed,
    number,
    parse,
    written,
)
from nlpkit.tasks.ape210k.normal_form import normal_form
from nlpkit.text.tokenizer import Encoding, Span, Tokenizer

MARKS = 30
"""Numbers of a problem that can be copied; further ones are digits only."""
SYMBOLS = "0123456789.+-*/^()%"

_ONE = re.compile(rf"{NUMBER.pattern}|{FRACTION.pattern}", re.ASCII)
_GROUPED = re.compile(rf"{GROUPED}(?:\.\d+)?%?", re.ASCII)
_START = re.compile(r"\d|\((?=\d|\(\d)", re.ASCII)
_WIDE_POINT = re.compile(r"(?<=[０-９])[，．](?=[０-９])")
_SPACES = str.maketrans("\u3000\u00a0\u2009\u202f", "    ")


def find_numbers(text: str) -> list[tuple[Span, Number]]:
    """((start, end), number) in characters, half-open, in order.

    Numbers are 3.14, 5%, (1/3), 2(1/3), `2 1/3` and 1,000, also in full width. A full-width comma
    or stop belongs to a number between full-width digits only: elsewhere it parts sentences.
    """
    plain = _WIDE_POINT.sub(lambda match: ",."["，．".index(match[0])], text)
    plain = plain.translate(WIDE).translate(_SPACES)
    found = []
    position = 0
    while start := _START.search(plain, position):
        match = _number_at(plain, start.start())
        position = start.end() if match is None else match.end()
        if match is not None:
            with contextlib.suppress(EquationError):  # (1/0) is no number
                found.append((match.span(), number(match[0])))
    return found


def _number_at(text: str, start: int) -> re.Match[str] | None:
    """The longest form of a number that begins here."""
    spaced = SPACED.match(text, start)
    if spaced is not None and mixed(spaced[0]) is not None:
        return spaced
    return _GROUPED.match(text, start) or _ONE.match(text, start)


def copied(expression: Expression, numbers: Sequence[Number], names: Sequence[str]) -> Expression:
    """The postfix expression with `names[i]` as the text of what is `numbers[i]`; other numbers
    stay as they are.

    A division of two whole numbers is a number of the text where that is written as a fraction:
    (1/3).
    """
    known = dict(zip(names, (one.value for one in numbers), strict=False))
    uses = dict.fromkeys(known, 0)
    output: Expression = []
    for item in _with_fractions(
        expression, {one.value for one in numbers if one.text.startswith("(")}
    ):
        equal = [name for name in known if isinstance(item, Number) and known[name] == item.value]
        if equal:
            name = min(equal, key=lambda name: uses[name])
            uses[name] += 1
            item = Number(name, known[name])
        output.append(item)
    return output


def _with_fractions(expression: Expression, fractions: set[Fraction]) -> Expression:
    """The expression with each division of two whole numbers that has one of these values as one
    number."""
    output: Expression = []
    for item in expression:
        output.append(item)
        pair = [part for part in output[-3:-1] if isinstance(part, Number) and part.text.isdigit()]
        if (
            item == "/"
            and len(pair) == 2
            and pair[1].value
            and pair[0].value / pair[1].value in fractions
        ):
            output[-3:] = [
                Number(f"({pair[0].text}/{pair[1].text})", pair[0].value / pair[1].value)
            ]
    return output


class NumberTokens:
    """Problems and equations in the tokens of a vocabulary, with marks or in digits alone (`marked`
    off).

    Raises SettingsError where the vocabulary has not all of SYMBOLS but "^" and "%".
    """

    def __init__(self, tokenizer: Tokenizer, marked: bool):
        self.tokenizer = tokenizer
        ids = tokenizer.backend.get_vocab()
        self.symbols = {symbol: ids[symbol] for symbol in SYMBOLS if symbol in ids}
        if missing := set(SYMBOLS) - set("^%") - set(self.symbols):
            raise SettingsError(f"the encoder's vocabulary has no {' '.join(sorted(missing))}")
        self.marks = {mark: ids[mark] for mark in _marks(ids)} if marked else {}
        self.unknown_id = ids.get("[UNK]", tokenizer.pad_id)

    def problem(self, text: str) -> tuple[Encoding, list[Number]]:
        """[CLS] problem [SEP] with its marks, and its numbers; all tokens of a number have its
        span."""
        rows = [(self.tokenizer.cls_id, 0, 0)]
        last = 0
        found = find_numbers(text)
        marks = list(self.marks.values())
        for index, ((start, end), one) in enumerate(found):
            shown = one.text[1:-1] if one.text.startswith("(") else one.text
            digits = [self.symbols.get(character, self.unknown_id) for character in shown]
            rows += self._between(text, last, start)
            rows += [(token, start, end) for token in (*marks[index : index + 1], *digits)]
            last = end
        rows += [
            *self._between(text, last, len(text)),
            (self.tokenizer.sep_id, len(text), len(text)),
        ]
        token_ids_T, starts_T, ends_T = np.array(rows, dtype=np.int32).T
        return Encoding(text, token_ids_T, starts_T, ends_T), [one for _, one in found]

    def _between(self, text: str, start: int, end: int) -> list[tuple[int, int, int]]:
        """(token, start, end) of the text between two numbers."""
        encoded = self.tokenizer.backend.encode(text[start:end], add_special_tokens=False)
        marks = set(self.marks.values())
        ids = [self.unknown_id if token in marks else token for token in encoded.ids]
        return [
            (token, start + a, start + b)
            for token, (a, b) in zip(ids, encoded.offsets, strict=True)
        ]

    def equation(self, text: str, numbers: Sequence[Number], ordered: bool = False) -> list[int]:
        """The tokens of an equation without needless brackets. Raises EquationError.

        With `ordered`, sums and products are in the order of the problem's numbers, see
        `normal_form`.
        """
        expression = parse(text)
        if self.marks:
            expression = expanded(copied(expression, numbers, list(self.marks)), ")")
        else:
            expression = expanded(expression)
        if ordered:
            places = [*self.marks, *(one.text for one in numbers)]
            expression = normal_form(expression, lambda one: [*places, one.text].index(one.text))
        tokens: list[str] = []
        for piece in written(expression):
            tokens += [piece] if piece in self.marks else piece
        known = {**self.symbols, **self.marks}
        if missing := set(tokens) - known.keys():
            raise EquationError(f"the encoder's vocabulary has no {' '.join(sorted(missing))}")
        return [known[token] for token in tokens]

    def copies(self, token_ids: Sequence[int]) -> list[int]:
        """The marks among some tokens."""
        return [token for token in self.marks.values() if token in token_ids]

    def text(self, token_ids: Sequence[int], numbers: Sequence[Number]) -> str:
        """What the tokens of an equation say, marks as the numbers that they stand for."""
        known = dict(zip(self.marks.values(), (one.text for one in numbers), strict=False))
        known |= {token: symbol for symbol, token in self.symbols.items()}
        return "".join(
            known.get(i) or self.tokenizer.backend.id_to_token(i) or "" for i in token_ids
        )


def _marks(ids: dict[str, int]) -> list[str]:
    unused = [f"[unused{index}]" for index in range(1, MARKS + 1)]
    if all(token in ids for token in unused):
        return unused
    return sorted((token for token in ids if not token.isascii()), key=lambda token: ids[token])[
        -MARKS:
    ]
