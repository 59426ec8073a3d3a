"""Questions on a knowledge base: those that it cannot answer, other knowledge bases, the
adjusted loss, the CLI."""

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import nlpkit, write_lines

from nlpkit import encoders
from nlpkit.errors import RecordError, SettingsError
from nlpkit.evaluation.data_check import check_data
from nlpkit.inference.predictor import predict_examples
from nlpkit.jsonl import read_jsonl
from nlpkit.tasks.kgclue import task as kgclue
from nlpkit.tasks.kgclue.logit_adjustment import LogitAdjustment
from nlpkit.tasks.kgclue.token_worth import CharacterCounts, token_worths

GOLDEN = Path(__file__).parents[2] / "golden" / "kgclue"
SHAPE = encoders.ShapeConfig(
    layers=1, hidden_size=32, heads=2, intermediate_size=48, max_length=256
)


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(1)
    encoder, backend = encoders.for_pretraining(None, SHAPE)
    return encoder.eval(), encoders.tokenizer_of(encoder, backend)


def answers(made, questions, kb=GOLDEN / "kb.tsv", **settings):
    """What a model that knows nothing answers."""
    encoder, tokenizer = made
    task = kgclue.Task(kgclue.Settings(kb=str(kb), **settings), tokenizer, GOLDEN)
    examples = [task.read({"question": question}) for question in questions]
    return predict_examples(task, task.build_model(encoder), examples)


@pytest.mark.parametrize("look_ahead", ["sum", "power", "off"])
def test_a_question_that_names_nothing_has_no_answer(made, look_ahead):
    (none,) = answers(made, ["今天星期几？"], look_ahead=look_ahead)
    assert none == kgclue.Prediction("", "", "", [])
    (guess,) = answers(made, ["今天星期几？"], look_ahead=look_ahead, guess=True)
    assert guess.objects
    assert [beam.score for beam in guess.beams] == sorted(
        [beam.score for beam in guess.beams], reverse=True
    )


def test_coverage_alone_answers_and_gives_all_objects(made):
    questions = ["许蓁的代表作品有哪些？", "雾灯的导演是谁？", "桐溪镇的人口", "桐溪的长度"]
    found = answers(made, questions, coverage=1000.0)
    assert [(p.subject, p.meaning, p.predicate, p.objects) for p in found] == [
        ("许蓁", "", "代表作品", ["《雾灯》", "《长夜》"]),
        ("雾灯", "电影", "导演", ["顾平"]),
        ("桐溪镇", "", "人口", ["8200人"]),
        ("桐溪", "", "长度", ["30千米"]),
    ]
    assert [vars(p.beams[0]) for p in found] == [
        {k: v for k, v in vars(p).items() if k != "beams"} for p in found
    ]


def test_a_predicate_counts_before_its_subject_too(made, tmp_path):
    kb = tmp_path / "kb.tsv"
    kb.write_text("雾灯\t人物\t许蓁\n雾灯\t导演\t顾平\n", encoding="utf-8")
    (found,) = answers(made, ["导演了雾灯的人是谁？"], kb, coverage=1000.0)
    assert found.predicate == "导演"


def test_what_frames_the_training_questions_counts_for_nothing(made, tmp_path):
    kb = tmp_path / "kb.tsv"
    kb.write_text("是什么（歌曲）\t作词\t顾平\n桐溪\t长度\t30千米\n", encoding="utf-8")
    questions = ["请问云泽是什么？", "请问雾灯是什么颜色？", "请问长夜是什么书？"]
    records = [(f"line {number}", {"question": q}) for number, q in enumerate(questions)]
    given = kgclue.Settings(kb=str(kb), coverage=1000.0)
    config = kgclue.Task.prepare(given, records, tmp_path)
    encoder, tokenizer = made
    subjects = []
    for worth in ("idf", "equal"):
        task = kgclue.Task(replace(config, worth=worth), tokenizer, tmp_path)
        example = task.read({"question": "请问桐溪是什么？"})
        (found,) = predict_examples(task, task.build_model(encoder), [example])
        subjects.append(found.subject)
    assert subjects == ["桐溪", "是什么"]


