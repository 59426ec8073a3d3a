"""The contract of every task, on its own sample: what a base class would promise, checked."""

import dataclasses
import inspect
import itertools
import json
import typing
from functools import partial
from pathlib import Path

import pytest
import torch

from nlpkit import encoders, samples, tasks
from nlpkit.errors import RecordError, SettingsError
from nlpkit.inference.predictor import predict_examples
from nlpkit.jsonl import read_jsonl
from nlpkit.run import Run, load
from nlpkit.task import KnowledgeBase

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = {
    "hidden_size": 64,
    "dilations": (1, 2),
    "lstm_layers": 1,
    "lstm_size": 32,
    "character_size": 32,
    "word_size": 16,
    "tag_size": 16,
}
STILL = {"dropout": 0.0, "embedding_dropout": 0.0, "hide_word": 0.0, "hide_character": 0.0}


BERT = encoders.ShapeConfig(
    layers=2, hidden_size=64, heads=2, intermediate_size=128, max_length=512, dropout=0.0
)


def small_encoder(with_head):
    """(encoder, tokenizer, name) of a dgcnn, or of a BERT with its masked-LM head."""
    if not with_head:
        return *encoders.load("dgcnn", encoders.settings_of("dgcnn")(**SIZES, **STILL)), "dgcnn"
    encoder, backend = encoders.for_pretraining(None, BERT)
    return encoder, encoders.tokenizer_of(encoder, backend), "small"


GIVEN = {"text", "question", "passages", "context"}
"""Fields that are there without gold too."""
GIVEN_OF = {"cln": {"label"}, "xiangqi": {"moves", "fen"}}
"""The same for tasks that differ."""
OWN_GOLD = {"xiangqi"}
"""Tasks that learn what they are given: the gold of a game are its moves."""
FOR_CONTRACT = {"cln": {"top_k": 1}, "similarity": {"loss": "am_softmax"}}
"""Settings with which a task that draws at random always writes the same, and with which a loss is
that of one example."""
LEARNT = {"cln": 0.9, "xiangqi": 0.9}
"""How much of 1 a task's monitor reaches where it is a probability."""

BY_HEART = 0.001
"""The loss below which a sample is known."""


def bare(task, text):
    """The record of a text that has nothing else to it."""
    if task == "kgclue":
        return {"question": text}
    if task == "xiangqi":
        return {"moves": []}
    if task == "cln":
        return {"label": "晴", "prefix": text[:30]}
    if task.startswith("mrc_"):
        return {"question": "谁？", "context": text}
    return {"text": text + "[MASK]"} if task == "fill_mask" else {"text": text}


class Case:
    """A task with a small encoder and its sample."""

    def __init__(self, name, folder, **settings):
        torch.manual_seed(0)
        sample = GOLDEN / name / "sample.jsonl"
        assert sample.exists(), f"add tests/golden/{name}/sample.jsonl"
        for kb in (GOLDEN / name).glob("kb.*"):
            settings["kb"] = str(kb)
        self.name = name
        self.records = list(read_jsonl(sample))
        task_class = tasks.load(name)
        settings = {**FOR_CONTRACT.get(name, {}), **settings}
        config = task_class.Config(**settings)
        self.has_head = task_class.needs_head(config)
        encoder, tokenizer, self.encoder_name = small_encoder(self.has_head)
        config = task_class.prepare(config, self.records, folder)
        self.task = task_class(config, tokenizer, folder)
        self.examples = [self.task.read(record) for _, record in self.records]
        self.model = self.task.build_model(encoder)
        spec = {"name": self.encoder_name, "spec": encoder.spec()}
        config = {"task": name, "encoder": spec, "settings": {}, "tokenizer_sha256": None}
        self.run = Run(folder, config, self.task, tokenizer, self.model)

    def strings(self, example):
        """What the trained model finds in the text alone."""
        return predict_examples(self.task, self.model, [example])[0]

    def train(self, steps=150):
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-3 if self.has_head else 1e-2)
        self.model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            loss = self.model(self.task.collate(self.examples)).mean()
            loss.backward()
            optimizer.step()
            if loss < BY_HEART:
                break
        self.model.eval()
        return self


WAYS = {**{name: {} for name in tasks.names()}, "entity_linking, generative": {"generative": True}}
"""Settings under which a task has another model."""


@pytest.fixture(params=WAYS)
def case(request, tmp_path):
    return Case(request.param.split(",")[0], tmp_path, **WAYS[request.param])


@pytest.fixture(scope="module", params=WAYS)
def trained(request, tmp_path_factory):
    name = request.param.split(",")[0]
    return Case(name, tmp_path_factory.mktemp(name), **WAYS[request.param]).train()


