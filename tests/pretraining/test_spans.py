"""Span selection: which runs recur, what is hidden, where it has to be pointed to, the loss, and a
pretraining that learns it."""

import itertools
import json
import random
import string
import zlib

import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch
from conftest import nlpkit
from small_pretraining import opened, weights

from nlpkit import encoders
from nlpkit.encoders import ShapeConfig
from nlpkit.encoders.base import encode
from nlpkit.pretraining import spans
from nlpkit.pretraining.corpus import HELD_OUT, encode_text, split_tokens, token_type, word_bit
from nlpkit.pretraining.objectives import Pretrainer, masked_batch
from nlpkit.pretraining.pretrain import Pretraining
from nlpkit.pretraining.settings import PretrainConfig, PretrainPlan
from nlpkit.pretraining.spans import (
    CONTENT,
    EMPTY,
    NUMBER,
    WordClasses,
    hide,
    recurring_runs,
    span_batch,
    token_class,
)
from nlpkit.pretraining.steps import Steps
from nlpkit.pretraining.symbols import symbols_of
from nlpkit.training.checkpoints import CHECKPOINT

BACKEND = tokenizers.Tokenizer.from_file(str(encoders.TOKENIZER))
SYMBOLS = symbols_of(BACKEND)
SEP = SYMBOLS.sep_id
SMALL = {"layers": 1, "hidden_size": 32, "heads": 2, "intermediate_size": 48, "max_length": 64}
FEW = {
    "tokens": 5120,
    "batch_tokens": 512,
    "length": 32,
    "long_share": 0.3,
    "evaluate_every": 1536,
    "precision": "fp32",
}


def names(count, seed=0):
    """So many made-up names of two characters."""
    dice = random.Random(seed)
    characters = "江河湖海山川林木花草春夏秋冬东西南北金银铜铁红黄蓝绿龙虎马牛鹤雁"
    return ["".join(dice.sample(characters, 2)) for _ in range(count)]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Lines in which a name stands twice, among other words."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    dice = random.Random(1)
    lines = []
    for _ in range(2600):
        one, two = ("".join(dice.sample(string.ascii_lowercase, 3)) for _ in range(2))
        lines.append(f"{one}在书店，{two}在家。后来{one}写书，而{two}读书。")
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def plan(text, out, **changes):
    return PretrainPlan((text,), out, PretrainConfig(**{**FEW, **changes}), ShapeConfig(**SMALL))


def stored(text):
    """The stored tokens of lines, each with [SEP] behind it."""
    dtype = token_type(BACKEND)
    separator = np.array([SEP], dtype)
    parts = []
    for line in text.splitlines():
        parts += [encode_text(line, BACKEND, dtype), separator]
    return np.concatenate(parts)


def classes_of(*texts):
    return WordClasses(BACKEND, [stored(text) for text in texts])


def shown(ids):
    return BACKEND.decode(list(ids), skip_special_tokens=False).replace(" ", "")


class Toy:
    """Word classes of small numbers: 0 is [SEP], 1 empty, 2 a number, above that content."""

    sep_id = 0

    def of_words(self, ids, bounds):
        kinds = []
        for start, end in itertools.pairwise(bounds):
            kinds.append(max(min(CONTENT, max(0, int(i) - 1)) for i in ids[start:end]))
        return kinds


def brute_force(ids, begins):
    """The runs that count, by comparing every stretch with every other one."""
    ids, begins = ids.tolist(), begins.tolist()
    size = len(ids)
    edges = {n for n in range(size) if begins[n] or ids[n] == 0 or (n > 0 and ids[n - 1] == 0)}
    if size and ids[-1] == 0:
        edges.add(size)

    def kind(start, end):
        return max(min(CONTENT, max(0, i - 1)) for i in ids[start:end])

    def words(start, end):
        inner = sorted(edge for edge in edges if start <= edge <= end)
        return list(itertools.pairwise(inner))

    def is_good(start, end):
        if start not in edges or end not in edges or 0 in ids[start:end]:
            return False
        kinds = [kind(*word) for word in words(start, end)]
        return kinds[0] != EMPTY and kinds[-1] != EMPTY and CONTENT in kinds

    found = []
    for length in range(10, 1, -1):
        for start in range(size - length + 1):
            run = ids[start : start + length]
            places = [n for n in range(size - length + 1) if ids[n : n + length] == run]
            if len(places) < 2 or places[0] != start:
                continue
            is_whole = all(is_good(n, n + length) for n in places)
            if is_whole and all(b - a >= length for a, b in itertools.pairwise(places)):
                found.append((length, tuple(places)))
    counting = []
    for length, places in found:
        mine = {n + k for n in places for k in range(length)}
        earlier = found[: found.index((length, places))]
        others = {n + k for size, starts in earlier for n in starts for k in range(size)}
        if not mine & others:
            counting.append((length, places))
    return counting


