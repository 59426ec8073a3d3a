"""The bert4torch side of the relation-extraction speed benchmarks: GPLinker trained and run with
bert4torch.

    python bert4torch_peer.py train   --data train.jsonl --mode example --batch-size 32 --steps 50 --threads 2 --seed 1
    python bert4torch_peer.py predict --data dev.jsonl --mode example --limit 500 --threads 2

Needs torch and bert4torch, with what bert4torch 0.6.2 imports but does not declare (requests,
pillow, httpx, regex, tokenizers, torchvision), and nothing of nlpkit. Mode `example` works as
bert4torch's GPLinker example: standard GlobalPointer heads, random batches padded to their longest
sentence. Mode `tuned` has EfficientGlobalPointer heads and batches of similar length. Both train
with `model.fit`, label first occurrences only and predict sentence by sentence. Where the example
repeats work (tokenising twice to predict, padding labels predicate by predicate) this script does
it once, in the peer's favour. One JSON line goes to stdout, the rest to stderr: "seconds" is wall
time with tokenising and batching, without start-up, data reading and warm-up; a "step" is a
training step or a predicted sentence.
"""

import argparse
import contextlib
import functools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

# bert4torch 0.6.2 imports torchvision for its image models. Where torchvision was built for another
# torch than the one installed (PyPI's wheel beside a CPU-only torch) its import fails, as its
# operators are missing; declaring the two it looks up lets the import pass. Nothing here uses them.
try:
    import torchvision  # noqa: F401
except RuntimeError:
    for op in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )

from bert4torch.callbacks import Callback  # noqa: E402
from bert4torch.layers import EfficientGlobalPointer, GlobalPointer  # noqa: E402
from bert4torch.losses import SparseMultilabelCategoricalCrossentropy  # noqa: E402
from bert4torch.models import BaseModel, build_transformer_model  # noqa: E402
from bert4torch.tokenizers import Tokenizer  # noqa: E402

