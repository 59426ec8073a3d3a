"""The bert4torch side of the relation-extraction speed benchmarks: GPLinker trained and run with bert4torch.

    python bert4torch_peer.py train   --data train.jsonl --mode example --batch-size 32 --steps 50 --threads 2 --seed 1
    python bert4torch_peer.py predict --data dev.jsonl --mode example --limit 500 --threads 2

Needs an interpreter with torch and bert4torch (and the packages that bert4torch 0.6.2 imports without declaring them:
requests, pillow, httpx, regex, tokenizers, torchvision); it imports nothing of nlpkit. Data lines hold "text" and
"spo_list" (items with "subject", "predicate", "object").

Modes: `example` is how the GPLinker example of bert4torch works: standard GlobalPointer heads and random batches, padded
to their longest sentence. `tuned` is the best that bert4torch's parts allow: EfficientGlobalPointer heads and batches of
similar length. Both train through `model.fit`, label the first occurrence of a string only, cut sentences at 128 tokens,
and predict one sentence at a time. Where the example repeats work (it tokenises a sentence twice to predict it, and pads
labels predicate by predicate with numpy), this script does it once, in the peer's favour; the progress bar is off.

Prints one JSON line on stdout, everything else on stderr. "seconds" is wall time without start-up, data reading and
warm-up, but with tokenising and batching; "median_step_seconds" is for one training step or one predicted sentence;
"peak_rss_mb" is the highest resident memory of this process in MiB.
"""

import argparse
import contextlib
import importlib.metadata
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

# bert4torch 0.6.2 imports torchvision for its image models. A torchvision that was built for another torch than the
# one installed (PyPI's wheel beside a CPU-only torch) fails on import, as its operators are missing; declaring the two
# that it looks up lets the import pass. Nothing here uses them.
try:
    import torchvision  # noqa: F401
except RuntimeError:
    for op in ("nms", "qnms"):
        torch.library.define(f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from bert4torch.callbacks import Callback  # noqa: E402
from bert4torch.layers import EfficientGlobalPointer, GlobalPointer  # noqa: E402
from bert4torch.losses import SparseMultilabelCategoricalCrossentropy  # noqa: E402
from bert4torch.models import BaseModel, build_transformer_model  # noqa: E402
from bert4torch.tokenizers import Tokenizer  # noqa: E402

MAX_LENGTH = 128  # tokens, [CLS] and [SEP] included
HEAD_SIZE = 64
LEARNING_RATE = 5e-4  # for a randomly initialised encoder; the example's 1e-5 is for a pretrained one
POOL_BATCHES = 32  # batches in a shuffled pool that is sorted by length
FIT_BATCH_SIZE, FIT_STEPS = 16, 60  # the short training before a prediction without --weights
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ENCODER = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}

Spo = tuple[str, str, str]  # subject, predicate, object
Record = dict[str, Any]  # a data line: "text" and "spo_list"


def read_records(paths: list[Path]) -> list[Record]:
    """The non-empty lines of the JSONL files, in order."""
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def make_vocab(records: list[Record]) -> list[str]:
    """Special tokens, every lower-cased character of the texts, and the same characters as word continuations."""
    chars = sorted({char for record in records for char in record["text"].lower() if not char.isspace()})
    return [*SPECIAL_TOKENS, *chars, *("##" + char for char in chars if not "\u4e00" <= char <= "\u9fff")]


