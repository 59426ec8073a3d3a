"""Both tasks of reading comprehension: decoding against brute force, the vote by hand, windows, and
odd input."""

import json
import math
from dataclasses import replace

import pytest
import torch
from conftest import nlpkit, write_lines

from nlpkit import encoders, samples
from nlpkit.config import build
from nlpkit.errors import SettingsError
from nlpkit.evaluation.data_check import check_data
from nlpkit.inference.predictor import predict_examples
from nlpkit.layers.prefix_lm import Pair, PrefixLM, collate_pairs
from nlpkit.tasks import mrc_mlm, mrc_seq2seq
from nlpkit.tasks._mrc.answers import Answer, normalise
from nlpkit.tasks._mrc.vote import LISTED, vote
from nlpkit.text.tokenizer import Tokenizer

SHAPE = encoders.ShapeConfig(
    layers=2, hidden_size=32, heads=2, intermediate_size=48, max_length=128
)
RECORDS = [
    {
        "question": "谁写了《长夜》？",
        "passages": ["《长夜》是何晴写的", "何晴住在云岭🙂", "顾平写过ＡＢＣ"],
    },
    {
        "question": "何时？",
        "context": "灯塔１９２１年建成，码头1930年建成，面馆２００５年开张，船票三元，渡口在桐溪，海雾在春天多",
    },
    {"question": "谁？", "passages": ["何晴 顾平", "何晴", "何晴"]},
    {"question": "", "passages": ["", "林薇"]},
    {"question": "谁？", "passages": []},
]
LIMITS = {"max_passage": 16, "max_answer": 5, "max_question": 12}
TASKS = [mrc_seq2seq, mrc_mlm]


@pytest.fixture(scope="module")
def made():
    """A random encoder that is sure of itself."""
    torch.manual_seed(5)
    encoder, backend = encoders.for_pretraining(None, SHAPE)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return encoder.eval(), encoders.tokenizer_of(encoder, backend)


@pytest.fixture
def reader(made):
    """reader(module, **settings) -> (task, model, examples); `silent`: how many of the windows at
    least answer nothing."""
    encoder, tokenizer = made

    def make(module, silent=0, **settings):
        task = module.Task(module.Settings(**{**LIMITS, **settings}), tokenizer, None)
        model, examples = task.build_model(encoder), [task.read(record) for record in RECORDS]
        with torch.no_grad():
            encoder.head.bias.zero_()
            first_RV = first_of(task, model, examples)
            lead_R = first_RV.max(1).values - first_RV[:, tokenizer.sep_id]
            encoder.head.bias[tokenizer.sep_id] = bound_between(lead_R.sort().values, silent)
        return task, model, examples

    yield make
    encoder.head.bias.data.zero_()


def bound_between(lead_R, silent):
    """What lies above the leads of at least `silent` windows: between two that differ clearly, as
    those of equal windows do not."""
    if silent == 0:
        return -9.0
    while lead_R[silent] - lead_R[silent - 1] < 1e-2:
        silent += 1
    return float(lead_R[silent - 1 : silent + 1].mean())


@torch.no_grad()
def first_of(task, model, examples):
    """The scores of the first token in every window."""
    batch = task.collate(examples, targets=False)
    if isinstance(task, mrc_mlm.Task):
        return model.log_probs_of_all(batch, 1)[:, 0]
    return mrc_seq2seq.CachedDecoder(model.encoder, batch.sources).first()


def windows_of(task, model, example):
    """The windows that answer, by what is likeliest first."""
    first_RV = first_of(task, model, [example])
    writes = [int(row.argmax()) != task.tokenizer.sep_id for row in first_RV]
    if task.config.no_answer is False and not any(writes):
        return example.windows
    return [window for window, does in zip(example.windows, writes, strict=True) if does]


def pieces_of(window, most):
    ids = window.token_ids
    return {
        tuple(ids[i:j]) for i in range(len(ids)) for j in range(i + 1, min(len(ids), i + most) + 1)
    }


@torch.no_grad()
def log_shares(task, model, question, windows, written):
    """log q(v) after what was written, from a full pass over every window, in float64."""
    p_MV = []
    for window in windows:
        source = [*window.token_ids, task.tokenizer.sep_id, *question]
        logits_NV = PrefixLM(model.encoder).logits(
            collate_pairs([Pair(source, written)], task.tokenizer)
        )
        p_MV.append(logits_NV[-1].double().softmax(0))
    p_MV = torch.stack(p_MV)
    p_V = p_MV.square().sum(0) / (1 + p_MV.sum(0))
    return (p_V / p_V.sum()).log()


