"""Conditional generation: conditions, forms, prefixes, seeds, the cache, and records that are
wrong."""

import json
from functools import partial

import pytest
import torch
from conftest import nlpkit, write_lines

from nlpkit import encoders
from nlpkit.config import build
from nlpkit.decoding.sampling import sample
from nlpkit.errors import DataError, RecordError, SettingsError
from nlpkit.evaluation.data_check import check_data
from nlpkit.inference.filter import Filter
from nlpkit.inference.predictor import Predictor, predict_examples
from nlpkit.jsonl import Line, dumps
from nlpkit.layers.conditional_norm import ConditionalNorm
from nlpkit.layers.prefix_lm import Pair, collate_pairs
from nlpkit.tasks.cln.conditions import Condition, ConditionSpace, ConditionVectors, read_condition
from nlpkit.tasks.cln.model import ConditionedDecoder
from nlpkit.tasks.cln.poem_forms import fits, form_of
from nlpkit.tasks.cln.task import Settings, Task
from nlpkit.text.tokenizer import TokenBatch

POEM = "云起山初白，风回水自流。不知松下月，夜夜为谁留。"
RECORDS = [
    {"label": "五言绝句", "text": POEM},
    {"label": "七言绝句", "text": POEM.replace("，", "时时，").replace("。", "处处。")},
    {"label": "词", "text": "云起，山白。"},
]
FAMILIES = {
    "bert": {},
    "ernie": {"use_task_id": True},
    "electra": {"embedding_size": 16},
    "roformer": {},
}


