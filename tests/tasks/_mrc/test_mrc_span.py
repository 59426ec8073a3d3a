"""Reading by pointing: loss and answers against brute force over all spans, and no answer."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlpkit import encoders
from nlpkit.inference.predictor import predict_examples
from nlpkit.tasks import mrc_span
from nlpkit.tasks._mrc.answers import Answer, Prediction, normalise
from nlpkit.tasks._mrc.cmrc_score import cmrc_f1
from nlpkit.tasks._mrc.threshold import best_threshold
from nlpkit.tasks._mrc.vote import LISTED

SHAPE = encoders.ShapeConfig(
    layers=2, hidden_size=32, heads=2, intermediate_size=48, max_length=128
)
LIMITS = {"max_passage": 16, "max_answer": 4, "max_question": 12, "match_features": True}
RECORDS = [
    {
        "question": "谁写了《长夜》？",
        "passages": ["《长夜》是何晴写的，何晴住在云岭🙂锶钪", "顾平写过ＡＢＣ"],
        "answers": ["何晴"],
    },
    {
        "question": "何时？",
        "context": "灯塔１９２１年建成，码头1930年建成，面馆在渡口边",
        "answers": [],
    },
    {"question": "", "passages": ["", "林薇"], "answers": ["林薇"]},
    {"question": "谁？", "passages": [], "answers": []},
]


@pytest.fixture(scope="module")
def made():
    """A task and a model whose pointers are sure of themselves, in float64."""
    torch.manual_seed(5)
    encoder, backend = encoders.for_pretraining(None, SHAPE)
    tokenizer = encoders.tokenizer_of(encoder, backend)
    task = mrc_span.Task(mrc_span.Settings(**LIMITS), tokenizer, None)
    model = task.build_model(encoder.double()).double().eval()
    torch.nn.init.normal_(model.match.project.weight)
    torch.nn.init.normal_(model.pointers.weight)
    return task, model


@torch.no_grad()
def spans_of(task, model, example, window):
    """{(start, end): score} of all spans of a window, in plain loops."""
    alone = replace(example, windows=[window])
    batch = task.collate([alone], targets=False)
    words_RTE = model.match(model.encoder, batch.tokens.token_ids_BT, batch.features_RTF.double())
    hidden_RTH = encoders.encode(model.encoder, batch.tokens, words_BTE=words_RTE)
    start_T, end_T = model.pointers(hidden_RTH)[0].T
    first, count = len(example.question), len(window.token_ids)
    none = float(start_T[0] + end_T[0])
    scores = {}
    for start in range(count):
        for end in range(start + 1, min(count, start + task.max_answer) + 1):
            scores[start, end] = float(start_T[first + start] + end_T[first + end - 1]) - none
    return scores


@torch.no_grad()
def test_the_loss_is_that_of_all_right_places_together(made):
    task, model = made
    examples = [task.read(record) for record in RECORDS]
    losses = []
    for example in examples:
        parts = []
        for window in example.windows:
            scores = spans_of(task, model, example, window)
            total = 1 + sum(map(math.exp, scores.values()))
            right = [math.exp(scores[span]) for span in window.spans] or [1]
            parts.append(-math.log(sum(right) / total))
        losses.append(sum(parts) / len(parts))
    batch = task.collate(examples)
    assert batch.gold_N3.shape == (3, 3)  # 何晴 twice in one window, and 林薇
    batch = replace(batch, features_RTF=batch.features_RTF.double())
    assert model(batch).tolist() == pytest.approx(losses, rel=1e-5)


def test_the_loss_has_gradients_without_gold_and_without_a_passage(made):
    task, model = made
    batch = task.collate([task.read(record) for record in RECORDS])
    model(replace(batch, features_RTF=batch.features_RTF.double())).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert model.match.project.weight.grad.abs().sum() > 0
    model.zero_grad()


def test_answers_are_the_best_of_all_spans(made):
    task, model = made
    model.float()
    examples = [task.read(record) for record in RECORDS]
    found = predict_examples(task, model, examples)
    model.double()
    for example, prediction in zip(examples, found, strict=True):
        scores: dict[str, float] = {}
        for window in example.windows:
            spans = spans_of(task, model, example, window)
            for span in sorted(spans, key=spans.get, reverse=True)[:LISTED]:
                string = normalise(window.text(span))
                scores[string] = max(scores.get(string, -1e9), spans[span])
        assert normalise(prediction.answer) == max(scores, key=scores.get, default="")
        for answer in (prediction, *prediction.alternatives):
            if answer.answer:
                assert answer.score == pytest.approx(scores[normalise(answer.answer)], rel=2e-3)
                passage = example.passages[answer.passage].text
                assert passage[slice(*answer.span)] == answer.answer
    assert found[-1] == Prediction("")


def test_a_place_tells_unknown_characters_apart(made):
    task, _ = made
    example = task.read({"question": "谁？", "context": "锶比钪重", "answers": ["钪"]})
    assert example.lost == ""
    assert example.windows[0].spans == ((2, 3),)


def test_below_the_threshold_there_is_no_answer(made):
    task, _ = made
    settings = replace(task.config, no_answer=True, threshold=0.5)
    likely = Prediction("何晴", 0, (0, 2), 0.6, [Answer("晴", 0, (1, 2), 0.2)])
    assert task.cut(likely, settings) == likely
    unlikely = replace(likely, score=0.5)
    assert task.cut(unlikely, settings) == Prediction(
        "", alternatives=[Answer("何晴", 0, (0, 2), 0.5), Answer("晴", 0, (1, 2), 0.2)]
    )
    assert task.cut(unlikely, replace(settings, no_answer=False)) == unlikely
    assert task.cut(Prediction(""), settings) == Prediction("")
    assert task.cut(replace(likely, score=-0.1), replace(settings, threshold=None)).answer == ""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "何晴", "何晴女士"]),
            st.sampled_from(["", "何晴", "顾平"]),
            st.sampled_from([-0.1, 0.2, 0.3, 0.4]),
        ),
        max_size=8,
    )
)
def test_no_threshold_is_better(lines):
    pairs = []
    for gold, answer, score in lines:
        pairs.append((Prediction(gold), Prediction(answer, score=score if answer else None)))

    def total(threshold):
        found = 0.0
        for gold, prediction in pairs:
            is_given = prediction.answer and prediction.score > threshold
            found += cmrc_f1(gold.accepted, prediction.answer if is_given else "")
        return found

    best = best_threshold(pairs)
    assert total(best) == pytest.approx(max(map(total, (-1.0, -0.1, 0.2, 0.3, 0.4))))
