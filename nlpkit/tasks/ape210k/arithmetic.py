"""Infix arithmetic to exact fractions: a parser of our own, bounded, so that no text can run or
hang anything.

    "x=24/(1-(1/4)-25%)"  --parse-->  24 1 1 4 / - 25% - /  --value-->  Fraction(48)
                                              \\--written-->  "24/(1-1/4-25%)"

An expression is a list of numbers and operators in postfix order, so that nothing here recurses
however deep the brackets. Understood are + - * / : ^ **, a sign before any operand, three kinds of
brackets, decimals, percent (`5%`, also after a bracket), mixed numbers (`2(1/3)`, `2((1)/(3))`,
`2 1/3`), thousands (`1,000`), exponents (`1e5`), × ÷ and full-width forms. Powers are
right-associative and bind closer than a sign, as in Python. Nothing is multiplied by standing side
by side. Other spaces mean nothing, so `1 000` is 1000.

`written` leaves out the brackets that are redundant whatever the numbers are: those of `a+(b-c)`
and `a*(b/c)`, not of `a-(b+c)`. Differs from /7809, which takes brackets away where the value
happens to stay, also those of `(3+5)*1`.

Source: the normalisation of https://kexue.fm/archives/7809.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from nlpkit.errors import shown

LARGEST_BITS = 1000
"""Of a numerator or denominator, so that every value is a finite float too."""
LONGEST = 1000
"""Characters of an expression."""

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3, "^": 4}
_ATOM = 5
_LEAST = {"+": (1, 1), "-": (1, 2), "*": (2, 2), "/": (2, 3), "^": (_ATOM, 4)}
"""The precedence that the left and the right operand must have to stand without brackets."""

WIDE = str.maketrans("０１２３４５６７８９％（）／＋－＊＝：×÷−［］", "0123456789%()/+-*=:*/-[]")
"""Full-width forms, character by character, so that offsets stay; not the comma and the stop, which
part sentences."""
_OTHERS = str.maketrans(":[{]}｛｝．，\u3000\u00a0\u2009\u202f", "/(())().,    ")
"""Further forms that an equation may have; the last are spaces."""

_PLAIN = r"\d+(?:\.\d+)?"
_PART = r"\((?:\d+/\d+|\(\d+\)/\(\d+\))\)"
GROUPED = r"[1-9]\d{0,2}(?:,\d{3})+(?![\d,])"
"""A whole number with a comma before every three digits: 1,000."""
SPACED = re.compile(r"\d+\s+\d+/\d+(?![\d./])", re.ASCII)
"""What may be a mixed number with a space: 2 1/3; see `mixed`."""
NUMBER = re.compile(rf"\d+{_PART}|{_PLAIN}%?", re.ASCII)
"""A number that stands for itself: 3.14, 5%, 2(1/3)."""
FRACTION = re.compile(_PART, re.ASCII)
"""A fraction in its brackets: (1/3), ((1)/(3))."""
_EXPONENT = r"(?:[eE][-+]?\d{1,3}(?!\d))"
_OPERAND = re.compile(
    rf"\d+{_PART}|(?:{_PLAIN}|\.\d+)(?:{_EXPONENT}|%)?", re.ASCII
)  # in an equation .5 and 1e5 are numbers too
_GROUPED_ALONE = re.compile(rf"(?<![\d.,]){GROUPED}", re.ASCII)
_SPACED_ALONE = re.compile(r"(?<![\d.])\d+(?:\s+\d+)+/[\d.]+", re.ASCII)


class EquationError(ValueError):
    """What is written is no arithmetic, or has no value that can be computed."""


@dataclass(frozen=True)
class Number:
    """A number as it is written: 3.14, 5%, 2(1/3), and where a text has it as one number (1/3)."""

    text: str
    value: Fraction


Expression = list["Number | str"]
"""Numbers and operators (keys of PRECEDENCE) in postfix order."""


def number(text: str) -> Number:
    """The number of a text that is one, without needless zeros and brackets. Raises
    EquationError."""
    if len(text) > LONGEST:
        raise EquationError(f"too large: a number of {len(text)} characters")
    text = text.replace(",", "")
    text = mixed(text) or text
    parts = [re.sub(r"^0*(?=\d)", "", "0" + part) for part in re.findall(r"\d*\.?\d+", text)]
    if text.endswith(")"):
        *whole, numerator, denominator = parts
        exact = sum(map(Fraction, whole)) + _divided(Fraction(numerator), Fraction(denominator))
        return Number(f"{''.join(whole)}({numerator}/{denominator})", exact)
    if text.endswith("%"):
        return Number(parts[0] + "%", Fraction(parts[0]) / 100)
    if "e" in text.lower():
        return Number(f"{Decimal(text):f}", Fraction(text))
    return Number(parts[0], Fraction(parts[0]))


def mixed(text: str) -> str | None:
    """A mixed number with a space in the form with brackets: 2(1/3) for `2 1/3`.

    None where the text is no such number: the part behind the space must be a fraction below 1.
    """
    parts = re.fullmatch(r"(\d+)\s+([1-9]\d*)/(\d+)", text, re.ASCII)
    if parts is None or len(text) > LONGEST or int(parts[2]) >= int(parts[3]):
        return None
    return f"{parts[1]}({parts[2]}/{parts[3]})"


def _spaced(match: re.Match[str]) -> str:
    """Whole numbers with spaces before a division: a mixed number, or digits in groups of three.

    Raises EquationError for anything else, such as `2 22/3`, which has two readings.
    """
    known = mixed(match[0])
    if known is not None:
        return known
    whole, *others = match[0].split("/")[0].split()
    if any(len(other) != 3 for other in others):
        raise EquationError(f"more than one reading: {shown(match[0])}")
    return match[0]


def _plain(text: str) -> str:
    """A text in half width without spaces, thousands commas and a leading `x=`, and with mixed
    numbers in brackets. Raises EquationError where it is too long or has several readings."""
    if len(text) > 10 * LONGEST:
        raise EquationError(f"too long: expected at most {LONGEST} characters, got {len(text)}")
    text = text.translate(WIDE).translate(_OTHERS)
    text = _GROUPED_ALONE.sub(lambda match: match[0].replace(",", ""), text)
    text = _SPACED_ALONE.sub(_spaced, text)
    text = re.sub(r"\s", "", text).replace("**", "^")
    text = re.sub(r"^[xX]=", "", text)
    if len(text) > LONGEST:
        raise EquationError(f"too long: expected at most {LONGEST} characters, got {len(text)}")
    return text


def parse(text: str) -> Expression:
    """The expression of a text, after a leading `x=`. Raises EquationError where it is none."""
    text = _plain(text)
    output: Expression = []
    waiting: list[str] = []  # operators and open brackets, as in the shunting yard
    at, complete = 0, False  # complete: an operand has been read, an operator may follow
    while at < len(text):
        match = None if complete else _OPERAND.match(text, at)
        sign = text[at]
        if match:
            output.append(number(match[0]))
            complete = True
        elif not complete and sign in "(-+":
            waiting += {"(": ["("], "-": ["negative"], "+": []}[sign]
        elif complete and sign in PRECEDENCE:
            _release(waiting, output, PRECEDENCE[sign] + (sign == "^"))
            waiting.append(sign)
            complete = False
        elif complete and sign == ")":
            _release(waiting, output, 0)
            if not waiting:
                raise EquationError(f"unbalanced: a bracket closes at {at} that was not opened")
            waiting.pop()
        elif complete and sign == "%":
            output += [Number("100", Fraction(100)), "/"]
        else:
            raise EquationError(
                f'expected {"an operator" if complete else "a number"} at {at}, got "{sign}"'
            )
        at = match.end() if match else at + 1
    if not complete:
        raise EquationError("expected a number at the end")
    _release(waiting, output, 0)
    if waiting:
        raise EquationError("unbalanced: a bracket is not closed")
    return output


def _release(waiting: list[str], output: Expression, least: int) -> None:
    """Moves to the output the waiting operators, back to a bracket, that bind at least so close."""
    while waiting and waiting[-1] != "(" and PRECEDENCE[waiting[-1]] >= least:
        output.append(waiting.pop())


def value(expression: Expression) -> Fraction:
    """The exact value. Raises EquationError for a division by zero, a root, and what is larger than
    LARGEST_BITS."""
    stack: list[Fraction] = []
    for item in expression:
        if isinstance(item, Number):
            result = item.value
        elif item == "negative":
            result = -stack.pop()
        else:
            right, left = stack.pop(), stack.pop()
            result = _computed(item, left, right)
        if _bits(result) > LARGEST_BITS:
            raise EquationError(f"too large: a value of {_bits(result)} bits")
        stack.append(result)
    return stack[0]


def _computed(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    return _divided(left, right) if operator == "/" else _power(left, right)


def _divided(left: Fraction, right: Fraction) -> Fraction:
    if not right:
        raise EquationError("division by zero")
    return left / right


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise EquationError(f"a root: the exponent {exponent} is no integer")
    if abs(exponent) * _bits(base) > LARGEST_BITS:
        raise EquationError(f"too large: the exponent {exponent}")
    return base ** int(exponent) if exponent >= 0 else _divided(Fraction(1), base ** -int(exponent))


def _bits(fraction: Fraction) -> int:
    return max(fraction.numerator.bit_length(), fraction.denominator.bit_length())


def evaluate(text: str) -> Fraction:
    """The exact value of a text. Raises EquationError."""
    return value(parse(text))


def expanded(expression: Expression, kinds: str = "%)") -> Expression:
    """The expression with percent (5% is 5/100) and mixed numbers (2(1/3) is 2+1/3), or one of
    them, taken apart."""
    output: Expression = []
    for item in expression:
        if isinstance(item, Number) and item.text[-1] in kinds:
            parts = [*re.findall(_PLAIN, item.text), *(["100"] if item.text[-1] == "%" else [])]
            output += [*map(number, parts), "/", *(["+"] if len(parts) == 3 else [])]
        else:
            output.append(item)
    return output


def written(expression: Expression) -> list[str]:
    """The texts of numbers, the operators and the brackets of an expression in infix order, none
    redundant.

    A sign stands only at the beginning or after a bracket.
    """
    stack: list[tuple[list[str], int]] = []
    for item in expression:
        if isinstance(item, Number):
            stack.append(([item.text], _ATOM))
        elif item == "negative":
            stack.append((["-", *_bracketed(*stack.pop(), 2, signed=False)], 2))
        else:
            right, left = stack.pop(), stack.pop()
            least_left, least_right = _LEAST[item]
            pieces = [
                *_bracketed(*left, least_left),
                item,
                *_bracketed(*right, least_right, signed=False),
            ]
            stack.append((pieces, PRECEDENCE[item]))
    return stack[0][0]


def _bracketed(pieces: list[str], precedence: int, least: int, signed: bool = True) -> list[str]:
    """An operand, in brackets where it binds less than it must, or has a sign where none may
    stand."""
    return pieces if precedence >= least and (signed or pieces[0] != "-") else ["(", *pieces, ")"]


def normalised(text: str) -> str:
    """The equation in plain form: only + - * / ^ and brackets that are needed. Raises
    EquationError."""
    return "".join(written(expanded(parse(text))))
