"""Speed of sampling under a condition: with the cache against reading the whole prefix again in
every step.

    python tests/benchmarks/generation_samples.py --batch 64 --length 128

Both ways have one model (the shape of `tiny`, random weights), one constraint (ideographs alone, so
that every sample has its full length), one sampler and the same seeds, and take turns; medians are
compared. The published decoder (`AutoRegressiveDecoder.random_sample` of
github.com/bojone/bert4keras) reads the whole prefix, and computes the logits at all its tokens;
reading again is done here with the logits of the last token alone, which favours it. Run it on an
idle machine. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from nlpkit import encoders
from nlpkit.decoding.sampling import sample
from nlpkit.layers.conditional_norm import ConditionalNorm
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.tasks.cln.model import ConditionedDecoder
from nlpkit.tasks.cln.task import Settings, Task


class Recomputing:
    """`Model` of nlpkit.decoding without a cache."""

    def __init__(self, encoder: Any, rows: int, tokenizer: Any):
        self.encoder, self.tokenizer, self.rows = encoder, tokenizer, rows

    def first(self) -> torch.Tensor:
        """logits_BV of the first token."""
        self.targets: list[list[int]] = [[] for _ in range(self.rows)]
        return self._last()

    def next(self, token_BK: torch.Tensor, beam_BK: torch.Tensor) -> torch.Tensor:
        """logits_BKV after `token_BK`."""
        for target, (token,) in zip(self.targets, token_BK.tolist(), strict=True):
            target.append(token)
        return self._last()[:, None]

    @torch.no_grad()
    def _last(self) -> torch.Tensor:
        tokens = collate_sources([[]] * self.rows, self.tokenizer, self.targets).to(self.device)
        last = len(self.targets[0]) + 1
        return self.encoder.token_logits(encoders.encode(self.encoder, tokens, "prefix")[:, last])

    @property
    def device(self) -> Any:
        """Where the encoder is."""
        return next(self.encoder.parameters()).device


def make(folder: Path, length: int, device: str) -> tuple[Task, Any]:
    """A task of two labels, and its model with norms that a condition moves."""
    torch.manual_seed(0)
    encoder, backend = encoders.for_pretraining(None, encoders.ShapeConfig())
    records = [("1", {"label": "a", "text": "云"}), ("2", {"label": "b", "text": "山"})]
    config = Task.prepare(Settings(max_length=length), records, folder)
    task = Task(config, encoders.tokenizer_of(encoder, backend), folder)
    model = task.build_model(encoder)
    for module in model.modules():
        if isinstance(module, ConditionalNorm):
            for parameter in module.undecayed:
                torch.nn.init.normal_(parameter, std=0.1)
    return task, model.to(device).eval()


def main() -> None:
    """Takes turns and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, length = arguments.batch, arguments.length
    with tempfile.TemporaryDirectory() as folder:
        task, model = make(Path(folder), length, arguments.device)
    examples = [task.read({"label": "ab"[row % 2]}) for row in range(rows)]
    batch = task.collate(examples, targets=False).to(arguments.device)
    patterns = ["字" * length] * rows
    constraint = task.metres.constraint(
        patterns, [0] * rows, model.encoder.vocabulary_size, arguments.device
    )
    ways = {
        "cached": lambda: ConditionedDecoder(model, batch.sources, condition_BC),
        "recomputing": lambda: Recomputing(model.encoder, rows, task.tokenizer),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    written: dict[str, list[list[int]]] = {}
    condition_BC = model.vectors(batch.condition)
    with torch.inference_mode(), model.norms.given(condition_BC):
        for _ in range(arguments.repeats):
            for way, decoder in ways.items():
                start = time.perf_counter()
                found = sample(decoder(), constraint, list(range(rows)), length, top_p=0.95).lists()
                seconds[way].append(time.perf_counter() - start)
                written[way] = [tokens for row in found for tokens, _ in row]
    speed = {way: rows / statistics.median(times) for way, times in seconds.items()}
    same = sum(a == b for a, b in zip(written["cached"], written["recomputing"], strict=True))
    figures = {
        "batch": rows,
        "length": length,
        "device": arguments.device,
        "threads": arguments.threads,
    }
    figures |= {"samples_per_second": {way: round(value, 2) for way, value in speed.items()}}
    print(
        json.dumps(
            {
                **figures,
                "ratio": round(speed["cached"] / speed["recomputing"], 2),
                "same": f"{same} of {rows}",
            }
        )
    )


if __name__ == "__main__":
    main()