def make(folder, records=RECORDS, family="roformer", **settings):
    """(task, model) for some records; the model's norms have learnt something."""
    torch.manual_seed(0)
    shape = {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    backend = encoders.load_tokenizer("tiny").backend
    sizes = {
        "vocab_size": backend.get_vocab_size(),
        "max_position_embeddings": 100,
        "initializer_range": 0.2,
    }
    config = {"model_type": family, **shape, **sizes, **FAMILIES[family]}
    encoder = encoders.build({"kind": "transformer", "config": config, "head": True})
    settings = {"max_length": 40, **settings}
    prepared = Task.prepare(
        Settings(**settings), [(f"f:{n}", r) for n, r in enumerate(records, 1)], folder
    )
    task = Task(prepared, encoders.tokenizer_of(encoder, backend), folder)
    model = task.build_model(encoder)
    for module in model.modules():
        if isinstance(module, ConditionalNorm):
            for parameter in module.undecayed:
                torch.nn.init.normal_(parameter, std=0.3)
    return task, model.eval()


def numbered(task, records):
    """The examples of the lines of a file."""
    return [task.numbered(task.read(record), number) for number, record in enumerate(records, 1)]


def texts(task, model, *records):
    return [p.texts for p in predict_examples(task, model, numbered(task, records))]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_sees_nothing_of_what_comes_later(tmp_path, family):
    task, model = make(tmp_path, family=family)
    words = [task.tokenizer.token_ids(text) for text in ("云起山初白", "云起山风回")]
    batch = collate_pairs([Pair((), target) for target in words], task.tokenizer)
    condition = model.vectors(task.space.tensor([Condition({"label": "词"})] * 2))
    with torch.no_grad(), model.norms.given(condition):
        first_NV, other_NV = model.logits(batch).chunk(2)
    torch.testing.assert_close(first_NV[:4], other_NV[:4], rtol=1e-4, atol=1e-4)
    assert (first_NV[4:] - other_NV[4:]).abs().max() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_gives_the_logits_of_the_whole_text(tmp_path, family):
    task, model = make(tmp_path, family=family)
    words = [list(task.tokenizer.token_ids(text)) for text in ("云起山初白风", "风回水")]
    begun = [2, 0]  # tokens of each text that are a prefix
    batch = task.collate(
        [task.read({"label": "词", "prefix": "云起"}), task.read({"label": "五言绝句"})],
        targets=False,
    )
    pairs = collate_pairs([Pair((), target) for target in words], task.tokenizer)
    with torch.no_grad(), model.norms.given(model.vectors(batch.condition)):
        whole = model.logits(pairs).split(pairs.count_B.tolist())
        decoder = ConditionedDecoder(model, batch.sources, model.vectors(batch.condition))
        logits_BV = decoder.first()
        for step in range(3):
            for row in range(2):
                torch.testing.assert_close(
                    logits_BV[row], whole[row][begun[row] + step], rtol=1e-3, atol=1e-3
                )
            token_B1 = torch.tensor([[words[row][begun[row] + step]] for row in range(2)])
            logits_BV = decoder.next(token_B1, torch.zeros_like(token_B1))[:, 0]


class Recomputing:
    """`Model` of nlpkit.decoding that reads everything again in every step."""

    def __init__(self, model, sources, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.targets = [[] for _ in sources]

    def first(self):
        pairs = collate_pairs([Pair((), target) for target in self.targets], self.tokenizer)
        return torch.stack(
            [part[-1] for part in self.model.logits(pairs).split(pairs.count_B.tolist())]
        )

    def next(self, token_BK, beam_BK):
        self.targets = [
            [*t, token] for t, (token,) in zip(self.targets, token_BK.tolist(), strict=True)
        ]
        return self.first()[:, None]


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("top_p", [0.6, 1.0])
def test_samples_with_the_cache_are_those_without(tmp_path, top_k, top_p):
    task, model = make(tmp_path)
    model.double()  # in float32 tokens of nearly one probability change places
    seeds = list(range(52))
    rows = list(range(len(seeds)))
    labels = ["词", "五言绝句"] * (len(seeds) // 2)
    batch = task.collate([task.read({"label": label}) for label in labels], targets=False)
    vocabulary = model.encoder.vocabulary_size
    constraint = task.metres.constraint([""] * len(seeds), rows, vocabulary, "cpu")
    condition_BC = model.vectors(batch.condition)
    with torch.no_grad(), model.norms.given(condition_BC):
        decoders = (
            ConditionedDecoder(model, batch.sources, condition_BC),
            Recomputing(model, rows, task.tokenizer),
        )
        found = [
            sample(d, constraint, seeds, 12, top_k=top_k, top_p=top_p).lists() for d in decoders
        ]
    assert [[tokens for tokens, _ in row] for row in found[0]] == [
        [tokens for tokens, _ in row] for row in found[1]
    ]


def test_forms_are_exact_under_the_mask(tmp_path):
    task, model = make(tmp_path, form="label", samples=5)
    for search in ("sample", "beams"):
        task.config = Settings(form="label", samples=5, max_length=40, search=search)
        of_five, of_seven, free = texts(
            task, model, *({"label": record["label"]} for record in RECORDS)
        )
        assert [len(some) for some in (of_five, of_seven, free)] == [5, 5, 5]
        assert all(fits(text, form_of("五言绝句")) for text in of_five)
        assert all(fits(text, form_of("七言绝句")) for text in of_seven)
        assert len(set(of_five)) == 5
        assert all(text and "[" not in text for text in free)


def test_a_pattern_of_ones_own(tmp_path):
    task, model = make(tmp_path, form="字字，字！", samples=3)
    assert all(fits(text, "字字，字！") for text in texts(task, model, {"label": "词"})[0])
    task, model = make(tmp_path, [{"label": "七言律诗", "text": "云"}], form="label")
    with pytest.raises(RecordError, match=r"64 characters, cln.max_length is 40"):
        task.read({"label": "七言律诗"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "七言律诗"}, "cln.form: 64 characters, max_length is 40"),
        ({"form": "字…"}, 'one token each, got "…"'),
        ({"max_length": 99}, r"cln.max_length: expected at most 98, got 99: the encoder takes 100"),
    ],
)
def test_a_setting_that_is_wrong_for_every_line_is_refused_before_any(tmp_path, settings, message):
    with pytest.raises(SettingsError, match=message):
        make(tmp_path, **settings)


def test_a_prefix_is_gone_on_with(tmp_path):
    task, model = make(tmp_path, samples=3)
    assert all(
        t.startswith("Ａ𠮷云") and len(t) > 2
        for t in texts(task, model, {"label": "词", "prefix": "Ａ𠮷云"})[0]
    )
    task.config = Settings(form="label", max_length=40)
    for prefix in ("云", "云起山初白，", POEM[:-1], POEM):
        (found,) = texts(task, model, {"label": "五言绝句", "prefix": prefix})
        assert found[0].startswith(prefix)
        assert fits(found[0], form_of("五言绝句"))
    with pytest.raises(RecordError, match='field "prefix": expected the beginning of'):
        task.read({"label": "五言绝句", "prefix": "云，"})
    with pytest.raises(RecordError, match='field "prefix": expected at most 58 tokens, got 59'):
        task.read({"label": "词", "prefix": "云" * 59})
    with pytest.raises(RecordError, match="begin with the prefix"):
        task.read({"label": "词", "prefix": "云", "text": "山"})
    (found,) = texts(task, model, {"label": "词", "prefix": "云" * 58})
    assert len(found[0]) <= 98


def test_a_file_has_the_same_texts_whatever_the_batches(tmp_path):
    task, model = make(tmp_path, samples=2, max_length=8)
    records = [{"label": RECORDS[n % 3]["label"]} for n in range(9)]
    whole = numbered(task, records)
    found = predict_examples(task, model, whole)
    assert found == predict_examples(task, model, whole, batch_size=2)
    assert found[4:] == predict_examples(task, model, whole[4:])  # whatever came before
    assert (
        len({text for prediction in found for text in prediction.texts}) > 12
    )  # lines alike are drawn apart
    again = Task(task.config, task.tokenizer, tmp_path)
    assert found == predict_examples(again, model, numbered(again, records))
    task.config = Settings(samples=2, max_length=8, seed=2)
    assert found != predict_examples(task, model, whole)


def test_a_bad_line_and_another_cut_of_the_file_change_no_text(tmp_path):
    task, model = make(tmp_path, samples=2, max_length=8)
    good = [
        Line(f"x:{number}", number, dumps({"label": RECORDS[number % 3]["label"]}))
        for number in (1, 3, 4, 6, 7)
    ]
    bad = [Line(f"x:{n}", n, dumps({"label": "词", "prefix": "云" * 200})) for n in (2, 5)]
    expected = list(written(task, model, good))
    assert len(set(expected)) == len(good)
    among_bad = sorted([*good, *bad], key=lambda line: line.number)
    assert list(written(task, model, among_bad)) == expected
    assert list(written(task, model, among_bad, batch_size=1, unbuffered=True)) == expected
    shards = [*written(task, model, good[3:]), *written(task, model, good[:3])]
    assert shards == [*expected[3:], *expected[:3]]


def written(task, model, lines, batch_size=64, **options):
    """What the filter writes for the good ones of some lines."""
    predictor = Predictor(task, model, batch_size=batch_size)
    for chunk in Filter(predictor, on_error="skip", **options)(lines):
        yield from chunk.splitlines()


def test_nothing_comes_twice_where_it_is_forbidden(tmp_path):
    task, model = make(tmp_path, samples=4, no_repeat=1, temperature=0.3)
    assert all(len(set(text)) == len(text) for text in texts(task, model, {"label": "词"})[0])


def test_punctuation_is_written_as_in_training(tmp_path):
    task, _ = make(tmp_path)
    assert task.metres.text(task.tokenizer.token_ids("云,山。"), "", "") == "云，山。"
    other, _ = make(tmp_path, [{"label": "a", "text": "OK, ok, OK。"}])
    assert other.metres.text(other.tokenizer.token_ids("ok，"), "", "") == "OK,"


def test_assessing_is_of_the_right_and_of_a_wrong_condition(tmp_path):
    task, model = make(tmp_path)
    examples = [task.read(record) for record in RECORDS]
    brief = predict_examples(task, model, examples, decode=partial(task.evaluate, brief=True))
    for number, (record, assessed) in enumerate(zip(RECORDS, brief, strict=True)):
        assert assessed.texts == []
        assert assessed.tokens == len(record["text"]) + 1
        labels = [
            record["label"],
            {"七言绝句": "五言绝句", "五言绝句": "词", "词": "七言绝句"}[record["label"]],
        ]
        for label, nats in zip(labels, (assessed.nats, assessed.wrong_nats), strict=True):
            alone = model(task.collate([task.read({**record, "label": label})])).item()
            assert nats == pytest.approx(alone, rel=1e-4), number
    metrics = task.score(zip([e.gold for e in examples], brief, strict=True))
    assert metrics["likelihood"] == pytest.approx(1 / metrics["perplexity"], rel=1e-2)
    whole = predict_examples(task, model, examples, decode=task.evaluate)
    assert all(len(prediction.texts) == 1 for prediction in whole)
    assert [a.nats for a in whole] == [a.nats for a in brief]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"label": "五言绝句诗"}, 'got "五言绝句诗"; did you mean "五言绝句"'),
        ({"label": " "}, "expected a string or a whole number"),
        ({"label": {"form": "词"}}, 'expected label, got "form"'),
        ({}, 'missing field "label"'),
        ({"vector": [1.0]}, 'field "vector": expected "label"'),
        ({"label": "词", "text": ""}, "got an empty text"),
        ({"label": "词", "text": " \n"}, "got an empty text"),
        ({"label": "词", "text": 3}, 'field "text": expected a string, got int'),
        ({"label": "词", "prefix": ["云"]}, 'field "prefix": expected a string, got list'),
        ({"label": "词", "vector": [1.0]}, "got both"),
    ],
)
def test_wrong_labels_and_texts(tmp_path, record, message):
    task, _ = make(tmp_path)
    with pytest.raises(RecordError, match=message):
        task.read(record)