class GPLinker(BaseModel):
    """A BERT encoder with the three pointer heads: entities, subject-object first tokens, subject-object last tokens."""

    def __init__(self, config_path: str, predicates: int, mode: str) -> None:
        super().__init__()
        self.bert = build_transformer_model(config_path=config_path, verbose=0)
        pointer = GlobalPointer if mode == "example" else EfficientGlobalPointer
        hidden = ENCODER["hidden_size"]
        self.entities = pointer(hidden, heads=2, head_size=HEAD_SIZE)
        self.heads = pointer(hidden, heads=predicates, head_size=HEAD_SIZE, RoPE=False, tril_mask=False)
        self.tails = pointer(hidden, heads=predicates, head_size=HEAD_SIZE, RoPE=False, tril_mask=False)

    def forward(self, token_ids: torch.Tensor, segment_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Cell scores of the three heads, each [batch, labels, length, length]."""
        hidden = self.bert([token_ids, segment_ids])
        mask = (token_ids > 0).long()
        return self.entities(hidden, mask), self.heads(hidden, mask), self.tails(hidden, mask)


class CellLoss(SparseMultilabelCategoricalCrossentropy):
    """The sparse multi-label loss over all cells, summed over labels, averaged over sentences and the three heads."""

    def forward(self, scores: tuple[torch.Tensor, ...], cells: list[torch.Tensor]) -> torch.Tensor:
        """`cells` holds, for each head, the flat indices of the positive cells, [batch, labels, n], 0 as padding."""
        pairs = zip(scores, cells, strict=True)
        losses = [super(CellLoss, self).forward(score.flatten(2), cell).sum(-1).mean() for score, cell in pairs]
        return torch.stack(losses).mean()


class Collator:
    """Turns data lines into the padded token ids and sparse labels of one batch."""

    def __init__(self, tokenizer: Tokenizer, predicates: list[str]) -> None:
        self.tokenizer = tokenizer
        self.predicate_ids = {predicate: i for i, predicate in enumerate(predicates)}

    def span(self, string: str, token_ids: list[int]) -> tuple[int, int] | None:
        """First and last token of the first occurrence of `string`, None where there is none."""
        wanted = self.tokenizer.encode(string)[0][1:-1]
        for start in range(1, len(token_ids) - len(wanted) if wanted else 0):
            if token_ids[start : start + len(wanted)] == wanted:
                return start, start + len(wanted) - 1
        return None

    def __call__(self, records: list[Record]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The model's inputs (token and segment ids) and the flat cell indices for the loss."""
        encoded = [self.tokenizer.encode(record["text"], maxlen=MAX_LENGTH)[0] for record in records]
        length = max(map(len, encoded))
        token_ids = torch.zeros(len(records), length, dtype=torch.long)
        sizes = (2, len(self.predicate_ids), len(self.predicate_ids))
        cells: list[list[list[set[int]]]] = [[[set() for _ in range(n)] for _ in records] for n in sizes]
        for row, (record, ids) in enumerate(zip(records, encoded, strict=True)):
            token_ids[row, : len(ids)] = torch.tensor(ids)
            entities, heads, tails = (kind[row] for kind in cells)
            for spo in record["spo_list"]:
                subject, object_ = self.span(spo["subject"], ids), self.span(spo["object"], ids)
                if subject is None or object_ is None:
                    continue
                predicate = self.predicate_ids[spo["predicate"]]
                entities[0].add(subject[0] * length + subject[1])
                entities[1].add(object_[0] * length + object_[1])
                heads[predicate].add(subject[0] * length + object_[0])
                tails[predicate].add(subject[1] * length + object_[1])
        return [token_ids, torch.zeros_like(token_ids)], [pad_cells(kind) for kind in cells]


def pad_cells(cells: list[list[set[int]]]) -> torch.Tensor:
    """Sets of flat indices as one [batch, labels, n] tensor, n >= 1, filled up with 0, which the loss leaves out."""
    width = max(1, max(len(found) for row in cells for found in row))
    return torch.tensor([[[*found, *[0] * (width - len(found))] for found in row] for row in cells])


class LengthBuckets(Sampler[list[int]]):
    """Batches of similar length: pools of shuffled sentences, each sorted by length, cut, its batches shuffled."""

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.random = lengths, batch_size, random.Random(seed)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(len(self.lengths)))
        self.random.shuffle(order)
        step = self.batch_size * POOL_BATCHES
        for start in range(0, len(order), step):
            pool = sorted(order[start : start + step], key=self.lengths.__getitem__)
            batches = [pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size)]
            self.random.shuffle(batches)
            yield from batches


