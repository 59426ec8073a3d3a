"""Arithmetic: against Python's own grammar and Fraction, bounded, and no bracket too many or too
few."""

import ast
import operator
import random
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.tasks.ape210k.arithmetic import (
    LARGEST_BITS,
    LONGEST,
    EquationError,
    Number,
    evaluate,
    expanded,
    normalised,
    parse,
    value,
    written,
)

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def by_python(text):
    """The value of a text with `**`, by Python's parser and Fraction's operators; None where there
    is none."""
    try:
        return walk(ast.parse(text, mode="eval").body)
    except (SyntaxError, ZeroDivisionError, OverflowError):
        return None


def walk(node):
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp):
        return -walk(node.operand) if isinstance(node.op, ast.USub) else walk(node.operand)
    return computed(type(node.op), walk(node.left), walk(node.right))


def computed(kind, left, right):
    """One operation. Raises OverflowError for roots and beyond the limit."""
    if kind is ast.Pow and (right.denominator != 1 or abs(right) * bits(left) > LARGEST_BITS):
        raise OverflowError
    result = OPERATORS[kind](left, right)
    if bits(result) > LARGEST_BITS:
        raise OverflowError
    return result


def bits(fraction):
    return max(fraction.numerator.bit_length(), fraction.denominator.bit_length())


def by_us(text):
    try:
        return evaluate(text)
    except EquationError:
        return None


NUMBERS = st.one_of(st.integers(0, 12).map(str), st.sampled_from(["0.5", "3.14", "2.50", "100"]))


SIGNS = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div, "**": ast.Pow}