VECTORS = [{"vector": [float(n), 5.0, -n * 1e6], "text": "云" * (n + 1)} for n in range(4)]


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, 2.0], "expected 3 numbers, got 2"),
        ([1.0, float("nan"), 2.0], "expected finite numbers, got nan at 1"),
        ([1.0, 2.0, float("inf")], "expected finite numbers, got inf at 2"),
        ([1.0, None, 2.0], "expected finite numbers, got None at 1"),
        ([True, 1, 2], "expected finite numbers, got True at 0"),
        ([], "expected a list of numbers"),
        ("1 2 3", "expected a list of numbers"),
        (None, "expected 3 numbers, got 0"),
    ],
)
def test_wrong_vectors(tmp_path, vector, message):
    task, _ = make(tmp_path, VECTORS)
    with pytest.raises(RecordError, match=message):
        task.read(
            {"vector": vector, "text": "云"}
            if vector is not None
            else {"text": "云", "prefix": "云"}
        )


def test_vectors_are_standardised_and_move_the_texts(tmp_path):
    task, model = make(tmp_path, VECTORS, max_length=6)
    assert task.space.deviation[1] == 1.0  # the same in all of them
    condition = task.space.tensor([Condition(vector=tuple(record["vector"])) for record in VECTORS])
    scaled = (condition - model.vectors.mean_D) / model.vectors.deviation_D
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert model.vectors(condition).abs().max() < 10
    found = texts(task, model, *({"vector": record["vector"]} for record in VECTORS))
    assert len({some[0] for some in found}) == 4
    mirrored = task.space.wrong(Condition(vector=(0.0, 5.0, 0.0)))
    assert mirrored.vector == pytest.approx((3.0, 5.0, -3e6))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"label": "a", "text": "云"}, {"text": "云"}], "f:2: no condition"),
        (
            [{"vector": [1, 2], "text": "云"}, {"vector": [1], "text": "云"}],
            "f:2: expected a vector of 2 numbers",
        ),
        ([{"label": "a", "text": "云"}, {"vector": [1], "text": "云"}], "f:2: expected a vector"),
        ([{"label": "a", "text": "云"}, {"label": 1.5, "text": "云"}], 'f:2: field "label"'),
    ],
)
def test_training_data_whose_conditions_do_not_go_together(tmp_path, records, message):
    with pytest.raises(DataError, match=message):
        make(tmp_path, records)