def test_runs_are_those_of_a_brute_force_search():
    total = 0
    for seed in range(200):
        dice = np.random.default_rng(seed)
        ids = dice.integers(0, dice.integers(4, 9), dice.integers(2, 40))
        # words are told apart by their tokens: a token goes on with a word or it never does
        begins = (ids % 4 != 3) | (dice.random(len(ids)) < 0.2)
        found = [(run.length, run.starts) for run in recurring_runs(ids, begins, Toy())]
        assert found == brute_force(ids, begins)
        total += len(found)
    assert total > 100


def runs_of(text, *common):
    ids, begins = split_tokens(stored(text))
    classes = classes_of(text)
    encoded = [BACKEND.encode(word, add_special_tokens=False).ids for word in common]
    classes.common = {np.array(token_ids).tobytes() for token_ids in encoded}
    return [
        (shown(ids[run.starts[0] : run.starts[0] + run.length]), len(run.starts))
        for run in recurring_runs(ids, begins, classes)
    ]


def test_which_words_make_a_run():
    sentence = "北京大学在北京，，。。北京大学很大。"
    assert runs_of(sentence, "在", "很") == [("北京大学", 2)]  # 北京 stands in a longer one
    assert runs_of("他去上海，她也去上海。") == [("去上海", 2)]
    assert runs_of("他去上海，她也去上海。", "去") == [("上海", 2)]
    assert runs_of("他去上海。\n她也去上海。", "去") == [("上海", 2)]
    assert runs_of("共1998和1998，。，。") == []  # digits and punctuation alone
    assert runs_of("北京，上海", "在") == []
    assert runs_of("\n") == []


def test_classes():
    assert [token_class(token) for token in ("北", "##ing", "19", "三", "，", "[UNK]", "[")] == [
        CONTENT, CONTENT, NUMBER, NUMBER, EMPTY, EMPTY, EMPTY]  # fmt: skip
    lines = [f"我们在{name}。" for name in names(3000)]
    common = {shown(np.frombuffer(word, np.int64)) for word in classes_of("\n".join(lines)).common}
    assert {"我们", "在", "。"} <= common
    assert len(common) < 60
    few = [
        shown(np.frombuffer(word, np.int64)) for word in classes_of("\n".join(lines[:19])).common
    ]
    assert few == []


def block_of(seed, length=126):
    """A block of lines over few words: rich in runs."""
    dice = random.Random(seed)
    words = names(12, seed)
    lines = []
    for _ in range(length):
        lines.append("，".join(dice.choice(words) for _ in range(dice.randrange(1, 5))) + "。")
    return stored("\n".join(lines))[:length]


def test_what_is_hidden_is_where_it_is_pointed_to():
    classes = classes_of("。，" * 20)
    for seed in range(40):
        block = block_of(seed)
        ids, begins = split_tokens(block)
        runs = recurring_runs(ids, begins, classes)
        hidden = hide(ids, runs, np.random.default_rng(seed), SYMBOLS.mask_id)
        assert len(hidden.masks) > 0
        assert (hidden.ids[hidden.masks] == SYMBOLS.mask_id).all()
        assert (np.diff(hidden.masks) > 0).all()
        restored = []
        bounds = zip(hidden.firsts, hidden.lasts, strict=True)
        gold = dict(zip(hidden.masks.tolist(), bounds, strict=True))
        count = 0
        for place, token_id in enumerate(hidden.ids.tolist()):
            if place not in gold:
                restored.append(token_id)
                continue
            first, last = gold[place]
            run = hidden.ids[first : last + 1].tolist()
            assert SYMBOLS.mask_id not in run
            # it can be seen at one place alone
            text = hidden.ids.tolist()
            assert [n for n in range(len(text)) if text[n : n + len(run)] == run] == [first]
            restored += run
            count += len(run)
        assert restored == ids.tolist()
        assert count <= spans.MOST_HIDDEN * len(ids)


def batch_of(blocks, first=0):
    randoms = [np.random.default_rng((3, first + row)) for row in range(len(blocks))]
    return span_batch(blocks, randoms, 0.25, SYMBOLS, classes_of("。，" * 20))


