"""GPLinker: labels by hand, decoding against brute force, scores by hand, silence that is not
"no"."""

import itertools
import json

import pytest
import torch
from conftest import write_lines

from nlpkit import encoders
from nlpkit.errors import DataError
from nlpkit.formats.triples import Prediction, Triple, collect_schema, read_schema
from nlpkit.layers.span_decoding import pairs_in_rows
from nlpkit.tasks.gplinker.task import Task

SIZES = {"hidden_size": 32, "dilations": (1,), "lstm_layers": 1, "lstm_size": 16}
STILL = {"dropout": 0.0, "embedding_dropout": 0.0, "hide_word": 0.0, "hide_character": 0.0}


@pytest.fixture
def parts(tmp_path):
    """A task with predicates p and q, and an encoder."""
    records = [("x:1", {"text": "", "spo_list": [["a", "p", "b"], ["a", "q", "b"]]})]
    encoder, tokenizer = encoders.load("dgcnn", encoders.settings_of("dgcnn")(**SIZES, **STILL))
    config = Task.prepare(Task.Config(), records, tmp_path)
    return Task(config, tokenizer, tmp_path), encoder


def test_all_occurrences_are_labelled(parts):
    task, _ = parts
    example = task.read({"text": "甲乙甲", "spo_list": [["甲", "p", "乙"]]})
    entity, head, tail = (
        cells.tolist() for cells in task.labels(example.encoding, example.gold.spo_list)
    )
    assert entity == [[0, 1, 1], [0, 3, 3], [1, 2, 2]]  # tokens, [CLS] is 0
    assert head == tail == [[0, 1, 2], [0, 3, 2]]


def test_nested_and_longer_spans_are_labelled_by_their_ends(parts):
    task, _ = parts
    example = task.read({"text": "云岭大学", "spo_list": [["云岭大学", "q", "云岭"]]})
    entity, head, tail = (
        cells.tolist() for cells in task.labels(example.encoding, example.gold.spo_list)
    )
    assert entity == [[0, 1, 4], [1, 1, 2]]
    assert (head, tail) == ([[1, 1, 1]], [[1, 4, 2]])


def brute_force(task, model, batch, threshold):
    """Every quintuple whose four scores lie above the threshold, by loops over everything."""
    entity, head, tail = (scores.dense().tolist() for scores in model.scores(batch.tokens))
    length = len(entity[0][0])
    spans = [(i, j) for i in range(length) for j in range(i, length)]
    for row, encoding in enumerate(batch.encodings):
        found = {}
        for (sh, st), (oh, ot), p in itertools.product(spans, spans, range(len(task.predicates))):
            score = min(
                entity[row][0][sh][st],
                entity[row][1][oh][ot],
                head[row][p][sh][oh],
                tail[row][p][st][ot],
            )
            if score > threshold:
                subject, object_ = (
                    encoding.text[slice(*encoding.char_span(s))]
                    for s in ((sh, st + 1), (oh, ot + 1))
                )
                key = subject, task.predicates[p], object_
                found[key] = max(found.get(key, -1e9), score)
        yield found