@st.composite
def trees(draw, depth=4, kinds=(*SIGNS, "sign")):
    """(text, value, None where there is none) with brackets around all but numbers, and some around
    numbers."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        text = draw(NUMBERS)
        return text, Fraction(text)
    kind = draw(st.sampled_from(kinds))
    (left, left_value), (right, right_value) = (draw(trees(depth - 1, kinds)) for _ in range(2))
    if kind == "sign":
        return f"-({left})", None if left_value is None else -left_value
    wide = [
        t if re.fullmatch(r"[\d.]+", t) and draw(st.booleans()) else f"({t})" for t in (left, right)
    ]
    try:
        return kind.join(wide), computed(SIGNS[kind], left_value, right_value)
    except (AttributeError, TypeError, ZeroDivisionError, OverflowError):
        return kind.join(wide), None


@settings(max_examples=300, deadline=None)
@given(trees())
def test_a_tree_has_its_value_however_it_is_bracketed(tree):
    text, wanted = tree
    assert by_us(text) == wanted == by_python(text)
    assert by_us(f"x = {text.replace('**', '^')}") == wanted


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from([*"+-*/()", "**", "7", "2", "1.5", "0"]), max_size=9))
def test_precedence_is_that_of_python(tokens):
    text = " ".join(tokens)
    if not re.search(
        r"[\d)] [\d(]|\( \)|\* \*", text
    ):  # Python sees calls and tuples there, and we no spaces
        assert by_us(text) == by_python(text)


@settings(max_examples=300, deadline=None)
@given(trees())
def test_written_keeps_the_value_and_is_its_own_form(tree):
    text, wanted = tree
    if wanted is None:
        return
    plain = "".join(written(parse(text)))
    assert evaluate(plain) == wanted
    assert "".join(written(parse(plain))) == plain == normalised(text)
    assert not re.search(r"[-+*/^]-", plain)


@settings(max_examples=150, deadline=None)
@given(trees(kinds=("+", "-", "*", "/")), st.integers(0, 10**6))
def test_a_written_bracket_matters_for_some_numbers(tree, seed):
    pieces, draw = written(parse(tree[0])), random.Random(seed)
    opened = []
    for index, piece in enumerate(pieces):
        if piece == "(":
            opened.append(index)
        elif piece == ")":
            without = [p for i, p in enumerate(pieces) if i not in (opened[-1], index)]
            opened.pop()
            assert any(differ(pieces, without, draw) for _ in range(60)), "".join(pieces)


def differ(pieces, others, draw):
    """Whether two forms of an expression have different values for some numbers in the place of its
    own."""
    names = {
        piece: str(draw.choice([2, 3, 5, 7, 11, 13])) for piece in pieces if piece[0].isdigit()
    }
    places = iter([str(draw.choice([1, 2, 3, 4, 5, 7])) for p in pieces if p in names])
    drawn = [next(places) if p in names else p for p in pieces]
    numbers = iter([p for p in drawn if p[0].isdigit()])
    return by_us("".join(drawn)) != by_us(
        "".join(next(numbers) if p in names else p for p in others)
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x=24/(1-(1/4)-25%)", Fraction(48)),
        ("2(1/3)", Fraction(7, 3)),
        ("7((2)/(3))*3", Fraction(23)),
        ("-2^2", Fraction(-4)),
        ("2^3^2", Fraction(512)),
        ("2**-2", Fraction(1, 4)),
        ("[490-50*(4+1)]/4", Fraction(60)),
        ("((3/4):75%)", Fraction(1)),
        ("(1+2)%", Fraction(3, 100)),
        ("12%%", Fraction(12, 10000)),
        ("+(2000-1999)*+1000", Fraction(1000)),
        ("３×４÷（１＋１）", Fraction(6)),
        (".5+007", Fraction(15, 2)),
        (" 1 0 / 4 ", Fraction(5, 2)),
        ("0^0", Fraction(1)),
        ("3.14*2", Fraction(157, 25)),
    ],
)
def test_by_hand(text, wanted):
    assert evaluate(text) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a number at the end"),
        ("3+", "expected a number at the end"),
        ("3 4(5)", "expected an operator at 2"),
        ("2(3+4)", "expected an operator at 1"),
        ("(3", "a bracket is not closed"),
        ("3)", "closes at 1"),
        ("()", 'expected a number at 1, got "\\)"'),
        ("3//4", 'expected a number at 2, got "/"'),
        ("1.2.3", "expected an operator at 3"),
        ("二十", "expected a number at 0"),
        ("__import__('os')", "expected a number at 0"),
        ("1/0", "division by zero"),
        ("3/(2-2)", "division by zero"),
        ("0^-1", "division by zero"),
        ("1(2/0)", "division by zero"),
        ("2^0.5", "a root"),
        ("9^9^9^9", "too large"),
        ("2^(10^9)", "too large"),
        ("0.1^400", "too large"),
        ("9" * 400 + "*1", "too large"),
        ("1+" * LONGEST + "1", "too long"),
    ],
)
def test_what_has_no_value_is_said(text, why):
    with pytest.raises(EquationError, match=why):
        evaluate(text)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from("0123456789.+-*/^()%:[] x=二（）"), max_size=30) | st.text(max_size=10)
)
def test_any_text_has_a_value_or_an_error_of_its_own(text):
    result = by_us(text)
    assert result is None or abs(float(result)) < float("inf")


def test_depth_is_no_matter():
    deep = LONGEST // 2 - 1
    assert evaluate("(" * deep + "7" + ")" * deep) == 7
    assert evaluate("-" * (LONGEST - 1) + "7") == -7
    assert value([Number("2", Fraction(2)), *[Number("1", Fraction(1)), "+"] * 10**5]) == 10**5 + 2
    assert len(written(parse("1" + "+1" * 499))) == 999


def test_values_stay_below_the_limit():
    assert evaluate(f"2^{LARGEST_BITS // 2 - 1}") == 2 ** (LARGEST_BITS // 2 - 1)
    with pytest.raises(EquationError, match="too large"):
        evaluate(f"2^{LARGEST_BITS // 2 - 1}*2^{LARGEST_BITS // 2 + 1}")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("x=1(1/2)*20%", "(1+1/2)*20/100"),
        ("(11-1)*2", "(11-1)*2"),
        ("((3+5))*(1)", "(3+5)*1"),
        ("a-(b-c)".translate(str.maketrans("abc", "987")), "9-(8-7)"),
        ("9+(8-7)", "9+8-7"),
        ("9*(8/7)", "9*8/7"),
        ("9/(8*7)", "9/(8*7)"),
        ("(9*8)/7", "9*8/7"),
        ("(2**3)**2", "(2^3)^2"),
        ("2**(3**2)", "2^3^2"),
        ("5--3", "5-(-3)"),
        ("-(-3)", "-(-3)"),
        ("(-3)*5", "-3*5"),
        ("(-3)^2", "(-3)^2"),
        ("(1/3):75%", "1/3/(75/100)"),
    ],
)
def test_normal_forms(text, plain):
    assert normalised(text) == plain
    assert evaluate(plain) == evaluate(text)


def test_only_mixed_numbers_are_taken_apart_if_asked():
    assert "".join(written(expanded(parse("2(1/3)*20%"), ")"))) == "(2+1/3)*20%"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("11 5/6", Fraction(71, 6)),
        ("2 2/3", Fraction(8, 3)),
        ("-2 2/3", Fraction(-8, 3)),
        ("11　５／６", Fraction(71, 6)),
        ("x = 2 1/3 + 1 1/2 * 2", Fraction(16, 3)),
        ("1 1/2/3", Fraction(1, 2)),
        ("1,000", Fraction(1000)),
        ("１，２３４，５６７", Fraction(1234567)),
        ("1，000.5%", Fraction(2001, 200)),
        ("1,000 1/2", Fraction(2001, 2)),
        ("12 000", Fraction(12000)),
        ("12 000/6", Fraction(2000)),
        ("３．５", Fraction(7, 2)),
        ("1e5", Fraction(100000)),
        ("2.5E-2", Fraction(1, 40)),
    ],
)
def test_numbers_as_people_write_them(text, wanted):
    assert evaluate(text) == wanted
    assert evaluate("".join(written(parse(text)))) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2 22/3", "more than one reading: '2 22/3'"),
        ("1 2 3/4", "more than one reading"),
        ("1 1/2.5", "more than one reading"),
        ("1,00", 'expected an operator at 1, got ","'),
        ("0,100", "expected an operator"),
        ("1,0000", "expected an operator"),
        ("1e100000000", 'expected an operator at 1, got "e"'),
        ("1e999", "too large"),
        ("1e-999", "too large"),
        ("(" * 10**4 + "1" + ")" * 10**4, "too long"),
        ("1" + " " * 10**6 + "/2", "too long"),
        ("9^9^9^9^9^9^9^9", "too large"),
        ("2^" * 400 + "2", "too large"),
        ("((((2^99)^99)^99)^99)", "too large"),
    ],
)
def test_what_is_ambiguous_or_out_of_bounds_is_said_at_once(text, why):
    with pytest.raises(EquationError, match=why):
        evaluate(text)