Record = dict[str, Any]
SPARSE_LOSS = SparseMultilabelCategoricalCrossentropy(mask_zero=True)
MAX_LENGTH = 128  # tokens, [CLS] and [SEP] included
LEARNING_RATE = (
    2e-4  # for a randomly initialised encoder; the example's 1e-5 is for a pretrained one
)
ENCODER: Record = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
ENCODER |= {"hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
ENCODER |= {"max_position_embeddings": 512, "type_vocab_size": 2}
FIT = (
    "--limit=12",
    "--batch-size=6",
    "--steps=350",
)  # the training before a prediction without --weights


def set_shape(shape: str) -> None:
    """Gives the encoder other sizes: `LAYERSxSIZE`, 64 dimensions a head."""
    layers, size = map(int, shape.split("x"))
    ENCODER["num_hidden_layers"] = layers
    ENCODER["hidden_size"] = size
    ENCODER["num_attention_heads"] = size // 64
    ENCODER["intermediate_size"] = 4 * size


def read_records(paths: list[Path]) -> list[Record]:
    """The non-empty lines of the JSONL files, in order."""
    return [
        json.loads(line)
        for path in paths
        for line in path.read_text(encoding="utf-8").split("\n")
        if line.strip()
    ]


class GPLinker(BaseModel):
    """A BERT encoder with three pointer heads: entities, first tokens of subject and object, their
    last tokens."""

    def __init__(self, config_path: str, predicates: int, mode: str) -> None:
        super().__init__()
        self.bert = build_transformer_model(config_path=config_path, verbose=0)
        pointer = GlobalPointer if mode == "example" else EfficientGlobalPointer
        self.entities = pointer(ENCODER["hidden_size"], heads=2, head_size=64)
        options = {"heads": predicates, "head_size": 64, "RoPE": False, "tril_mask": False}
        self.heads, self.tails = (pointer(ENCODER["hidden_size"], **options) for _ in range(2))

    def forward(
        self, token_ids: torch.Tensor, segment_ids: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Cell scores of the three heads, each [batch, labels, length, length]."""
        hidden, mask = self.bert([token_ids, segment_ids]), (token_ids > 0).long()
        return self.entities(hidden, mask), self.heads(hidden, mask), self.tails(hidden, mask)


def cell_loss(scores: tuple[torch.Tensor, ...], cells: list[torch.Tensor]) -> torch.Tensor:
    """The sparse loss summed over labels, averaged over sentences and heads; `cells` is as
    `collate` makes it."""
    pairs = zip(scores, cells, strict=True)
    return torch.stack(
        [SPARSE_LOSS(score.flatten(2), cell).sum(-1).mean() for score, cell in pairs]
    ).mean()


def find_span(wanted: list[int], token_ids: list[int]) -> tuple[int, int] | None:
    """First and last place of the first occurrence of `wanted` after the first token, None where
    there is none."""
    for start in range(1, len(token_ids) - len(wanted) if wanted else 0):
        if token_ids[start : start + len(wanted)] == wanted:
            return start, start + len(wanted) - 1
    return None


def collate(
    records: list[Record], tokenizer: Tokenizer, predicates: list[str], device: str
) -> tuple[list[torch.Tensor], ...]:
    """Token and segment ids; per head the flat indices of the positive cells, [batch, labels, n],
    padded with 0."""
    encoded = [tokenizer.encode(record["text"], maxlen=MAX_LENGTH)[0] for record in records]
    length = max(map(len, encoded))
    token_ids = torch.tensor([ids + [0] * (length - len(ids)) for ids in encoded])
    counts = (2, len(predicates), len(predicates))
    cells: list[list[list[set[int]]]] = [
        [[set() for _ in range(n)] for _ in records] for n in counts
    ]
    for row, (record, ids) in enumerate(zip(records, encoded, strict=True)):
        entities, heads, tails = (kind[row] for kind in cells)
        for spo in record["spo_list"]:
            subject, object_ = (
                find_span(tokenizer.encode(spo[k])[0][1:-1], ids) for k in ("subject", "object")
            )
            if subject and object_:
                entities[0].add(subject[0] * length + subject[1])
                entities[1].add(object_[0] * length + object_[1])
                heads[predicates.index(spo["predicate"])].add(subject[0] * length + object_[0])
                tails[predicates.index(spo["predicate"])].add(subject[1] * length + object_[1])
    width = max(1, *(len(found) for kind in cells for row in kind for found in row))
    pad = [
        [[[*found, *[0] * (width - len(found))] for found in row] for row in kind] for kind in cells
    ]
    token_ids = token_ids.to(device)
    cells_of_heads = [torch.tensor(kind, device=device) for kind in pad]
    return [token_ids, torch.zeros_like(token_ids)], cells_of_heads


def length_buckets(lengths: list[int], batch_size: int, seed: int) -> list[list[int]]:
    """Batches of similar length: pools of shuffled sentences, each sorted by length, cut, its
    batches shuffled."""
    source, batches, pool_size = random.Random(seed), [], 32 * batch_size
    order = source.sample(range(len(lengths)), len(lengths))
    for start in range(0, len(order), pool_size):
        pool = sorted(order[start : start + pool_size], key=lengths.__getitem__)
        cuts = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        batches += source.sample(cuts, len(cuts))
    return batches


class StepTimer(Callback):
    """Notes when each training step ended (seconds), how many sentences it had, and its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.marks, self.sizes, self.losses = [time.perf_counter()], list[int](), list[float]()

    def on_batch_end(self, global_step: int, local_step: int, logs: dict[str, float]) -> None:
        self.marks.append(time.perf_counter())
        self.sizes.append(len(self.trainer.train_X[0]))
        self.losses.append(logs["loss"])
        if global_step % 10 == 0:
            print(f"step {global_step + 1}: loss {self.losses[-1]:.3f}")


def build(vocab: list[str], predicates: list[str], mode: str) -> tuple[Tokenizer, GPLinker]:
    """The tokenizer and a randomly initialised model, made from files in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        # build_transformer_model of 0.6.2 takes other file names (the example's bert_config.json)
        # for a download.
        config_path, vocab_path = f"{folder}/bert4torch_config.json", f"{folder}/vocab.txt"
        Path(config_path).write_text(
            json.dumps({**ENCODER, "vocab_size": len(vocab)}), encoding="utf-8"
        )
        Path(vocab_path).write_text("\n".join(vocab) + "\n", encoding="utf-8")
        return Tokenizer(vocab_path, do_lower_case=True), GPLinker(
            config_path, len(predicates), mode
        )


def train(args: argparse.Namespace) -> Record:
    """Trains --warmup-steps untimed and --steps timed steps from random weights; returns the
    measurements."""
    records, warmup = read_records(args.data), args.warmup_steps
    chars = sorted(
        {char for record in records for char in record["text"].lower() if not char.isspace()}
    )
    continued = [
        "##" + char for char in chars if not "\u4e00" <= char <= "\u9fff"
    ]  # inside Latin words and numbers
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *chars, *continued]
    predicates = sorted({spo["predicate"] for record in records for spo in record["spo_list"]})
    tokenizer, model = build(vocab, predicates, args.mode)
    model = model.to(args.device)
    chosen: Any = records[: args.limit]
    batching: Record = {"batch_size": args.batch_size, "shuffle": True}
    if args.mode == "tuned":
        batching = {
            "batch_sampler": length_buckets(
                [len(r["text"]) for r in chosen], args.batch_size, args.seed
            )
        }
    batching["collate_fn"] = functools.partial(
        collate, tokenizer=tokenizer, predicates=predicates, device=args.device
    )
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    model.compile(
        loss=cell_loss, optimizer=adam, smooth_interval=None
    )  # None: each step's own loss is logged
    timer = StepTimer()
    model.fit(
        DataLoader(chosen, **batching), warmup + args.steps, epochs=1, callbacks=[timer], verbose=0
    )
    print(
        "mean loss of the first and last 5 steps",
        np.mean(timer.losses[:5]),
        np.mean(timer.losses[-5:]),
    )
    if args.weights:
        torch.save(
            {"vocab": vocab, "predicates": predicates, "weights": model.state_dict()}, args.weights
        )
    return measurements(args.batch_size, sum(timer.sizes[warmup:]), timer.marks[warmup:])


def extract(
    text: str, tokenizer: Tokenizer, model: GPLinker, predicates: list[str], device: str
) -> set[tuple[str, str, str]]:
    """The triples of one sentence: entity cells above 0, then every subject-object pair's head and
    tail cells."""
    tokens = tokenizer.tokenize(text, maxlen=MAX_LENGTH)
    places = tokenizer.rematch(text, tokens)
    token_ids = torch.tensor([tokenizer.tokens_to_ids(tokens)], device=device)
    scores_of_heads = model.predict([token_ids, torch.zeros_like(token_ids)])
    entities, heads, tails = (scores[0].float().cpu().numpy() for scores in scores_of_heads)
    entities[:, [0, -1]] = entities[:, :, [0, -1]] = -np.inf
    spans: list[set[tuple[int, int]]] = [set(), set()]
    for label, first, last in np.argwhere(entities > 0).tolist():
        spans[label].add((first, last))
    triples = set()
    for s1, s2 in spans[0]:
        for o1, o2 in spans[1]:
            shared = set(np.flatnonzero(heads[:, s1, o1] > 0).tolist())
            for i in shared & set(np.flatnonzero(tails[:, s2, o2] > 0).tolist()):
                subject, object_ = (
                    text[places[a][0] : places[b][-1] + 1] for a, b in ((s1, s2), (o1, o2))
                )
                triples.add((subject, predicates[i], object_))
    return triples


def predict(args: argparse.Namespace) -> Record:
    """Decodes the first --limit sentences one by one; returns the measurements."""
    records = read_records(args.data)[: args.limit]
    with tempfile.TemporaryDirectory() as folder:
        path = args.weights or Path(folder, "weights.pt")
        if not args.weights:
            # Heads that were never trained score half of all cells above 0, which makes millions of
            # pairs to look at. So a process of its own, whose memory does not count here, first
            # learns a few sentences by heart.
            options = [
                f"--mode={args.mode}",
                f"--threads={args.threads}",
                f"--weights={path}",
                f"--device={args.device}",
                f"--shape={args.shape}",
                *FIT,
            ]
            options += [f"--data={file}" for file in args.data]
            subprocess.run(
                [sys.executable, __file__, "train", *options], check=True, stdout=sys.stderr
            )
        saved = torch.load(path, weights_only=True, map_location="cpu")
    tokenizer, model = build(saved["vocab"], saved["predicates"], args.mode)
    model.load_state_dict(saved["weights"])
    model = model.to(args.device)
    warmup, marks, found = records[: args.warmup_steps], [time.perf_counter()], []
    for record in warmup + records:
        found.append(extract(record["text"], tokenizer, model, saved["predicates"], args.device))
        marks.append(time.perf_counter())
    found, marks = found[len(warmup) :], marks[len(warmup) :]
    gold = [
        {(spo["subject"], spo["predicate"], spo["object"]) for spo in record["spo_list"]}
        for record in records
    ]
    right = sum(len(mine & theirs) for mine, theirs in zip(found, gold, strict=True))
    print(f"{sum(map(len, found))} triples predicted, {right} of them in the data")
    return measurements(1, len(records), marks)


def measurements(batch_size: int, sentences: int, marks: list[float]) -> Record:
    """What a run reports of its timed steps, `marks` being their starts and ends in seconds; the
    peak is in MiB."""
    seconds, peak_kib = marks[-1] - marks[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"batch_size": batch_size, "sentences": sentences, "seconds": round(seconds, 3)}
    figures |= {
        "sentences_per_second": round(sentences / seconds, 2),
        "peak_rss_mb": round(peak_kib / 1024, 1),
    }
    return {**figures, "median_step_seconds": round(float(np.median(np.diff(marks))), 5)}


def main() -> None:
    """Reads the command line, runs one measurement and prints its JSON line."""
    parser = argparse.ArgumentParser(description="Speed of bert4torch's GPLinker.")
    parser.add_argument("command", choices=("train", "predict"))
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="JSONL file, may be repeated"
    )
    parser.add_argument("--mode", choices=("example", "tuned"), required=True)
    parser.add_argument("--limit", type=int, help="use only the first LIMIT sentences")
    parser.add_argument("--batch-size", type=int, default=32, help="sentences in a training batch")
    parser.add_argument("--steps", type=int, default=50, help="timed training steps")
    parser.add_argument(
        "--warmup-steps", type=int, default=5, help="untimed steps or sentences before the timing"
    )
    parser.add_argument(
        "--weights", type=Path, help="file that `train` writes and `predict` in the same mode reads"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", default="4x256", help="LAYERSxSIZE of the encoder")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    set_shape(args.shape)
    with contextlib.redirect_stdout(sys.stderr):
        figures = train(args) if args.command == "train" else predict(args)
    peer = {
        "peer": f"bert4torch {version('bert4torch')}",
        "command": args.command,
        "mode": args.mode,
    }
    print(json.dumps({**peer, **figures}))


if __name__ == "__main__":
    main()