@pytest.mark.parametrize("head", ["efficient", "standard"])
@pytest.mark.parametrize("seed", range(4))
def test_decoding_finds_what_brute_force_finds(parts, head, seed):
    from dataclasses import replace

    torch.manual_seed(seed)
    task, encoder = parts
    task.config = replace(task.config, head=head, initial_score=0.0, threshold=-0.5)
    model = task.build_model(encoder).eval()
    with torch.no_grad():
        batch = task.collate(
            [task.read({"text": text}) for text in ("甲乙丙", "", "云岭ab", "甲")], targets=False
        )
        expected = list(brute_force(task, model, batch, -0.5))
        found = [{t.key: t.score for t in p.spo_list} for p in task.decode(model, batch)]
    assert [set(f) for f in found] == [set(e) for e in expected]
    assert any(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_pairs_are_all_pairs_of_a_text_however_few_at_once():
    s, o = torch.tensor([0, 0, 2, 3]), torch.tensor([0, 1, 2, 2])
    expected = [(i, j) for i in range(4) for j in range(4) if s[i] == o[j]]
    for most in (1, 2, 100):
        pairs = [
            pair
            for some in pairs_in_rows(s, o, most)
            for pair in zip(*(t.tolist() for t in some), strict=True)
        ]
        assert pairs == expected
    assert not list(pairs_in_rows(s[:0], o, 5))


def test_scores_by_hand(parts):
    task, _ = parts

    def prediction(*triples):
        return Prediction([Triple(*triple) for triple in triples])

    pairs = [
        (prediction("apb", "aqb"), prediction("apb", "xpb")),
        (prediction(), prediction("apb")),
        (prediction("cpd"), prediction("cpd")),
    ]
    metrics = task.score(pairs)
    assert (metrics["correct"], metrics["predicted"], metrics["gold"]) == (2, 4, 3)
    assert metrics["precision"] == 0.5
    assert metrics["recall"] == pytest.approx(2 / 3, abs=1e-6)
    assert metrics["f1"] == pytest.approx(4 / 7, abs=1e-6)


def test_the_tolerant_rule_compares_tokens(parts):
    from dataclasses import replace

    task, _ = parts
    gold, other = Prediction([Triple("ＡＢ", "p", "乙")]), Prediction([Triple("ab", "p", "乙")])
    assert task.score([(gold, other)])["f1"] == 0
    task.config = replace(task.config, match="tokens")
    assert task.score([(gold, other)]) == {
        **task.score([(gold, other)]),
        "f1": 1.0,
        "match": "tokens",
    }


def test_silence_on_a_relation_that_was_not_annotated_is_no_no(parts):
    """The loss of a line annotated for p alone has no gradient on q, nor on entities it may have
    left out."""
    task, encoder = parts
    model = task.build_model(encoder)

    def gradients(predicates):
        record = {
            "text": "甲甲、乙、丙",
            "spo_list": [["甲甲", "p", "乙"]],
            **({"predicates": predicates} if predicates else {}),
        }
        model.zero_grad()
        model(task.collate([task.read(record)])).sum().backward()
        start, end = model.head.ends.weight.grad.chunk(2)
        return start.abs().sum(1) + end.abs().sum(1), pushed.pop()

    pushed = []
    scores = model.scores

    def watched(tokens):
        entity, head, tail = scores(tokens)
        entity.pair.register_hook(lambda gradient_BTT: pushed.append(gradient_BTT[0, 1:-1, 1:-1]))
        return entity, head, tail

    model.scores = watched
    (p, q), entity_TT = gradients(None)
    assert p > 0
    assert q > 0
    assert entity_TT[5, 5] > 0  # down with 丙
    (p, q), entity_TT = gradients(["p"])
    assert p > 0
    assert q == 0
    assert entity_TT[5, 5] == 0  # may be an entity of q
    assert entity_TT[0, 0] > 0  # none, as it lies in 甲甲
    assert entity_TT[0, 1] < 0


def test_the_schema_leaves_out_what_no_line_can_teach():
    records = [("x:1", {"spo_list": [["a", "p", "b"], ["a", "stray", "b"]], "predicates": ["p"]})]
    assert list(collect_schema(records, None)) == ["p"]
    with pytest.raises(DataError, match="no relation to learn"):
        collect_schema([("x:1", {"spo_list": []})], None)


def test_duie_2_objects_are_read(parts):
    task, _ = parts
    slots = {"@value": "乙", "inWork": "丙"}
    example = task.read(
        {"text": "甲乙丙", "spo_list": [{"subject": "甲", "predicate": "p", "object": slots}]}
    )
    assert task.facts(example.gold) == {("甲", "p", "乙"): "p"}


def test_check_names_what_the_model_cannot_see(parts):
    task, _ = parts
    triples = [["甲", "p", "乙"], ["丁", "p", "乙"], ["甲", "r", "乙"]]
    findings = list(task.report(task.read({"text": "甲乙甲", "spo_list": triples})))
    assert {f.kind for f in findings} == {
        "occurs more than once",
        "not in the text",
        "unknown predicate",
    }
    assert {f.lost for f in findings if f.lost} == {("丁", "p", "乙"), ("甲", "r", "乙")}
    assert json.dumps([f.message for f in findings])


def test_a_schema_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "schema.txt"
    path.write_bytes("author\n作者\n".encode("gb18030"))
    with pytest.raises(DataError, match=r"schema.txt:2: not UTF-8"):
        read_schema(path)


PAIRS = [["人物", "机构"], ["人物", "学校"]]


def typed(*types):
    """A record with a triple of the predicate `任职` for each pair of types."""
    triples = [
        {
            "subject": "顾平",
            "predicate": "任职",
            "object": "云岭",
            "subject_type": subject,
            "object_type": object_,
        }
        for subject, object_ in types
    ]
    return {"text": "顾平在云岭", "spo_list": triples}


@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[::-1]])
def test_a_schema_keeps_all_types_of_a_predicate_in_any_order(pairs):
    together = collect_schema([("f:1", typed(*pairs))], None)
    apart = collect_schema([(f"f:{n}", typed(pair)) for n, pair in enumerate(pairs)], None)
    assert together == apart == {"任职": sorted(PAIRS)}


@pytest.mark.parametrize("clash_comes_first", [True, False])
def test_types_that_clash_are_refused_wherever_they_stand(tmp_path, clash_comes_first):
    schema = write_lines(
        tmp_path / "schema.jsonl",
        [{"predicate": "任职", "subject_type": "人物", "object_type": "机构"}],
    )
    pairs = [["人物", "地点"], ["人物", "机构"]]
    if not clash_comes_first:
        pairs.reverse()
    with pytest.raises(DataError, match="f:1: types of .* clash .* 人物-机构, got 人物-地点"):
        collect_schema([("f:1", typed(*pairs))], str(schema))