def plain_block(length=126):
    """A block in which nothing recurs."""
    tokens = np.arange(200, 200 + length).astype(token_type(BACKEND))
    return tokens | word_bit(tokens)


def test_a_block_without_a_run_is_one_of_masked_words():
    blocks = [block_of(1), plain_block(), block_of(2)]
    batch = batch_of(blocks)
    alone = masked_batch([blocks[1]], [np.random.default_rng((3, 1))], 0.25, SYMBOLS)
    assert torch.equal(batch.tokens.token_ids_BT[1], alone.tokens.token_ids_BT[0])
    width = batch.tokens.token_ids_BT.shape[1]
    assert width == 128
    assert torch.equal(batch.places_N, width + alone.places_N)
    assert torch.equal(batch.targets_N, alone.targets_N)
    assert not batch.pointers.are_there()[1].any()
    lengths = batch.tokens.mask_BT.sum(1)
    assert lengths[0] < 128
    assert torch.equal(batch.tokens.token_ids_BT[0, lengths[0] - 1], torch.tensor(SEP))
    nothing = batch_of([plain_block()])
    assert not nothing.pointers.are_there().any()


@pytest.fixture
def double():
    torch.manual_seed(1)
    encoder, _ = encoders.for_pretraining(None, ShapeConfig(**{**SMALL, "max_length": 128}))
    encoders.set_dropout(encoder, 0.0)
    return Pretrainer(encoder, points=True).double()


def test_the_loss_is_that_of_the_equations(double):
    batch = batch_of([block_of(1), plain_block(), block_of(2)])
    with torch.no_grad():
        found = double(batch)
        hidden_BTH = encode(double.encoder, batch.tokens)
        logits_NV = double.logits(batch)
        expected = list(-logits_NV.log_softmax(1)[range(len(batch.targets_N)), batch.targets_N])
        pointers = batch.pointers
        for row, there in enumerate(pointers.are_there().tolist()):
            x_TH = hidden_BTH[row, batch.tokens.mask_BT[row]]
            for index in range(sum(there)):
                q_H = x_TH[pointers.mask_BK[row, index]]
                loss = 0.0
                for side, gold_BK in (("start", pointers.first_BK), ("end", pointers.last_BK)):
                    part = getattr(double.pointing, side)
                    asked_H = of(part.of_mask, q_H) @ part.product.weight.T
                    scores = [asked_H @ of(part.of_token, x_H) for x_H in x_TH]
                    scores = torch.stack(scores) / 32**0.5
                    loss += scores.exp().sum().log() - scores[gold_BK[row, index]]
                expected.append(loss)
    torch.testing.assert_close(found, torch.stack(expected).float(), atol=1e-5, rtol=1e-5)


def of(layers, x_H):
    """LayerNorm(GELU(W x + b)), written out."""
    linear, _, norm = layers
    y_H = linear.weight @ x_H + linear.bias
    y_H = y_H * 0.5 * (1 + torch.erf(y_H / 2**0.5))
    y_H = (y_H - y_H.mean()) / (y_H.var(correction=0) + norm.eps).sqrt()
    return y_H * norm.weight + norm.bias


def test_a_step_does_not_depend_on_how_it_is_cut(double):
    blocks = [block_of(1), plain_block(), block_of(2), block_of(5), plain_block()]
    found = []
    for cuts in ([0, 5], [0, 1, 2, 4, 5]):
        double.zero_grad()
        count = 0
        for start, end in itertools.pairwise(cuts):
            losses = double(batch_of(blocks[start:end], start))
            losses.sum().backward()
            count += len(losses)
        trained = [(name, p) for name, p in double.named_parameters() if p.requires_grad]
        gradients = {name: p.grad.clone() for name, p in trained}
        found.append((count, gradients))
    assert found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        assert gradient.abs().sum() > 0, name
        # the losses are of float32: apart by its rounding
        apart = (gradient - found[1][1][name]).abs().max()
        assert apart < 1e-6 * gradient.abs().max(), name


class Asked:
    """An encoder of which only is asked what it can learn."""

    objective = "masked"
    max_length = 64