def greedy(task, model, example):
    """(tokens, mean of log q) of the published way, in plain steps."""
    windows, end_id = windows_of(task, model, example), task.tokenizer.sep_id
    if not windows:
        return (), None
    legal = set().union(*(pieces_of(window, 5) for window in windows))
    written, score = (), 0.0
    while True:
        log_q_V = log_shares(task, model, example.question_ids, windows, written)
        longer = [
            piece
            for piece in legal
            if len(piece) > len(written) and piece[: len(written)] == written
        ]
        options = {piece[len(written)] for piece in longer}
        if written:
            options.add(end_id)
        if not options:
            return (), None
        token = max(options, key=lambda token: float(log_q_V[token]))
        score += float(log_q_V[token])
        if token == end_id:
            return written, score / (len(written) + 1)
        written += (token,)


@pytest.mark.parametrize("no_answer", [True, False])
@pytest.mark.parametrize("silent", [0, 4, 8])
def test_windows_write_one_answer_as_published(reader, silent, no_answer):
    task, model, examples = reader(mrc_seq2seq, silent, no_answer=no_answer, beam_size=1)
    found = predict_examples(task, model, examples)
    for example, prediction in zip(examples, found, strict=True):
        tokens, score = greedy(task, model, example)
        assert task.tokenizer.token_ids(prediction.answer) == tokens
        assert_it_stands(example, prediction)
        if tokens:
            assert prediction.score == pytest.approx(math.exp(score), rel=2e-3)
    assert len({normalise(prediction.answer) for prediction in found}) > 2


def test_many_beams_find_the_best_of_all_pieces(reader):
    task, model, examples = reader(mrc_seq2seq, no_answer=False, beam_size=150)
    example = examples[0]
    (prediction,) = predict_examples(task, model, [example])
    scores = {}
    for piece in set().union(*(pieces_of(window, 5) for window in example.windows)):
        steps = [(piece[:i], token) for i, token in enumerate((*piece, task.tokenizer.sep_id))]
        scores[piece] = sum(
            float(
                log_shares(task, model, example.question_ids, example.windows, list(written))[token]
            )
            / len(steps)
            for written, token in steps
        )
    ranked = sorted(scores, key=scores.get, reverse=True)
    found = [prediction, *prediction.alternatives]
    assert len(found) == len(ranked)
    assert [task.tokenizer.token_ids(answer.answer) for answer in found[:5]] == ranked[:5]
    assert [answer.score for answer in found] == pytest.approx(
        [math.exp(scores[p]) for p in ranked], rel=5e-3
    )
    assert all(assert_it_stands(example, answer) for answer in found)


@torch.no_grad()
def by_hand(task, model, example):
    """{answer: score} of one pass: the best pieces of every window, or that of a walk; then the
    vote."""
    end_id, votes = task.tokenizer.sep_id, {}
    for window in windows_of(task, model, example):
        batch, ids = (
            task.collate([replace(example, windows=[window])], targets=False),
            window.token_ids,
        )
        log_probs_LV = model.log_probs_of_all(batch, 6)[0].double()
        if task.config.decoding == "greedy":
            pieces = [walk(log_probs_LV, ids, end_id)] if ids else []
        else:
            pieces = [tuple(ids[i : i + n]) for n in range(1, 6) for i in range(len(ids) - n + 1)]
        scores = {piece: math.exp(mean(log_probs_LV, (*piece, end_id))) for piece in pieces}
        of_window = {}
        for piece in sorted(pieces, key=scores.get, reverse=True)[:LISTED]:
            string = normalise("".join(map(task.tokenizer.backend.id_to_token, piece)))
            of_window[string] = max(scores[piece], of_window.get(string, 0.0))
        for string, score in of_window.items():
            votes.setdefault(string, []).append(score)
    return {string: sum(s * s for s in some) / (1 + sum(some)) for string, some in votes.items()}


def mean(log_probs_LV, tokens):
    return sum(float(log_probs_LV[i, token]) for i, token in enumerate(tokens)) / len(tokens)


def walk(log_probs_LV, ids, end_id):
    written = ()
    while len(written) < 5:
        options = {p[-1] for p in pieces_of_ids(ids, len(written) + 1) if p[:-1] == written}
        token = max(
            options | ({end_id} if written else set()),
            key=lambda t: float(log_probs_LV[len(written), t]),
        )
        if token == end_id:
            break
        written += (token,)
    return written


def pieces_of_ids(ids, length):
    return {tuple(ids[i : i + length]) for i in range(len(ids) - length + 1)}