class StepTimer(Callback):
    """Notes when each training step ended (seconds), how many sentences it had, and its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.marks, self.sizes, self.losses = [0.0], [], []

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.marks[0] = time.perf_counter()

    def on_batch_end(self, global_step: int, local_step: int, logs: dict | None = None) -> None:
        self.marks.append(time.perf_counter())
        self.sizes.append(len(self.trainer.train_X[0]))
        self.losses.append(logs["loss"] if logs else float("nan"))
        if global_step % 10 == 0:
            print(f"step {global_step + 1}: loss {self.losses[-1]:.3f}", file=sys.stderr)


def build(vocab: list[str], predicates: list[str], mode: str) -> tuple[Tokenizer, GPLinker]:
    """The tokenizer and a randomly initialised model, through bert4torch's files in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        # build_transformer_model of 0.6.2 takes any other file name (the example's bert_config.json) for a download.
        config_path, vocab_path = Path(folder, "bert4torch_config.json"), Path(folder, "vocab.txt")
        config_path.write_text(json.dumps({**ENCODER, "vocab_size": len(vocab)}), encoding="utf-8")
        vocab_path.write_text("\n".join(vocab) + "\n", encoding="utf-8")
        tokenizer = Tokenizer(str(vocab_path), do_lower_case=True)
        return tokenizer, GPLinker(str(config_path), len(predicates), mode)


def train(args: argparse.Namespace) -> Record:
    """Trains --warmup-steps untimed and --steps timed steps from random weights; returns the measurements."""
    records = read_records(args.data)
    vocab = make_vocab(records)
    predicates = sorted({spo["predicate"] for record in records for spo in record["spo_list"]})
    tokenizer, model = build(vocab, predicates, args.mode)
    collate = Collator(tokenizer, predicates)
    if args.mode == "example":
        loader = DataLoader(records, batch_size=args.batch_size, shuffle=True, collate_fn=collate)
    else:
        buckets = LengthBuckets([len(record["text"]) for record in records], args.batch_size, args.seed)
        loader = DataLoader(records, batch_sampler=buckets, collate_fn=collate)
    timer, warmup = StepTimer(), args.warmup_steps
    model.compile(loss=CellLoss(mask_zero=True), optimizer=torch.optim.Adam(model.parameters(), lr=LEARNING_RATE))
    model.fit(loader, steps_per_epoch=warmup + args.steps, epochs=1, callbacks=[timer], verbose=0)
    first, last = (statistics.mean(part) for part in (timer.losses[:5], timer.losses[-5:]))
    print(f"mean loss of the first 5 steps {first:.3f}, of the last 5 {last:.3f}", file=sys.stderr)
    if args.save:
        torch.save({"vocab": vocab, "predicates": predicates, "weights": model.state_dict()}, args.save)
    return measurements(args.batch_size, sum(timer.sizes[warmup:]), np.diff(timer.marks[warmup:]).tolist())


def extract(text: str, tokenizer: Tokenizer, model: GPLinker, predicates: list[str]) -> set[Spo]:
    """The triples of one sentence: entity cells above 0, then every subject-object pair's head and tail cells."""
    tokens = tokenizer.tokenize(text, maxlen=MAX_LENGTH)
    places = tokenizer.rematch(text, tokens)
    token_ids = torch.tensor([tokenizer.tokens_to_ids(tokens)])
    entities, heads, tails = (scores[0].numpy() for scores in model.predict([token_ids, torch.zeros_like(token_ids)]))
    entities[:, [0, -1]] = entities[:, :, [0, -1]] = -np.inf
    spans: tuple[set[tuple[int, int]], set[tuple[int, int]]] = (set(), set())
    for label, first, last in np.argwhere(entities > 0).tolist():
        spans[label].add((first, last))
    triples = set()
    for subject in spans[0]:
        for object_ in spans[1]:
            starts = np.flatnonzero(heads[:, subject[0], object_[0]] > 0).tolist()
            ends = np.flatnonzero(tails[:, subject[1], object_[1]] > 0).tolist()
            for predicate in set(starts) & set(ends):
                strings = [text[places[first][0] : places[last][-1] + 1] for first, last in (subject, object_)]
                triples.add((strings[0], predicates[predicate], strings[1]))
    return triples