def test_the_steps():
    config = PretrainConfig(**{**FEW, "span_share": 0.3, "replaced_share": 0.2})
    steps = Steps(config, Asked)
    kinds = [steps.kind_of(step) for step in range(2000)]
    assert [kind for _, kind in kinds].count("spans") == 599 + 1
    assert all(is_long for is_long, kind in kinds if kind == "spans")
    assert abs([kind for _, kind in kinds].count("prefix") - 500) < 60
    assert abs([kind for _, kind in kinds].count("replaced") - 400) < 60
    others = [is_long for is_long, kind in kinds if kind != "spans"]
    assert sum(others) == 420
    for step in range(0, 2000, 7):
        longs = [is_long for is_long, _ in kinds[:step]]
        assert steps.before(step, True) == sum(longs)
        assert steps.before(step, False) == step - sum(longs)
    alone = Steps(PretrainConfig(**{**FEW, "span_share": 1.0, "prefix_share": 0.0}), Asked)
    assert {alone.kind_of(step) for step in range(50)} == {(True, "spans")}


def test_without_spans_the_steps_are_as_they_were():
    """The rule of before, written out."""
    steps = Steps(PretrainConfig(**{**FEW, "replaced_share": 0.2}), Asked)
    for step in range(500):
        dice = np.random.default_rng((1, 1, step)).random()
        kind = "prefix" if dice < 0.25 else "replaced" if dice < 0.45 else "masked"
        is_long = int((step + 1) * 0.3) > int(step * 0.3)
        assert steps.kind_of(step) == (is_long, kind)
        assert steps.before(step, True) == int(step * 0.3)


def test_a_share_of_0_prepares_nothing(text, tmp_path, monkeypatch):
    monkeypatch.setattr(Pretraining, "_prepare_spans", None)
    made = opened(plan(text, tmp_path / "out", span_share=0.0))
    assert made.state.model.pointing is None
    assert not any("pointing" in name for name in made.state.model.state_dict())


def test_a_resumed_pretraining_equals_a_straight_one_bit_for_bit(text, tmp_path):
    changes = {"span_share": 0.5}
    expected = weights(opened(plan(text, tmp_path / "straight", **changes)))
    weights(opened(plan(text, tmp_path / "stopped", **changes)), 4)
    assert (tmp_path / "stopped" / CHECKPOINT).exists()
    found = weights(opened(plan(text, tmp_path / "stopped", **changes)))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    names = ("metrics.jsonl", "model.safetensors")
    for name in names:
        one, two = (tmp_path / folder / name for folder in ("straight", "stopped"))
        assert one.read_bytes() == two.read_bytes()


def test_it_learns_to_point(tmp_path):
    """To a name before a shop from one before a book, and back: about one line to a block."""
    dice = random.Random(1)
    lines = []
    while len(lines) < 2500:
        name = "".join(dice.sample(string.ascii_lowercase, 3))
        line = f"{name}在书店里，{len(lines)}年后{name}写了书。"
        # enough of what is held out: see `corpus`
        is_held_out = zlib.crc32(line.encode()) % HELD_OUT == 0
        if is_held_out or len(lines) < 2440:
            lines.append(line)
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("\n".join(lines), encoding="utf-8")
    shape = {"layers": 2, "hidden_size": 64, "heads": 2, "intermediate_size": 128}
    settings = {"tokens": 130_000, "batch_tokens": 1024, "evaluate_every": 65_000, "length": 32}
    settings |= {"span_share": 0.9, "prefix_share": 0.05, "average": 0.5, "learning_rate": 5e-3}
    flags = [f"--set=encoder.{k}={v}" for k, v in shape.items()] + ["--set=encoder.max_length=32"]
    flags += [f"--set=pretrain.{k}={v}" for k, v in settings.items()]
    flags += ["--set=pretrain.precision=fp32", "--device=cpu"]
    nlpkit("encoder", "pretrain", text, "--out", out, *flags, timeout=1200)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert lines[-1]["span_targets"] >= 20
    assert lines[-1]["span_accuracy"] > 0.6  # by chance: one in 32 * 32
    card = (out / "README.md").read_text()
    assert "hidden runs of words stand again" in card
    assert "| span_accuracy |" in card
    kept = safetensors.torch.load_file(out / "model.safetensors")
    assert not any("pointing" in name for name in kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=pretrain.span_share=0.8"], "span_share: expected at most 1 with prefix_share"),
        (
            ["--encoder=on_lstm", "--set=pretrain.span_share=0.5"],
            "pretrain.span_share: not for this encoder",
        ),
    ],
)
def test_refusals(text, tmp_path, arguments, message):
    done = nlpkit("encoder", "pretrain", text, "--out", tmp_path / "o", *arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr.decode()
