"""The bert4torch side of the speed of CasRel: its training with bert4torch's own parts.

    python bert4torch_casrel_peer.py train --data train.jsonl --mode example --steps 50 --threads 2

As `bert4torch_peer.py`, with the same encoder, modes and measurements: `example` draws random
batches padded to their longest sentence, `tuned` batches of similar length. As in the toolkit's
CasRel example one subject of each sentence is drawn, its first and last states are the condition of
a LayerNorm, and sigmoids to the power 2 and 4 go into a binary cross entropy. Targets are made
sentence by sentence.
"""

import argparse
import contextlib
import functools
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from bert4torch.layers import LayerNorm
from bert4torch.models import BaseModel, build_transformer_model
from bert4torch.tokenizers import Tokenizer
from bert4torch_peer import (
    ENCODER,
    LEARNING_RATE,
    MAX_LENGTH,
    StepTimer,
    find_span,
    length_buckets,
    measurements,
    read_records,
)
from torch.utils.data import DataLoader


class CasRel(BaseModel):
    """A BERT encoder, pointers to subjects, and pointers to objects by predicate."""

    def __init__(self, config_path: str, predicates: int) -> None:
        super().__init__()
        self.bert = build_transformer_model(config_path=config_path, verbose=0)
        size = ENCODER["hidden_size"]
        self.subjects = torch.nn.Linear(size, 2)
        self.norm = LayerNorm(size, conditional_size=2 * size)
        self.objects = torch.nn.Linear(size, 2 * predicates)

    def forward(
        self, token_ids: torch.Tensor, segment_ids: torch.Tensor, subject: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Probabilities [batch, length, 2] and [batch, length, predicates, 2], and the mask."""
        hidden = self.bert([token_ids, segment_ids])
        ends = hidden.gather(1, subject[:, :, None].expand(-1, -1, hidden.shape[2])).flatten(1)
        objects = torch.sigmoid(self.objects(self.norm(hidden, ends))) ** 4
        subjects = torch.sigmoid(self.subjects(hidden)) ** 2
        return subjects, objects.unflatten(2, (-1, 2)), token_ids > 0


def pointer_loss(found: tuple[torch.Tensor, ...], wanted: list[torch.Tensor]) -> torch.Tensor:
    """Of subjects the mean of both sides, of objects too and the sum of predicates; over tokens."""
    subjects, objects, mask = found
    entropy = functools.partial(torch.nn.functional.binary_cross_entropy, reduction="none")
    loss = entropy(subjects, wanted[0]).mean(2) + entropy(objects, wanted[1]).mean(3).sum(2)
    return (loss * mask).sum() / mask.sum()


def collate(
    records: list[dict[str, Any]], tokenizer: Tokenizer, predicates: list[str]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Token and segment ids, a drawn subject; targets of subjects and of its objects."""
    encoded = [tokenizer.encode(record["text"], maxlen=MAX_LENGTH)[0] for record in records]
    length = max(map(len, encoded))
    token_ids = torch.tensor([ids + [0] * (length - len(ids)) for ids in encoded])
    subjects = torch.zeros(len(records), length, 2)
    objects = torch.zeros(len(records), length, len(predicates), 2)
    drawn = torch.zeros(len(records), 2, dtype=torch.int64)
    for row, (record, ids) in enumerate(zip(records, encoded, strict=True)):
        found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for spo in record["spo_list"]:
            subject, object_ = (
                find_span(tokenizer.encode(spo[key])[0][1:-1], ids) for key in ("subject", "object")
            )
            if subject and object_:
                number = predicates.index(spo["predicate"])
                found.setdefault(subject, []).append((number, *object_))
        if not found:
            continue
        for first, last in found:
            subjects[row, first, 0] = 1
            subjects[row, last, 1] = 1
        chosen = random.choice(list(found))
        drawn[row] = torch.tensor(chosen)
        for number, first, last in found[chosen]:
            objects[row, first, number, 0] = 1
            objects[row, last, number, 1] = 1
    return [token_ids, torch.zeros_like(token_ids), drawn], [subjects, objects]


def build(folder: Path, records: list[dict[str, Any]], predicates: int) -> Any:
    """The tokenizer of the characters of the records and a randomly initialised model."""
    seen = sorted({char for record in records for char in record["text"].lower() if char.strip()})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *seen]
    config = folder / "bert4torch_config.json"
    config.write_text(json.dumps({**ENCODER, "vocab_size": len(vocab)}), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    tokenizer = Tokenizer(str(folder / "vocab.txt"), do_lower_case=True)
    return tokenizer, CasRel(str(config), predicates)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Trains some steps from random weights; returns the measurements."""
    records = read_records(args.data)
    predicates = sorted({spo["predicate"] for record in records for spo in record["spo_list"]})
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, model = build(Path(folder), records, len(predicates))
    batching: dict[str, Any] = {"batch_size": args.batch_size, "shuffle": True}
    if args.mode == "tuned":
        lengths = [len(record["text"]) for record in records]
        batching = {"batch_sampler": length_buckets(lengths, args.batch_size, 1)}
    batching["collate_fn"] = functools.partial(collate, tokenizer=tokenizer, predicates=predicates)
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    model.compile(loss=pointer_loss, optimizer=adam, smooth_interval=None)
    timer = StepTimer()
    steps = args.warmup_steps + args.steps
    model.fit(DataLoader(records, **batching), steps, epochs=1, callbacks=[timer], verbose=0)
    timed = args.warmup_steps
    return measurements(args.batch_size, sum(timer.sizes[timed:]), timer.marks[timed:])


def main() -> None:
    """Reads the command line, trains, and prints one JSON line of measurements."""
    parser = argparse.ArgumentParser(description="Speed of bert4torch's CasRel.")
    parser.add_argument("command", choices=("train",))
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--mode", choices=("example", "tuned"), required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50, help="timed training steps")
    parser.add_argument("--warmup-steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    random.seed(1)
    with contextlib.redirect_stdout(sys.stderr):
        figures = train(args)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
