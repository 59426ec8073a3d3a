"""Equations, against a parser of the same grammar."""

import itertools
import re

import pytest
import torch
from decoding_reference import TinyModel
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.decoding.sampling import sample
from nlpkit.decoding.search import beam_search
from nlpkit.errors import SettingsError
from nlpkit.tasks.ape210k.constraint import EquationConstraint

SYMBOLS = "0123456789.+-*/^()%"
IDS = {symbol: 2 + 3 * number for number, symbol in enumerate(SYMBOLS)}
EOS, VOCABULARY = 0, 3 * len(SYMBOLS) + 2
CHARACTERS = {number: symbol for symbol, number in IDS.items()}
NUMBER = re.compile(r"(0|[1-9]\d*)(\.\d+)?")


def parses(text: str, double_star: bool = True) -> bool:
    """Recursive descent; every function gives where it stopped, or -1."""
    operators = ["**"] * double_star + list("+-*/^")

    def expression(at):
        at = operand(at + text.startswith("-", at))
        while at >= 0 and (sign := next((o for o in operators if text.startswith(o, at)), None)):
            at = operand(at + len(sign))
        return at

    def operand(at):
        if text.startswith("(", at):
            at = expression(at + 1)
            at = at + 1 if at >= 0 and text.startswith(")", at) else -1
        else:
            number = NUMBER.match(text, at)
            at = number.end() if number else -1
        return at + 1 if at >= 0 and text.startswith("%", at) else at

    return expression(0) == len(text)


def written(tokens):
    return "".join(CHARACTERS[token] for token in tokens)


def accepts(constraint, text):
    """Whether the constraint lets a text through, one character at a time."""
    state = constraint.start(1)
    for token in [*(IDS[character] for character in text), EOS]:
        options = constraint.step(torch.zeros(1, 1, VOCABULARY), torch.zeros(1, 1), state, 40)
        place = options.token_BC[0].tolist()
        if token not in place:
            return False
        state = constraint.follow(state, options, torch.tensor([[place.index(token)]]))
    return True


@pytest.mark.parametrize("double_star", [True, False])
def test_short_texts_are_legal_where_they_parse(double_star):
    symbols = {symbol: IDS[symbol] for symbol in "01.-*()%"}
    legal = set()
    for length in range(5):
        texts = map("".join, itertools.product(symbols, repeat=length))
        legal |= {text for text in texts if parses(text, double_star)}
    constraint = EquationConstraint(symbols, EOS, max_length=4, double_star=double_star)
    model = TinyModel(1, 3, VOCABULARY)
    found = beam_search(model, constraint, 1, len(legal) + 300, 4, norm="renorm").lists()[0]
    assert {written(tokens) for tokens, _ in found} == legal
    assert sum(2.718281828459045**score for _, score in found) == pytest.approx(1, abs=1e-4)


WHOLE = {VOCABULARY: "a", VOCABULARY + 1: "b", VOCABULARY + 2: "c"}


@pytest.mark.parametrize("row", [[], [VOCABULARY], [VOCABULARY + 2, VOCABULARY]])
def test_whole_numbers_stand_where_their_row_has_them(row):
    symbols = {symbol: IDS[symbol] for symbol in "1-*()%"}
    letters = [WHOLE[token] for token in row]
    texts = (
        "".join(p)
        for length in range(5)
        for p in itertools.product([*symbols, *letters], repeat=length)
    )
    # a whole number is as "(1)": nothing but an operator, a percent sign or a bracket goes on from
    # it
    legal = {text for text in texts if parses(re.sub("[abc]", "(1)", text), False)}
    rows = [[VOCABULARY + 1], row]
    constraint = EquationConstraint(symbols, EOS, operands=rows, max_length=4, double_star=False)
    model = TinyModel(2, 5, VOCABULARY + 3)
    found = beam_search(model, constraint, 2, len(legal) + 300, 4, norm="renorm").lists()[1]
    characters = {**CHARACTERS, **WHOLE}
    assert {"".join(characters[token] for token in tokens) for tokens, _ in found} == legal
    assert sum(2.718281828459045**score for _, score in found) == pytest.approx(1, abs=1e-4)


def test_whole_numbers_of_other_rows_than_those_searched():
    constraint = EquationConstraint(IDS, EOS, operands=[[VOCABULARY]] * 3)
    with pytest.raises(ValueError, match="expected 3 rows, got 2"):
        constraint.start(2)


@settings(max_examples=200)
@given(st.text(SYMBOLS, max_size=9))
def test_any_text_is_legal_where_it_parses(text):
    assert accepts(EquationConstraint(IDS, EOS), text) == parses(text)
    assert accepts(EquationConstraint(IDS, EOS, max_length=9), text) == parses(text)


@pytest.mark.parametrize(
    "text", ["(1+2)*3.14/4", "-(0.5-2)**2", "100%/(1/4)%", "((((7))))", "2^10*3", "0.05*(3+-0)"]
)
def test_by_hand(text):
    assert accepts(EquationConstraint(IDS, EOS), text) == parses(text) == ("+-" not in text)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_every_sample_parses_and_none_runs_into_a_dead_end(seed, max_length):
    constraint = EquationConstraint(IDS, EOS, max_length=max_length)
    rows = sample(
        TinyModel(8, seed, VOCABULARY), constraint, range(8), max_length, temperature=3.0
    ).lists()
    for row in rows:
        assert len(row) == 1
        assert parses(written(row[0][0]))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(["full", "renorm"]))
def test_every_beam_parses(seed, norm):
    constraint = EquationConstraint(IDS, EOS, max_length=7)
    for row in beam_search(TinyModel(2, seed, VOCABULARY), constraint, 2, 4, 7, norm=norm).lists():
        assert 1 <= len(row) <= 4
        assert all(parses(written(tokens)) for tokens, _ in row)


@pytest.mark.parametrize("symbols", ["12x", "+-", "12("])
def test_wrong_symbols(symbols):
    with pytest.raises(SettingsError, match="equation: "):
        EquationConstraint(dict.fromkeys(symbols, 3), EOS)