def test_a_token_is_worth_its_rarest_character():
    counts = CharacterCounts.of(["云泽有多大？", "App有多大？", "谁有？"])
    assert counts == CharacterCounts(3, {**counts.having, "有": 3, "多": 2, "p": 1})
    assert counts.worth("有") == pytest.approx(0)
    assert counts.worth("多") == pytest.approx(1 - math.log(3) / math.log(4))
    assert counts.worth("有P") == pytest.approx(0.5)
    assert counts.worth("桐") == counts.worth("有桐") == counts.worth("") == 1
    assert counts.worth("？") == counts.worth("?") == pytest.approx(0)
    assert counts.worth("ＡP") == counts.worth("a") == pytest.approx(0.5)
    assert CharacterCounts.of([]).worth("有") == 1


def test_the_worth_of_tokens_adds_up_exactly_in_any_order(made):
    _, tokenizer = made
    having = {}
    for place, string in enumerate(sorted(tokenizer.backend.get_vocab())):
        having[string.removeprefix("##")] = place % 997
    worth_V = token_worths(CharacterCounts(1000, having), tokenizer)
    exact = math.fsum(worth_V[:1000].tolist())
    for padding in range(40):
        padded = torch.nn.functional.pad(worth_V[:1000], (padding, 3 * padding))
        assert float(padded.sum()) == float(padded.flip(0).cumsum(0)[-1]) == exact
    assert len(worth_V.unique()) > 50


RARE = "\U00013000\U00013001\U00013002"  # no vocabulary has them


@pytest.mark.parametrize("look_ahead", ["sum", "power", "off"])
def test_an_unknown_character_is_no_other(made, look_ahead, tmp_path):
    first, second, third = RARE
    kb = tmp_path / "kb.tsv"
    kb.write_text(
        f"{first}\t密度\t2.99\n{second}矿\t密度\t3\n{third}矿\t密度\t4\n", encoding="utf-8"
    )
    questions = [
        f"{second}的密度是多少",
        "😀的密度是多少",
        f"{first}的密度是多少",
        f"{third}矿的密度",
    ]
    found = answers(made, questions, kb, look_ahead=look_ahead, coverage=1000.0, beam_size=8)
    assert [p.objects for p in found] == [[], [], ["2.99"], ["4"]]
    assert [p.subject for p in found] == ["", "", first, f"{third}矿"]


def test_a_subject_with_several_brackets_is_found_by_either_name(made, tmp_path):
    kb = tmp_path / "kb.tsv"
    kb.write_text(
        "桐溪（小说）（修订版）\t作者\t顾平\n我（们）的云（小说）\t作者\t许蓁\n", encoding="utf-8"
    )
    questions = ["桐溪的作者是谁", "桐溪（小说）的作者是谁", "我（们）的云的作者是谁"]
    found = answers(made, questions, kb, coverage=1000.0)
    assert [(p.subject, p.meaning, p.objects) for p in found] == [
        ("桐溪（小说）", "修订版", ["顾平"]),
        ("桐溪（小说）", "修订版", ["顾平"]),
        ("我（们）的云", "小说", ["许蓁"]),
    ]


def test_several_threads_predict_what_one_does(made):
    encoder, tokenizer = made
    settings = kgclue.Settings(kb=str(GOLDEN / "kb.tsv"))
    task = kgclue.Task(settings, tokenizer, GOLDEN)
    model = task.build_model(encoder)
    questions = ["许蓁的代表作品有哪些？", "雾灯的导演是谁？", "桐溪镇的人口", "桐溪的长度"]

    def predicted(question):
        return predict_examples(task, model, [task.read({"question": question})])

    expected = [predicted(question) for question in questions]
    fresh = kgclue.Task(settings, tokenizer, GOLDEN)
    task = fresh
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(predicted, questions * 3)) == expected * 3


def test_a_long_question_is_read_in_windows(made):
    question = "今天下雨，" * 30 + "桐溪的长度是多少？"
    assert answers(made, [question], coverage=1000.0)[0].predicate == "长度"


def test_the_adjustment_is_the_logarithm_of_the_counts():
    adjustment = LogitAdjustment([((5, 6, 1), 3), ((5, 7, 1), 1), ((8, 1), 2)], 0.5)
    assert {
        (place, token): added for place, token, added in adjustment.adjustments((2, 5, 6, 1), 1, 4)
    } == {
        (1, 5): pytest.approx(0.5 * math.log(5)),
        (1, 8): pytest.approx(0.5 * math.log(3)),
        (2, 6): pytest.approx(0.5 * math.log(4)),
        (2, 7): pytest.approx(0.5 * math.log(2)),
        (3, 1): pytest.approx(0.5 * math.log(4)),
    }
    assert not list(LogitAdjustment([((5, 6, 1), 3)], 0.0).adjustments((5, 6, 1), 0, 3))


