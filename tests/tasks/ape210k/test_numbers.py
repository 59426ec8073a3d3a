"""Numbers of a problem: where they are, how equations copy them, and both in tokens."""

import re
from fractions import Fraction

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit import encoders
from nlpkit.errors import SettingsError
from nlpkit.tasks.ape210k.arithmetic import EquationError, Number, evaluate, number, parse, written
from nlpkit.tasks.ape210k.constraint import EquationConstraint
from nlpkit.tasks.ape210k.numbers import MARKS, NumberTokens, copied, find_numbers
from nlpkit.text.tokenizer import Tokenizer

TOKENIZER = encoders.load_tokenizer("tiny")
SYMBOLS = [*"0123456789.+-*/^()%"]


def wordpiece(extra=(), left_out=()):
    """A vocabulary in which several digits are one token, as in those of BERT."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"有糖颗个的囧",
        "12",
        "##34",
        "cm2",
        *SYMBOLS,
        *extra,
    ]
    ids = {word: i for i, word in enumerate(dict.fromkeys(w for w in words if w not in left_out))}
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return Tokenizer(backend)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("有24元，(1/6)买书", [((1, 3), "24", Fraction(24)), ((5, 10), "(1/6)", Fraction(1, 6))]),
        (
            "长2(1/3)米3.50米",
            [((1, 7), "2(1/3)", Fraction(7, 3)), ((8, 12), "3.50", Fraction(7, 2))],
        ),
        (
            "占((2)/(3))，5%",
            [((1, 10), "(2/3)", Fraction(2, 3)), ((11, 13), "5%", Fraction(1, 20))],
        ),
        ("共９０％的１２箱", [((1, 4), "90%", Fraction(9, 10)), ((5, 7), "12", Fraction(12))]),
        (
            "5（1）班(2)",
            [((0, 1), "5", Fraction(5)), ((2, 3), "1", Fraction(1)), ((6, 7), "2", Fraction(2))],
        ),
        (
            "6000/59得3．7",
            [((0, 4), "6000", 6000), ((5, 7), "59", 59), ((8, 9), "3", 3), ((10, 11), "7", 7)],
        ),
        ("分母(1/0)是零", []),
        ("长11 5/6米", [((1, 7), "11(5/6)", Fraction(71, 6))]),
        ("长１１　５／６米", [((1, 7), "11(5/6)", Fraction(71, 6))]),
        ("2 22/3", [((0, 1), "2", 2), ((2, 4), "22", 22), ((5, 6), "3", 3)]),
        ("共1,000元，", [((1, 6), "1000", Fraction(1000))]),
        ("共１，０００．５元", [((1, 8), "1000.5", Fraction(2001, 2))]),
        ("得139，143，", [((1, 4), "139", 139), ((5, 8), "143", 143)]),
        ("6566,998", [((0, 4), "6566", 6566), ((5, 8), "998", 998)]),
        ("(" * 10**4 + "7" + ")" * 10**4, [((10**4, 10**4 + 1), "7", Fraction(7))]),
        ("等等...5个", [((5, 6), "5", Fraction(5))]),
        ("没有", []),
        ("㎡²", []),
    ],
)
def test_numbers_are_found_where_they_stand(text, wanted):
    assert [(span, one.text, one.value) for span, one in find_numbers(text)] == wanted


def copy(equation, *texts):
    names = [chr(ord("a") + index) for index in range(len(texts))]
    return "".join(written(copied(parse(equation), [number(text) for text in texts], names)))


@pytest.mark.parametrize(
    ("equation", "texts", "wanted"),
    [
        ("(11-1)*2", ["2", "11"], "(b-1)*a"),
        ("5*5", ["5", "5"], "a*b"),
        ("5*5*5", ["5", "5"], "a*b*a"),
        ("24/(1-(1/4))", ["(1/4)", "24"], "b/(1-a)"),
        ("24/(1-(1/4))", ["1", "4", "24"], "c/(a-a/b)"),
        ("1/4*8", ["(1/4)", "8"], "a*b"),
        ("8*1/4", ["(1/4)", "8"], "b*1/4"),
        ("3*((2)/(4))", ["(1/2)"], "3*a"),
        ("4/2", ["(4/2)", "4", "2"], "a"),
        ("2(1/3)*20%", ["20%", "2(1/3)"], "b*a"),
        ("0.2*50%", ["20%", "50"], "a*50%"),
        ("7*(3/0)", ["(3/5)"], "7*3/0"),
    ],
)
def test_an_equation_copies_by_value(equation, texts, wanted):
    assert copy(equation, *texts) == wanted


TEXTS = ["7", "12", "3.5", "(1/6)", "2(1/3)", "20%", "12", "100"]


@st.composite
def equations(draw, depth=3):
    """Equations of numbers of TEXTS and of others, bracketed too much."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from([*TEXTS, "1", "3.14", "80%", "5(1/2)", "(3/4)", "0.05"]))
    left, right = draw(equations(depth - 1)), draw(equations(depth - 1))
    sign = draw(st.sampled_from(["", "", "", "-"]))
    return f"{sign}(({left}){draw(st.sampled_from('+-*/'))}({right}))"


