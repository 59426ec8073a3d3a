"""Math word problems: gold in all its forms, what is learned of it, beams without a value, windows,
and scores."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import nlpkit, write_lines

from nlpkit import encoders, samples
from nlpkit.config import resolve
from nlpkit.errors import RecordError, SettingsError
from nlpkit.evaluation.metrics import MicroF1
from nlpkit.evaluation.scoring import Scoring
from nlpkit.inference.predictor import predict_examples
from nlpkit.tasks.ape210k.equations import (
    Beam,
    Prediction,
    choose,
    exact_answer,
    likelihood_of_answers,
    worth,
)
from nlpkit.tasks.ape210k.task import Settings, Task

SHAPE = encoders.ShapeConfig(
    layers=1, hidden_size=32, heads=2, intermediate_size=48, max_length=128
)


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(3)
    return encoders.for_pretraining(None, SHAPE)


@pytest.fixture
def new_task(made):
    return lambda **settings: Task(Settings(**settings), encoders.tokenizer_of(*made), None)


def line(equation=None, answer=None, text="小明有12颗糖，吃了(1/4)，还剩几颗？"):
    return {
        "text": text,
        **({} if equation is None else {"equation": equation}),
        **({} if answer is None else {"answer": answer}),
    }


@pytest.mark.parametrize(
    ("record", "answer", "decimal"),
    [
        (line("x=12*(1-(1/4))", "9"), "9", 9.0),
        (line("12*(1-(1/4))"), "9", 9.0),
        (line(answer="2((1)/(3))"), "7/3", 7 / 3),
        (line(answer="93.75%"), "15/16", 0.9375),
        (line(answer=0.1), "1/10", 0.1),
        (line(answer=1e-7), "1/10000000", 1e-7),
        (line(answer=-3), "-3", -3.0),
        (line(answer="11 5/6"), "71/6", 71 / 6),
        (line(answer="1,000"), "1000", 1000.0),
        (line(answer=2**70 + 1), str(2**70 + 1), float(2**70)),
        (line(answer=1e300), "1" + "0" * 300, 1e300),
        (line(answer="1e100000000"), "1e100000000", None),
        (line(answer=10**400), "1" + "0" * 400, None),
        (line(answer="九颗"), "九颗", None),
        (line("(12", None), "(12", None),
    ],
)
def test_gold_in_all_its_forms(new_task, record, answer, decimal):
    gold = new_task().read(record).gold
    assert (gold.answer, gold.decimal) == (answer, decimal)


def test_a_problem_alone_has_no_gold(new_task):
    example = new_task().read(line())
    assert example.gold is example.target is None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (line(7), 'field "equation": expected a string, got 7'),
        (line(answer=[9]), 'field "answer": expected a number or a string, got \\[9\\]'),
        (line(answer=True), 'field "answer": expected a number or a string, got True'),
        (line(answer=10**5000), "expected a number or a string, got an integer of 16610 bits"),
    ],
)
def test_a_wrong_type_is_said(new_task, record, message):
    with pytest.raises(RecordError, match=message):
        new_task().read(record)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (line("x=(12-3", "9"), "unbalanced"),
        (line("x=12-4", "9"), "its value is 8, the answer 9"),
        (line("x=12-4", "九颗"), "its value is 8, the answer 九颗"),
        (line("x=9/(12-12)", "9"), "division by zero"),
        (line(answer="9"), "there is none"),
        (line("1+" * 70 + "1", "71"), "it has 141 tokens, max_equation is 64"),
    ],
)
def test_gold_that_would_teach_something_wrong_is_named_and_passed_over(
    new_task, made, record, why
):
    task = new_task(disturb=1.0)
    bad, good = task.read(record), task.read(line("12*(1-(1/4))"))
    [finding] = task.report(bad)
    assert (finding.kind, finding.lost) == ("equation not learned", "equation")
    assert why in finding.message
    loss_B = task.build_model(made[0])(task.collate([good, bad]))
    assert loss_B[0] > 1
    assert loss_B[1] == 0
    assert task.augmenter([good, bad])(bad, np.random.default_rng(0)) is bad
    assert not list(task.report(good))


def beam(answer, score, equation="1"):
    return Beam(equation, answer, score)


def test_a_beam_without_a_value_or_below_zero_is_passed_over(new_task):
    task = new_task()
    example = task.read(line())
    ids = {**task.tokens.symbols, **dict(zip("ab", task.tokens.marks.values(), strict=False))}
    found = [
        ([ids[c] for c in text], score)
        for text, score in (("a/0", -0.1), ("a-b", -1.23456), ("a", -2))
    ]
    prediction = task._prediction(example, found)
    assert (prediction.equation, prediction.answer, prediction.decimal) == (
        "12-(1/4)",
        "47/4",
        11.75,
    )
    assert prediction.score == -1.2346
    assert [b.answer for b in prediction.beams] == [None, "47/4", "12"]
    below = [
        ([ids[c] for c in text], score)
        for text, score in (("b-a", -0.5), ("a-b", -1), ("b-a*a", -2))
    ]
    assert task._prediction(example, below).equation == "12-(1/4)"
    assert new_task(negative=True)._prediction(example, below).equation == "(1/4)-12"
    assert task._prediction(example, [*below[::2], *found[:1]]).equation == "(1/4)-12"
    nothing = task._prediction(example, found[:1])
    assert (nothing.equation, nothing.answer, nothing.decimal) == ("12/0", None, None)
    assert task.facts(nothing) == {}


def test_the_likeliest_value_counts_where_asked_for():
    found = [
        beam("5", -1.0, "a"),
        beam("7", -1.3, "b"),
        beam("14/2", -1.7, "c"),
        beam("-9", -0.1, "d"),
        beam(None, -0.1, "e"),
    ]
    assert choose(found, negative=False).equation == "a"
    chosen = choose(found, negative=False, by="value")  # exp(-1.3) + exp(-1.7) > exp(-1)
    assert (chosen.equation, chosen.score, chosen.beams) == ("b", -1.3, found)
    assert choose(found, negative=True, by="value").equation == "d"
    assert choose(found[:1] + found[2:], negative=False, by="value").equation == "a"
    assert choose(found[4:], negative=False, by="value").equation == "e"
    far = [beam("1", -2000.0, "a"), beam("2", -2001.0, "b"), beam("2", -2000.4, "c")]
    assert choose(far, negative=False, by="value").equation == "b"
    likelihood = likelihood_of_answers(found[:3])
    assert likelihood["7"] == pytest.approx(likelihood["5"] * (math.exp(-0.3) + math.exp(-0.7)))


def test_scores_by_hand(new_task):
    task = new_task()
    gold = [
        Prediction("", "1/3"),
        Prediction("2*3", "6"),
        Prediction("2+2", "4"),
        Prediction("二", "二"),
    ]
    predictions = [
        Prediction("1/3", "333333/1000000", beams=[beam("333333/1000000", -1)]),
        Prediction("3", "3", beams=[beam("3", -1), beam("6", -2)]),
        Prediction("2/0", None, beams=[beam(None, -1), beam("5", -2)]),
        Prediction("(二", None, beams=[beam(None, -1)]),
    ]
    assert task.score(zip(gold, predictions, strict=True)) == {
        "accuracy": 0.25,
        "solved_by_a_beam": 0.5,
        "well_formed": 0.75,
        "problems": 4,
        "match": "values to 6 decimals",
    }


def test_groups_are_those_of_the_gold_equation(new_task):
    task, counts = new_task(), MicroF1()
    for gold, found in (("2*3", "12/2"), ("2*3", "2+4-0"), ("2*3", "5"), ("1+1+1", "3")):
        golds, founds = (Prediction(e, str(task.read(line(e)).gold.answer)) for e in (gold, found))
        counts.add(task.facts(golds), task.facts(founds))
    groups = counts.by_group()
    assert groups["1"]["recall"] == pytest.approx(2 / 3, abs=1e-6)
    assert groups["1"]["precision"] == 1.0
    assert groups["2"]["recall"] == 1.0
    assert groups["0"]["predicted"] == 1


@pytest.mark.parametrize("constraint", [True, False])
@pytest.mark.parametrize("numbers", ["marked", "digits"])
def test_it_learns_problems_and_writes_their_equations(made, numbers, constraint, new_task):
    task = new_task(numbers=numbers, constraint=constraint)
    records = list(samples.records("ape210k", 6, seed=2))
    examples = [task.read(record) for record in records]
    encoder = encoders.build(made[0].spec())
    encoders.set_dropout(encoder, 0.0)
    model = task.build_model(encoder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model(task.collate(examples)).mean().backward()
        optimizer.step()
    predictions = predict_examples(task, model.eval(), examples)
    assert (
        task.score((e.gold, p) for e, p in zip(examples, predictions, strict=True))["accuracy"]
        == 1.0
    )
    assert [p.score for p in predictions] == [p.beams[0].score for p in predictions]


def test_an_untrained_model_writes_only_arithmetic_of_the_problem_under_the_constraint(
    made, new_task
):
    records = [line(text="5只"), line(text="有7元和3%"), line(text="没有数"), line(text="")]
    task = new_task(max_equation=9)
    examples = [task.read(record) for record in records]
    model = task.build_model(made[0]).eval()
    batch = task.collate(examples, targets=False)
    with torch.no_grad():
        written = task._found(model, batch)
    for example, found in zip(examples, written, strict=True):
        assert len(found) == 3
        for token_ids, _ in found:
            assert len(token_ids) <= 9
            equation = task.tokens.text(token_ids, example.numbers)
            assert task.tokens.equation(equation, example.numbers)  # an error is raised for others
    free = new_task(constraint=False, max_equation=9)
    predictions = predict_examples(free, model, examples)
    assert len(predictions) == 4
    assert not any(exact_answer(p.equation) for p in predictions)


def test_only_the_logits_of_the_alphabet_are_made(made, new_task, monkeypatch):
    asked = []
    encoder = made[0]
    token_logits = encoder.token_logits

    def noted(hidden, token_ids=None):
        asked.append(token_ids)
        return token_logits(hidden, token_ids)

    monkeypatch.setattr(encoder, "token_logits", noted)
    task = new_task(max_equation=5)
    model = task.build_model(encoder).eval()
    predict_examples(task, model, [task.read(line(text="有7元和3%"))])
    alphabet = {*task.tokens.symbols.values(), *task.tokens.marks.values(), task.tokenizer.sep_id}
    assert len(asked) == 6
    assert all(set(token_ids.tolist()) == alphabet for token_ids in asked)


def test_a_long_problem_is_cut_and_the_surest_equation_counts(made, new_task):
    task = new_task(max_length=400)
    assert task.max_length == 128 - 64  # what the encoder takes, less room for the equation
    example = task.read(line("x=12*3", "36", text="有12个。" + "很长的话，" * 30 + "每个3元"))
    windows = task.windows(example)
    assert len(windows) > 2
    assert max(map(len, windows)) <= 64
    assert [window.target for window in windows] == [None] * len(windows)  # none holds both numbers
    (finding,) = task.report(example)
    assert (finding.kind, finding.lost) == ("cut to windows", None)
    model = task.build_model(made[0]).eval()
    (prediction,) = predict_examples(task, model, [example])
    pieces = predict_examples(task, model, windows)
    most = max(worth(p.answer, False) for p in pieces)
    assert prediction.score == max(p.score for p in pieces if worth(p.answer, False) == most)
    near = task.read(line("x=12*3", "36", text="有12个，每个3元。" + "很长的话，" * 30))
    assert [w.target == near.target for w in task.windows(near)][:1] == [True]


def test_training_shows_some_equations_disturbed(new_task):
    task = new_task(disturb=0.5)
    example = task.read(line("12*(1-(1/4))"))
    augment = task.augmenter([example])
    made = [augment(example, np.random.default_rng(seed)) for seed in range(100)]
    assert {tuple(new.target) for new in made} == {tuple(example.target)}
    assert 20 < sum(new.shown != example.target for new in made) < 60
    assert new_task(disturb=0).augmenter([example]) is None
    batch = task.collate([next(new for new in made if new.shown != example.target)])
    assert batch.pairs.targets_N.tolist() == [*example.target, task.tokenizer.sep_id]


@pytest.mark.parametrize(
    "settings",
    [{"beam_size": 0}, {"max_length": 7}, {"max_equation": 0}, {"passes": 0}, {"disturb": 1.5}],
)
def test_settings_out_of_range(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        resolve({"ape210k": Settings}, {"ape210k": settings})


def test_the_passes_of_the_model_are_those_of_the_settings(made, new_task):
    task = new_task(passes=2)
    batch = task.collate([task.read(line("12*(1-(1/4))"))])
    one, two = (new_task(passes=n).build_model(made[0]).eval()(batch) for n in (1, 2))
    assert two > one


def test_an_encoder_too_short_for_a_problem_and_an_equation(new_task):
    with pytest.raises(SettingsError, match="leave no room for a problem"):
        new_task(max_equation=125)


def test_a_file_of_predictions(new_task, tmp_path):
    task = new_task()
    assert task.parse({"equation": "2*3"}).answer == "6"
    assert task.parse({"equation": "", "answer": None}).answer is None
    assert task.parse({"answer": "12.50"}).answer == "25/2"
    for value in ({}, {"answer": "1", "beams": [{}]}, {"answer": "1", "beams": 3}):
        with pytest.raises(RecordError, match=r"answer|beams"):
            task.parse(value)
    lines = [
        {**line("x=2*3", "6"), "prediction": {"equation": "2*3"}},
        {**line("1+1"), "prediction": {"answer": "3"}},
    ]
    path = write_lines(tmp_path / "predicted.jsonl", lines)
    errors = tmp_path / "errors.jsonl"
    done = nlpkit(
        "eval", "--task", "ape210k", "--data", path, "--by", "operators", "--errors", errors
    )
    metrics = json.loads(done.stdout)
    assert metrics["accuracy"] == 0.5
    assert metrics["by"]["1"]["recall"] == 0.5
    (wrong,) = map(json.loads, errors.read_text().splitlines())
    assert (wrong["missed"], wrong["extra"]) == (["2"], ["3"])


def test_the_settings_of_the_search_may_change_on_a_trained_model(made, new_task):
    task = new_task()
    example = task.read(line())
    model = task.build_model(made[0]).eval()
    for beams in (1, 5):
        task.config = dataclasses.replace(task.config, beam_size=beams)
        (prediction,) = predict_examples(task, model, [example])
        assert len(prediction.beams) == beams
    assert (
        Scoring(task).score(iter([(None, {}, example.gold or prediction, prediction)]))["accuracy"]
        == 1.0
    )


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"equation": 5}, 'field "equation": expected a string, got 5'),
        ({"answer": ["1"]}, 'field "answer": expected a number or a string'),
        ({"answer": "1", "score": "high"}, 'field "score": expected a number'),
        ({"answer": "1", "score": float("nan")}, 'field "score": expected a number'),
        ({"answer": "1", "beams": 3}, 'field "beams": expected a list, got 3'),
        ({"answer": "1", "beams": ["1"]}, r"""field "beams\[0\]": expected an object, got '1'"""),
        (
            {"answer": "1", "beams": [{"equation": "1", "answer": ["1"], "score": -1}]},
            r'field "beams\[0\].answer": expected a string',
        ),
        (
            {"answer": "1", "beams": [{"equation": "1", "answer": "1", "score": 10**5000}]},
            r'field "beams\[0\].score": expected a number, got an integer of 16610 bits',
        ),
        (
            {"answer": "1", "beams": [{"equation": "1", "answer": "1"}]},
            'missing field "beams\\[0\\].score"',
        ),
    ],
)
def test_predictions_of_a_file_are_checked_as_gold(new_task, value, why):
    with pytest.raises(RecordError, match=why):
        new_task().parse(value)


@pytest.mark.parametrize(
    ("gold", "predicted", "accuracy"),
    [
        ("1e100000000", "1", 0.0),
        ("2 2/3", "22/3", 0.0),
        ("11 5/6", "71/6", 1.0),
        ("1,000", "1000", 1.0),
        (2**64 + 1, str(2**64 + 1), 1.0),
        (2**64 + 1, str(2**64 + 2), 0.0),
        ("1", "1e100000000", 0.0),
    ],
)
def test_numbers_of_gold_and_prediction_are_compared_by_value(new_task, gold, predicted, accuracy):
    task = new_task()
    right = task.read(line(answer=gold)).gold
    found = task.parse({"equation": "1", "answer": predicted})
    assert task.score([(right, found)])["accuracy"] == accuracy