def test_settings_have_defaults_and_a_docstring_each(case):
    classes = case.task.Config.__mro__[:-1]
    source = "".join(map(inspect.getsource, classes))
    for field in dataclasses.fields(case.task.Config):
        assert field.default is not dataclasses.MISSING
        assert f"    {field.name}:" in source
        assert source.split(f"    {field.name}:", 1)[1].split("\n")[1].strip().startswith('"""'), (
            field.name
        )


def test_every_parameter_gets_a_gradient(case):
    case.model.train()
    case.model(case.task.collate(case.examples)).sum().backward()
    without = [
        name for name, p in case.model.named_parameters() if p.requires_grad and p.grad is None
    ]
    assert not without


def test_the_loss_of_a_batch_is_that_of_its_examples_alone(case):
    assert not case.task.couples_examples
    case.model.eval()
    together = case.model(case.task.collate(case.examples))
    alone = torch.cat([case.model(case.task.collate([example])) for example in case.examples])
    assert together.shape == (len(case.examples),)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_it_learns_its_sample_by_heart(trained):
    predictions = predict_examples(
        trained.task,
        trained.model,
        trained.examples,
        decode=partial(trained.task.evaluate, brief=True),
    )
    metrics = trained.task.score(
        (e.gold, p) for e, p in zip(trained.examples, predictions, strict=True)
    )
    assert metrics[trained.task.monitor] >= LEARNT.get(trained.name, 1.0)


def test_a_text_alone_is_decoded_as_in_a_batch(trained):
    together = predict_examples(trained.task, trained.model, trained.examples)
    alone = [predict_examples(trained.task, trained.model, [e])[0] for e in trained.examples]
    assert list(map(trained.task.facts, together)) == list(map(trained.task.facts, alone))


def test_it_predicts_without_gold(trained):
    gold_fields = {key for _, record in trained.records for key in record} - GIVEN_OF.get(
        trained.name, GIVEN
    )
    bare = [
        {k: v for k, v in record.items() if k not in gold_fields} for _, record in trained.records
    ]
    examples = [trained.task.read(record) for record in bare]
    if trained.name not in OWN_GOLD:
        assert all(example.gold is None for example in examples)
    expected = predict_examples(trained.task, trained.model, trained.examples)
    assert predict_examples(trained.task, trained.model, examples) == expected


def test_a_saved_run_predicts_the_same(trained):
    from nlpkit.text.backend import vocabulary_hash

    trained.run.config["tokenizer_sha256"] = vocabulary_hash(trained.run.tokenizer.backend)
    trained.run.save_new()
    trained.run.save_model({})
    again = load(trained.run.folder)
    examples = [again.task.read(record) for _, record in trained.records]
    expected = predict_examples(trained.task, trained.model, trained.examples)
    assert predict_examples(again.task, again.model, examples) == expected


def test_a_prediction_reads_back_as_itself(trained):
    for prediction in predict_examples(trained.task, trained.model, trained.examples):
        value = json.loads(json.dumps(dataclasses.asdict(prediction)))
        assert trained.task.facts(trained.task.parse(value)) == trained.task.facts(prediction)


def test_tuning_never_scores_worse_than_the_threshold_of_the_loss(trained):
    golds = [example.gold for example in trained.examples]
    loose, strict = (
        predict_examples(
            trained.task,
            trained.model,
            trained.examples,
            decode=partial(trained.task.evaluate, loose=loose, brief=True),
        )
        for loose in (True, False)
    )
    settings = trained.task.tune(zip(golds, loose, strict=True))
    tuned = [trained.task.cut(prediction, settings) for prediction in loose]
    scores = [
        trained.task.score(zip(golds, p, strict=True))[trained.task.monitor]
        for p in (tuned, strict)
    ]
    assert scores[0] >= scores[1]


def test_a_long_text_is_cut_to_windows_and_found_whole(trained):
    if trained.has_head or trained.name.startswith("mrc_"):
        pytest.skip("it writes, or reads passages; its own tests have a long text")
    pieces = [example for example in trained.examples for _ in range(3)]
    gold = {s for e in pieces for _, s in spans_and_strings(dataclasses.asdict(trained.strings(e)))}
    if not gold:
        pytest.skip("it finds no spans; its own tests have a long text")
    text = "。".join(example.encoding.text for example in pieces)
    short = dataclasses.replace(trained.task.config, max_length=48)
    task = type(trained.task)(short, trained.run.tokenizer, trained.run.folder)
    example = task.read({"text": text})
    windows = task.windows(example)
    assert len(windows) > 3
    assert max(map(len, windows)) <= 48
    (prediction,) = predict_examples(task, trained.model, [example])
    found = json.loads(json.dumps(dataclasses.asdict(prediction), ensure_ascii=False))
    places = list(spans_and_strings(found))
    assert all(text[span[0] : span[1]] == string for span, string in places)
    assert len(gold & {string for _, string in places}) >= 0.8 * len(gold)