def accepts(symbols, operands, tokens):
    """Whether the search may write these tokens, as its longest sequence."""
    end, room = max(symbols.values()) + max(operands, default=0), len(tokens)
    constraint = EquationConstraint(
        symbols, end, operands=[operands], max_length=room, double_star=False
    )
    state = constraint.start(1)
    for token in [*tokens, end]:
        options = constraint.step(torch.zeros(1, 1, end + 1), torch.zeros(1, 1), state, 99)
        if token not in options.token_BC[0].tolist():
            return False
        state = constraint.follow(
            state, options, torch.tensor([[options.token_BC[0].tolist().index(token)]])
        )
    return True


def value_of(text):
    try:
        return evaluate(text)
    except EquationError as error:
        return str(error)[:8]


@pytest.mark.parametrize("marked", [True, False])
@settings(max_examples=200, deadline=None)
@given(equation=equations())
def test_tokens_of_an_equation_keep_its_value_and_are_legal(marked, equation):
    tokens = NumberTokens(TOKENIZER, marked)
    numbers = [number(text) for text in TEXTS]
    ids = tokens.equation(equation, numbers)
    assert value_of(tokens.text(ids, numbers)) == value_of(equation)
    copies = list(tokens.marks.values())[: len(numbers)]
    assert bool(tokens.copies(ids)) <= marked
    assert accepts(tokens.symbols, copies, ids)


def test_a_problem_in_tokens_by_hand():
    text = "有１２颗，(1/4)是2(1/3)た"
    for marked in (True, False):
        tokens = NumberTokens(TOKENIZER, marked)
        encoding, numbers = tokens.problem(text)
        shown = [TOKENIZER.backend.id_to_token(i) for i in encoding.token_ids_T.tolist()]
        marks = list(tokens.marks) if marked else ["", "", ""]
        wanted = ["[CLS]", "有", marks[0], *"12颗", ",", marks[1], *"1/4是", marks[2], *"2(1/3)"]
        assert shown == [w for w in wanted if w] + ["[UNK]" if marked else "た", "[SEP]"]
        assert [one.text for one in numbers] == ["12", "(1/4)", "2(1/3)"]
        for span, first in (((1, 3), 2), ((5, 10), 6 + marked)):
            assert encoding.token_span(span)[0] == first
        covered = {encoding.char_span((i, i + 1)) for i in range(1, len(encoding) - 1)}
        assert covered == {(0, 1), (1, 3), (3, 4), (4, 5), (5, 10), (10, 11), (11, 17), (17, 18)}


def test_a_window_does_not_cut_a_number():
    tokens = NumberTokens(TOKENIZER, True)
    encoding, _ = tokens.problem("用123456789元买" * 10)
    for window in encoding.windows(40):
        assert set(re.findall(r"\d+", window.text[window.starts_T[1] : window.ends_T[-2]])) == {
            "123456789"
        }
        ids = window.token_ids_T.tolist()
        assert len(tokens.copies(ids)) == sum(i == tokens.symbols["9"] for i in ids)


def test_more_numbers_than_marks_are_digits():
    tokens = NumberTokens(TOKENIZER, True)
    text = "，".join(str(n) for n in range(101, 101 + MARKS + 2))
    encoding, numbers = tokens.problem(text)
    assert len(tokens.copies(encoding.token_ids_T.tolist())) == MARKS
    ids = tokens.equation(f"101+{101 + MARKS}", numbers)
    assert tokens.text(ids, numbers) == f"101+{101 + MARKS}"
    assert len(ids) == 1 + 1 + 3


def test_marks_are_unused_tokens_where_there_are_some():
    plain = NumberTokens(wordpiece(), True)
    assert list(plain.marks) == [
        *"有糖颗个的囧"
    ]  # all that are not ASCII, where a vocabulary is that small
    unused = [f"[unused{i}]" for i in range(1, 100)]
    tokens = NumberTokens(wordpiece(unused), True)
    assert list(tokens.marks) == unused[:MARKS]
    assert len(NumberTokens(TOKENIZER, True).marks) == MARKS


def test_digits_are_tokens_of_their_own_in_any_vocabulary():
    tokenizer = wordpiece([f"[unused{i}]" for i in range(1, 100)])
    for marked in (True, False):
        encoding, _ = NumberTokens(tokenizer, marked).problem("有12个1234的cm2")
        shown = [tokenizer.backend.id_to_token(i) for i in encoding.token_ids_T.tolist()]
        assert [s for s in shown if s.isdigit()] == [*"1212342"]


def test_a_vocabulary_without_the_symbols():
    with pytest.raises(SettingsError, match=r"no \* 7"):
        NumberTokens(wordpiece(left_out="7*"), True)
    tokens = NumberTokens(wordpiece(left_out="^%"), False)
    assert tokens.text(tokens.equation("5%", []), []) == "5/100"
    with pytest.raises(EquationError, match=r"no \^"):
        tokens.equation("5^2", [])


def test_what_no_constraint_keeps_from_being_written_is_still_text():
    tokens = NumberTokens(TOKENIZER, True)
    marks = list(tokens.marks.values())
    ids = [tokens.symbols["1"], marks[0], marks[3], TOKENIZER.backend.token_to_id("糖")]
    assert tokens.text(ids, [Number("(1/6)", Fraction(1, 6))]) == f"1(1/6){list(tokens.marks)[3]}糖"


def test_mixed_numbers_and_thousands_are_copied_as_they_are_meant():
    tokens = NumberTokens(TOKENIZER, True)
    _, numbers = tokens.problem("长11 5/6米，共1,000元")
    ids = tokens.equation("11 5/6*1,000", numbers)
    assert len(ids) == 3
    assert evaluate(tokens.text(ids, numbers)) == Fraction(71000, 6)