def fit_weights(args: argparse.Namespace, path: Path) -> None:
    """Trains shortly on --data in a process of its own, so that its memory does not count, and saves to `path`."""
    # Heads that were never trained score half of all cells above 0, which makes millions of pairs to look at.
    data = [part for file in args.data for part in ("--data", str(file))]
    sizes = ["--batch-size", str(FIT_BATCH_SIZE), "--steps", str(FIT_STEPS), "--threads", str(args.threads)]
    command = [sys.executable, __file__, "train", *data, "--mode", args.mode, *sizes, "--save", str(path)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def predict(args: argparse.Namespace) -> Record:
    """Decodes the first --limit sentences one by one with --weights or shortly trained ones; the measurements."""
    records = read_records(args.data)[: args.limit]
    with tempfile.TemporaryDirectory() as folder:
        path = args.weights or Path(folder, "weights.pt")
        if not args.weights:
            fit_weights(args, path)
        saved = torch.load(path)
    tokenizer, model = build(saved["vocab"], saved["predicates"], args.mode)
    model.load_state_dict(saved["weights"])
    for record in records[: args.warmup_steps]:
        extract(record["text"], tokenizer, model, saved["predicates"])
    marks, found = [time.perf_counter()], []
    for record in records:
        found.append(extract(record["text"], tokenizer, model, saved["predicates"]))
        marks.append(time.perf_counter())
    gold = [{(s["subject"], s["predicate"], s["object"]) for s in record["spo_list"]} for record in records]
    right = sum(len(mine & theirs) for mine, theirs in zip(found, gold, strict=True))
    counts = sum(map(len, found)), sum(map(len, gold))
    print(f"{counts[0]} triples predicted, {right} of them among the {counts[1]} of the data", file=sys.stderr)
    return measurements(1, len(records), np.diff(marks).tolist())


def measurements(batch_size: int, sentences: int, step_seconds: list[float]) -> Record:
    """What a run reports of its timed steps; the peak is this process's, in MiB (ru_maxrss is in KiB on Linux)."""
    seconds = sum(step_seconds)
    return {
        "batch_size": batch_size,
        "sentences": sentences,
        "seconds": round(seconds, 3),
        "sentences_per_second": round(sentences / seconds, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "median_step_seconds": round(statistics.median(step_seconds), 5),
    }


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Speed of bert4torch's GPLinker.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "predict"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, action="append", required=True, help="JSONL file, may be repeated")
        command.add_argument("--mode", choices=("example", "tuned"), required=True)
        command.add_argument("--warmup-steps", type=int, default=5, help="untimed steps or sentences before the timing")
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--seed", type=int, default=1)
    commands.choices["train"].add_argument("--batch-size", type=int, default=32)
    commands.choices["train"].add_argument("--steps", type=int, required=True, help="timed steps")
    commands.choices["train"].add_argument("--save", type=Path, help="where to write the trained weights")
    commands.choices["predict"].add_argument(
        "--limit", type=int, help="predict the first LIMIT sentences (default all)"
    )
    commands.choices["predict"].add_argument("--weights", type=Path, help="weights from `train --save`, same mode")
    return parser.parse_args()


def main() -> None:
    """Runs one measurement and prints its JSON line."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    with contextlib.redirect_stdout(sys.stderr):
        figures = train(args) if args.command == "train" else predict(args)
    peer = f"bert4torch {importlib.metadata.version('bert4torch')}"
    print(json.dumps({"peer": peer, "command": args.command, "mode": args.mode, **figures}))


if __name__ == "__main__":
    main()