def test_attributes_add_up(tmp_path):
    records = [
        {"label": {"form": form, "mood": mood}, "text": "云"}
        for form in ("诗", "词")
        for mood in ("喜", "悲")
    ]
    task, model = make(tmp_path, records)
    assert task.space.attributes == {"form": ["词", "诗"], "mood": ["喜", "悲"]}
    both, form, mood = ({"form": "诗", "mood": "悲"}, {"form": "诗"}, {"mood": "悲"})
    c_BC = model.vectors(
        task.space.tensor([read_condition({"label": label}) for label in (both, form, mood)])
    )
    torch.testing.assert_close(c_BC[0], c_BC[1] + c_BC[2])
    assert task.space.wrong(Condition(both)).labels == {"form": "词", "mood": "喜"}
    with pytest.raises(
        RecordError, match=r'field "label.mood": expected a label of the training data'
    ):
        task.read({"label": {"mood": "怒"}})
    with pytest.raises(RecordError, match='field "label": expected form, mood, got "label"'):
        task.read({"label": "诗"})


def test_ten_thousand_labels(tmp_path):
    task, model = make(
        tmp_path, [{"label": n, "text": f"云{n}"} for n in range(10_000)], max_length=4
    )
    assert model.vectors.labels.weight.shape == (10_001, task.config.size)
    assert len(texts(task, model, {"label": 9999})[0]) == 1
    with pytest.raises(RecordError, match="9992 more"):
        task.read({"label": "10000"})


def test_no_labels_is_a_space_too():
    vectors = ConditionVectors(ConditionSpace(), 4)
    assert vectors(ConditionSpace().tensor([Condition(), Condition()])).tolist() == [[0.0] * 4] * 2


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": 0},
        {"samples": 0},
        {"seed": -1},
    ],
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(SettingsError, match=f"cln.{next(iter(settings))}"):
        build(Settings, settings, "cln")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with made-up reviews, and runs of cln and classification on them that are bad, but
    work."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "data.jsonl").write_bytes(nlpkit("data", "sample", "cln", "--count", 60).stdout)
    flags = [
        "--set=train.precision=fp32",
        "--epochs=1",
        "--encoder=tiny",
        "--set=cln.max_length=20",
    ]
    data = folder / "data.jsonl"
    nlpkit("train", "cln", "--data", data, "--dev", data, "--out", folder / "cln", *flags)
    nlpkit(
        "train",
        "classification",
        "--data",
        data,
        "--dev",
        data,
        "--out",
        folder / "judge",
        *flags[:3],
    )
    return folder