@pytest.mark.parametrize("decoding", ["exact", "greedy"])
@pytest.mark.parametrize("no_answer", [True, False])
@pytest.mark.parametrize("silent", [0, 4, 8])
def test_answers_of_one_pass_are_those_by_hand(reader, decoding, no_answer, silent):
    task, model, examples = reader(mrc_mlm, silent, decoding=decoding, no_answer=no_answer)
    found = predict_examples(task, model, examples)
    for example, prediction in zip(examples, found, strict=True):
        expected = by_hand(task, model, example)
        assert normalise(prediction.answer) == max(expected, key=expected.get, default="")
        assert_it_stands(example, prediction)
        for answer in (prediction, *prediction.alternatives):
            if answer.answer:
                assert answer.score == pytest.approx(expected[normalise(answer.answer)], rel=2e-3)
    assert len({normalise(prediction.answer) for prediction in found}) > 2


def assert_it_stands(example, answer):
    """The answer is what the passage has at its span."""
    if not answer.answer:
        assert (answer.passage, answer.span, answer.score) == (None, None, None)
        return True
    (text, *_) = [w.encoding.text for w in example.windows if w.passage == answer.passage]
    assert text[slice(*answer.span)] == answer.answer
    return True


@pytest.mark.parametrize("settings", [{}, {"decoding": "greedy"}, {"beam_size": 150}])
def test_no_answer_is_of_unknown_characters_that_look_like_others(reader, settings):
    """Of 锶 and 钪, which are one token, none can be meant; with what stands beside them, each."""
    task, model, _ = reader(mrc_seq2seq if "beam_size" in settings else mrc_mlm, **settings)
    record = {"question": "谁？", "passages": ["锶比钪重", "锶"]}
    (prediction,) = predict_examples(task, model, [task.read(record)])
    found = [answer.answer for answer in (prediction, *prediction.alternatives)]
    assert not {"锶", "钪"} & set(found)
    if "beam_size" in settings:
        assert {"锶比", "比钪", "重"} <= set(found)


def test_equal_answers_are_put_together():
    windows = [
        [Answer("何晴", 0, (3, 5), 0.5), Answer("晴", 0, (4, 5), 0.4)],
        [Answer("顾平", 1, (0, 2), 0.6)],
        [Answer("“何晴”", 2, (0, 4), 0.25)],
    ]
    found = vote(windows)
    assert (found.answer, found.passage, found.span) == ("顾平", 1, (0, 2))
    assert found.score == round(0.36 / 1.6, 4)
    assert found.alternatives[0] == Answer(
        "何晴", 0, (3, 5), float(f"{(0.25 + 0.0625) / 1.75:.4g}")
    )


@pytest.mark.parametrize("module", TASKS)
@pytest.mark.parametrize("no_answer", [True, False])
def test_where_nothing_can_be_answered_there_is_no_answer(reader, module, no_answer):
    task, model, examples = reader(module, no_answer=no_answer)
    assert predict_examples(task, model, examples[-1:])[0].answer == ""
    all_silent = reader(module, silent=7, no_answer=no_answer)
    model.encoder.head.bias.data[task.tokenizer.sep_id] = 1e3
    found = predict_examples(*all_silent)
    assert [bool(prediction.answer) for prediction in found] == [not no_answer] * 4 + [False]


@pytest.mark.parametrize("module", TASKS)
def test_a_question_in_a_batch_is_answered_as_alone(reader, module):
    task, model, examples = reader(module, silent=5, no_answer=False)
    together = predict_examples(task, model, examples)
    for example, prediction in zip(examples, together, strict=True):
        (alone,) = predict_examples(task, model, [example])
        assert (alone.answer, alone.passage, alone.span) == (
            prediction.answer,
            prediction.passage,
            prediction.span,
        )
        if prediction.answer:
            assert alone.score == pytest.approx(prediction.score, rel=1e-3)


@pytest.mark.parametrize("module", TASKS)
def test_what_is_read_does_not_hold_the_answer(reader, module):
    task, _, _ = reader(module)
    one = task.read({"question": "谁？", "passages": ["何晴来了", "顾平"], "answers": ["何晴"]})
    other = task.read({"question": "谁？", "passages": ["何晴来了", "顾平"], "answers": ["顾平"]})
    rows = [
        getattr(task.collate([example]), "tokens" if module is mrc_mlm else "sources")
        for example in (one, other)
    ]
    assert rows[0].token_ids_BT.equal(rows[1].token_ids_BT)
    assert [w.target for w in one.windows] != [w.target for w in other.windows]


