"""Metrics of generated texts: against their definitions, written out, on random texts."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.tasks.cln.diversity import distinct, longest_copies, self_bleu
from nlpkit.tasks.cln.examples import cut_text
from nlpkit.tasks.cln.metrics import (
    Assessed,
    Gold,
    Prediction,
    score_texts,
    with_verdicts,
)
from nlpkit.tasks.cln.poem_forms import begins, fits, form_of
from nlpkit.text.tokenizer import Tokenizer

TEXTS = st.lists(st.text(alphabet="云山水月😀", max_size=12), max_size=6)


def grams(text, order):
    return [text[i : i + order] for i in range(len(text) - order + 1)]


def bleu(text, references):
    """BLEU-4 as Papineni et al. define it, by counting."""
    if not text:
        return 0.0
    nearest = min((abs(len(r) - len(text)), len(r)) for r in references)[1]
    precisions = []
    for order in range(1, 5):
        own = grams(text, order)
        most = {gram: max(grams(r, order).count(gram) for r in references) for gram in own}
        precisions.append(
            (sum(min(own.count(g), most[g]) for g in set(own)) or 0.1) / len(own) if own else 0.0
        )
    mean = math.prod(precisions) ** 0.25
    return mean * min(1.0, math.exp(1 - nearest / len(text)))


@given(TEXTS)
def test_self_bleu_is_its_definition(texts):
    expected = 0.0
    if len(texts) > 1:
        expected = sum(bleu(t, texts[:i] + texts[i + 1 :]) for i, t in enumerate(texts)) / len(
            texts
        )
    assert self_bleu(texts) == pytest.approx(expected)


@given(TEXTS, st.integers(1, 3))
def test_distinct_is_its_definition(texts, order):
    every = [gram for text in texts for gram in grams(text, order)]
    assert distinct(texts, order) == pytest.approx(len(set(every)) / max(1, len(every)))


@given(st.lists(st.text(alphabet="云山\0x", max_size=9), max_size=4), TEXTS)
def test_the_longest_copy_is_found(texts, training):
    training = [*training, "云山云x\0\0x"]
    for text, found in zip(texts, longest_copies(texts, training), strict=True):
        pieces = {text[i:j] for i in range(len(text) + 1) for j in range(i, len(text) + 1)}
        assert found == max(
            len(piece) for piece in pieces if any(piece in other for other in training)
        )


def test_nothing_to_compare():
    assert longest_copies([], ["云"]) == []
    assert longest_copies(["云", ""], []) == [0, 0]
    assert self_bleu(["云山水月"]) == distinct([""], 1) == 0.0


def test_forms_by_hand():
    pattern = form_of("五言绝句")
    assert pattern == "字字字字字，字字字字字。" * 2 == form_of("五言絕句")
    assert len(form_of("七言律诗")) == 64
    assert form_of("词") is form_of("六言绝句") is None
    poem = "云起山初白，风回水自流。不知松下月，夜夜为谁留。"
    assert fits(poem, pattern)
    wrong = [
        poem[:-1],
        poem + "。",
        poem.replace("，", ","),
        poem.replace("云", "a"),
        poem.replace("云起", "云，"),
        "",
    ]
    assert not any(fits(text, pattern) for text in wrong)
    assert begins("云起", pattern)
    assert begins("", pattern)
    assert not begins("云，", pattern)
    assert not begins(poem + "云", pattern)


def test_scores_by_hand(tmp_path):
    training = tmp_path / "train.jsonl"
    training.write_text(
        '{"text": "一二三四五六七八九十甲乙丙"}\n{"label": "x"}\n', encoding="utf-8"
    )
    pattern = "字字，"
    gold = Gold(["好好，"], [], ("好",), pattern)
    pairs = [
        (gold, Assessed(["好好，", "好，好"], [-1.0, -2.0], math.log(4), math.log(64), 2)),
        (
            Gold(["x"]),
            Assessed(["二三四五六七八九十甲乙丙"], [-1.0], math.log(16), math.log(64), 4),
        ),
    ]

    def ask(records):
        assert [record["text"] for record in records] == [t for _, p in pairs for t in p.texts]
        return [SimpleNamespace(label=label) for label in ("好", "差", "差")]

    golds, predictions = zip(*pairs, strict=True)
    judged = with_verdicts(predictions, ask)
    metrics = score_texts(list(zip(golds, judged, strict=True)), [str(training)])
    assert metrics["perplexity"] == pytest.approx(2.0)
    assert metrics["likelihood"] == pytest.approx(0.5)
    assert metrics["wrong_perplexity"] == pytest.approx(4.0)
    assert (metrics["agreement"], metrics["form_accuracy"]) == (0.5, 0.5)
    assert "agreement" not in score_texts(pairs)
    assert (metrics["texts"], metrics["tokens"], metrics["length"]) == (3, 6, 6.0)
    assert metrics["copied_12"] == pytest.approx(1 / 3, abs=1e-6)
    assert metrics["copied_mean"] == 4.0
    assert metrics["distinct_1"] == pytest.approx(14 / 18, abs=1e-6)


def test_a_file_of_predictions_has_no_perplexity():
    assert "perplexity" not in score_texts([(Gold(["云"]), Prediction(["云"]))])
    assert score_texts([]) == {}


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("天晴。", 9, "天晴。"),
        ("天晴了。下雨了，真的吗", 9, "天晴了。"),
        ("天晴了又下雨，真的", 8, "天晴了又下雨，"),
        ("天晴了又下雨真的吗", 8, "天晴了又下雨真的"),
    ],
)
def test_a_long_text_is_cut_after_its_last_punctuation(text, most, kept):
    from nlpkit import encoders

    tokenizer: Tokenizer = encoders.load_tokenizer("tiny")
    assert cut_text(tokenizer.encode(text), most) == list(tokenizer.token_ids(kept))