def test_eval_tells_all_its_metrics(trained):
    data = trained / "data.jsonl"
    pairs = [f"--set=cln.classifier={trained / 'judge'}", f"--set=cln.training=['{data}']"]
    metrics = json.loads(nlpkit("eval", trained / "cln", "--data", data, *pairs).stdout)
    names = "likelihood perplexity wrong_perplexity agreement distinct_1 distinct_2 self_bleu copied_12 copied_mean"
    assert set(names.split()) <= metrics.keys()
    assert metrics["texts"] == metrics["lines"] == 60
    done = nlpkit(
        "eval",
        trained / "cln",
        "--data",
        data,
        f"--set=cln.classifier={trained / 'cln'}",
        check=False,
    )
    assert done.returncode == 2
    assert b"expected a run of classification, got one of cln" in done.stderr


def test_predict_takes_settings_and_what_it_wrote_is_scored_alike(trained):
    lines = write_lines(trained / "lines.jsonl", [{"label": "好评", "id": n} for n in range(3)])
    out = nlpkit(
        "predict", trained / "cln", lines, "--set=cln.samples=4", "--set=cln.seed=3"
    ).stdout
    records = [json.loads(line) for line in out.splitlines()]
    assert [len(record["prediction"]["texts"]) for record in records] == [4, 4, 4]
    assert [record["id"] for record in records] == [0, 1, 2]
    assert records[0]["prediction"].keys() == {"texts", "scores"}
    again = write_lines(trained / "again.jsonl", [{**record, "text": "云"} for record in records])
    metrics = json.loads(nlpkit("eval", "--task", "cln", "--data", again).stdout)
    assert metrics["texts"] == 12
    done = nlpkit("predict", trained / "cln", lines, "--set=cln.sample=4", check=False)
    assert done.returncode == 2
    assert b'did you mean "samples"' in done.stderr


def test_bad_lines_are_named(trained):
    lines = '{"label": "好平"}\n{"label": "好评"}\n{"vector": [NaN]}\n'.encode()
    done = nlpkit("predict", trained / "cln", "-", "--on-error=emit", stdin=lines, check=False)
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 4
    assert '(好评, 差评), got "好平"' in first["error"]
    assert second["prediction"]["texts"]
    assert "not valid JSON" in third["error"]


def test_data_check_counts_what_is_cut_and_names_what_cannot_be_read(tmp_path):
    lines = [
        {"label": "a", "text": "云" * 9},
        {"label": "a", "text": ""},
        {"text": "云"},
        {"label": "b"},
    ]
    data = write_lines(tmp_path / "a.jsonl", lines)
    done = nlpkit("data", "check", "cln", data, "--set=cln.max_length=8", check=False)
    assert done.returncode == 3
    assert json.loads(done.stdout)["findings"] == {"unreadable": 2, "cut": 1, "no gold": 1}
    assert b"a.jsonl:2: unreadable" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # the other lines have a space there
        ("云起\n山白", ["a line break at 2 will be written as a space: white space is one token"]),
        ("云起 山白", []),
        ("云起锶山", ["'锶' at 2 is '[UNK]' to the tokenizer, and will be written so"]),
        ("云起,山", []),
    ],
)
def test_data_check_names_what_is_never_written_so(tmp_path, text, told):
    lines = [{"label": "a", "text": "云 山 水"}, {"label": "b", "text": text}]
    data = write_lines(tmp_path / "a.jsonl", lines)
    checking = check_data("cln", str(data), None, "tiny", [])
    assert [message for _, _, message in checking] == told
    kinds = {"written otherwise": 1} if told else {}
    assert checking.summary()["findings"] == kinds


def test_rows_of_a_batch_may_come_several_times():
    tokens = TokenBatch(*(torch.arange(6).view(3, 2) + n for n in range(4)))
    rows = tokens.rows(torch.tensor([2, 0, 2]))
    assert rows.token_ids_BT.tolist() == [[4, 5], [0, 1], [4, 5]]
    assert rows.content_BT.tolist() == [[7, 8], [3, 4], [7, 8]]
    assert rows.word_ids_BT is None