def test_the_loss_is_that_of_the_adjusted_logits(made, tmp_path):
    encoder, tokenizer = made
    records = list(read_jsonl(GOLDEN / "sample.jsonl"))
    config = kgclue.Task.prepare(kgclue.Settings(kb=str(GOLDEN / "kb.tsv")), records, tmp_path)
    task = kgclue.Task(config, tokenizer, tmp_path)
    model, batch = (
        task.build_model(encoder),
        task.collate([task.read(record) for _, record in records]),
    )
    logits_NV = model.logits(batch.pairs).double()
    for target, token, value in zip(batch.target_I, batch.token_I, batch.value_I, strict=True):
        logits_NV[target, token] += value
    loss_N = torch.nn.functional.cross_entropy(logits_NV, batch.pairs.targets_N, reduction="none")
    expected_B = torch.stack([part.sum() for part in loss_N.split(batch.pairs.count_B.tolist())])
    torch.testing.assert_close(model(batch).double(), expected_B, rtol=1e-5, atol=1e-5)
    assert len(batch.value_I)


@pytest.mark.parametrize(
    "record", [{}, {"question": 3}, {"question": "谁？", "answer": "甲 ||| 乙"}]
)
def test_a_wrong_record_names_its_field(made, record):
    task = kgclue.Task(kgclue.Settings(), made[1], None)
    with pytest.raises(RecordError, match="question|answer"):
        task.read(record)


def test_a_task_without_a_knowledge_base_says_so(made, tmp_path):
    with pytest.raises(SettingsError, match=r"kgclue\.kb: expected a knowledge base"):
        kgclue.Task.prepare(kgclue.Settings(), [], tmp_path)
    with pytest.raises(SettingsError, match=r"kgclue\.kb: expected a knowledge base"):
        _ = kgclue.Task(kgclue.Settings(), made[1], None).kb


def test_gold_that_the_knowledge_base_lacks_is_reported(tmp_path):
    wrong = ["云泽（湖泊） ||| 面积 ||| 1亩", "甲 ||| 乙 ||| 丙"]
    records = [{"question": f"云泽{n}", "answer": answer} for n, answer in enumerate(wrong)]
    file = write_lines(
        tmp_path / "data.jsonl", [*(r for _, r in read_jsonl(GOLDEN / "sample.jsonl")), *records]
    )
    checking = check_data("kgclue", str(file), None, "tiny", [f"kgclue.kb={GOLDEN / 'kb.tsv'}"])
    found = list(checking)
    assert [(where, kind) for where, kind, _ in found] == [
        (f"{file}:{n}", "unknown triple") for n in (11, 12)
    ]
    assert "480平方千米" in found[0][2]
    assert checking.summary()["lost"] == 2


def test_the_command_line(tmp_path):
    kb, run = tmp_path / "kb.tsv", tmp_path / "run"
    shutil.copy(GOLDEN / "kb.tsv", kb)
    data = GOLDEN / "sample.jsonl"
    nlpkit(
        "train", "kgclue", "--data", data, "--dev", data, "--kb", kb, "--out", run, "--epochs", 1
    )
    settings = json.loads((run / "config.json").read_text())["prepared"]
    assert settings["kb"] == str(kb)
    question = '{"question": "桐溪的长度"}\n'.encode()
    first = nlpkit("predict", run, stdin=question).stdout
    assert json.loads(first)["prediction"]["objects"] == ["30千米"]
    nlpkit("trie", "build", "--task", "kgclue", kb, "-o", tmp_path / "kb.trie")
    assert nlpkit("predict", run, "--kb", tmp_path / "kb.trie", stdin=question).stdout == first
    kb.write_text("桐溪\t长度\t31千米\n", encoding="utf-8")
    refused = nlpkit("predict", run, stdin=question, check=False)
    assert refused.returncode == 2
    assert b"not the knowledge base of the training" in refused.stderr
    assert b"--kb" in refused.stderr
    other = nlpkit("predict", run, "--kb", kb, stdin=question).stdout
    assert json.loads(other)["prediction"]["objects"] == ["31千米"]
    assert json.loads(nlpkit("eval", run, "--data", data, "--kb", kb).stdout)["lines"] == 10