@pytest.mark.parametrize("module", TASKS)
def test_the_loss_is_the_mean_over_windows_of_the_sum_over_tokens(reader, module):
    task, model, _ = reader(module)
    example = task.read({"question": "谁？", "passages": ["何晴来了", "顾平"], "answers": ["何晴"]})
    with torch.no_grad():
        (loss,) = model(task.collate([example]))
        parts = []
        for window in example.windows:
            wanted = [*window.target, task.tokenizer.sep_id]
            if module is mrc_mlm:
                batch = task.collate([replace(example, windows=[window])], targets=False)
                rows = model.log_probs_of_all(batch, len(wanted))[0]
            else:
                source = [*window.token_ids, task.tokenizer.sep_id, *example.question_ids]
                pair = collate_pairs([Pair(source, window.target)], task.tokenizer)
                rows = PrefixLM(model.encoder).logits(pair).log_softmax(-1)
            parts.append(-sum(float(rows[i, token]) for i, token in enumerate(wanted)))
    assert [len(w.target) for w in example.windows] == [2, 0]
    assert float(loss) == pytest.approx(sum(parts) / 2, rel=1e-4)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(SettingsError, match="beam_size: expected at least 1, got 0"):
        build(mrc_seq2seq.Settings, {"beam_size": 0}, "mrc_seq2seq")
    with pytest.raises(SettingsError, match="max_passage: expected at least twice max_answer"):
        build(mrc_mlm.Settings, {"max_passage": 8, "max_answer": 5}, "mrc_mlm")


def test_a_vocabulary_without_masks_is_refused():
    backend = encoders.load_tokenizer("tiny").backend
    without = json.loads(backend.to_str())
    without["model"]["vocab"] = {
        k: v for k, v in without["model"]["vocab"].items() if k != "[MASK]"
    }
    without["added_tokens"] = [
        token for token in without["added_tokens"] if token["content"] != "[MASK]"
    ]
    tokenizer = Tokenizer(type(backend).from_str(json.dumps(without)))
    with pytest.raises(SettingsError, match=r"no \[MASK\]"):
        mrc_mlm.Task(mrc_mlm.Settings(), tokenizer, None)


@pytest.mark.parametrize("module", TASKS)
def test_from_the_command_line(made, tmp_path, module):
    from nlpkit.encoders.checkpoint.load import save_encoder

    encoder, tokenizer = made
    (tmp_path / "encoder").mkdir()
    save_encoder(tmp_path / "encoder", encoder, tokenizer.backend)
    name = module.__name__.rsplit(".", 1)[1]
    lines = [{"id": 10**20, **record} for record in samples.records(name, 30, seed=1)]
    data, out = write_lines(tmp_path / "data.jsonl", lines), tmp_path / "run"
    limits = [
        f"--set={name}.{key}={value}" for key, value in {**LIMITS, "max_question": 40}.items()
    ]
    nlpkit("train", name, "--data", data, "--dev", data, "--encoder", tmp_path / "encoder", "--out", out,
           "--epochs=1", *limits)  # fmt: skip
    predicted = tmp_path / "predicted.jsonl"
    predicted.write_bytes(nlpkit("predict", out, data).stdout)
    first = json.loads(predicted.read_text(encoding="utf-8").splitlines()[0])
    assert list(first) == [*lines[0], "prediction"]
    assert list(first["prediction"]) == ["answer", "passage", "span", "score", "alternatives"]
    of_run = json.loads(nlpkit("eval", out, "--data", data, "--by", "length").stdout)
    of_file = json.loads(
        nlpkit("eval", "--task", name, "--data", predicted, "--by", "length").stdout
    )
    assert {key: value for key, value in of_run.items() if key not in ("run", "data")} == {
        key: value for key, value in of_file.items() if key != "data"
    }
    assert sum(group["gold"] for group in of_run["by"].values()) == 30


def test_check_tells_what_is_lost_and_what_repeats(tmp_path):
    lines = [
        {"question": "谁？", "context": "何晴", "answers": ["何晴"]},
        {"question": "谁？", "context": "顾平", "answers": ["何晴"]},
        {"question": "谁？", "context": "何晴", "answers": []},
        {"question": "", "passages": ["何晴"], "answers": ["何晴"]},
        {"question": "谁？", "answers": ["何晴"]},
    ]
    file = str(write_lines(tmp_path / "data.jsonl", lines))
    checking = check_data("mrc-mlm", file, None, "tiny", [])
    assert list(checking) == [
        (f"{file}:2", "in no passage", '"何晴"'),
        (f"{file}:3", "duplicate", f"the same text as {file}:1"),
        (f"{file}:4", "blank question", "there is nothing to go by"),
        (f"{file}:5", "unreadable", 'missing field "passages"'),
    ]
    assert checking.summary()["survives"] == 0.75