def spans_and_strings(value):
    """Every (span, string) pair of a prediction, whatever the task calls them."""
    lists = [part for part in value.values() if isinstance(part, (list, tuple))]
    for item in itertools.chain.from_iterable(lists):
        if "start" in item:
            yield (item["start"], item["end"]), item["text"]
        for key in [key for key in item if key.endswith("_span")]:
            yield item[key], item[key.removesuffix("_span")]


def test_an_augmented_example_still_holds_its_gold(case):
    import numpy as np

    augment = case.task.augmenter(case.examples)
    if augment is None:
        pytest.skip("the task does not augment")
    changed = 0
    for seed in range(5):
        for example in case.examples:
            new = augment(example, np.random.default_rng(seed))
            changed += repr(new) != repr(example)
            assert not [finding for finding in case.task.report(new) if finding.lost is not None]
            assert len(new.gold and case.task.facts(new.gold)) <= len(case.task.facts(example.gold))
    assert changed


@pytest.mark.parametrize("value", ["missing", 3, None])
def test_a_wrong_record_names_its_field(case, value):
    field = next(iter(bare(case.name, "")))
    with pytest.raises(RecordError, match=field):
        case.task.read({} if value == "missing" else {field: value})


def test_empty_and_odd_texts_are_decoded(trained):
    for text in ("", " ", "\n", "𠮷😀\u200d", "x" * 3000):
        (prediction,) = predict_examples(
            trained.task, trained.model, [trained.task.read(bare(trained.name, text))]
        )
        assert trained.task.facts(prediction) is not None


def test_the_sample_grammar_makes_records_of_the_task(case):
    records = list(samples.records(case.run.config["task"], 50, seed=3))
    assert records == list(samples.records(case.run.config["task"], 50, seed=3))
    examples = [case.task.read(record) for record in records]
    lost = [
        f
        for e in examples
        for f in case.task.report(e)
        if f.lost is not None and not f.kind.startswith("unknown")
    ]
    assert not lost


@pytest.mark.parametrize("name", tasks.names())
def test_a_knowledge_base_is_a_trait(name):
    """Settings, made-up data and the sample have one, or the task has none and `--kb` is refused."""
    settings = {field.name for field in dataclasses.fields(tasks.load(name).Config)}
    has_kb = issubclass(tasks.load(name), KnowledgeBase)
    assert ({"kb", "kb_sha256"} <= settings) == has_kb
    assert bool(list((GOLDEN / name).glob("kb.*"))) == has_kb
    if has_kb:
        assert tasks.kb_values(name, "x") == {name: {"kb": "x", "kb_sha256": None}}
        assert list(samples.knowledge_base(name, 5, seed=1))
    else:
        with pytest.raises(SettingsError, match=f"{name} has no knowledge base"):
            tasks.kb_values(name, "x")
        with pytest.raises(SettingsError, match=f"{name} has no knowledge base"):
            samples.knowledge_base(name, 5, seed=1)
    assert tasks.kb_values(name, None) == {}


@pytest.mark.parametrize("name", tasks.names())
def test_the_standard_head_learns_the_sample_too(name, tmp_path):
    if "head" not in {f.name for f in dataclasses.fields(tasks.load(name).Config)}:
        return
    case = Case(name, tmp_path, head="standard").train(80)
    predictions = predict_examples(case.task, case.model, case.examples)
    metrics = case.task.score((e.gold, p) for e, p in zip(case.examples, predictions, strict=True))
    assert metrics[case.task.monitor] > 0.9


def test_type_hints_of_settings_are_plain():
    for name in tasks.names():
        hints = typing.get_type_hints(tasks.load(name).Config)
        assert all(hint is not typing.Any for hint in hints.values())


def test_a_task_that_writes_predicts_in_fp32_where_the_precision_is_left_open(tmp_path):
    run = Case("ape210k", tmp_path).run
    run.config["settings"] = {"train": {"precision": "auto"}}
    run.config |= {"precision_choice": {"prediction": {"precision": "bf16"}}, "device": "cpu"}
    assert run.precision == "fp32"
    run.config["settings"]["train"]["precision"] = "bf16"
    assert run.precision == "bf16"
