"""One form for equal equations: by hand, against brute force over all orders, and without any
change of value."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.tasks.ape210k.arithmetic import EquationError, evaluate, parse, value, written
from nlpkit.tasks.ape210k.normal_form import normal_form


def form(text):
    """Numbers rank by their size."""
    return "".join(written(normal_form(parse(text), lambda one: int(one.value))))


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["(2+1)-3", "1-(3-2)", "2-3+1", "-3+2+1", "-(3-2-1)"], "1+2-3"),
        (["1*(2/3)", "2/3*1", "1/(3/2)", "2*1/3"], "1*2/3"),
        (["9/(3*2)", "9/2/3", "9/3/2"], "9/2/3"),
        (["5*(7+6)", "(6+7)*5"], "5*(6+7)"),
        (["8-(1-2/4)", "2/4+8-1"], "2/4+8-1"),
        (["9+8*7", "7*8+9"], "7*8+9"),
        (["(3+2)^2*4", "4*(2+3)^2"], "(2+3)^2*4"),
        (["-5", "-(5)"], "-5"),
        (["-2*(4+3)"], "(-2)*(3+4)"),
        (["2^(5-4)"], "2^(5-4)"),
        (["6"], "6"),
    ],
)
def test_by_hand(texts, wanted):
    forms = {form(text) for text in texts}
    assert len(forms) == 1
    assert evaluate(forms.pop()) == evaluate(wanted)
    assert form(wanted) == form(texts[0])
    if not wanted.startswith("("):
        assert form(wanted) == wanted


@st.composite
def shuffled(draw, depth=3):
    """Two texts of one expression: the second with operands of + and * exchanged, a-(b+c) as a-c-b,
    and so on."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return (number := str(draw(st.integers(1, 9)))), number
    (a, a2), (b, b2) = draw(shuffled(depth - 1)), draw(shuffled(depth - 1))
    kind, turned = draw(st.sampled_from("+-*/^~")), draw(st.booleans())
    if kind == "^":
        return f"({a})^({b})", f"({a2})^({b2})"
    if kind == "~":
        return f"-({a})", f"-({a2})"
    other = {
        "+": f"({b2})-(-({a2}))" if draw(st.booleans()) else f"({b2})+({a2})",
        "-": f"-({b2})+({a2})",
        "*": f"({b2})*({a2})",
        "/": f"({a2})/({b2})",
    }[kind]
    return f"({a}){kind}({b})", other if turned else f"({a2}){kind}({b2})"


def value_of(expression):
    try:
        return value(expression)
    except EquationError as error:
        return str(error)[:6]


@settings(max_examples=400, deadline=None)
@given(shuffled())
def test_equal_expressions_have_one_form_with_their_value(pair):
    first, second = (normal_form(parse(text), lambda one: int(one.value)) for text in pair)
    assert written(first) == written(second)
    wanted = value_of(parse(pair[0]))
    if isinstance(wanted, Fraction):
        assert value_of(first) == wanted
    assert normal_form(first, lambda one: int(one.value)) == first


def test_the_order_is_that_of_the_rank():
    places = {"7": 0, "2": 1, "5": 2}
    assert written(normal_form(parse("5*2+7"), lambda one: places[one.text])) == [*"7+2*5"]
    assert written(normal_form(parse("5/(2*7)-2"), lambda one: places[one.text])) == [*"5/7/2-2"]


def test_a_long_chain_is_no_matter():
    text = "1" + "+2" * 400
    assert evaluate(form(text)) == 801
